from support import judges


def test_cloud_init_accepts_what_is_right_and_refuses_what_is_not(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("#cloud-config\nssh_deletekeys: true\n")
    bad.write_text("#cloud-config\nssh_deletekeys: 7\n")
    assert judges.cloud_init("schema", "--config-file", str(good))[0] == 0
    code, output = judges.cloud_init("schema", "--config-file", str(bad))
    assert code == 1
    assert "7 is not of type 'boolean'" in output
