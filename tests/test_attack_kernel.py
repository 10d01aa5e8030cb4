"""From inside, as root there: ways through the kernel's own files that have ended container runtimes before."""

import pytest

pytestmark = pytest.mark.timeout(900)


def core_pattern():
    with open("/proc/sys/kernel/core_pattern", encoding="ascii") as file:
        return file.read()


@pytest.mark.attack("sets core_pattern, so that the host executes a program of the image when a process crashes")
def test_core_pattern(cell, canary):
    before = core_pattern()
    seen = cell.shell("""
        echo '|/tmp/escape' > /proc/sys/kernel/core_pattern
        mount -o remount,rw /proc/sys; mount -t proc proc /mnt; mount -o remount,rw /proc
        for f in /proc/sys /mnt/sys /proc/1/root/proc/sys /proc/self/root/proc/sys /proc/thread-self/root/proc/sys; do
            echo '|/tmp/escape' > $f/kernel/core_pattern
        done
        mkdir -p /tmp/p && mount -t proc none /tmp/p && echo '|/tmp/escape' > /tmp/p/sys/kernel/core_pattern
        true""")
    assert core_pattern() == before, seen
    assert cell.alive()


@pytest.mark.attack("sets a release_agent of a control group, which the host's kernel executes as root")
def test_release_agent(cell, canary):
    seen = cell.shell(f"""
        mkdir -p /tmp/cg
        for c in rdma cpu memory pids freezer devices net_cls misc; do
            mount -t cgroup -o $c cgroup /tmp/cg && break
        done
        mkdir /tmp/cg/x; echo 1 > /tmp/cg/x/notify_on_release
        printf '#!/bin/sh\\ncat {canary.path} > /tmp/out' > /tmp/cmd; chmod 755 /tmp/cmd
        for f in /tmp/cg/release_agent /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/release_agent; do
            [ -e $f ] && echo /tmp/cmd > $f && echo took $f
        done
        sh -c 'echo $$ > /tmp/cg/x/cgroup.procs'
        sleep 1; cat /tmp/out""")
    if cell.mode == "container":  # a guest owns its kernel, and with it every file of that
        assert "took" not in seen.out, seen
    canary.check(seen)


@pytest.mark.attack(
    "writes to the files of /proc and /sys that act on the whole machine: sysrq, modprobe, hotplug, power"
)
def test_switches_of_the_machine(cell):
    names = {
        "/proc/sys/kernel/modprobe": "/tmp/x",
        "/proc/sys/kernel/hotplug": "/tmp/x",
        "/sys/kernel/uevent_helper": "/tmp/x",
        "/proc/sys/vm/panic_on_oom": "1",
        "/proc/sys/kernel/panic": "77",
        "/proc/sys/fs/binfmt_misc/register": ":x:E::x::/tmp/x:",
        "/sys/kernel/mm/ksm/run": "2",
    }
    before = {name: content(name) for name in names}
    for name, value in names.items():
        cell.shell(f"mount -o remount,rw /sys; echo '{value}' > {name}")
    assert {name: content(name) for name in names} == before
    if cell.mode == "container":  # a guest may crash its own kernel
        seen = cell.shell(
            "echo s > /proc/sysrq-trigger && echo took; cat /proc/kcore | head -c 10 | wc -c; dmesg | wc -l"
        )
        assert "took" not in seen.out
        assert seen.out.split()[0] == "0", seen


def content(name):
    try:
        with open(name, encoding="ascii") as file:
            return file.read()
    except OSError:
        return None


@pytest.mark.attack("opens a file of the host by its handle instead of its path (open_by_handle_at, as Shocker did)")
def test_open_by_handle(cell, canary):
    handle = cell.compiled(r"""
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <stdio.h>
        #include <string.h>
        int main(int argc, char **argv) {
            struct { struct file_handle head; unsigned int id[2]; } root = {{8, 1}, {2, 0}};
            for (int i = 1; i < argc; i++) {
                int mount = open(argv[i], O_RDONLY);
                int folder = open_by_handle_at(mount, &root.head, O_RDONLY | O_DIRECTORY);
                if (folder >= 0) puts("opened by handle");
            }
        }""")
    seen = cell.shell(f"{handle} / /etc /etc/hosts /etc/hostname /proc /dev /tmp")
    if cell.mode == "container":
        assert "opened" not in seen.out
    canary.check(seen)


@pytest.mark.attack("mounts the host's disks, and its devices by their numbers")
def test_disks(cell, canary):
    seen = cell.shell(f"""
        cat /proc/partitions
        while read major minor blocks name; do
            mknod /tmp/d$name b $major $minor && head -c 4096 /tmp/d$name > /tmp/block && echo read $name
            mkdir -p /tmp/m; mount /tmp/d$name /tmp/m && cat /tmp/m{canary.path}
        done < /proc/partitions
        mknod /tmp/mem c 1 1 && head -c 4096 /tmp/mem > /tmp/block && echo read mem
        mknod /tmp/kmsg c 1 11 && head -c 10 /tmp/kmsg && echo read kmsg""")
    if cell.mode == "container":
        assert "read" not in seen.out.replace("only", ""), seen
    canary.check(seen)


CALLS = r"""
    #define _GNU_SOURCE
    #include <errno.h>
    #include <sched.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #ifndef SYS_userfaultfd
    #define SYS_userfaultfd 323
    #endif
    static char page[4096], other[4096];
    static void tried(const char *name, long result) {
        int refused = errno == EPERM || errno == ENOSYS || errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT;
        if (result >= 0 || !refused) puts(name);
    }
    int main(void) {
        int pipes[2];
        pipe(pipes);
        struct { void *base; size_t size; } vector = {page, sizeof page};
        tried("io_uring", syscall(425, 8, page));
        tried("userfaultfd", syscall(SYS_userfaultfd, 1));
        tried("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -3));
        tried("keyctl", syscall(SYS_keyctl, 0, -3, 1));
        tried("vmsplice", syscall(SYS_vmsplice, pipes[1], &vector, 1, 0));
        tried("kcmp", syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 1));
        tried("handle", syscall(SYS_name_to_handle_at, -100, "/", other, pipes, 0));
        tried("vsock", socket(40, SOCK_STREAM, 0));
        tried("audit", socket(AF_NETLINK, SOCK_RAW, 9));
        tried("personality", syscall(SYS_personality, 0x0400000));
        if (!fork()) { tried("clone", unshare(CLONE_NEWUSER | CLONE_NEWNS)); _exit(0); }
        usleep(200000);
        puts("done");
    }"""


@pytest.mark.attack(
    "uses system calls that need no right, and through which kernels were taken over: io_uring, keys, user namespaces"
)
def test_calls_without_a_right(cell):
    calls = cell.compiled(CALLS)
    for user in ("0", "1000"):
        seen = cell.exec(calls, user=user)
        assert seen.out.splitlines()[-1:] == ["done"], seen
        if cell.mode == "container":  # a guest has a kernel to itself
            assert seen.out == "done\n"
