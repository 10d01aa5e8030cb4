"""The probe program against independent sources: the kernel's accounting, a sleep of a known length."""

import os
import subprocess
import time

import pytest
from support.commands import ok, vmctl
from support.probes import started

from bench.probes import Request, command, cpu, lines, syscall, tool
from vmctl import backends
from vmctl.errors import DeadlineError, UnavailableError, VmctlError
from vmctl.instances import instance
from vmctl.spec.workload import File, Port, Ready, Workload

MODES = sorted(backends.modes())
QUICK = [mode for mode in MODES if not backends.load(mode).features.own_kernel]
EACH_QUICK_MODE = pytest.mark.parametrize("mode", QUICK)
TINY = Workload(name="tool", image="tiny")
PAUSES_S = 0.22  # the program's own pauses: before its first work, and before each work


def direct(*words):
    """Run the program as a child process; return its output and its resource usage."""
    with subprocess.Popen([tool.program(), *words], stdout=subprocess.PIPE, text=True) as child:
        said = child.stdout.read().splitlines()
        _, status, taken = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, said, taken


def processes_made():
    with open("/proc/stat", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("processes "))


def followed(mode, script, until="done", timeout_s=120.0):
    """Return the output of a shell script in an instance."""
    work = TINY._replace(name=f"tool-{os.urandom(3).hex()}", command=("sh", "-c", script))
    with started(work, mode) as start:
        return lines.follow(start.watch, until, timeout_s)


def test_the_program_needs_no_library(tmp_path):
    """The program works in an otherwise empty root directory."""
    (tmp_path / "root").mkdir()
    ok_code = subprocess.run(["cp", tool.program(), tmp_path / "root/probe"], check=False).returncode
    done = subprocess.run(
        ["chroot", tmp_path / "root", "/probe", "work", "integer:10", "open_close:3", "spawn:3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ok_code, done.returncode) == (0, 0), done
    assert [line for line in done.stdout.splitlines() if not line.startswith("pinned")] == [
        *("begin integer", "end integer 10", "begin open_close", "end open_close 3", "begin spawn", "end spawn 3"),
        "done",
    ]


def test_four_times_the_work_is_four_times_the_processor():
    few_s, many_s = (
        min(direct("work", f"integer:{count}")[2].ru_utime for _ in range(3)) for count in (100_000_000, 400_000_000)
    )
    assert 2.5 < many_s / few_s < 6  # a shared processor is not always as fast


def test_as_many_pages_are_touched_as_it_reports():
    few, many = (direct("work", f"fault:{count}")[2].ru_minflt for count in (10, 50_010))
    assert abs(many - few - 50_000) < 50  # the program's own pages vary by some


@pytest.mark.alone
def test_as_many_processes_are_made_as_it_reports():
    """Other processes may add to the count, never reduce it; the least of several tries is the program's."""
    made = []
    for _ in range(5):
        before = processes_made()
        assert direct("work", "spawn:200")[0] == 0
        made.append(processes_made() - before)
    assert 201 <= min(made) < 300


def test_it_stays_on_the_highest_processor_it_may_use():
    assert direct("work")[1][0] == f"pinned {max(os.sched_getaffinity(0))}"


def test_what_it_does_not_know_is_an_error():
    assert direct("work", "nonsense:3")[0] == 2
    assert direct("work", "integer:many")[0] == 2
    assert direct("nonsense")[0] == 2


@EACH_QUICK_MODE
def test_the_time_of_work_is_bounded_by_the_kernels_accounting(own_root, mode):
    """At least the processor time that it used, at most the time from its begin to its end without pauses."""
    program = f"{tool.PATH} work integer:800000000"
    script = f"read begin _ </proc/uptime; {program}; read end _ </proc/uptime; times; echo over $begin $end"
    work = tool.with_program(TINY)._replace(command=("sh", "-c", script))
    below_s, above_s = [], []
    for _ in range(3):
        with started(work, mode) as start:
            found = lines.follow(start.watch, "over", 60.0)
        span_s = lines.spans(found)["integer"].seconds
        minutes, _, seconds = found[-2][1].split()[0].removesuffix("s").partition("m")
        below_s.append(span_s - (int(minutes) * 60 + float(seconds)))  # processor time of the shell's children
        begin_s, end_s = map(float, found[-1][1].split()[1:])
        above_s.append(end_s - begin_s - PAUSES_S - span_s)
    assert sorted(below_s)[1] > -0.05, below_s
    assert sorted(above_s)[1] > -0.05, above_s


@EACH_QUICK_MODE
def test_a_sleep_of_300_ms_is_seen_as_such(own_root, mode):
    script = "sleep 0.2; for n in 1 2 3 4 5; do echo begin $n; sleep 0.3; echo end $n 7; sleep 0.05; done; echo done"
    naps = lines.spans(followed(mode, script)).values()
    assert [nap.times for nap in naps] == [7] * 5
    assert 0.29 < sorted(nap.seconds for nap in naps)[2] < 0.6


def test_lines_come_whole_and_in_order(own_root):
    script = "printf 'one\\ntw'; sleep 0.05; printf 'o\\n'; for i in 1 2 3 4 5; do echo $i; done; printf 'done\\nrest'"
    found = followed("container", script)
    assert [line for _, line in found] == ["one", "two", "1", "2", "3", "4", "5", "done"]
    assert [at_ns for at_ns, _ in found] == sorted(at_ns for at_ns, _ in found)
    assert found[-1][0] <= time.monotonic_ns()


@EACH_QUICK_MODE
def test_a_workload_that_ends_before_its_last_line(own_root, mode):
    with pytest.raises(VmctlError, match=r"ended with code 3 .workload. before it wrote 'done'") as caught:
        followed(mode, "echo begin work; echo what a pity >&2; exit 3")
    assert "what a pity" in caught.value.detail
    assert instance.names() == []


def test_the_last_line_of_a_workload_that_ends_counts(own_root):
    for _ in range(5):
        assert followed("container", "echo done")[-1][1] == "done"


def test_a_silent_workload(own_root):
    with pytest.raises(DeadlineError, match=r"did not write 'done' within 0.3 s"):
        followed("container", "sleep 1000", timeout_s=0.3)
    assert instance.names() == []


def test_an_image_with_files_added(own_root, tmp_path):
    (tmp_path / "first").write_bytes(b"one\0\xff")
    (tmp_path / "first").chmod(0o751)
    (tmp_path / "second").write_text("two")
    files = {"/opt/a b/first": str(tmp_path / "first"), "/second": str(tmp_path / "second")}
    name = tool.derive("tiny", files)
    assert tool.derive("tiny", files) == name
    script = "stat -c '%a %s' '/opt/a b/first'; cat /second; test -x /bin/sh"
    assert ok("run", "--mode", "container", name, "--", "sh", "-c", script) == "751 5\ntwo"
    (tmp_path / "second").write_text("twO")
    other = tool.derive("tiny", files)
    assert other != name
    listed = ok("image", "ls")
    assert all(image.rpartition(":")[2] in listed for image in (name, other))
    ok("image", "rm", name, other)


def test_an_image_that_is_not_there(own_root):
    with pytest.raises(
        VmctlError, match=r"the probe program cannot be added to the image absent: .*there is no image absent"
    ):
        tool.with_program(TINY._replace(image="absent"))


def test_no_compiler(empty_root, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="cc is not installed") as caught:
        tool.program()
    assert "libc6-dev" in caught.value.hint


def test_no_static_library(empty_root, monkeypatch, tmp_path):
    (tmp_path / "cc").write_text("#!/bin/sh\necho '/usr/bin/ld: cannot find -lc' >&2; exit 1\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UnavailableError, match="cannot be compiled") as caught:
        tool.program()
    assert "cannot find -lc" in caught.value.detail


def test_what_only_the_own_command_needs_is_left_out(own_root):
    whole = TINY._replace(
        command=("httpd",),
        files=(File("/etc/x"),),
        ports=(Port("127.0.0.1", 8080, 80),),
        ready=Ready(tcp=80),
        user="nobody",
        workdir="/srv",
        env={"A": "b"},
    )
    found = tool.with_program(whole)
    assert (found.files, found.ports, found.ready, found.user, found.workdir) == ((), (), None, "0", "/")
    assert (found.env, found.resources) == (whole.env, whole.resources)


@EACH_QUICK_MODE
def test_each_question_gets_an_answer(own_root, mode):
    for probe in (cpu, syscall):
        seen = probe.observe(Request(probe.prepare(TINY), "tool-sample", mode))
        assert set(seen.values) == {question.key.partition(".")[2] for question in probe.QUESTIONS}
        assert all(seconds > 0 for seconds in seen.values.values())
        assert seen.texts["processor"].isdigit()
        assert instance.names() == []


@pytest.mark.parametrize("mode", MODES)
def test_a_command_in_a_running_instance(guest_root, mode):
    seen = command.observe(Request(command.prepare(TINY), "tool-exec", mode))
    assert len(seen.series["command_s"]) == command.TIMES
    assert all(0 < seconds < 60 for seconds in seen.series["command_s"])
    assert vmctl("inspect", "tool-exec").code != 0


def test_a_guest_answers_too(guest_root):
    """One boot: the host observes the program in a guest."""
    counts = {"integer": 20_000_000, "getppid": 50_000, "open_close": 2_000, "spawn": 10, "fault": 5_000}
    mode = next(mode for mode in MODES if backends.load(mode).features.own_kernel)
    spans, seen = tool.worked(Request(tool.working(TINY, counts), "tool-guest", mode))
    assert {name: span.times for name, span in spans.items()} == counts
    assert all(span.seconds > 0 for span in spans.values())
    assert seen.texts["accelerator"] in ("tcg", "kvm")
    assert vmctl("inspect", "tool-guest").code != 0
