"""Out of a container by mounts, devices, system calls, ids and files that the host's side reads or writes."""

import os
import stat
import subprocess

import pytest
from support.commands import ok, refused, vmctl
from support.images_made import add

from containers import mountplan
from images.store import store
from vmctl.instances import instance
from vmctl.linux import mountinfo, syscalls

pytestmark = pytest.mark.timeout(600)

USERNS = pytest.mark.parametrize("userns", ["auto", "host"])
IN_CONTAINER = {"mode": "container", "who": "root"}


@pytest.fixture
def box(own_root, tmp_path):
    """A function that starts the instance `box` with keys of a workload file, and runs scripts in it."""

    def start(text="", image="tiny"):
        path = tmp_path / "box.yaml"
        path.write_text(f"name: box\nimage: {image}\ncommand: [sleep, '1000']\n{text}\n")
        ok("up", "--quiet", str(path))
        return lambda script, user="0": vmctl("exec", "-u", user, "box", "--", "sh", "-c", script)

    yield start
    vmctl("rm", "-f", "box")


@pytest.fixture
def image(tmp_path, monkeypatch):
    """A function that makes the image `hostile`: tiny with the files of a folder, which it is given to fill."""
    tiny = store.find("tiny")
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "hostile-root"))
    os.makedirs(store.path(), mode=0o700)

    def make(fill):
        (tmp_path / "tree").mkdir()
        fill(tmp_path / "tree")
        add("hostile", tiny, tmp_path / "tree")

    return make


@pytest.mark.attack(
    "brings a link to /../ in the image, so that the mount point of a volume is made on the host", **IN_CONTAINER
)
@USERNS
def test_volume_below_a_link_to_the_parent_of_the_root(image, tmp_path, userns):
    for name in ("volume", "made"):
        (tmp_path / name).mkdir(mode=0o777)
    image(lambda tree: (tree / "data").symlink_to(f"/..{tmp_path}/made"))
    flags = ("--network", "none", "--userns", userns, "-v", f"{tmp_path}/volume:/data/new")
    vmctl("run", *flags, "hostile", "--", "true")
    assert os.listdir(tmp_path / "made") == []


DISKS = """
for folder in / /dev /dev/shm /tmp /volume; do
    for disk in /sys/class/block/*; do
        number=$(cat $disk/dev)
        mknod $folder/disk b ${number%:*} ${number#*:} && head -c 1 $folder/disk >/dev/null && echo opened $folder $disk
        rm -f $folder/disk
    done
    mknod $folder/memory c 1 1 && head -c 1 $folder/memory >/dev/null && echo opened $folder memory
    mknod $folder/messages c 1 11 && timeout 1 head -c 1 $folder/messages >/dev/null && echo opened $folder messages
    rm -f $folder/memory $folder/messages
done
"""


@pytest.mark.attack(
    "makes a node of a disk, or of the host's memory, and opens it, with the capability MKNOD", **IN_CONTAINER
)
@USERNS
def test_nodes_of_devices(box, tmp_path, userns):
    (tmp_path / "volume").mkdir()
    options = f"{{cap_add: [MKNOD], seccomp: unconfined, userns: {userns}}}"
    found = box(f"container: {options}\nvolumes: ['{tmp_path}/volume:/volume']")(DISKS)
    assert "opened" not in found.out
    if userns == "host":
        assert "mknod" not in found.err  # they were made
    assert "ermi" in found.err


@pytest.mark.attack(
    "is given one device for reading, and writes to it, changes its mode on the host, and opens others", **IN_CONTAINER
)
@USERNS
def test_one_device_of_the_host(box, tmp_path, userns):
    os.mknod(tmp_path / "tun", stat.S_IFCHR | 0o600, os.makedev(10, 200))
    options = f"{{cap_add: [MKNOD, SYS_ADMIN], seccomp: unconfined, userns: {userns}}}"
    shell = box(f"container: {options}\ndevices: ['{tmp_path}/tun:/dev/net/tun:r']")
    assert shell("exec 3</dev/net/tun && echo opened").out == "opened\n"
    more = "mount -o remount,bind,rw /dev/net/tun; chmod 666 /dev/net/tun; (exec 3<>/dev/net/tun && echo opened); "
    assert "opened" not in shell(more + DISKS).out
    assert stat.S_IMODE(os.stat(tmp_path / "tun").st_mode) == 0o600


@pytest.mark.attack("makes the mounts allow devices again, and opens a node that the image brings", **IN_CONTAINER)
def test_remount_with_devices(image, box):
    disk = next(
        os.stat(f"/dev/{name}").st_rdev for name in os.listdir("/dev") if stat.S_ISBLK(os.stat(f"/dev/{name}").st_mode)
    )
    image(lambda tree: os.mknod(tree / "disk", stat.S_IFBLK | 0o666, disk))
    shell = box("container: {cap_add: [SYS_ADMIN], seccomp: unconfined}", "hostile")
    found = shell("mount -o remount,bind,dev / ; mount | grep ' / '; head -c 1 /disk && echo opened")
    assert "opened" not in found.out
    assert "nodev" not in found.out  # it could be remounted: the list of devices has held


@pytest.mark.attack("writes to a file system that is mounted below a read-only volume", **IN_CONTAINER)
@USERNS
def test_below_a_read_only_volume(box, tmp_path, userns):
    (tmp_path / "volume/below").mkdir(parents=True)
    syscalls.mount("tmpfs", str(tmp_path / "volume/below"), "tmpfs")
    try:
        shell = box(f"container: {{userns: {userns}}}\nvolumes: ['{tmp_path}/volume:/volume:ro']")
        found = shell(
            "touch /volume/a; touch /volume/below/a; mount -o remount,bind,rw /volume/below; touch /volume/below/b"
        )
        assert found.err.count("Read-only file system") == 3
        assert os.listdir(tmp_path / "volume/below") == []
    finally:
        vmctl("rm", "-f", "box")
        mountinfo.unmount_all(str(tmp_path / "volume/below"))


@pytest.mark.attack("makes a program with the setuid bit, which another user of the host then executes", **IN_CONTAINER)
@USERNS
def test_setuid_program_for_a_user_of_the_host(box, userns, tmp_path):
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        os.chmod(folder, 0o755)
    shell = box(f"container: {{userns: {userns}}}")
    shell("cp /bin/busybox /id; chmod 6777 /id; chmod 777 / /tmp")
    inst = instance.load("box")
    places = [inst.path("upper", "id"), f"/proc/{inst.state.pid}/root/id", *_layer_files("bin/busybox")]
    assert os.stat(places[0]).st_mode & stat.S_ISUID
    for place in places:
        with pytest.raises(PermissionError):
            subprocess.run([place, "id"], user=65534, group=65534, extra_groups=[], cwd="/")


def _layer_files(name):
    return [f"{point}/{name}" for point in mountinfo.below(os.environ["VMCTL_ROOT"]) if "/layers/" in point]


WRITES = """
for file in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/hotplug \\
    /proc/sys/vm/panic_on_oom \\
    /proc/sys/fs/binfmt_misc/register /proc/sysrq-trigger /proc/irq/default_smp_affinity \\
    /proc/sys/net/ipv4/ip_forward \\
    /sys/kernel/uevent_helper /sys/kernel/mm/ksm/run /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/devices.allow \\
    /sys/module/*/parameters/* /sys/power/state /sys/fs/cgroup/cgroup.procs /proc/bus/pci/00/*; do
    if [ -e "$file" ] && echo x 2>/dev/null >"$file"; then echo "wrote $file"; fi
done
"""


@pytest.mark.attack(
    "writes to settings of the kernel: core_pattern, modprobe, release_agent, sysrq and the like", **IN_CONTAINER
)
@USERNS
def test_settings_of_the_kernel(box, userns):
    with open("/proc/sys/kernel/core_pattern", encoding="utf-8") as file:
        before = file.read()
    shell = box(f"container: {{userns: {userns}}}")
    assert "wrote" not in shell(WRITES).out
    remount = "mount -o remount,rw /sys; mount -o remount,rw /proc/sys; umount /proc/sys; mount -t proc proc /tmp;"
    assert "wrote" not in shell(remount + WRITES).out
    with open("/proc/sys/kernel/core_pattern", encoding="utf-8") as file:
        assert file.read() == before


RELEASE_AGENT = """
    mkdir -p /mnt/c
    for kind in cpu memory pids devices rdma misc none,name=attack; do
        mount -t cgroup -o $kind cgroup /mnt/c || continue
        echo mounted $kind
        [ -e /mnt/c/release_agent ] && echo /agent >/mnt/c/release_agent && echo wrote $kind
        umount /mnt/c
    done"""


@pytest.mark.attack("mounts cgroups and sets a release_agent, which the kernel executes on the host", **IN_CONTAINER)
@USERNS
def test_release_agent(box, userns):
    found = box(f"container: {{userns: {userns}, cap_add: [SYS_ADMIN], seccomp: unconfined}}")(RELEASE_AGENT)
    if os.path.exists("/sys/fs/cgroup/pids"):  # version 1
        assert "mounted pids" in found.out
    assert "wrote" not in found.out


@pytest.mark.attack(
    "with all capabilities in its namespaces: mounts cgroups and sets a release_agent, or core_pattern", **IN_CONTAINER
)
def test_release_agent_with_all_capabilities(box):
    shell = box("container: {cap_add: [ALL], seccomp: unconfined}")
    found = shell(
        RELEASE_AGENT
        + """
        mount -t proc proc /mnt/c && echo '|/agent' >/mnt/c/sys/kernel/core_pattern && echo wrote core_pattern
        mount -o remount,rw /proc/sys; echo '|/agent' >/proc/sys/kernel/core_pattern && echo wrote core_pattern
        umount /proc/sys; echo '|/agent' >/proc/sys/kernel/core_pattern && echo wrote core_pattern
        echo 'c' >/proc/sysrq-trigger && echo wrote sysrq"""
    )
    assert "wrote" not in found.out


SHOCKER = r"""
    #define _GNU_SOURCE
    #include <errno.h>
    #include <fcntl.h>
    #include <stdio.h>
    #include <string.h>
    #include <unistd.h>
    struct { struct file_handle head; unsigned char rest[128]; } handle = {{128}};
    int main(int argc, char **argv) {
        if (argc == 2) { /* PATH: prints its handle */
            int mount;
            if (name_to_handle_at(AT_FDCWD, argv[1], &handle.head, &mount, 0)) return 1;
            for (int i = 0; i < 8 + handle.head.handle_bytes; i++) printf("%02x", ((unsigned char *)&handle)[i]);
            return 0;
        }
        for (int i = 0; sscanf(argv[1] + 2 * i, "%2hhx", (unsigned char *)&handle + i) == 1; i++);
        for (int n = 2; n < argc; n++) { /* HANDLE PLACE...: reads the file by a descriptor of its file system */
            int fd = open_by_handle_at(open(argv[n], O_RDONLY), &handle.head, O_RDONLY);
            char text[100] = "";
            if (fd >= 0) read(fd, text, 99);
            printf("%s: %s\n", argv[n], fd >= 0 ? text : strerror(errno));
        }
        return 0;
    }"""


@pytest.mark.attack(
    "opens files of the host by handles instead of paths (open_by_handle_at, `shocker`)", **IN_CONTAINER
)
@pytest.mark.parametrize(
    ("options", "opens"),
    [
        ("{}", False),
        ("{cap_add: [DAC_READ_SEARCH], seccomp: unconfined}", False),
        ("{userns: host}", False),
        ("{userns: host, seccomp: unconfined}", False),
        ("{userns: host, cap_add: [DAC_READ_SEARCH]}", True),  # so the attempt is one
    ],
)
def test_files_by_handle(box, tmp_path, canary, options, opens):
    (tmp_path / "volume").mkdir()
    program = str(tmp_path / "volume/program")
    subprocess.run(["gcc", "-static", "-w", "-x", "c", "-o", program, "-"], input=SHOCKER, text=True, check=True)
    handle = subprocess.run([program, canary.path], capture_output=True, text=True, check=True).stdout
    box(f"container: {options}\nvolumes: ['{tmp_path}/volume:/volume']")
    found = vmctl("exec", "box", "--", "/volume/program", handle, "/volume", "/etc/hosts", "/", "/tmp")
    assert (f"/volume: {canary.secret}" in found.out) is opens
    if not opens:
        canary.check(found.out)
        assert found.out.count("Operation not permitted") == 4, found


@pytest.mark.attack("becomes root of a new user namespace, to use more of the kernel", **IN_CONTAINER)
@USERNS
def test_new_user_namespace(box, userns):
    shell = box(f"container: {{userns: {userns}}}")
    found = shell("unshare -U -r id; unshare -m true; nsenter -t 1 -m true; mount -t tmpfs x /tmp", user="1000")
    assert found.out == ""
    assert found.err.count("ermitted") + found.err.count("denied") >= 4


def test_the_filter_is_what_refuses_user_namespaces(box):
    """So the test above can fail: elsewhere the kernel itself, or a limit, may refuse them."""
    assert "uid=0" in box("container: {seccomp: unconfined}")("unshare -U -r id", user="1000").out


@pytest.mark.attack(
    "brings /dev/null, /dev/console and /dev/pts as links in the image, to redirect what the host mounts"
    " (CVE-2025-31133, CVE-2025-52565)",
    **IN_CONTAINER,
)
@USERNS
def test_devices_of_the_image_are_links(image, box, userns):
    def fill(tree):
        (tree / "dev").mkdir()
        for name in ("null", "console", "pts", "ptmx", "shm", "tty"):
            (tree / "dev" / name).symlink_to("/proc/sys/kernel/core_pattern")

    image(fill)
    shell = box(f"container: {{userns: {userns}}}", "hostile")
    assert shell("for f in null zero tty full; do [ -c /dev/$f ] || echo $f; done; ls -l /dev/console").out == ""
    masked = " ".join(f"/proc/{name}" for name in mountplan.MASKED)
    assert shell(f"for f in {masked}; do [ ! -e $f ] || ls -A $f/ || cat $f; done 2>/dev/null").out == ""
    assert "wrote" not in shell("echo x >/dev/null; echo x >/dev/console; " + WRITES).out


@pytest.mark.attack(
    "brings /proc or /sys as a link, or with files in it, to redirect what the host writes (CVE-2025-52881)",
    **IN_CONTAINER,
)
@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_kernel_file_systems_of_the_image(image, name):
    image(lambda tree: (tree / name).symlink_to("/tmp"))
    assert "is a symbolic link" in refused("run", "--network", "none", "hostile", "--", "true")


@pytest.mark.attack("reads where its files and those of neighbours are on the host", **IN_CONTAINER)
def test_paths_of_the_host(box):
    found = box()(
        "cat /proc/self/mountinfo /proc/mounts /proc/1/environ /proc/1/cgroup; cat /proc/keys /proc/key-users"
    )
    for path in (os.environ["VMCTL_ROOT"], "/instances/", "upperdir=/tmp", "vmctl"):
        assert path not in found.out
