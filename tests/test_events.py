"""Waiting without polling: each kind of event wakes the waiter, and nothing else does."""

import errno
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager

import pytest

from vmctl import backends, engine
from vmctl.linux import syscalls
from vmctl.linux.cgroups import Cgroup, Limits
from vmctl.linux.events import Events
from vmctl.linux.listening import Listening
from vmctl.spec.workload import HttpProbe, Ready, Workload

QUIET_S = 1.0
LONG_S, SHORT_S = 20.0, 0.05


@pytest.fixture
def eventfd():
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


@pytest.fixture
def group():
    name = f"events-test-{os.getpid()}"
    cgroup = Cgroup(name)
    cgroup.create(Limits())
    yield name
    cgroup.remove()


@pytest.fixture
def process():
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_eventfd_wakes_after_each_write_also_after_one_before_the_wait(eventfd):
    os.eventfd_write(eventfd, 1)
    with Events((eventfd,), (), ()) as events:
        assert events.wait(LONG_S)
        assert not events.wait(SHORT_S)
        os.eventfd_write(eventfd, 1)
        os.eventfd_write(eventfd, 1)
        assert events.wait(LONG_S)
        assert not events.wait(SHORT_S)
    os.eventfd_write(eventfd, 1)  # it is still open


def test_a_descriptor_that_is_not_drained_wakes_once_and_keeps_its_data():
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as source, open(writing, "wb", buffering=0) as target:
        with Events((), (reading,), ()) as events:
            target.write(b"one")
            assert events.wait(LONG_S)
            assert not events.wait(SHORT_S)
        assert source.read(10) == b"one"


def test_the_end_of_a_process_wakes_once(process):
    with Events((), (), (None, process.pid)) as events:
        assert not events.wait(SHORT_S)
        assert not events.ended
        process.kill()
        assert events.wait(LONG_S)
        assert events.ended
        assert not events.wait(SHORT_S)


def test_a_process_that_has_ended_before_does_not_wake(process):
    process.kill()
    process.wait()
    with Events((), (), (process.pid,)) as events:
        assert events.ended
        assert not events.wait(SHORT_S)


def test_each_change_in_a_folder_wakes(tmp_path):
    path = tmp_path / "log"
    with Events((), (), (), folder=str(tmp_path)) as events:
        assert not events.wait(SHORT_S)
        path.write_text("one")
        assert events.wait(LONG_S)
        assert not events.wait(SHORT_S)
        with open(path, "a", encoding="ascii") as file:
            file.write("two")
        assert events.wait(LONG_S)
        path.read_text()
        assert not events.wait(SHORT_S)


def take_every_watch(stack):
    """Create as many inotify instances as the kernel allows this user."""
    while True:
        stack.callback(os.close, syscalls.inotify_init())


def test_if_no_watch_is_available_it_wakes_every_millisecond(tmp_path):
    with ExitStack() as stack:
        with pytest.raises(OSError, match="inotify_init1") as caught:
            take_every_watch(stack)
        assert caught.value.errno == errno.EMFILE
        with Events((), (), (), folder=str(tmp_path)) as events:
            assert all(events.wait(LONG_S) for _ in range(10))


def test_no_descriptor_stays_open(tmp_path, eventfd, process):
    before = sorted(os.listdir("/proc/self/fd"))
    with Events((eventfd,), (), (process.pid,), folder=str(tmp_path)):
        assert len(os.listdir("/proc/self/fd")) == len(before) + 2
    assert sorted(os.listdir("/proc/self/fd")) == before


def listens(group, port):
    """Run a process in the group that listens on a TCP port and exits."""
    code = f"import socket; socket.create_server(('127.0.0.1', {port}))"
    done = subprocess.run([sys.executable, "-c", code], preexec_fn=lambda: Cgroup(group).join(), check=False)
    assert done.returncode == 0


def test_a_server_that_listens_on_the_port_wakes(group):
    port, other = free_port(), free_port()
    with Listening(group, port) as listening, Events((), (listening.fd,), ()) as events:
        assert not events.wait(SHORT_S)
        listens(group, other)
        assert not events.wait(SHORT_S)
        listens(group, port)
        assert events.wait(LONG_S)


def test_the_bpf_program_is_removed_with_its_descriptors(group):
    before = sorted(os.listdir("/proc/self/fd"))
    with closing(Listening(group, 80)) as listening:
        assert len(os.listdir("/proc/self/fd")) == len(before) + 3
        listening.close()
        assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_group_that_does_not_exist_is_refused_on_v2():
    before = sorted(os.listdir("/proc/self/fd"))
    if Cgroup("none").layout.version == 2:
        with pytest.raises(FileNotFoundError):
            Listening("none", 80)
    else:  # on v1 the program is attached to the root of v2
        Listening("none", 80).close()
    assert sorted(os.listdir("/proc/self/fd")) == before


@contextmanager
def started(work, mode):
    with engine.running(work, backends.load(mode)) as start:
        yield start.inst


def late(how):
    """Return a workload that becomes ready after QUIET_S, with the probe `how`."""
    port = free_port()
    probes = {"http": Ready(http=HttpProbe(port, "/passwd")), "tcp": Ready(tcp=port), "log": Ready(log="^now")}
    script = f"sleep {QUIET_S}; echo now; exec httpd -f -p {port} -h /etc"
    return Workload(name=f"late-{how}", image="tiny", command=("sh", "-c", script), ready=probes[how])


@pytest.mark.parametrize("mode", ["container", "host"])
@pytest.mark.parametrize("how", ["http", "tcp", "log"])
def test_waiting_for_a_workload_on_this_kernel_does_not_poll(own_root, mode, how):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    with started(late(how), mode) as inst:
        took_s = inst.timeline.between_s("T0", "T6")
        slept = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
    assert took_s >= QUIET_S
    assert slept < QUIET_S * 1000 / 4  # polling every millisecond would sleep more than a thousand times


REFUSE_BPF = b"".join(
    struct.pack("<HBBI", *instruction)  # seccomp(2), struct sock_filter
    for instruction in (
        (0x20, 0, 0, 0),  # load the call's number
        (0x15, 0, 1, syscalls._SYS_BPF),
        (0x06, 0, 0, 0x00050000 | errno.EPERM),
        (0x06, 0, 0, 0x7FFF0000),
    )
)


@pytest.mark.parametrize("mode", ["container", "host"])
def test_if_bpf_is_forbidden_the_port_is_polled(own_root, mode):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            syscalls.seccomp_filter(REFUSE_BPF)
            with pytest.raises(PermissionError):
                syscalls.bpf_ring(os.sysconf("SC_PAGE_SIZE"))
            with started(late("http"), mode) as inst:
                code = 0 if inst.timeline.between_s("T0", "T6") >= QUIET_S else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_end_of_a_workload_is_noticed_at_once_while_waiting(own_root):
    begun_s = time.monotonic()
    work = late("http")._replace(command=("sh", "-c", "sleep 0.3; exit 7"))
    with pytest.raises(engine.VmctlError, match="ended with code 7"), started(work, "container"):
        pass
    assert time.monotonic() - begun_s < work.ready.timeout_s
