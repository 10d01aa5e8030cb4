"""One workload, every mode: the same file, image, answer, exit codes, streams and errors, on the command line."""

import json
import os
import re
import signal
from base64 import b64encode
from hashlib import sha256

import pytest
from support.commands import free_port, get, inspect, ok, refused, start, vmctl, wait_for

from images.store import store
from vmctl import backends
from vmctl.instances import instance
from vmctl.net.connect import connect
from vmctl.spec import workloadfile

MODES = sorted(backends.modes())
EACH_MODE = pytest.mark.parametrize("mode", MODES)
PAGE = "<h1>it's the same</h1>\n"
# In a mode without its own network the port inside is a port of the host, so it is not always 8000.
WEB = """
image: tiny
command: [sh, -c, 'echo out; echo err >&2; exec httpd -f -p {inner} -h /srv']
env: {{GREETING: "it's hello"}}
workdir: /srv
user: "1000:1000"
files:
  - {{path: /srv/index.html, content: "{page}"}}
  - {{path: /srv/secret, content: "s\\u00e9cret", mode: "0640"}}
ports: ["{outer}:{inner}"]
resources: {{memory: 128M, pids: 64}}
ready: {{http: {inner}/, timeout: 240s}}
"""


def features(mode):
    return backends.load(mode).features


class Web:
    """The web workload in one mode."""

    def __init__(self, mode, folder):
        self.mode, self.name = mode, f"web-{mode}"
        self.inner, self.outer = free_port(), free_port()
        self.spec = os.path.join(folder, f"{self.name}.yaml")
        with open(self.spec, "w", encoding="utf-8") as file:
            file.write(WEB.format(inner=self.inner, outer=self.outer, page=PAGE.replace("\n", "\\n")))


@pytest.fixture(scope="module", params=MODES)
def web(request, guest_root, tmp_path_factory):
    """The web workload, up and ready."""
    web = Web(request.param, tmp_path_factory.mktemp("web"))
    assert ok("up", "--mode", web.mode, web.spec) == f"{web.name}\n"
    yield web
    vmctl("down", web.name)


def test_every_mode_is_here():
    assert set(MODES) >= {"container", "host", "vm"}


def test_same_answer_through_the_published_port(web):
    for _ in range(3):
        assert get(web.outer) == (200, PAGE)
    assert get(web.outer, "/nowhere")[0] == 404


def test_same_answer_from_inside_the_switch(web):
    with connect(inspect(web.name)["address"], web.inner, 5.0) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.")
    assert answer.endswith(PAGE.encode())


def test_same_image(web):
    assert inspect(web.name)["image_digest"] == store.find("tiny").digest


def test_same_workload(web):
    """The workload is that of the file, in every mode."""
    document = inspect(web.name)
    assert document["workload_digest"] == workloadfile.load(web.spec).digest()
    assert document["workload"]["env"] == {"GREETING": "it's hello"}


def test_start_is_on_the_timeline(web):
    marks = inspect(web.name)["marks_s"]
    assert marks["T0"] == 0 < marks["T1"] < marks["T6"]
    assert marks["T4"] < marks["T6"]


def test_listed(web):
    rows = [row for row in json.loads(ok("ps", "--format", "json")) if row["name"] == web.name]
    assert len(rows) == 1
    assert (rows[0]["mode"], rows[0]["status"], rows[0]["image"]) == (web.mode, "running", "tiny")
    assert rows[0]["ready_s"] > 0
    os.kill(rows[0]["pid"], 0)


def test_footprint(web):
    footprint = inspect(web.name)["footprint"]
    assert all(footprint[name] > 0 for name in ("pss_bytes", "disk_bytes", "shared_disk_bytes"))


def test_logs_keep_the_streams_apart(web):
    result = vmctl("logs", web.name)
    assert (result.code, result.out, result.err) == (0, "out\n", "err\n")


def test_exec_is_as_the_workload(web):
    said = ok("exec", web.name, "--", "sh", "-c", "echo $GREETING; pwd; id -u; id -g; stat -c %a,%u secret")
    assert said == "it's hello\n/srv\n1000\n1000\n640,0\n"  # the file is root's
    assert vmctl("exec", web.name, "--", "cat", "secret").code == 1
    assert ok("exec", "-u", "0", web.name, "--", "cat", "/srv/secret") == "sécret"


def test_exec_with_other_settings(web):
    said = ok(
        "exec", "-e", "A=b c", "-w", "/tmp", "-u", "2000:3000", web.name, "--", "sh", "-c", "echo $A; pwd; id -u; id -g"
    )
    assert said == "b c\n/tmp\n2000\n3000\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM),
        (("/etc/passwd",), 126),
        (("no-such-command",), 127),
    ],
)
def test_exec_gives_the_commands_code(web, command, code):
    assert vmctl("exec", web.name, "--", *command).code == code


def test_exec_has_our_streams(web):
    text = "".join(f"line {number}\n" for number in range(5000))
    result = vmctl("exec", web.name, "--", "sh", "-c", "cat; echo end >&2; exit 3", stdin=text)
    assert (result.code, result.out, result.err) == (3, text, "end\n")


def test_exec_passes_arguments_unchanged(web):
    words = ["a b", "", "it's", '"', "$HOME", "*", "\\", "é", "--", "-x", "a\nb"]
    said = ok("exec", web.name, "--", "sh", "-c", 'for word; do echo "[$word]"; done', "sh", *words)
    assert said == "".join(f"[{word}]\n" for word in words)


def test_only_a_mode_with_a_kernel_of_its_own_has_another_one(web):
    release = ok("exec", web.name, "--", "uname", "-r").strip()
    assert (release != os.uname().release) == features(web.mode).own_kernel


def test_name_and_port_are_taken(web, tmp_path):
    assert f"the name {web.name} is taken" in refused("up", "--mode", web.mode, web.spec)
    said = refused("up", "--mode", web.mode, "--name", "other", web.spec)
    assert f"127.0.0.1:{web.outer}/tcp is taken by the instance {web.name}" in said
    assert "other" not in instance.names()


def test_wait_gives_up(web):
    said = refused("wait", "--timeout", "0.2", web.name, code=124)
    assert f"{web.name} is still running" in said


def test_removal_of_a_running_one_needs_force(web):
    assert f"{web.name} is running" in refused("rm", web.name)
    assert get(web.outer)[0] == 200


def test_stop_then_remove(web):
    """The last test with this instance."""
    waiting = start("wait", web.name)
    assert ok("stop", web.name) == f"{web.name}\n"
    # httpd handles no signal: a signal ends it, unless it is PID 1, which the kernel protects; then SIGKILL does
    code = inspect(web.name)["exit_code"]
    assert code in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
    assert waiting.communicate(timeout=120)[0] == f"{code}\n".encode()
    assert waiting.returncode == code
    assert web.name not in ok("ps", "-q").split()
    row = next(row for row in json.loads(ok("ps", "-a", "--format", "json")) if row["name"] == web.name)
    assert (row["status"], row["exit_code"], row["exit_source"], row["pid"]) == ("exited", code, "signal", None)
    assert ok("logs", web.name) == "out\n"
    assert "is not running" in refused("exec", web.name, "--", "true")
    assert "is not running" in refused("kill", web.name)
    assert ok("rm", web.name) == f"{web.name}\n"
    assert "there is no instance" in refused("inspect", web.name)
    assert "there is no instance" in refused("rm", web.name)
    assert ok("down", web.name) == ""


# One command each


def run(mode, *words, **options):
    """`run` without a network, which these tests do not need."""
    network = ("--network", "none") if features(mode).own_network else ()
    return vmctl("run", "--mode", mode, *network, *words, **options)


@EACH_MODE
def test_run_has_our_streams_and_code(guest_root, mode):
    result = run(mode, "-e", "A=b", "tiny", "--", "sh", "-c", "cat; echo $A >&2; exit 7", stdin="one\ntwo\n")
    assert (result.code, result.out, result.err.replace("\r", "")) == (7, "one\ntwo\n", "b\n")
    assert not [name for name in instance.names() if name.startswith("run-")]


@EACH_MODE
@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (("sh", "-c", "kill -USR1 $$; sleep 9"), 128 + signal.SIGUSR1, ""),
        (("/etc/passwd",), 126, "/etc/passwd cannot be executed"),
        (("no-such-command",), 127, "no-such-command is not in the image"),
    ],
    ids=("signal", "126", "127"),
)
def test_run_gives_the_commands_code(guest_root, mode, command, code, message):
    # a process cannot kill the PID 1 of its namespace, so the reaper is used
    init = ("--init",) if code > 128 else ()
    result = run(mode, *init, "tiny", "--", *command)
    assert (result.code, result.out) == (code, "")
    assert message in result.err


@EACH_MODE
def test_memory_has_a_limit(guest_root, mode):
    """tail(1) keeps its input in memory, and /dev/zero never ends."""
    result = run(mode, "-m", "96M", "tiny", "--", "tail", "/dev/zero")
    assert result.code == 137
    assert "ran out of memory" in result.err


@EACH_MODE
def test_processes_have_a_limit(guest_root, mode):
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 3 & done; echo all"
    result = run(mode, "--pids", "6", "tiny", "--", "sh", "-c", script)
    assert "all" not in result.out
    assert "fork" in result.err


def write_spec(tmp_path, name, text):
    path = tmp_path / f"{name}.yaml"
    path.write_text(f"image: tiny\n{text}")
    return str(path)


@EACH_MODE
def test_volumes_work_or_are_refused(guest_root, tmp_path, mode):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/in").write_text("from outside\n")
    text = "command: [sh, -c, 'cat /d/in; echo inside > /d/out; touch /ro/x || echo protected']\n"
    path = write_spec(tmp_path, "volumes", text + "volumes: ['./data:/d', './data:/ro:ro']\n")
    if not features(mode).volumes:
        assert "volumes" in refused("up", "--mode", mode, path)
        return
    ok("up", "--mode", mode, path)
    assert vmctl("wait", "volumes").code == 0
    assert ok("logs", "volumes") == "from outside\nprotected\n"
    assert (tmp_path / "data/out").read_text() == "inside\n"
    ok("down", "volumes")
    assert (tmp_path / "data/in").read_text() == "from outside\n"


READY = {
    "tcp": ("httpd -f -p {port}", "tcp: {port}"),
    "log": ("sleep 0.1; echo now ready to serve; sleep 1000", "log: '^now ready'"),
    "exec": ("sleep 0.1; touch /tmp/ready; sleep 1000", "exec: [test, -e, /tmp/ready]"),
}


@EACH_MODE
@pytest.mark.parametrize("probe", READY)
def test_ready(guest_root, tmp_path, mode, probe):
    port = free_port()
    script, ready = (text.format(port=port) for text in READY[probe])
    name = f"ready-{probe}"
    path = write_spec(tmp_path, name, f"command: [sh, -c, '{script}']\ninit: true\nready: {{{ready}, timeout: 240s}}\n")
    ok("up", "--mode", mode, path)
    assert inspect(name)["ready_s"] > 0
    ok("down", name)


def never_ready(folder, mode):
    """Start a workload that will not be ready in time."""
    timeout = "45s" if features(mode).own_kernel else "2s"  # enough for its first output
    text = "command: [sh, -c, 'echo the last word; sleep 1000']\n"
    path = write_spec(folder, f"never-{mode}", f"{text}ready: {{tcp: {free_port()}, timeout: {timeout}}}\n")
    return start("up", "--mode", mode, path)


@pytest.fixture(scope="module", autouse=True)
def waiting(guest_root, tmp_path_factory):
    """Starts that run during the other tests: on a busy machine a guest takes long to report its last mark."""
    started = {mode: never_ready(tmp_path_factory.mktemp(mode), mode) for mode in MODES if features(mode).own_kernel}
    yield started
    for process in started.values():
        process.terminate()  # if the test is not selected; a start that is interrupted removes its instance
        process.wait(120)


@EACH_MODE
def test_never_ready(waiting, tmp_path, mode):
    process = waiting.get(mode) or never_ready(tmp_path, mode)
    out, said = (text.decode() for text in process.communicate(timeout=240))
    assert (process.returncode, out) == (124, "")
    assert "Traceback" not in said
    assert f"\nvmctl: never-{mode} was not ready within" in f"\n{said}"  # a long wait shows its phases first
    assert "the last phase was: " in said
    assert "the last word" in said
    assert f"never-{mode}" not in instance.names()


@EACH_MODE
def test_a_limit_of_time_without_a_probe(guest_root, tmp_path, mode):
    text = "command: [sleep, '1000']\nready: {timeout: %s}\n"
    done = vmctl("up", "--mode", mode, write_spec(tmp_path, f"late-{mode}", text % "1ms"))
    assert (done.code, done.out) == (124, "")
    assert f"late-{mode} was not started within 1.0 ms" in done.err
    assert f"late-{mode}" not in instance.names()
    name = f"early-{mode}"
    ok("up", "--mode", mode, write_spec(tmp_path, name, text % "20m"))
    assert inspect(name)["status"] == "running"
    ok("rm", "-f", name)


@EACH_MODE
def test_more_processors_than_the_host_has_are_said(guest_root, mode):
    here = len(os.sched_getaffinity(0))
    done = vmctl("run", "--mode", mode, "--cpus", str(here + 62), "tiny", "--", "nproc")
    assert (done.code, done.out) == (0, f"{here}\n")
    assert re.search(f"warning: the workload has {here} processors?, as many as this host, not {here + 62}\n", done.err)
    assert "as many as this host" not in vmctl("run", "--mode", mode, "--cpus", str(here), "tiny", "--", "true").err


@EACH_MODE
def test_files_of_each_kind(guest_root, tmp_path, mode):
    everything = bytes(range(256))
    (tmp_path / "binary").write_bytes(everything * 400)
    (tmp_path / "text").write_text("süß\r\n")
    text = f"""command: [sh, -c, 'sha256sum /srv/*; stat -c %a /srv/*']
files:
- {{path: /srv/1, base64: {b64encode(everything).decode()}, mode: "0600"}}
- {{path: /srv/2, source: binary}}
- {{path: /srv/3, source: {tmp_path}/text, mode: "0755"}}
- {{path: /srv/4, content: "\\x00\\x01\\x7f\\e\\r\\n\\t end"}}
- {{path: /srv/5, base64: ""}}
ready: {{timeout: 20m}}
"""
    path = write_spec(tmp_path, f"files-{mode}", text)
    ok("up", "--mode", mode, path)
    os.unlink(tmp_path / "binary")  # the workload has its content
    assert ok("wait", f"files-{mode}").strip() == "0"
    expected = [everything, everything * 400, "süß\r\n".encode(), b"\0\1\x7f\x1b\r\n\t end", b""]
    sums = [f"{sha256(content).hexdigest()}  /srv/{number}" for number, content in enumerate(expected, 1)]
    assert ok("logs", f"files-{mode}").splitlines() == [*sums, "600", "644", "755", "644", "644"]
    ok("rm", f"files-{mode}")


@EACH_MODE
def test_end_before_ready(guest_root, tmp_path, mode):
    text = "command: [sh, -c, 'echo no configuration >&2; exit 3']\n"
    path = write_spec(tmp_path, "early", f"{text}ready: {{tcp: {free_port()}, timeout: 240s}}\n")
    said = refused("up", "--mode", mode, path)
    assert "early ended with code 3 (workload) before it was ready" in said
    assert "no configuration" in said
    assert "early" not in instance.names()


@EACH_MODE
def test_init_reaps_orphans(guest_root, tmp_path, mode):
    """An orphan that has ended is in /proc until it is reaped."""
    script = "orphan=$(sleep 0.2 >/dev/null & echo $!); while [ -e /proc/$orphan ]; do sleep 0.05; done; "
    script += "echo ${orphan:-none}; echo pid $$; exit 5"
    path = write_spec(tmp_path, "reaped", f"command: [sh, -c, {json.dumps(script)}]\ninit: true\n")
    ok("up", "--mode", mode, path)
    assert vmctl("wait", "--timeout", "120", "reaped").code == 5
    orphan, pid = ok("logs", "reaped").splitlines()
    assert orphan.isdigit()
    assert pid != "pid 1"
    ok("down", "reaped")


@EACH_MODE
def test_kill_with_a_signal_that_is_caught(guest_root, tmp_path, mode):
    script = 'trap "echo caught; exit 9" USR1; echo set; while :; do sleep 0.1; done'
    path = write_spec(tmp_path, "catcher", f"command: [sh, -c, '{script}']\nready: {{log: set}}\n")
    ok("up", "--mode", mode, path)
    assert ok("kill", "-s", "USR1", "catcher") == "catcher\n"
    assert vmctl("wait", "--timeout", "120", "catcher").code == 9
    document = inspect("catcher")
    assert (document["exit_code"], document["exit_source"]) == (9, "workload")
    assert ok("logs", "--tail", "1", "catcher") == "caught\n"
    ok("down", "catcher")


@EACH_MODE
def test_down_takes_the_file_and_needs_no_instance(guest_root, tmp_path, mode):
    path = write_spec(tmp_path, "short", "command: ['true']\n")
    ok("up", "--mode", mode, path)
    wait_for(lambda: inspect("short")["status"] == "exited")
    assert ok("down", path) == "short\n"
    assert ok("down", path) == ""
