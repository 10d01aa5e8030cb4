"""The trace: what it contains, that it can be pasted, and that nothing else is changed by it."""

import json
import os
import re
import shutil
import stat
import subprocess

import pytest
from support.commands import free_port, inspect, ok, refused, vmctl

from vmctl import backends
from vmctl.linux import commands, netlink, syscalls, taps
from vmctl.net import bridge, guard
from vmctl.programs import run

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
MODES = sorted(backends.modes())
LIGHT = [mode for mode in MODES if not backends.load(mode).features.own_kernel]
TIME = re.compile(r"# (?P<time>[+-]\d+\.\d{6}) s, process (?P<process>\d+)(?P<note>: .*)?")


def bash(script, *options):
    """Run a script by bash and return its output."""
    done = subprocess.run(["bash", *options], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), script
    return done.stdout


def steps(text):
    """Return the commands of a trace, after a check that every line has a time."""
    assert text.endswith("\n")
    for line in text.splitlines():
        assert TIME.search(line), line
    return [line for line in text.splitlines() if not line.startswith("#")]


def typed(text):
    """Return the commands of a trace without their comments."""
    return [TIME.sub("", line).strip() for line in steps(text)]


def is_there(program):
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or bash(f"type -t {program}")


def check_pasteable(text):
    """Fail unless each line is one for a shell, and begins with a program that exists."""
    bash(text, "-n")
    for line in typed(text):
        bash(line, "-n")
        words = line.split()
        programs = [words[0], *words[2:3]] if line.startswith("nsenter --net=") else [words[0]]  # in the switch
        assert all(map(is_there, programs)), line


def moments(text, process):
    return [float(found["time"]) for found in TIME.finditer(text) if found["process"] == process]


@pytest.fixture
def trace(tmp_path):
    """The path of a trace, which is read by `open(trace)`."""
    return tmp_path / "trace"


def workload(tmp_path, **keys):
    """Return the file of a workload `box` that sleeps."""
    path = tmp_path / "box.json"
    path.write_text(
        json.dumps({"name": "box", "image": "tiny", "command": ["sleep", "1000"], "network": "none", **keys})
    )
    return str(path)


@needs_root
def test_a_container_s_start_step_by_step(own_root, trace):
    ok("--trace", trace, "run", "--userns", "host", "--name", "box", "tiny", "--", "echo", "it's")
    text = trace.read_text()
    check_pasteable(text)
    expected = [
        r"# .*: vmctl run --userns host --name box tiny -- echo 'it'\\''s'",
        r"mount -t erofs -o ro,nosuid,nodev .*\.erofs .*",
        r"mkdir -p .*/instances/box/upper",
        r"ip link add vmctl0 .* type bridge .*",
        r"mkdir -p /sys/fs/cgroup.*/box\..*",
        r"# .*: mark T0",
        r"unshare --mount --pid --net --ipc --uts --cgroup --fork bash",
        r"mount --make-rprivate /",
        r"mount -t overlay -o nosuid,nodev,lowerdir=.* overlay .*/instances/box/rootfs",
        r"cd .*/instances/box/rootfs",
        r"pivot_root \. \. && hash -r",
        r"mount -t proc -o nosuid,nodev,noexec proc /proc",
        r"mount --bind dev/null /dev/null",
        r"umount -l \.",
        r"hostname box",
        r"ip address add 10\.77\.0\.2/16 dev if\d+",
        r"cd / && exec setpriv --reuid=0 .*--bounding-set=-all,\+chown.* env -i .* echo 'it'\\''s'",
        r"umount -l .*/net/switch",
        r"# .*: mark T9",
    ]
    lines = iter(text.splitlines())
    for pattern in expected:
        assert any(re.match(rf"{pattern}(  #.*)?$", line) for line in lines), pattern
    assert re.search(
        r"nsenter --net=.*/switch ip link add vm\w{8} index \d+ mtu 65520 up master if77 type veth peer name eth0", text
    )


@needs_root
def test_the_host_s_mode_enters_its_root_otherwise(own_root, trace):
    ok("--trace", trace, "run", "--mode", "host", "tiny", "--", "true")
    text = trace.read_text()
    check_pasteable(text)
    assert "chroot ." in typed(text)
    assert "pivot_root" not in text
    assert "without new namespaces" in text


def test_a_guest_s_start(guest_root, trace):
    ok("--trace", trace, "run", "--mode", "vm", "--name", "guest", "tiny", "--", "true")
    text = trace.read_text()
    check_pasteable(text)
    lines = typed(text)
    assert any(re.fullmatch(r"mke2fs .*/guest/disk\.img\.new", line) for line in lines)
    assert any(re.fullmatch(r"nsenter --net=\S+ ip tuntap add vm\w{8} mode tap vnet_hdr", line) for line in lines)
    assert any(re.fullmatch(r"nsenter \S+ virsh --connect '?qemu:\S+ create \S+/domain\.xml", line) for line in lines)
    (qemu,) = [line for line in lines if line.startswith("/") and "qemu-system" in line]
    assert "-name guest=guest" in qemu
    assert [mark for mark in ("T0", "T1", "T4", "T9") if f": mark {mark}\n" not in text] == []


@needs_root
def test_times_pass_and_processes_are_told_apart(own_root, trace):
    ok("--trace", trace, "run", "tiny", "--", "true")
    text = "".join(line for line in trace.read_text().splitlines(keepends=True) if ": mark " not in line)
    command = TIME.search(text)["process"]
    assert moments(text, command) == sorted(moments(text, command))
    assert 0 <= moments(text, command)[0] < 1
    assert moments(text, "1") == sorted(moments(text, "1"))  # the container's first process
    assert len(moments(text, "1")) > 20


@needs_root
def test_a_pasted_start_makes_the_same_mounts(own_root, trace, tmp_path):
    ok("--trace", trace, "up", workload(tmp_path, container={"userns": "host"}))
    try:
        inside = re.compile(r"^((?!echo|#|cd / ).*# .* process 1\b.*)$", re.MULTILINE)
        script = "\n".join(line for line in inside.findall(trace.read_text()))
        kinds = "--mount --pid --net --ipc --uts --cgroup --fork"
        assert f"unshare {kinds} bash" in typed(trace.read_text())
        pasted = run(["unshare", *kinds.split(), "bash"], stdin=f"{script}\ncat /proc/self/mountinfo\n".encode())[1]
        with open(f"/proc/{inspect('box')['pid']}/mountinfo", encoding="utf-8") as file:
            assert mounts(pasted) == mounts(file.read())
        assert len(mounts(pasted)) > 10
    finally:
        ok("rm", "-f", "box")


def mounts(mountinfo):
    """Return type, mount point and flags of each mount, and the folder that it shows, but for cgroups."""
    found = []
    for line in mountinfo.splitlines():
        _, _, _, root, point, flags, *_ = words = line.split()
        kind = words[words.index("-") + 1]
        found.append((kind, point, flags, "" if kind.startswith("cgroup") else root))
    return found


@needs_root
@pytest.mark.parametrize("mode", LIGHT)
def test_a_pasted_exec_is_in_the_same_root(own_root, trace, tmp_path, mode):
    ok("up", "--mode", mode, workload(tmp_path, network="host"))
    try:
        ok("--trace", trace, "exec", "box", "--", "true")
        (enter,) = [line for line in typed(trace.read_text()) if line.startswith("nsenter")]
        check_pasteable(trace.read_text())
        question = "ls -di /; readlink /proc/self/ns/mnt; readlink /proc/self/ns/pid"
        assert run(enter.split(), stdin=question.encode())[1] == ok("exec", "box", "--", "sh", "-c", question)
    finally:
        ok("rm", "-f", "box")


@needs_root
def test_pasted_network_requests_do_the_same():
    """Each request by netlink in one namespace, and its command in another."""
    mac = "52:54:00:4d:00:02"

    def requests(pid):
        return [
            netlink.set_up("lo"),
            netlink.new_bridge("vmctl0", 77, "52:54:00:4d:00:01"),
            netlink.new_address(77, "10.77.0.1", 16),
            netlink.new_veth("veth0", 80, 77, "eth0", mac, pid),
            *netlink.tie_port("veth0", 80, mac),
            netlink.new_neighbour(77, "10.77.0.2", mac),
            netlink.default_route(77, "10.77.0.9"),
            netlink.new_neighbour(77, "10.77.0.3", mac),
            netlink.delete_neighbour(77, "10.77.0.3"),
            netlink.new_bridge("other", 78, mac),
            netlink.delete_link("other"),
            netlink.new_bridge("another", 79, mac),
            netlink.delete_link_number(79),
        ]

    def filters():
        added = [guard.admit(f"vm0000000{number}", mac, f"10.77.0.{number}") for number in (2, 3)]
        hidden = [guard.hide_ssh("10.77.0.2"), guard.hide_ssh("10.77.0.3")]
        removed = [guard.dismiss("vm00000003", mac, "10.77.0.3"), guard.show_ssh("10.77.0.3")]
        return [*guard.table(), *added, *hidden, *removed]

    def by_netlink(pid):
        netlink.apply(*requests(pid))
        taps.new_tap("tap0", 2)  # the next one: `ip tuntap` takes no index
        netlink.apply(netlink.set_up("tap0", 77, bridge.DEFAULT.mtu))
        netlink.Connection(netlink.NETLINK_NETFILTER).apply(*filters())

    def by_hand(pid):
        tap = bridge.DEFAULT.tap_command(bridge.DEFAULT.preview(Peer)._replace(device="tap0"))
        bash("\n".join([*(request.command for request in (*requests(pid), *filters())), tap]))

    assert in_a_namespace(by_netlink) == in_a_namespace(by_hand)


class Peer:
    name, id, directory = "peer", "0", ""


def in_a_namespace(act):
    """Return what `ip` shows of a new network namespace and of a peer's, after `act` has been called in the first."""
    peer = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
    read, write = os.pipe()
    peer.stdout.readline()
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            act(peer.pid)
            views = [["ip", "-o", "-d", "link"], ["ip", "-o", "address"], ["ip", "route"], ["ip", "neigh"]]
            views += [["nsenter", "-t", str(peer.pid), "-n", "ip", "-o", "link"]]
            views += [["bridge", "fdb", "show", "dynamic"], ["bridge", "-d", "link", "show", "dev", "veth0"]]
            views += [["nft", "list", "ruleset"]]
            os.write(write, "".join(run(view)[1] for view in views).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    peer.kill()
    peer.wait()
    peer.stdout.close()
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    # addresses that the kernel makes up, timers and states that are on their way
    text = re.sub(
        r"(?<!52:)\b(?!52:54|00:00|ff:ff)([0-9a-f]{2}:){5}[0-9a-f]{2}|[0-9a-f]{4}\.[0-9a-f:]{17}", "MAC", text
    )
    text = re.sub(r"(timer|_timer) +[\d.]+|state \w+|<[A-Z0-9,_-]*>|linkdown|inet6 .*\n", "", text)
    assert "vmctl0" in text
    return [line.split() for line in text.splitlines()]


@needs_root
@pytest.mark.parametrize("mode", LIGHT)
def test_the_workload_inherits_nothing_of_it(own_root, trace, mode):
    words = ("run", "--mode", mode, "tiny", "--", "sh", "-c", "exec ls /proc/self/fd")
    assert ok("--trace", trace, *words) == ok(*words)
    assert vmctl("--trace", "-", *words).out == ok(*words)


@needs_root
def test_the_standard_error_is_free_when_the_command_has_ended(own_root, tmp_path):
    """Who reads it to its end does not wait for the supervisor, the forwarder or the workload."""
    try:
        published = workload(tmp_path, network="bridge", ports=[f"{free_port()}:80"])
        result = vmctl("--trace", "-", "up", published, timeout_s=60)
        assert (result.code, result.out) == (0, "box\n")
        assert "becomes the supervisor" in result.err
        assert "forwarder" in result.err
    finally:
        ok("rm", "-f", "box")


@needs_root
def test_the_variable_does_the_same_as_the_flag_which_wins(own_root, trace, tmp_path):
    variable = {**os.environ, "VMCTL_TRACE": str(tmp_path / "other")}
    ok("run", "tiny", "--", "true", env=variable)
    assert "pivot_root" in (tmp_path / "other").read_text()
    os.unlink(tmp_path / "other")
    ok("--debug", "--trace", trace, "ps", env=variable)
    assert trace.read_text().endswith(": vmctl ps\n")
    assert not (tmp_path / "other").exists()


def test_a_trace_is_the_user_s_alone_and_is_appended_to(own_root, trace):
    ok("--trace", trace, "ps")
    ok("--trace", trace, "ps", "-a")
    assert stat.S_IMODE(os.stat(trace).st_mode) == 0o600
    assert [line.rpartition(": ")[2] for line in trace.read_text().splitlines()] == ["vmctl ps", "vmctl ps -a"]


def test_a_program_that_is_run_is_in_it_with_its_end(own_root, trace, monkeypatch):
    monkeypatch.setenv("KEPT", "as it is")
    code = (
        "from vmctl import programs, trace; import os; trace.start(os.sys.argv[1], []); "
        "programs.run(['sh', '-c', 'exit 3'], check=False, env={**os.environ, 'NEW': 'a b'}, cwd='/', stdin=b'in\\n')"
    )
    run([shutil.which("python3"), "-c", code, str(trace)])
    _, command, end = trace.read_text().splitlines()
    path = shutil.which("sh")
    assert TIME.sub("", command).strip() == f"env 'NEW=a b' env -C / {path} -c 'exit 3' <<< $'in\\x0a'"
    assert end.endswith(": env ended with code 3")


@pytest.mark.parametrize("path", ["", "nowhere/trace"])
def test_a_trace_that_cannot_be_written_is_an_error_before_anything_starts(own_root, tmp_path, path):
    output = refused("--trace", tmp_path / path, "run", "--name", "box", "tiny", "--", "true", code=125)
    assert f"the trace cannot be written to {tmp_path / path}" in output.replace("//", "/")
    assert ok("ps", "-aq") == ""


def test_the_flag_needs_a_file(own_root):
    result = vmctl("--trace")
    assert (result.code, result.out) == (125, "")
    assert "--trace FILE" in result.err


@needs_root
def test_a_full_disk_stops_no_start(own_root):
    assert ok("--trace", "/dev/full", "run", "tiny", "--", "echo", "hello") == "hello\n"


@pytest.mark.parametrize(
    "word", ["plain", "", "a b", "it's", "a\nb\t'\\x", '$HOME `id` "*"', "é", "~", "!x", "#", "a=b"]
)
def test_bash_reads_a_quoted_word_as_it_was(word):
    quoted = commands.quote(word)
    assert "\n" not in quoted
    assert bash(f"printf %s {quoted}") == word
