"""Container mode on another kind of host: a guest with Debian's kernel, cgroup v2 alone, and EROFS by loop device only.

The machine at hand has one kernel and one cgroup layout. A Debian with Python, booted under TCG with nothing of this
host but the source and the image store, is the other one.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from images.kernels import initrd, kernel
from images.store import store
from vmctl.programs import run

ROOT = Path(__file__).parent.parent
PACKAGES = "python3,kmod,mount,tini,procps"
pytestmark = pytest.mark.timeout(1200)  # the first test waits for the packages and the guest
MODULES = ("virtio_pci", "virtio_blk", "loop", "erofs", "overlay", "bridge", "veth", "nf_tables", "nft_meta_bridge")

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /host
/bin/busybox mount -t proc proc /proc
mount -t devtmpfs dev /dev
while read -r module; do insmod "$module"; done </lib/modules/vmctl.order
until [ -e /dev/vda ]; do sleep 0.1; done
mount -t ext4 /dev/vda /host
exec /bin/busybox switch_root /host /opt/commands
"""

# One line per command: its name, its code, its output with / for line ends.
COMMANDS = r"""#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mkdir -p /dev/pts
mount -t devpts devpts /dev/pts; mount -t cgroup2 cgroup /sys/fs/cgroup; mount -t tmpfs run /run; mount -o remount,rw /
mount --make-rshared / # as systemd has it
cd /opt/vmctl
show() { name=$1; shift; output=$("$@" 2>&1 </dev/null); echo "= $name $? ${output//$'\n'//}" >/dev/ttyS0; }
vmctl() { python3 -m vmctl "$@"; }
show controllers cat /sys/fs/cgroup/cgroup.controllers
show hello vmctl run --network none tiny -- sh -c 'echo hello; cat /proc/self/cgroup; exit 7'
show limits vmctl run --network none -m 64M --pids 20 --cpus 0.5 tiny -- \
    sh -c 'cd /sys/fs/cgroup; cat memory.max pids.max cpu.max; : >memory.max'
show oom vmctl run --network none -m 16M tiny -- dd if=/dev/zero of=/dev/shm/file bs=1M count=40
show network vmctl run tiny -- \
    sh -c 'ip -o -4 address show eth0; nc -w 5 10.77.0.1 1 2>&1 | grep -c refused'
show userns vmctl run --network none --userns auto tiny -- \
    sh -c 'read -r inside outside count </proc/self/uid_map; echo $inside $count; stat -c %u /bin'
show host vmctl run --mode host tiny -- sh -c 'exit 4'
show init vmctl run --network none --init tiny -- \
    sh -c 'read -r pid </proc/self/stat; [ "${pid%% *}" != 1 ] && echo not 1'
show detached python3 -c '
from vmctl import engine
from vmctl.spec.workload import Ready, Workload
work = Workload("web", "tiny", ("sh", "-c", "echo here; exec httpd -f -p 8000"), ready=Ready(tcp=8000))
inst = engine.up(work, "container")
print(inst.timeline.between_s("T0", "T6") is not None)
'
until [ "$(vmctl logs web)" ] || [ $((++tries)) = 50 ]; do sleep 0.2; done # the supervisor starts after the workload
show logs vmctl logs web
show exec vmctl exec web -- sh -c 'cat /proc/self/cgroup; exit 5'
show ps vmctl ps -q
show footprint python3 -c '
from vmctl.footprint import footprint
from vmctl.instances import instance
from vmctl.linux.cgroups import Cgroup
inst = instance.load("web")
parts, found = Cgroup(inst.cgroup).memory_split(), footprint(inst)
print(sorted(parts), 0 < sum(parts.values()) < 2 * found.cgroup_bytes, sorted(found.pss_by_role))
'
show stop vmctl stop web
show wait vmctl wait web
show down vmctl down web
show left sh -c 'grep -c vmctl /proc/mounts; ls -d /sys/fs/cgroup/vmctl; ls /var/lib/vmctl/instances; losetup -a'
sync
echo o >/proc/sysrq-trigger
sleep 30
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Return code and output of each of the commands, as a guest gave them."""
    folder = tmp_path_factory.mktemp("other-host")
    console = boot(folder, disk(folder))
    found = re.findall(r"^= (\w+) (\d+) ?(.*?)\r?$", console, re.MULTILINE)
    assert found, console[-3000:]
    return {name: (int(code), output) for name, code, output in found}


def disk(folder: Path) -> str:
    """Return a disk with a small Debian of this host's release, our source and the image store."""
    tree = folder / "tree"
    system = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    options = ["--quiet", "--variant=essential", f"--include={PACKAGES}"]
    run(["mmdebstrap", *options, system["VERSION_CODENAME"], str(tree)], timeout_s=600)
    source = tree / "opt/vmctl"
    for name in ("vmctl", "containers", "images", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for entry_points in (ROOT / ".venv/lib").glob("python3*/site-packages/vmctl-*.dist-info"):
        shutil.copytree(entry_points, source / entry_points.name)
    images = tree / "var/lib/vmctl/images"
    for name in ("blobs", "layers", "index.json"):
        copy = shutil.copytree if os.path.isdir(store.path(name)) else shutil.copy
        images.mkdir(parents=True, exist_ok=True)
        copy(store.path(name), images / name)
    commands = tree / "opt/commands"
    commands.write_text(COMMANDS)
    commands.chmod(0o755)
    image = str(folder / "disk")
    run(["truncate", "-s", "1G", image])
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), image], timeout_s=300)
    shutil.rmtree(tree)
    return image


def boot(folder: Path, image: str) -> str:
    """Boot the disk to its end and return what the console showed."""
    init = folder / "init"
    init.write_text(INIT)
    guest = kernel.find("debian")
    # out of the cache of this host: another test may remove what no start of vmctl would use
    archive = shutil.move(initrd.build(guest, [(str(init), "init", 0o755)], MODULES), folder / "initrd")
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    argv += ["-machine", "q35,accel=tcg,hpet=off", "-cpu", "max", "-m", "768"]
    argv += ["-kernel", guest.vmlinuz, "-initrd", str(archive), "-append", "console=ttyS0 quiet panic=-1"]
    argv += ["-drive", f"file={image},format=raw,if=virtio"]
    argv += ["-chardev", f"file,id=console,path={folder / 'console'}", "-serial", "chardev:console"]
    run(argv, timeout_s=500)
    return (folder / "console").read_text(errors="replace")


@pytest.mark.parametrize(
    ("name", "code", "output"),
    [
        ("controllers", 0, ".*cpu .*memory .*pids.*"),
        ("hello", 7, "hello/0::/"),
        ("limits", 1, "67108864/20/50000 100000/.*Read-only file system"),
        ("oom", 137, ".*ran out of memory.*"),
        ("network", 0, r".*inet 10\.77\.0\.2/16 .*/1"),
        ("userns", 0, "0 65536/0"),
        ("host", 4, ""),
        ("init", 0, "not 1"),
        ("detached", 0, "True"),
        ("logs", 0, "here"),
        ("exec", 5, "0::/"),
        ("ps", 0, "web"),
        ("footprint", 0, r"\['anon', 'file', 'kernel'\] True \['supervisor', 'workload'\]"),
        ("stop", 0, "web"),
        ("wait", 143, "143"),
        ("down", 0, "web"),
        ("left", 0, "0/ls: .*"),
    ],
)
def test_it_is_as_on_this_host(answers, name, code, output):
    assert answers[name][0] == code, answers[name]
    assert re.fullmatch(output, answers[name][1]), answers[name]
