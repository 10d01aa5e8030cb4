"""The user's user-data: what cloud-init makes of it as a part of ours is what it makes of the file alone."""

import gzip

import pytest
from support import judges
from test_vmm_boot import COMMAND, FILES, IDENTITY

from vmctl.errors import SpecError
from vmm import system, userdata

USERS = "#cloud-config\nusers: [{name: only}]\n"


def message(first, second="", parts=USERS, kind="text/cloud-config", boundary="b"):
    """Return a MIME message with one part, and these lines first."""
    return f"{first}\n{second}\n\n--{boundary}\nContent-Type: {kind}\n\n{parts}\n--{boundary}--\n"


TYPE, VERSION = 'Content-Type: multipart/mixed; boundary="b"', "MIME-Version: 1.0"
FORMS = {
    "config": USERS,
    "text": "#cloud-config\nusers: root\n",
    "default": "#cloud-config\nusers: default\n",
    "mapping": "#cloud-config\nusers: {name: only}\n",
    "null": "#cloud-config\nusers:\nruncmd:\nwrite_files:\nbootcmd: ~\n",
    "lists": "#cloud-config\nruncmd: one text\npackages: htop\n",
    "merge": "#cloud-config\nmerge_how: 'list(append)+dict()+str()'\nwrite_files: [{path: /b, content: b}]\n",
    "keys": "#cloud-config\nssh_keys: {ed25519_private: a, ed25519_public: b}\nssh_authorized_keys: [x]\n",
    "empty": "#cloud-config\n# nothing\n",
    "binary": "#cloud-config\nwrite_files: [{path: /b, content: !!binary AAH/}]\n",
    "blank lines": f"\n\n  {USERS}",
    "letters": "#Cloud-Config\nusers: []\n",
    "carriage returns": USERS.replace("\n", "\r\n"),
    "jinja": f"## template: jinja\n{USERS}hostname: '{{{{ v1.local_hostname }}}}'\n",
    "archive": "#cloud-config-archive\n- type: text/cloud-config\n  content: |\n    users: []\n- '#!/bin/sh'\n",
    "jsonp": '#cloud-config-jsonp\n[{"op": "add", "path": "/users", "value": []}]\n',
    "script": "#!/bin/sh\r\necho ü\n",
    "boothook": "#cloud-boothook\n#!/bin/sh\necho hi\n",
    "handler": "#part-handler\ndef list_types(): return []\ndef handle_part(*_): pass\n",
    "from": "#cloud-config\nmotd: |\n  From here\n  --vmctl\n  --vmctl--\n",
    "message": message(TYPE, VERSION),
    "message, version first": message(VERSION, TYPE),
    "message, lower case": message(TYPE.lower(), VERSION.lower()),
    "message, of scripts": message(VERSION, TYPE, "#!/bin/sh\n", "text/x-shellscript"),
    "message, our boundary": message(VERSION, TYPE.replace('"b"', '"vmctl"'), boundary="vmctl"),
    "message, by content": message(VERSION, TYPE, kind="text/plain"),
    "message, with merging": message(VERSION, TYPE, kind="text/cloud-config\nX-Merge-Type: list(append)+dict()+str()"),
    "message, carriage returns": message(TYPE, VERSION).replace("\n", "\r\n"),
    "message of one part": f"{VERSION}\nContent-Type: text/cloud-config\n\n{USERS}",
    "config that looks like a message": f"#cloud-config\n# mime-version: 1.0\n{USERS}",
}


def test_cloud_init_takes_each_form_as_it_takes_the_file_alone(tmp_path):
    files = []
    for number, text in enumerate(FORMS.values()):
        for packed in (False, True):
            alone, together = (tmp_path / f"{kind}-{number}-{packed}" for kind in ("alone", "together"))
            alone.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
            together.write_text(system.user_data(IDENTITY, FILES, COMMAND, userdata.load(str(alone))), newline="")
            files += [alone, together]
    found = iter(judges.merged_user_data(*files))
    for name in (name for name in FORMS for _ in range(2)):
        alone, together = next(found), next(found)
        ours, *users = map(comparable, together["parts"])
        assert ours[0] == "text/cloud-boothook"
        assert users == list(map(comparable, alone["parts"])), name
        assert users[0][0] not in ("text/x-not-multipart", "text/plain"), name  # cloud-init knows what it is
        assert together["config"] == alone["config"], name


def comparable(part):
    return part["type"], part["content"].rstrip(), part["merging"]


def test_a_byte_order_mark_is_no_part_of_it(tmp_path):
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf" + USERS.encode())
    (tmp_path / "plain").write_text(USERS)
    marked, plain = (userdata.load(str(tmp_path / name)) for name in ("marked", "plain"))
    assert marked == plain.replace("plain", "marked").replace("text/marked", "text/plain")


def test_a_message_without_its_version_is_taken_too(tmp_path):
    (tmp_path / "user-data").write_text(message(TYPE.upper().replace('"B"', '"b"'), "X: y"))
    (tmp_path / "together").write_text(
        system.user_data(IDENTITY, FILES, COMMAND, userdata.load(str(tmp_path / "user-data")))
    )
    assert judges.merged_user_data(tmp_path / "together")[0]["config"] == {"users": [{"name": "only"}]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("packages: [htop]\n", "is not user-data"),
        ("# cloud-config\npackages: [htop]\n", "is not user-data"),
        ("", "is not user-data"),
        ("#cloud-config\n- a list\n", "does not contain a mapping"),
        ("#cloud-config\na: 1\na: 2\n", "line 3"),
        ("#cloud-config\na: [1\nb: 2\n", "line 3"),
        ("#cloud-config\na: *b\n", "line 2"),
        ("#cloud-config\na: 1\n---\nb: 2\n", "line 3"),
        (f"#cloud-config\na: {'[' * 100}{']' * 100}\n", "nested"),
        (message(TYPE, VERSION, "a: [1\nb: 2"), "part 1 of .* line 2"),
        (message(TYPE, VERSION, "#cloud-config\n- a\n", "text/plain"), "part 1 of .* mapping"),
        (message(TYPE.replace("b", "c"), VERSION), "without a part"),
        (f"{VERSION}\nContent-Type: multipart/mixed\n\n{USERS}", "without a part"),
        (message(TYPE, VERSION, "hello", "text/plain"), "without a part"),
        (b"#!/bin/sh\necho \xff\n", ":2: not UTF-8 text"),
        (gzip.compress(USERS.encode(), mtime=0)[:-9], "its end is missing"),
        (gzip.compress(USERS.encode(), mtime=0)[:20] + bytes(20), "cannot be decompressed"),
        (gzip.compress(b"packages: [htop]", mtime=0), "is not user-data"),
        (gzip.compress(b"#!" + bytes(17 << 20), mtime=0), "larger than 16.0 MiB"),
    ],
)
def test_user_data_that_is_wrong_is_refused_with_file_and_line(tmp_path, text, message):
    path = tmp_path / "user-data"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError, match=message) as error:
        userdata.load(str(path))
    assert str(path) in str(error.value)


def test_user_data_that_is_not_there(tmp_path):
    with pytest.raises(SpecError, match="No such file"):
        userdata.load(str(tmp_path / "none"))
