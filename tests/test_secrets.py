"""Secrets and files of variables: what a workload sees, and what is refused before anything starts."""

import json
import os
import signal

import pytest
from support.commands import inspect, ok, refused, vmctl, wait_for

from vmctl import backends
from vmctl.errors import SpecError
from vmctl.instances import instance
from vmctl.keeping import held
from vmctl.spec import envfile, workloadfile
from vmctl.spec.workload import EnvFile, Secret
from vmctl.stacks import dotenv

QUICK = [mode for mode in sorted(backends.modes()) if not backends.load(mode).features.own_kernel]
EACH_QUICK_MODE = pytest.mark.parametrize("mode", QUICK)
LOOK = "stat -c '%a %u:%g' /run/secrets/*; cat /run/secrets/*; echo $A $B; touch /run/secrets/x 2>&1"
QUOTED = """\
# a comment

A=1
export B = 'x y' # one
C="a\\nb \\"q\\" $X"
D=plain # a comment
E=a#b
F=
G='over
lines'
H=""
NOT_SET_ANYWHERE
"""


@pytest.fixture
def root(own_root):
    yield own_root
    for name in instance.names():
        vmctl("rm", "-f", name)


def write(folder, name, content):
    path = folder / name
    path.write_text(content)
    return str(path)


@EACH_QUICK_MODE
@pytest.mark.parametrize("user", ["0", "1000:1001"])
def test_what_the_workload_sees(root, tmp_path, mode, user):
    file = write(tmp_path, "one", "first\n")
    variables = write(tmp_path, "env", "A='1'\nB=2\n")
    words = ("--secret", f"id=one,src={file}", "--secret", "id=two,env=SECOND,mode=0440", "--env-file", variables)
    done = vmctl(
        *("run", "--mode", mode, "-u", user, *words, "-e", "B=3", "tiny", "--", "sh", "-c", LOOK),
        env={**os.environ, "SECOND": "second"},
    )
    owner = {"0": "0:0"}.get(user, user)
    assert done.out == f"400 {owner}\n440 {owner}\nfirst\nsecond'1' 3\ntouch: /run/secrets/x: Read-only file system\n"


@EACH_QUICK_MODE
def test_they_are_the_same_in_exec_and_after_a_restart(root, tmp_path, mode):
    """Also if the source has gone: the values are those of the start."""
    file, variables = write(tmp_path, "one", "first"), write(tmp_path, "env", "A=1\n")
    words = ("--secret", f"id=one,src={file}", "--secret", "id=two,env=SECOND", "--env-file", variables)
    ok(
        *("run", "-d", "--mode", mode, "--restart", "always", "--name", "web", *words, "tiny", "--"),
        *("sh", "-c", "echo $A $(cat /run/secrets/*); sleep 1000"),
        env={**os.environ, "SECOND": "second"},
    )
    os.unlink(file)
    os.unlink(variables)
    look = ("exec", "web", "--", "sh", "-c", "echo $A $(cat /run/secrets/*)")
    assert ok(*look) == "1 firstsecond\n"
    os.kill(inspect("web")["pid"], signal.SIGKILL)
    wait_for(lambda: ok("logs", "web") == "1 firstsecond\n" * 2)
    assert ok(*look) == "1 firstsecond\n"
    ok("stop", "-t", "0", "web")
    assert "No such file" in refused("start", "web")


@pytest.mark.parametrize("mode", sorted(backends.modes()))
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--secret", "id=a,src=/no/such"), "the secret a: /no/such cannot be read: No such file"),
        (("--secret", "id=a,src=/dev/zero"), "/dev/zero has more than 512 KiB"),
        (("--secret", "id=a,env=NOT_SET_ANYWHERE"), "the variable NOT_SET_ANYWHERE is not set"),
        (("--secret", "id=../a,src=/x"), "secrets[0].name: expected up to 63 letters"),
        (("--secret", "id=a,src=/x", "--secret", "id=a,src=/x"), "the name a is given twice"),
        (("--secret", "a"), "expected a secret such as"),
        (("--secret", "id=a,src=/x,env=Y"), "expected one of file, env"),
        (("--secret", "id=a,src=/x", "--tmpfs", "/run/secrets/a"), "is where the secrets are"),
        (("--secret", "id=a,src=/x", "-v", "/tmp:/run/secrets"), "is where the secrets are"),
        (("--env-file", "/no/such"), "/no/such cannot be read: No such file"),
        (("--env-file", "/dev/zero"), "/dev/zero is larger than 1.0 MiB"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_refused_before_anything_starts(root, mode, words, reason):
    assert reason in refused("run", "--mode", mode, *words, "tiny", "--", "true")
    assert instance.names() == []


def test_files_of_variables(tmp_path):
    path = write(tmp_path, "env", QUOTED)
    assert envfile.read(path) == {
        "A": "1",
        "B": "x y",
        "C": 'a\nb "q" $X',
        "D": "plain",
        "E": "a#b",
        "F": "",
        "G": "over\nlines",
        "H": "",
    }
    path = write(tmp_path, "raw", "A='1'\n #x\nB=a # b\r\n")
    assert envfile.read(path, raw=True) == {"A": "'1'", "B": "a # b"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A='x\n", "env:1: the value of 'A' has no closing '"),
        ("A=1\n=2\n", "env:2: expected NAME=VALUE"),
        ("A-B=1\n", "env:1: 'A-B' cannot be the name of a variable"),
        ("A='x' y\n", "env:1: expected the end of the line"),
        ("A=1\nB=\0\n", "env:2: not a text: it contains a NUL character"),
    ],
)
def test_files_of_variables_with_mistakes(tmp_path, text, reason):
    with pytest.raises(SpecError) as error:
        envfile.read(write(tmp_path, "env", text))
    assert reason in str(error.value)


def test_an_error_does_not_repeat_a_secret(tmp_path):
    with pytest.raises(SpecError) as error:
        envfile.read(write(tmp_path, "env", "hunter2-is-my-long-password=\n"))
    assert "password" not in str(error.value)


@pytest.mark.parametrize("text", ["{}", "'{}", "A='x' {}", "A=1\nB='{}", 'A="{}', 'A="x"{}'])
@pytest.mark.parametrize("read", [envfile.read, lambda path: dotenv.load(path, {})])
def test_nothing_of_a_value_is_in_an_error(tmp_path, read, text):
    with pytest.raises(SpecError) as caught:
        read(write(tmp_path, "env", text.format("hunter2 is my password") + "\n"))
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_the_time_grows_with_the_size_only(tmp_path):
    """A hostile file: half a million lines, each of which would be counted from the beginning."""
    path = write(tmp_path, "env", "A\n" * (1 << 19))
    assert dotenv.load(path, {"A": "1"}) == {"A": "1"}
    path = write(tmp_path, "env", "A=" + "#" * ((1 << 20) - 2))
    assert envfile.read(path) == {"A": ""}


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path):
    path = tmp_path / "env"
    path.write_bytes(b"A=1\nB=\xff\n")
    for raw in (True, False):
        with pytest.raises(SpecError, match="env:2: not UTF-8"):
            envfile.read(str(path), raw=raw)


def test_the_keys_of_a_workload_file(tmp_path):
    write(tmp_path, "a.env", "A=1\n")
    text = "image: tiny\nenv_file: a.env\nsecrets: [{name: a, file: a.env}, {name: b, env: B, mode: '0440'}]\n"
    work = workloadfile.load(write(tmp_path, "web.yaml", text))
    assert work.env_file == (EnvFile(str(tmp_path / "a.env")),)
    assert work.secrets == (Secret("a", file=str(tmp_path / "a.env")), Secret("b", env="B", mode=0o440))
    more = "env_file: [a.env, {path: missing, required: false}]\n"
    work = workloadfile.load(write(tmp_path, "web.yaml", f"image: tiny\n{more}"))
    assert held.read(work).env == {"A": "1"}
    assert json.loads(work.to_json())["env"] == {}
