"""What a container sees and may do: against golden text, against the kernel, and against runc."""

import ctypes
import errno
import json
import os
import subprocess

import pytest
from support.commands import VMCTL, ok, refused, vmctl
from support.golden import compare
from support.images_made import add

from containers import identity, mountplan, seccomp
from images.store import store
from images.store.image import PROVIDED
from vmctl.errors import SpecError
from vmctl.linux import cgroups, syscalls

PROBE = """
echo "# mounts"; cat /proc/self/mountinfo
echo "# status"; cat /proc/self/status
echo "# device"; cd /dev; for f in *; do stat -c '%n %F %a %t:%T' $f; done
echo "# descriptor"; ls /proc/self/fd
echo "# link"; ls /sys/class/net
echo "# whoami"; echo $$; hostname; cat /proc/1/comm; tty
echo "# group"; cat /proc/self/cgroup
empty() { [ -e $1 ] && [ -z "$(ls -A $1 | grep -v ^$1$)" ] && [ -z "$(cat $1)" ]; }
protected() { [ -e $1 ] && ! touch $1 && ! touch $1/x; }
exec 2>/dev/null
echo "# empty"; for f in $MASKED; do empty $f && echo $f; done
echo "# refused"; for f in $READONLY; do protected $f && echo $f; done
echo "# end"
"""


def sections(text):
    """Return the output of PROBE as a mapping: title -> lines."""
    found, title = {}, ""
    for line in text.splitlines():
        if line.startswith("# "):
            title = line[2:]
            found[title] = []
        else:
            found[title].append(line)
    assert title == "end"
    return found


def _environment(masked, read_only):
    return "MASKED=" + " ".join(masked), "READONLY=" + " ".join(read_only)


MASKED = [*(f"/proc/{name}" for name in mountplan.MASKED), "/sys/firmware"]
READ_ONLY = [f"/proc/{name}" for name in mountplan.READ_ONLY]


@pytest.fixture(scope="module")
def ours(guest_root):
    """The output of PROBE in a container of ours."""
    flags = [word for pair in _environment(MASKED, READ_ONLY) for word in ("-e", pair)]
    return sections(ok("run", *flags, "--network", "none", "--name", "box", "tiny", "--", "sh", "-c", PROBE))


def mounts(lines):
    """Return {mount point: (file system, flags)} of mountinfo's lines."""
    found = {}
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        found[fields[4]] = (after.split()[0], frozenset(fields[5].split(",")))
    return found


def capabilities(facts):
    return {line.split()[0]: int(line.split()[1], 16) for line in facts["status"] if line.startswith("Cap")}


def test_mount_plan_on_either_cgroup_version():
    for version in (1, 2):
        steps = [
            mountplan.root(["/layers/base", "/layers/top"], "/i"),
            *mountplan.kernel_file_systems(),
            *mountplan.cgroup_file_systems(version, ["cpu", "memory"]),
            *mountplan.protections(),
        ]
        compare(f"containers/mounts-cgroup-v{version}", "\n".join(map(str, steps)) + "\n")


def test_an_image_of_127_layers_runs(own_root, tmp_path, monkeypatch):
    """As many as docker allows, below a root with a long path."""
    tiny = store.find("tiny")
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / ("long" * 20)))
    trees = []
    for number in range(126):
        trees.append(tmp_path / f"tree{number}")
        (trees[-1] / "many").mkdir(parents=True)
        (trees[-1] / "many" / str(number)).touch()
    add("many", tiny, *trees, cmd=("sh", "-c", "ls /many | wc -l"))
    assert ok("run", "--network", "none", "many") == "126\n"
    assert ok("run", "--network", "none", "--userns", "auto", "many") == "126\n"


def test_nothing_but_the_plan_is_mounted(ours):
    steps = list(mountplan.kernel_file_systems())
    targets = {step.target for step in steps if isinstance(step, mountplan.Mount)}
    targets |= {step.path for step in steps if isinstance(step, mountplan.HostDevice)}
    layout = cgroups.hierarchy()
    targets |= {step.target for step in mountplan.cgroup_file_systems(layout.version, sorted(layout.mounts))}
    covers = {step.path for step in mountplan.protections()}
    found = set(mounts(ours["mounts"]))
    assert targets | {"/"} <= found <= targets | covers | {"/", *PROVIDED}


def test_it_has_the_default_capabilities_and_can_gain_none(ours):
    mask = identity.capability_mask((), ())
    none, full = 0, {"CapPrm:": mask, "CapEff:": mask, "CapBnd:": mask}
    assert capabilities(ours) == {**full, "CapInh:": none, "CapAmb:": none}
    status = dict(line.split(":\t", 1) for line in ours["status"] if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_masked_paths_are_empty(ours):
    assert sorted(ours["empty"]) == sorted(filter(os.path.exists, MASKED))


def test_the_kernels_settings_are_read_only(ours):
    assert sorted(ours["refused"]) == sorted(filter(os.path.exists, READ_ONLY))


def test_devices(ours):
    devices = {line.split()[0]: line.split()[-2:] for line in ours["device"] if "character" in line}
    assert set(devices) == {"null", "zero", "full", "random", "urandom", "tty"}
    assert devices["null"] == ["666", "1:3"]


def test_no_descriptor_of_the_host_is_inside(ours):
    assert set(ours["descriptor"]) == {"0", "1", "2", "3"}  # 3 is the folder that ls reads


def test_inherited_descriptors_stay_outside(own_root, tmp_path):
    """Descriptors of the caller are not passed on either."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    fd = os.open(secret, os.O_RDONLY)
    listing = ok("run", "--network", "none", "tiny", "--", "ls", "/proc/self/fd", pass_fds=[fd])
    os.close(fd)
    assert len(listing.split()) == 4


def test_it_is_process_1_with_a_name_and_no_way_out(ours):
    assert ours["whoami"][:3] == ["1", "box", "sh"]
    assert ours["link"] == ["lo"]


def test_its_cgroup_is_the_root_of_what_it_sees(ours):
    controllers = {line.split(":")[1]: line.split(":")[2] for line in ours["group"]}
    assert all(controllers[name] == "/" for name in cgroups.CONTROLLERS if name in controllers)
    assert not any("vmctl" in path for path in controllers.values())


def test_it_is_in_its_cgroup_and_limited(own_root):
    command = ("sh", "-c", "cat $F")
    layout = cgroups.hierarchy()
    names = {1: ("memory/memory.limit_in_bytes", "pids/pids.max"), 2: ("memory.max", "pids.max")}[layout.version]
    limits = ("-m", "64M", "--pids", "33", "-e", "F=" + " ".join(f"/sys/fs/cgroup/{name}" for name in names))
    assert ok("run", *limits, "tiny", "--", *command).split() == [str(64 << 20), "33"]


def test_capability_masks():
    default = identity.capability_mask((), ())
    assert identity.capability_mask((), ("ALL",)) == 0
    assert identity.capability_mask(("NET_ADMIN",), ("ALL",)) == 1 << 12
    assert identity.capability_mask(("cap_net_admin",), ()) == default | 1 << 12
    assert identity.capability_mask((), ("CAP_CHOWN",)) == default & ~1
    assert identity.capability_mask(("ALL",), ()) == (1 << 41) - 1
    for dangerous in ("SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "MKNOD", "DAC_READ_SEARCH", "NET_ADMIN"):
        assert not default >> identity.CAPABILITIES.index(dangerous) & 1
    with pytest.raises(SpecError, match="there is no capability CAP_FLY"):
        identity.capability_mask(("CAP_FLY",), ())


def test_the_kernels_last_capability_is_known():
    with open("/proc/sys/kernel/cap_last_cap") as file:
        assert len(identity.CAPABILITIES) >= int(file.read()) + 1


def test_users(tmp_path, own_root):
    for flag, expected in (
        ("1000:1001", "uid=1000 gid=1001"),
        ("nobody", "uid=65534(nobody) gid=65534(nogroup)"),
        ("nobody:root", "uid=65534(nobody) gid=0(root)"),
    ):
        assert ok("run", "-u", flag, "--network", "none", "tiny", "--", "id").startswith(expected)
    assert "the user nosuch is not in the image's /etc/passwd" in refused("run", "-u", "nosuch", "tiny", "--", "id")
    assert "the group none is not in the image's /etc/group" in refused("run", "-u", "0:none", "tiny", "--", "id")


def test_another_user_has_no_capabilities(own_root):
    output = ok("run", "-u", "1000", "--network", "none", "tiny", "--", "cat", "/proc/self/status")
    found = capabilities({"status": output.splitlines()})
    assert [found[name] for name in ("CapPrm:", "CapEff:", "CapInh:", "CapAmb:")] == [0] * 4


# The system call filter. Without it, each call below would succeed, or fail with an error other than EPERM.
CALLS = {
    "keyctl": (250, (0, -3, 0)),
    "add_key": (248, (0, 0, 0, 0, 0)),
    "io_uring_setup": (425, (0, 0)),
    "userfaultfd": (323, (-1,)),
    "unshare": (272, (syscalls.CLONE_NEWUSER,)),
    "mount": (165, (0, 0, 0, 0, 0)),
    "fsopen": (430, (0, 0)),
    "setns": (308, (-1, 0)),
    "bpf": (321, (0, 0, 0)),
    "init_module": (175, (0, 0, 0)),
    "perf_event_open": (298, (0, 0, 0, 0, 0)),
    "clone, new user namespace": (56, (syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | 0x200, 0, 0, 0, 0)),
}


def outcomes(program, calls):
    """Return {name: errno, 0 for success} of system calls in a child behind a filter."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        if program:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            syscalls.seccomp_filter(program)
        found = {}
        for name, (number, arguments) in calls.items():
            result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
            found[name] = ctypes.get_errno() if result == -1 else 0
        os.write(write, json.dumps(found).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")
def test_filter_refuses_what_the_kernel_would_do():
    program = seccomp.default_filter(identity.capability_mask((), ()))
    assert set(outcomes(program, CALLS).values()) == {errno.EPERM}
    harmless = {name: call for name, call in CALLS.items() if not name.startswith(("clone", "unshare"))}
    assert errno.EPERM not in outcomes(b"", harmless).values()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")
def test_filter_lets_the_rest_through():
    program = seccomp.default_filter(identity.capability_mask((), ()))
    usual = {"getpid": (39, ()), "socket": (41, (1, 1, 0)), "epoll_create1": (291, (0,)), "memfd_create": (319, (0, 0))}
    found = outcomes(program, {**usual, "no such call": (1000, ()), "clone3": (435, (0, 0)), "x32": (0x40000027, ())})
    assert {found[name] for name in ("getpid", "socket", "epoll_create1")} == {0}
    assert found["memfd_create"] == errno.EFAULT
    assert {found[name] for name in ("no such call", "clone3", "x32")} == {errno.ENOSYS}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")
def test_filter_opens_with_the_capability():
    program = seccomp.default_filter(identity.capability_mask(("SYS_ADMIN",), ()))
    found = outcomes(program, {name: CALLS[name] for name in ("mount", "fsopen", "setns", "keyctl", "init_module")})
    assert found["keyctl"] == found["init_module"] == errno.EPERM
    assert errno.EPERM not in {found["mount"], found["fsopen"], found["setns"]}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")
def test_filter_refuses_by_argument():
    bits = 1 << 40  # the kernel does not read them
    closed = 999_999  # a descriptor that no process has
    calls = {
        "TIOCSTI": (16, (closed, 0x5412, 0)),
        "TIOCSTI and more bits": (16, (closed, 0x5412 | bits, 0)),
        "TIOCLINUX": (16, (closed, 0x541C, 0)),
        "TIOCGWINSZ": (16, (closed, 0x5413, 0)),
        "getpid": (39, (closed, 0x5412, 0)),
        "mount": CALLS["mount"],
    }
    found = outcomes(seccomp.default_filter(identity.capability_mask((), ())), calls)
    assert found.pop("TIOCGWINSZ") == errno.EBADF
    assert found.pop("getpid") == 0
    assert set(found.values()) == {errno.EPERM}
    every = outcomes(seccomp.default_filter(identity.capability_mask(("ALL",), ())), calls)
    assert every["TIOCSTI"] == every["TIOCSTI and more bits"] == errno.EPERM
    assert outcomes(b"", calls)["TIOCSTI"] == errno.EBADF


def test_filter_knows_no_other_machine():
    assert seccomp.default_filter(0, "riscv64") == b""
    assert len(seccomp.default_filter(0, "aarch64")) % 8 == 0


def spec_file(tmp_path, text):
    path = tmp_path / "box.yaml"
    path.write_text(f"name: box\nimage: tiny\nnetwork: none\n{text}")
    return str(path)


def test_unconfined_has_no_filter(own_root, tmp_path):
    path = spec_file(tmp_path, "container: {seccomp: unconfined}\ncommand: [grep, 'Seccomp:', /proc/self/status]")
    ok("up", path)
    assert vmctl("wait", "box").code == 0
    assert ok("logs", "box").split() == ["Seccomp:", "0"]
    ok("down", "box")


def test_programs_of_the_container_see_the_filter(own_root):
    result = vmctl("run", "--network", "none", "tiny", "--", "sh", "-c", "unshare -r true; mount -t tmpfs x /tmp")
    assert result.code != 0
    assert result.err.count("Operation not permitted") + result.err.count("permission denied") >= 2


# Malicious images.


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Return a function that makes an image with links to any target."""
    tiny = store.find("tiny")
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "root"))

    def make(**links):
        tree = tmp_path / "tree"
        tree.mkdir()
        for name, target in links.items():
            (tree / name).symlink_to(target)
        add("hostile", tiny, tree)

    return make


def test_links_of_the_image_lead_into_the_image(hostile, tmp_path):
    """A volume and a file below a link to /etc are in the image's /etc."""
    (tmp_path / "volume").mkdir()
    hostile(data="/etc", up="../../../../../etc")
    path = tmp_path / "box.yaml"
    path.write_text(
        "image: hostile\nnetwork: none\nvolumes: ['./volume:/data/vmctl-test']\n"
        "files: [{path: /up/vmctl-file, content: inside}]\ncommand: [sh, -c, 'ls /etc; cat /etc/vmctl-file']\n"
    )
    ok("up", str(path))
    assert vmctl("wait", "box").code == 0
    output = ok("logs", "box").split()
    assert {"vmctl-test", "vmctl-file", "inside"} <= set(output)
    ok("down", "box")
    assert not os.path.exists("/etc/vmctl-test")
    assert not os.path.exists("/etc/vmctl-file")


@pytest.mark.parametrize("mode", ["container", "host"])
def test_no_link_through_proc_leads_a_volume_or_file_to_the_host(hostile, tmp_path, mode):
    """/proc/self/fd/N leads to the file with that number while the container is set up, such as the host's root."""
    hostile(**{f"fd{number}": f"/proc/self/fd/{number}" for number in range(3, 30)}, root="/proc/1/root")
    (tmp_path / "volume").mkdir()
    for number in ("fd15", "fd16", "fd17", "fd18", "fd19", "root"):
        target = f"/{number}{tmp_path}/escaped"
        result = vmctl(
            "run", "--mode", mode, "--network", "host", "-v", f"{tmp_path}/volume:{target}", "hostile", "--", "true"
        )
        assert os.path.exists(tmp_path / "volume")
        assert not os.path.exists(tmp_path / "escaped"), number
        assert result.code == 125, number


def test_no_link_through_proc_leads_the_working_directory_to_the_host(hostile, tmp_path):
    """CVE-2024-21626 of runc: a working directory /proc/self/fd/N."""
    outside = os.open(tmp_path, os.O_RDONLY)
    hostile(work=f"/proc/self/fd/{outside}")
    try:
        output = refused("run", "--network", "none", "-w", "/work", "hostile", "--", "ls", "..", pass_fds=[outside])
    finally:
        os.close(outside)
    assert "/work leads out of the image" in output


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
def test_folders_that_get_mounts_are_no_links(tmp_path, hostile, name):
    hostile(**{name: "/tmp"})
    assert f"/{name} in the image is a symbolic link" in refused("run", "--network", "none", "hostile", "--", "true")


# runc as the oracle: same root file system, same command.


@pytest.fixture(scope="module")
def theirs(guest_root, tmp_path_factory):
    """The output of PROBE under runc with runc's default configuration, and that configuration."""
    bundle = tmp_path_factory.mktemp("bundle")
    (bundle / "rootfs").mkdir()
    pack = [VMCTL, "run", "--network", "none", "tiny", "--", "tar", "-c", "-C", "/", "bin", "sbin", "usr", "etc", "tmp"]
    archive = subprocess.run(pack, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=bundle / "rootfs", input=archive, check=True)
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["root"]["readonly"] = False
    names = [f"CAP_{name}" for name in identity.DEFAULT]
    config["process"].update(
        terminal=False,
        args=["sh", "-c", PROBE],
        env=["PATH=/bin:/sbin", *_environment(config["linux"]["maskedPaths"], config["linux"]["readonlyPaths"])],
        capabilities=dict.fromkeys(("bounding", "effective", "permitted"), names),
    )
    (bundle / "config.json").write_text(json.dumps(config))
    result = subprocess.run(["runc", "run", f"vmctl-oracle-{os.getpid()}"], cwd=bundle, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return sections(result.stdout)


def test_every_mount_of_runc_is_here_with_flags_as_strict(ours, theirs):
    here, there = mounts(ours["mounts"]), mounts(theirs["mounts"])
    missing = {path for path in there if path not in here}
    # controllers that vmctl does not use
    assert all(path.startswith("/sys/fs/cgroup/") for path in missing), missing
    strict = {"ro", "nosuid", "nodev", "noexec"}
    for path in set(here) & set(there) - {"/"}:
        # a file is covered by /dev/null, which is the host's here, and a node on a tmpfs there
        assert here[path][0] == there[path][0] or {here[path][0], there[path][0]} == {"tmpfs", "devtmpfs"}, path
        assert here[path][1] & strict >= there[path][1] & strict, path


def test_mounts_that_runc_does_not_have(ours, theirs):
    more = set(mounts(ours["mounts"])) - set(mounts(theirs["mounts"]))
    # newer than runc's defaults: the timing of interrupts reveals keystrokes, the energy use reveals keys
    more -= {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")}  # mounts, not nodes
    more -= set(PROVIDED)  # the caller of runc, such as docker, does that
    assert more <= {"/proc/interrupts", "/sys/devices/virtual/powercap", "/proc/sysrq-trigger", "/sys/fs/cgroup"}


def test_what_runc_hides_or_protects_is_hidden_or_protected(ours, theirs):
    assert set(theirs["empty"]) <= set(ours["empty"])
    assert set(theirs["refused"]) <= set(ours["refused"])


def test_same_capabilities_as_runc_gives(ours, theirs):
    assert capabilities(ours) == capabilities(theirs)


def test_same_devices_as_runc(ours, theirs):
    assert sorted(ours["device"]) == sorted(theirs["device"])


def test_same_descriptors_and_links_as_runc(ours, theirs):
    assert ours["descriptor"] == theirs["descriptor"]
    assert ours["link"] == theirs["link"]
