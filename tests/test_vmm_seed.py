"""The seed: equal to the golden files, valid for cloud-init, and an ISO with unchanged names."""

import shlex

import pytest
from support import judges
from support.golden import compare

from vmctl.programs import run
from vmm import keys, seed

PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\nBBBB\n-----END OPENSSH PRIVATE KEY-----\n"
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea"
FILES = [
    seed.SeedFile("/srv/index.html", b"<h1>hello</h1>"),
    seed.SeedFile('/srv/a "quoted" \\ name', bytes(range(256)), 0o600),
    seed.limits_file(128),
    seed.workload_script(seed.workload_words(["httpd", "-f"], {"GREETING": "it's  $HOME"}, "/", "1000:1000")),
]
ADDRESS = seed.Address("eth0", "52:54:00:4d:00:02", "10.77.0.2", 16, "10.77.0.1")
IDENTITY = seed.Identity(PUBLIC, PRIVATE, PUBLIC)
SEED = seed.Seed(
    user_data=seed.user_data(IDENTITY, FILES),
    meta_data=seed.meta_data("vmctl-0123abcd", "web"),
    network_config=seed.network_config([ADDRESS]),
)


@pytest.mark.parametrize("name", ["user-data", "meta-data", "network-config"])
def test_golden(name):
    compare(f"seed/{name}", SEED.files()[name])


def test_network_config_without_a_network():
    compare("seed/network-config-none", seed.network_config([]))


def test_cloud_init_takes_the_user_data(tmp_path):
    path = tmp_path / "user-data"
    path.write_text(SEED.user_data)
    code, output = judges.cloud_init("schema", "--config-file", str(path))
    assert code == 0, output


def test_cloud_init_is_a_judge(tmp_path):
    path = tmp_path / "user-data"
    path.write_text(SEED.user_data.replace("write_files:\n", "write_files: 7\n#"))
    assert judges.cloud_init("schema", "--config-file", str(path))[0] != 0


@pytest.mark.parametrize("address", [ADDRESS, None])
def test_network_config_is_netplan_version_2(address):
    import yaml

    config = yaml.safe_load(seed.network_config([address] if address else []))
    assert config["version"] == 2
    expected = {
        "match": {"macaddress": ADDRESS.mac},
        "set-name": "eth0",
        "addresses": ["10.77.0.2/16"],
        "routes": [{"to": "0.0.0.0/0", "via": "10.77.0.1"}],
    }
    assert config["ethernets"] == ({"eth0": expected} if address else {})


def test_files_survive_yaml_as_they_are():
    import base64

    import yaml

    written = yaml.safe_load(SEED.user_data)["write_files"]
    assert [(item["path"], base64.b64decode(item["content"]), item["permissions"]) for item in written] == [
        (file.path, file.content, f"{file.mode:04o}") for file in FILES
    ]


def test_iso_has_the_label_and_exact_names(tmp_path):
    path = str(tmp_path / "seed.iso")
    seed.write_iso(path, SEED)
    assert "Volume id: cidata" in run(["isoinfo", "-d", "-i", path])[1]
    for extension in ("-R", "-J"):  # Rock Ridge, Joliet
        for name, text in SEED.files().items():
            assert run(["isoinfo", extension, "-i", path, "-x", f"/{name}"])[1] == text


@pytest.mark.parametrize("word", ["", "a b", "it's", '"', "$(reboot)", "`x`", "a\nb", "--", "\\", "ü"])
def test_words_survive_the_shell(word):
    line = seed.workload_words(["printf", "%s", word], {"A": word}, "/a b", "user")
    assert shlex.split(line) == ["user", "/a b", f"A={word}", "--", "printf", "%s", word]
    assert run(["sh", "-c", f'set -- {line}; shift 6; printf %s "$1"'])[1] == word


def test_keys_are_made_once_and_for_their_owner_only(tmp_path):
    from paramiko import Ed25519Key

    path = tmp_path / "key"
    pair = keys.load_or_make(str(path))
    assert keys.load_or_make(str(path)) == pair
    assert keys.load_or_make(str(tmp_path / "other")) != pair
    assert path.stat().st_mode & 0o777 == 0o600
    assert Ed25519Key.from_private_key_file(str(path)).asbytes() == keys.blob(pair.public)
