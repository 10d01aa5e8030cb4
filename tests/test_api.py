"""The Python API: `import vmctl`. Each test that starts something uses real containers, one a real guest."""

import asyncio
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from support.commands import ok, passes_signals_on, wait_for
from support.commands import vmctl as command
from support.ordinary_user import OrdinaryUser
from support.tracked import ROOT

import vmctl
from vmctl import fromflags
from vmctl.api import starting
from vmctl.api.verbs import Flags
from vmctl.cli import run as run_verb
from vmctl.cli import usual
from vmctl.comparing.rows import FACTS, Row

SLEEPS = ["sleep", "1000"]


@pytest.fixture(scope="module")
def box(guest_root):
    """A running container that the tests of this file share."""
    with vmctl.run("tiny", ["sh", "-c", "echo started; echo bad >&2; httpd -p 80; exec sleep 1000"], ports=[80]) as box:
        yield box
    assert names() == []


def names():
    return [one["name"] for one in json.loads(ok("ps", "-a", "--format", "json"))]


def python(source, *, wait=True):
    """Run a program; without `wait` return it, with its output in a pipe."""
    program = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if not wait:
        return program
    out, err = program.communicate(timeout=60)
    assert program.returncode == 0, err
    return out


# The command line and the API have the same defaults

DEFAULTS = {name: one.default for name, one in inspect.signature(starting.run).parameters.items()}
NOT_FLAGS = ("mode", "options", "wait", "keep")


def flags(image="tiny", command=(), **given):
    assert given.keys() <= DEFAULTS.keys()
    values = {**DEFAULTS, "image": image, "command": command, **given}
    return starting.flags_of({name: value for name, value in values.items() if name not in NOT_FLAGS})


def typed(*words):
    args = usual.parse(run_verb.arguments, words)
    assert args is not None
    return args


def test_each_default_is_that_of_the_flag():
    declared = vars(typed("tiny"))
    ours = flags()
    of_the_terminal = {"detach", "rm", "keep", "verbose", "detach_keys", "quiet", "mode", "step"}
    assert {name: value or None for name, value in ours.items()} == {
        name: value or None for name, value in declared.items() if name not in of_the_terminal
    }
    assert DEFAULTS["mode"] == declared["mode"]


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (("tiny",), {}),
        (("tiny", "--", "sh", "-c", "true"), {"command": ["sh", "-c", "true"]}),
        (("-e", "A=1", "-e", "HOME", "tiny"), {"env": {"A": 1, "HOME": None}}),
        (("-p", "80", "-p", "127.0.0.1:8080:81/udp", "tiny"), {"ports": [80, "127.0.0.1:8080:81/udp"]}),
        (("-m", "64M", "--cpus", "1.5", "--pids", "64", "tiny"), {"memory": 64 << 20, "cpus": 1.5, "pids": 64}),
        (("--network", "none", "--hostname", "x", "tiny"), {"network": "none", "hostname": "x"}),
        (("-v", "./here:/there:ro", "--tmpfs", "/t", "tiny"), {"volumes": ["./here:/there:ro"], "tmpfs": ["/t"]}),
        (("--stop-timeout", "3", "--stop-signal", "INT", "tiny"), {"stop_timeout": 3, "stop_signal": "INT"}),
        (("--ulimit", "nofile=64:128", "-l", "a=b", "tiny"), {"ulimits": {"nofile": "64:128"}, "labels": {"a": "b"}}),
        (("--health-cmd", "true", "--health-retries", "2", "tiny"), {"health_cmd": "true", "health_retries": 2}),
        (
            ("--read-only", "--init", "-u", "1:1", "-w", "/srv", "tiny"),
            {"read_only": True, "init": True, "user": "1:1", "workdir": "/srv"},
        ),
        (("--restart", "on-failure:3", "--userns", "host", "tiny"), {"restart": "on-failure:3", "userns": "host"}),
        (("--sysctl", "net.a=1", "--add-host", "a:::1", "tiny"), {"sysctls": {"net.a": 1}, "add_host": ["a:::1"]}),
        (("--secret", "id=a,src=/etc/hostname", "tiny"), {"secrets": ["id=a,src=/etc/hostname"]}),
        (
            ("--mount", "type=tmpfs,target=/m", "--entrypoint", "echo", "tiny"),
            {"mounts": ["type=tmpfs,target=/m"], "entrypoint": "echo"},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_flags_and_parameters_make_the_same_workload(words, given):
    args = typed("--name", "one", *words)
    ours = Flags(flags(**{"name": "one", **given}))
    theirs = run_verb.workload(args)
    assert fromflags.workload(ours, ours.command, {}).digest() == theirs.digest()
    assert (given == {}) == (theirs.digest() == run_verb.workload(typed("--name", "one", "tiny")).digest())


def test_the_workload_that_runs_is_the_same(box):
    name = ok("run", "-d", "-p", "80", "tiny", "--", "sh", "-c", "exec sleep 1000").strip()
    try:
        theirs = json.loads(ok("inspect", name))[0]["workload"]
        with vmctl.run("tiny", ["sh", "-c", "exec sleep 1000"], ports=[80]) as inst:
            ours = json.loads(ok("inspect", inst.name))[0]
        assert ours["workload_digest"] == inst.workload_digest
        assert {**ours["workload"], "name": ""} == {**theirs, "name": ""}
    finally:
        ok("down", name)


def test_up_starts_what_the_command_line_starts(box, tmp_path):
    file = tmp_path / "api-up.yaml"
    file.write_text("image: tiny\ncommand: [httpd, -f, -p, '81']\nready: {tcp: 81}\nvolumes: ['./:/here:ro']\n")
    ok("up", "-q", str(file))
    theirs = json.loads(ok("inspect", "api-up"))[0]["workload_digest"]
    ok("down", "api-up")
    with vmctl.up(file) as inst:
        assert (inst.name, inst.workload_digest) == ("api-up", theirs)
        assert inst.seconds < 60
        assert inst.read("/here/api-up.yaml") == file.read_bytes()
    stack = tmp_path / "stack.yaml"
    stack.write_text("services: {web: {image: tiny}}\n")
    with pytest.raises(vmctl.SpecError, match="is a stack, and not one workload"):
        vmctl.up(stack)


# Commands and files


def test_a_command_has_code_output_duration_and_place(box):
    done = box.exec(["sh", "-c", 'cat; echo "$A" >&2; pwd; exit 3'], input="in\n", env={"A": "b c"}, workdir="/etc")
    assert (done.code, done.out, done.err) == (3, "in\n/etc\n", "b c\n")
    assert 0 < done.seconds < 60
    assert (done.where.instance, done.where.mode) == (box.name, "container")
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        assert done.where.boot_id == file.read().strip()
    assert done.where.receipt["namespaces"]["pid"] != os.stat("/proc/self/ns/pid").st_ino


def test_a_command_without_input_reads_nothing(box):
    assert box.exec(["cat"], timeout=30).out == ""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        assert box.exec(["head", "-c", "6"], input=file).out == "# vmct"
    data = os.urandom(3 << 20)
    assert box.exec(["cat"], input=data).raw_out == data


def test_commands_that_fail_are_errors_of_their_type(box):
    with pytest.raises(vmctl.CommandFailed, match=r"sh in .* ended with code 4") as caught:
        box.exec(["sh", "-c", "echo why >&2; exit 4"], check=True)
    assert (caught.value.result.code, caught.value.detail) == (4, "why")
    with pytest.raises(vmctl.CommandNotFoundError, match="the command nope is not in the image"):
        box.exec(["nope"])
    with pytest.raises(vmctl.CommandNotExecutableError):
        box.exec(["/etc/passwd"])
    with pytest.raises(vmctl.SpecError, match="a command is a list of words"):
        box.exec("ls -l")
    with pytest.raises(vmctl.SpecError, match="cannot be the name of a variable"):
        box.exec(["true"], env=["="])


def test_a_command_that_ignores_sigterm_ends_in_time(box):
    begun_s = time.monotonic()
    with pytest.raises(vmctl.CommandTimeout, match=r"did not end within 0\.2 s") as caught:
        box.exec(["sh", "-c", "trap '' TERM; echo x; while :; do sleep 7.77; done"], timeout=0.2)
    assert caught.value.raw_out == b"x\n"
    assert time.monotonic() - begun_s < 30
    wait_for(lambda: box.exec(["sh", "-c", "ps -o args | grep -c '[t]rap'"]).out == "0\n")


def test_more_output_than_the_limit_ends_the_command(box):
    with pytest.raises(vmctl.TooMuchOutput, match="more than 100000 bytes"):
        box.exec(["cat", "/dev/zero"], limit=100_000)
    assert box.exec(["sh", "-c", "ps -o args | grep -c '[/]dev/zero'"]).out == "0\n"


def test_a_process_that_is_left_behind_keeps_nobody_waiting(box):
    done = box.exec(["sh", "-c", "sleep 300 & echo done"], timeout=60)
    assert (done.code, done.out) == (0, "done\n")


def test_lines_come_while_the_command_runs(box):
    with box.stream(["sh", "-c", "echo first; read x; echo $x >&2; printf end"], input=None) as running:
        assert [(line.stream, line.text) for line in running] == [
            ("stdout", "first"),
            ("stderr", ""),
            ("stdout", "end"),
        ]
        assert running.result.code == 0
    lines = []
    with box.stream(["sh", "-c", "echo 1; exec sleep 1000"]) as running:
        for line in running:
            lines.append(line.text)
            break
    assert lines == ["1"]
    assert box.exec(["sh", "-c", "true"], on_line=lines.append).code == 0
    assert box.exec(["sh", "-c", "echo 2; printf 3"], on_line=lambda line: lines.append(line.text)).out == "2\n3"
    assert lines == ["1", "2", "3"]


def test_files_are_written_and_read(box, tmp_path):
    box.write("/srv/a b", "text\n", mode=0o640, uid=7, gid=8)
    assert box.read("/srv/a b") == b"text\n"
    assert box.exec(["stat", "-c", "%a %u %g", "/srv/a b"]).out == "640 7 8\n"
    box.exec(["ln", "-s", "/etc/../srv/a b", "/srv/link"], check=True)
    assert box.read("/srv/link") == b"text\n"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("x")
    assert box.copy(tmp_path / "folder", ":/srv") == []
    assert box.copy(":/srv/folder", tmp_path / "back") == []
    assert (tmp_path / "back/file").read_text() == "x"


NO_KVM = [(lambda box: vmctl.run("tiny", mode="vm", options={"accel": "kvm"}), vmctl.NoKvm, "KVM does not run")]
if os.access("/dev/kvm", os.R_OK | os.W_OK):  # it may work here
    NO_KVM = []


@pytest.mark.parametrize(
    ("attempt", "kind", "message"),
    [
        (lambda box: box.write("/no/such/file", ""), vmctl.NotFoundError, "/no/such is not a folder"),
        (lambda box: box.write("file", ""), vmctl.SpecError, "not the path of a file inside"),
        (lambda box: box.write("/srv/..", ""), vmctl.SpecError, "not the path of a file inside"),
        (lambda box: box.read("/no/such"), vmctl.NotFoundError, "/no/such"),
        (lambda box: box.read("/etc"), vmctl.NotFoundError, "is not a file"),
        (lambda box: box.read("/proc/kmsg"), vmctl.VmctlError, "kmsg"),
        (lambda box: box.copy("a", "b"), vmctl.SpecError, "begin with a colon"),
        (lambda box: box.copy(":/no/such", "."), vmctl.NotFoundError, "/no/such"),
        (lambda box: box.port(81), vmctl.NotFoundError, "does not publish its port 81/tcp"),
        (lambda box: box.kill("NOPE"), vmctl.SpecError, "NOPE"),
        (lambda box: box.wait(port=0), vmctl.SpecError, "from 1 to 65535"),
        (lambda box: box.wait(log="("), vmctl.SpecError, "not a regular expression"),
        (lambda box: box.wait(healthy=True), vmctl.StateError, "has no health check"),
        (lambda box: box.logs(stream="console"), vmctl.NotFoundError, "has no console"),
        (lambda box: vmctl.find("no-such"), vmctl.NoSuchInstance, "there is no instance no-such"),
        (lambda box: vmctl.run("no-such"), vmctl.NoSuchImage, "there is no image no-such"),
        (lambda box: vmctl.run("tiny", name=box.name), vmctl.ConflictError, "is taken by another instance"),
        (lambda box: vmctl.run("tiny", memory="much"), vmctl.SpecError, "--memory: expected a size"),
        (lambda box: vmctl.run("tiny", "ls"), vmctl.SpecError, "a command is a list of words"),
        (lambda box: vmctl.run("tiny", mode="moon"), vmctl.SpecError, "there is no mode moon"),
        (lambda box: vmctl.run("tiny", platform="linux/s390x"), vmctl.SpecError, "cannot run linux/s390x"),
        *NO_KVM,
        (lambda box: vmctl.up("no-such.yaml"), vmctl.SpecError, "no-such.yaml"),
        (lambda box: vmctl.compare("tiny", modes=["host", "host"]), vmctl.SpecError, "names a mode twice"),
        (lambda box: vmctl.compare("tiny", modes=[]), vmctl.SpecError, "names no mode"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_an_error_of_its_type(box, attempt, kind, message):
    with pytest.raises(kind) as caught:
        attempt(box)
    assert type(caught.value) is kind
    assert message in str(caught.value)
    assert names() == [box.name]


def test_an_error_has_the_text_of_the_command_line(box):
    with pytest.raises(vmctl.ConflictError) as caught:
        vmctl.run("tiny", name=box.name)
    typed = command("run", "-d", "--name", box.name, "tiny")
    assert typed.err == f"vmctl: {caught.value}\nhint: {caught.value.hint}\n"
    assert caught.value.__notes__ == [f"hint: {caught.value.hint}"]


# Waiting and logs


def test_waiting(box):
    assert 0 <= box.wait(port=80, log="^star.ed$", timeout=60) < 60
    assert box.wait(timeout=60) < 60
    with pytest.raises(
        vmctl.NotReady, match=r"was not ready within 300.0 ms; .* nothing listens on its port 81"
    ) as late:
        box.wait(port=81, timeout=0.3)
    assert "last lines of stderr.log:\nbad" in late.value.detail
    assert "timeout=" in late.value.hint
    with pytest.raises(vmctl.NotReady, match="does not match"):
        box.wait(log="never", timeout=0.5)
    with pytest.raises(vmctl.NotReady, match="answers with status 404"):
        box.wait(http="80/none", timeout=2)


def test_an_end_before_it_is_ready(box):
    with vmctl.run("tiny", ["sh", "-c", "echo reason >&2; sleep 0.3; exit 7"]) as inst:
        with pytest.raises(vmctl.EndedEarly, match="ended with code 7") as caught:
            inst.wait(port=80)
        assert "reason" in caught.value.detail
        assert isinstance(caught.value, vmctl.NotReady)
        assert inst.wait_exit() == (7, "workload")
        assert inst.status()[:2] == ("exited", 7)
        with pytest.raises(vmctl.StateError):
            inst.exec(["true"])
        with pytest.raises(vmctl.StateError, match="none of its ports"):
            inst.ports()


def test_pause(box):
    box.pause()
    assert box.status().status == "paused"
    with pytest.raises(vmctl.StateError, match="is paused"):
        box.exec(["true"])
    box.unpause()
    box.start()  # it runs
    assert box.exec(["true"]).code == 0
    with pytest.raises(vmctl.UnavailableError, match="CRIU"):
        box.suspend()


def test_logs(box):
    assert box.logs(stream="stdout") == "started\n"
    assert sorted(box.logs().splitlines()) == ["bad", "started"]
    assert box.logs(tail=1) in ("started\n", "bad\n")
    for line in box.follow(stream="stdout"):
        assert (line.stream, line.text) == ("stdout", "started")
        assert 0 <= time.time_ns() - line.time_ns < 10**12
        break
    with vmctl.run("tiny", ["sh", "-c", "sleep 0.2; printf 'a\\nb'"]) as inst:
        assert [line.text for line in inst.follow()] == ["a", "b"]
        assert inst.wait_exit(30).code == 0


def test_a_published_port_answers(box):
    import http.client

    host, port = box.endpoint(80)
    connection = http.client.HTTPConnection(host, port, timeout=30)
    connection.request("GET", "/")
    assert connection.getresponse().status in (200, 404)
    connection.close()
    assert box.port(80) == port


# What stays and what does not


def test_an_exception_removes_and_keep_keeps(box):
    inst = vmctl.run("tiny", SLEEPS, name="api-removed")
    assert "api-removed" in names()
    with pytest.raises(ZeroDivisionError), inst:
        raise ZeroDivisionError
    assert names() == [box.name]
    with pytest.raises(vmctl.NoSuchInstance):
        inst.exec(["true"])
    with vmctl.run("tiny", SLEEPS, name="api-kept", keep=True) as inst:
        pass
    found = vmctl.find("api-kept")
    assert (found.id, found.exec(["echo", "here"]).out) == (inst.id, "here\n")
    found.stop(0.1)
    assert found.status().status == "exited"
    found.remove()
    found.remove()
    with vmctl.run("tiny", SLEEPS, name="api-kept"):
        with pytest.raises(vmctl.NoSuchInstance, match="another one has its name"):
            found.exec(["true"])
        found.remove()  # of the other one nothing is removed
        assert "api-kept" in names()


RUNS = f"""
import os, signal, sys, time, vmctl
first = vmctl.run("tiny", {SLEEPS}, name="api-one")
second = vmctl.run("tiny", {SLEEPS}, name="api-two")
second.keep()
print("ready", flush=True)
"""


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)", "raise KeyboardInterrupt"])
def test_the_end_of_a_program_removes_what_it_did_not_keep(box, end):
    program = python(RUNS + end, wait=False)
    program.communicate(timeout=60)
    assert program.returncode == {"": 0, "o": -9, "r": -signal.SIGINT}[end[:1]]
    wait_for(lambda: set(names()) == {box.name, "api-two"})
    ok("down", "api-two")


def test_ctrl_c_during_a_start_leaves_nothing(box):
    source = "import vmctl; print('go', flush=True); vmctl.run('tiny', ['sleep', '9'], name='api-late', wait=True)"
    program = python(source, wait=False)
    program.stdout.readline()
    time.sleep(0.05)
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=60)
    wait_for(lambda: names() == [box.name])


def test_a_program_keeps_its_signals_umask_folder_and_children(box):
    source = f"""
import os, signal, threading, vmctl
before = os.umask(0o022), os.getcwd(), signal.getsignal(signal.SIGTERM), os.geteuid(), os.listdir("/proc/self/fd")
with vmctl.run("tiny", {SLEEPS}) as inst:
    inst.exec(["true"])
assert threading.active_count() == 1
after = os.umask(0o022), os.getcwd(), signal.getsignal(signal.SIGTERM), os.geteuid(), os.listdir("/proc/self/fd")
assert after[1:4] == before[1:4] and after[0] == 0o022, (before, after)
assert len(after[4]) == len(before[4]) + 1, (before, after)  # the socket of the server
try:
    os.wait()
except ChildProcessError:
    print("no child")
"""
    assert python(source) == "no child\n"


def number_in(path, key):
    with open(path, encoding="ascii") as file:
        return int(re.search(rf"^{key}:\s+(\d+)", file.read(), re.MULTILINE)[1])


def test_a_killed_server_ends_its_requests_and_is_started_again(box):
    running = box.stream(["sh", "-c", "echo runs; exec sleep 1000"])
    assert next(iter(running)).text == "runs"
    at_work = number_in(f"/proc/self/fdinfo/{running._call._pidfd}", "Pid")
    passes_signals_on(at_work)
    os.kill(number_in(f"/proc/{at_work}/status", "PPid"), signal.SIGKILL)
    assert running.result.code == 143  # SIGTERM was passed on to the command
    assert box.exec(["echo", "again"]).out == "again\n"


# Threads, forks, asyncio


def test_threads(box):
    failed = []

    def work(number):
        try:
            for _ in range(2):
                assert box.exec(["echo", str(number)]).out == f"{number}\n"
            with vmctl.run("tiny", SLEEPS, env={"N": number}) as inst:
                assert inst.exec(["sh", "-c", "echo $N"]).out == f"{number}\n"
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert names() == [box.name]


def test_a_program_with_many_open_files(box):
    source = f"""
import os, resource, vmctl
resource.setrlimit(resource.RLIMIT_NOFILE, (3000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(1500)]
with vmctl.run("tiny", {SLEEPS}) as inst:
    print(inst.exec(["cat"], input="x").out, [line.text for line in inst.stream(["echo", "y"])])
"""
    assert python(source) == "x ['y']\n"


def test_a_fork_has_a_server_of_its_own(box):
    source = f"""
import os, vmctl
with vmctl.run("tiny", {SLEEPS}) as inst:
    pid = os.fork()
    if pid == 0:
        code = inst.exec(["sh", "-c", "exit 5"]).code
        vmctl.run("tiny", {SLEEPS}, name="api-of-fork").remove()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), inst.exec(["true"]).code)
"""
    assert python(source) == "5 0\n"


def test_asyncio(box):
    async def main():
        async with vmctl.aio.run("tiny", SLEEPS) as inst:
            assert isinstance(inst, vmctl.aio.Instance)
            done = await asyncio.gather(*(inst.exec(["echo", str(number)]) for number in range(4)))
            assert [one.out for one in done] == ["0\n", "1\n", "2\n", "3\n"]
            async with inst.stream(["sh", "-c", "echo a; echo b >&2"]) as running:
                assert sorted([line.text async for line in running]) == ["a", "b"]
                assert (await running.result()).code == 0
            with pytest.raises(vmctl.CommandFailed):
                await inst.exec(["false"], check=True)
            task = asyncio.create_task(inst.exec(["sleep", "1000"]))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await inst.exec(["sh", "-c", "ps -o args | grep -c '[s]leep 1000'"])).out == "1\n"
            async for line in vmctl.aio.Instance(box).follow(stream="stdout"):
                assert line.text == "started"
                break
            async with inst.snapshot() as snap, snap.clones(2) as clones:
                assert len({one.id for one in clones}) == 2
        task = asyncio.create_task(vmctl.aio.run("tiny", SLEEPS).__aenter__())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert names() == [box.name]


def test_asyncio_has_the_same_names():
    public = {name for name in dir(vmctl.Instance) if not name.startswith("_")} - {"follow_blocks", "key"}
    assert public <= set(dir(vmctl.aio.Instance))
    for name in public:
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (vmctl.aio.Instance, vmctl.Instance))
        assert [*ours.parameters] == [*theirs.parameters], name


# Snapshots, comparison


def test_clones(box):
    with vmctl.run("tiny", SLEEPS) as golden:
        golden.write("/srv/data", "pristine")
        with golden.snapshot() as snap:
            with snap.clones(6, jobs=3) as clones:
                assert len({one.name for one in clones}) == len(clones) == 6
                for number, one in enumerate(clones):
                    one.write("/srv/data", f"of {number}")
                assert [one.read("/srv/data") for one in clones] == [f"of {number}".encode() for number in range(6)]
                with pytest.raises(vmctl.StateError, match="is used by"):
                    snap.remove()
            with snap.clone(name="api-clone") as one:
                assert one.read("/srv/data") == b"pristine"
                with pytest.raises(vmctl.ConflictError):
                    snap.clone(name="api-clone")
            with pytest.raises(vmctl.SpecError):
                snap.clones(0)
        with pytest.raises(vmctl.NoSuchSnapshot):
            snap.clone()
    assert names() == [box.name]


def test_clones_that_are_interrupted_or_fail_leave_nothing(box):
    with vmctl.run("tiny", SLEEPS) as golden, golden.snapshot() as snap:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            snap.clones(60, jobs=3)
        timer.join()
        assert sorted(names()) == sorted([box.name, golden.name])
        with vmctl.run("tiny", SLEEPS, name="api-clone-3"), pytest.raises(vmctl.ConflictError):
            snap.clones(4, name="api-clone")
        assert sorted(names()) == sorted([box.name, golden.name])


def test_a_comparison_shows_itself_and_escapes_what_instances_say(box):
    found = vmctl.compare("tiny", ["sh", "-c", "echo '<script>'; uname -r"], modes=["host", "container"])
    assert found["kernel"]["host"] == found["kernel"]["container"] == os.uname().release
    assert {"ns_pid", "ns_mnt"} <= set(found.different)
    assert "output" in found.same
    page = found._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page in found.html()
    assert page.count("<table>") == page.count("</table>") == 2
    assert all(isinstance(row, Row) and row.fact in FACTS for row in found)
    assert "facts differ" in repr(found)
    with pytest.raises(KeyError):
        found["no such fact"]


# A guest, an ordinary user, the page


def test_a_guest(box):
    how = {"mode": "vm", "options": {"warm": "auto"}}
    with vmctl.run("tiny", ["sh", "-c", "echo up; exec httpd -f -p 80"], ports=[80], env={"A": "b"}, **how) as guest:
        assert guest.wait(port=80, timeout=120) < 120
        done = guest.exec(["sh", "-c", "echo $A; uname -r; cat /proc/sys/kernel/random/boot_id"], check=True)
        value, kernel, boot_id = done.out.splitlines()
        assert value == "b"
        assert kernel != os.uname().release
        assert done.where.boot_id == boot_id != box.exec(["true"]).where.boot_id
        guest.write("/srv/file", b"x" * 100_000)
        assert guest.read("/srv/file") == b"x" * 100_000
        assert guest.exec(["cat"], input="in").out == "in"
        assert guest.logs(stream="stdout") == "up\n"
        assert guest.port(80) > 0
        assert guest.accelerator in ("tcg", "kvm")
        with guest.snapshot() as snap, snap.clones(2, jobs=2, free_ports=True) as clones:
            assert [one.read("/srv/file") for one in clones] == [b"x" * 100_000] * 2
            assert len({guest.address, *(one.address for one in clones)}) == 3
            assert clones[0].port(80) != clones[1].port(80)
        guest.suspend()
        assert guest.status().status == "suspended"
        guest.start()
        assert guest.read("/srv/file") == b"x" * 100_000
        with pytest.raises(vmctl.StateError, match="is running, and not suspended"):
            guest.resume()
        with pytest.raises(vmctl.CommandTimeout):
            guest.exec(["sleep", "1000"], timeout=0.5)
    assert names() == [box.name]


OF_A_USER = rf"""
import os, vmctl
uid = os.geteuid()
with vmctl.run("tiny", {SLEEPS}, ports=[80]) as inst:
    assert inst.exec(["sh", "-c", "cat; id -u"], input="in\n").out == "in\n0\n"
    inst.write("/srv/file", "x")
    assert inst.read("/srv/file") == b"x"
    assert inst.copy(":/srv/file", "copied") == [] and open("copied").read() == "x"
    assert inst.port(80)
    with inst.snapshot() as snap, snap.clones(2) as clones:
        assert [one.read("/srv/file") for one in clones] == [b"x", b"x"]
assert os.geteuid() == uid != 0
print(vmctl.find("of-the-user").logs(), end="")
"""


def test_an_ordinary_user():
    with OrdinaryUser() as user:
        user.give_image()
        user.ok("run", "-d", "--name", "of-the-user", "tiny", "--", "sh", "-c", "echo mine; exec sleep 1000")
        done = user.run(sys.executable, "-c", OF_A_USER, env={"PYTHONPATH": ROOT})
        assert (done.code, done.out) == (0, "mine\n"), done.err
        assert user.ok("ps", "-aq").count("\n") == 1
        user.ok("down", "of-the-user")


def examples():
    with open(os.path.join(ROOT, "docs/python.md"), encoding="utf-8") as file:
        return re.findall(r"^```python\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_page(box, tmp_path):
    found = examples()
    assert len(found) > 5
    source = tmp_path / "example.py"
    source.write_text("\n".join(found))
    done = subprocess.run([sys.executable, source], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert names() == [box.name]


@pytest.mark.long
def test_the_examples_are_typed(tmp_path):
    source = tmp_path / "example.py"
    text = "\n".join(examples()).replace("async def main():", "async def main() -> None:")
    source.write_text(f"{text}\nreveal_type(vmctl.run('tiny').exec(['true']).code)\n")
    words = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, source]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout
    assert re.search(r'Revealed type is "(builtins\.)?int"', done.stdout)
