"""What an image asks for happens, in every mode: its entrypoint, its stop signal and its time limit."""

import json
import signal
import time

import pytest
from support.commands import inspect, ok, passes_signals_on, refused, start, vmctl
from support.images_made import add

from images.store import store
from images.store.config import only_stored
from images.store.image import Image, ImageConfig, ending, process
from vmctl import backends
from vmctl.spec import signals
from vmctl.spec.workload import Seconds, Signal, Workload

MODES = sorted(backends.modes())
EACH_MODE = pytest.mark.parametrize("mode", MODES)

# $0 is the first argument
TRAPS = "trap 'echo got 37; exit 9' 37; trap 'echo got TERM; exit 8' TERM"
SCRIPT = f"{TRAPS}; echo up $0 $@; while :; do sleep 0.1; done"


@pytest.fixture(scope="module", autouse=True)
def images(own_store):
    """The image `graceful` stops by a real-time signal; `stubborn` ignores the signal by which it stops."""
    tiny = store.find("tiny")
    add("graceful", tiny, entrypoint=("sh", "-c", SCRIPT), cmd=("x", "y"), stop_signal="SIGRTMIN+3", workdir="/new")
    add("stubborn", tiny, cmd=("sh", "-c", "trap '' INT; echo up; sleep 100"), stop_signal="INT", stop_timeout_s=1)
    add("unknown", tiny, cmd=("sleep", "100"), stop_signal="SIGNOPE")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("3", 3), ("QUIT", 3), ("SIGQUIT", 3), ("sigquit", 3), ("WINCH", 28), ("1", 1), ("64", 64)),
        *(("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMIN+3", 37), ("37", 37), ("SIGRTMAX-1", 63), ("RTMAX", 64)),
    ],
)
def test_signals(text, number):
    assert signals.number(text) == number
    assert signals.number(signals.name(number)) == number


WRONG = [
    "SIGNOPE",
    "NOPE",
    "0",
    "-1",
    "32",
    "33",
    "65",
    "99",
    "RTMIN+31",
    "RTMAX+1",
    "RTMIN-1",
    "",
    "SIG",
    "SIG_DFL",
    "٣",
]


@pytest.mark.parametrize("text", WRONG)
def test_no_signals(text):
    with pytest.raises(ValueError, match="a signal such as"):
        signals.number(text)


def image(**config):
    return Image("image", "", "", (), ImageConfig(**config), "")


def work(**keys):
    return Workload(name="w", image="image", **keys)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "e1 e2 c1 c2"),
        ({"command": ("a",)}, "e1 e2 a"),
        ({"entrypoint": ("e",)}, "e"),
        ({"entrypoint": ("e",), "command": ("a",)}, "e a"),
        ({"entrypoint": (), "command": ("a",)}, "a"),
    ],
)
def test_arguments_replace_the_command_of_the_image_only(keys, expected):
    """As docker-run(1): --entrypoint replaces both."""
    found = process(image(entrypoint=("e1", "e2"), cmd=("c1", "c2")), work(**keys))
    assert " ".join(found.argv) == expected


def test_the_workload_decides_how_it_is_stopped():
    asking = image(stop_signal="RTMIN+3", stop_timeout_s=3)
    assert ending(asking, work()) == (37, 3, "")
    assert ending(asking, work(stop_signal=Signal(3), stop_timeout_s=Seconds(0))) == (3, 0, "")
    assert ending(image(), work()) == (signal.SIGTERM, None, "")


@EACH_MODE
def test_entrypoint_and_stop_signal(mode, tmp_path):
    name = f"graceful-{mode}"
    (tmp_path / f"{name}.yaml").write_text("image: graceful\ncommand: [a, b c]\nready: {log: up, timeout: 240s}\n")
    ok("up", "--mode", mode, str(tmp_path / f"{name}.yaml"))
    assert ok("exec", name, "--", "pwd") == "/new\n"
    ok("stop", name)
    assert ok("logs", name) == "up a b c\ngot 37\n"
    assert inspect(name)["exit_code"] == 9
    ok("rm", name)


TABLES = {
    "etc/passwd": "root:x:0:0\nshort:x:1234:99\nlong:x:55:66::/home:/bin/sh:more\nalone\nno:x:number:1\n",
    "etc/group": "gone:x:77\nfriends:x:88:short,other\n",
}
SHORT = "echo $(id -u) $(id -g) $HOME; ls -d /data/a /relative"


@EACH_MODE
def test_short_lines_and_folders_of_the_image(mode, tmp_path):
    """Lines of passwd(5) as Docker reads them; VOLUME makes a folder, but not in a place of the kernel or of a file."""
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    for name, text in TABLES.items():
        (tree / name).write_text(text)
    folders = ("/data/a", "relative", "/proc/x", "/etc/passwd", "/a/../../x")
    add("tables", store.find("tiny"), tree, volumes=folders, cmd=("sh", "-c", f"{SHORT}; exec sleep 1000"))
    name = f"tables-{mode}"
    (tmp_path / f"{name}.yaml").write_text("image: tables\nuser: short\nlabels: {a: b}\nready: {log: relative}\n")
    ok("up", "--mode", mode, str(tmp_path / f"{name}.yaml"))
    assert ok("logs", name) == "1234 99 /\n/data/a\n/relative\n"
    for user, expected in (
        ("long", "55 66 /home"),
        ("1234", "1234 99 /"),
        ("0:gone", "0 77 /"),
        ("short", "1234 99 /"),
    ):
        assert ok("exec", "-u", user, name, "--", "sh", "-c", SHORT).splitlines()[0] == expected, user
    assert "88" in ok("exec", "-u", "short", name, "--", "id", "-G").split()
    for user in ("alone", "no"):
        assert "is not in the image's /etc/passwd" in refused("exec", "-u", user, name, "--", "true")
    assert ok("diff", name) == ""
    ok("down", name)
    ok("image", "rm", "tables")


def test_what_is_only_stored_is_said():
    vmctl("image", "build", "-t", "checked", "-", stdin="FROM tiny\nHEALTHCHECK CMD true\nVOLUME /data\n")
    assert json.loads(ok("image", "inspect", "checked"))[0]["only_stored"] == []
    ok("image", "rm", "checked")
    assert only_stored({"Cmd": ["x"], "Domainname": "there", "MacAddress": ""}) == ["Domainname"]


@EACH_MODE
def test_sigterm_of_run_is_the_request_to_stop(mode):
    process = start("run", "--mode", mode, "graceful", "--", "now")
    assert process.stdout.readline() == b"up now\n"
    passes_signals_on(process.pid)
    process.terminate()
    assert (process.communicate(timeout=60)[0], process.returncode) == (b"got 37\n", 9)


@EACH_MODE
def test_the_flags_win(mode):
    process = start(
        "run", "--mode", mode, "--stop-signal", "TERM", "--entrypoint", "sh", "graceful", "--", "-c", SCRIPT
    )
    assert process.stdout.readline() == b"up sh\n"
    passes_signals_on(process.pid)
    process.terminate()
    assert (process.communicate(timeout=60)[0], process.returncode) == (b"got TERM\n", 8)


def test_a_real_time_signal_ends_a_workload_without_a_handler():
    """The kernel drops signals for PID 1 of a namespace; in the other modes their default action is to end it."""
    process = start("run", "--stop-signal", "RTMIN+3", "tiny", "--", "sh", "-c", "echo up; exec sleep 100")
    assert process.stdout.readline() == b"up\n"
    passes_signals_on(process.pid)
    process.terminate()
    assert process.wait(60) == 128 + 37


def test_an_init_gets_the_signal_that_it_blocks():
    process = start(
        "run", "--init", "tiny", "--", "sh", "-c", "trap 'echo got; exit 7' TERM; echo up; sleep 100 & wait"
    )
    assert process.stdout.readline() == b"up\n"
    passes_signals_on(process.pid)
    process.terminate()
    assert (process.communicate(timeout=60)[0], process.returncode) == (b"got\n", 7)


def test_time_before_sigkill_is_the_images(tmp_path):
    (tmp_path / "stubborn.yaml").write_text("image: stubborn\nready: {log: up}\n")
    ok("up", str(tmp_path / "stubborn.yaml"))
    began_s = time.monotonic()
    ok("stop", "stubborn")
    assert 1 <= time.monotonic() - began_s < 10  # the default
    assert inspect("stubborn")["exit_code"] == 137
    ok("rm", "stubborn")


def test_an_image_with_an_unknown_signal_starts_with_a_warning(tmp_path):
    (tmp_path / "unknown.yaml").write_text("image: unknown\n")
    assert "STOPSIGNAL" in vmctl("up", str(tmp_path / "unknown.yaml")).err
    ok("down", "unknown")


@pytest.mark.parametrize("text", ["SIGNOPE", "99", "32"])
def test_a_build_refuses_an_unknown_signal(tmp_path, text):
    (tmp_path / "Dockerfile").write_text(f"FROM tiny\nSTOPSIGNAL {text}\n")
    assert f"Dockerfile:2: STOPSIGNAL: expected a signal such as SIGQUIT, RTMIN+3 or 3, not '{text}'" in refused(
        "image", "build", str(tmp_path)
    )
    (tmp_path / "Dockerfile").write_text(f"FROM tiny\nARG S={text}\nSTOPSIGNAL $S\n")
    result = vmctl("image", "build", str(tmp_path))
    assert result.code == 125
    assert f"Dockerfile:3: STOPSIGNAL $S: expected a signal such as SIGQUIT, RTMIN+3 or 3, not '{text}'" in result.err


def test_the_file_refuses_what_is_no_signal(tmp_path):
    path = tmp_path / "w.yaml"
    for text in ("NOPE", "0", "true", "[3]"):
        path.write_text(f"image: tiny\nstop_signal: {text}\n")
        assert "stop_signal" in refused("spec", "check", str(path))
    path.write_text("image: tiny\nstop_signal: 37\nstop_timeout: 2m\nentrypoint: [sh]\n")
    ok("spec", "check", str(path))
