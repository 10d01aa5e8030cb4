"""The default profile of system calls: compared with Docker's, with the documentation, and tried on the kernel."""

import errno
import json
import os
import re
import socket

import pytest
from test_containers import outcomes

from containers import identity, seccomp

PAGE = os.path.join(os.path.dirname(__file__), "..", "docs", "seccomp.md")
BEGIN, END = "<!-- calls: begin -->", "<!-- calls: end -->"

x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")

# What Docker's default profile (moby/profiles, read in November 2026) refuses to a container with the default
# capabilities on x86_64, except for clone, clone3, socket and personality, which depend on arguments.
REFUSED_BY_DOCKER = set(
    "_sysctl acct add_key afs_syscall bpf clock_settime create_module delete_module fanotify_init file_getattr"
    " file_setattr finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy getpmsg init_module"
    " io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie"
    " lsm_get_self_attr lsm_list_modules lsm_set_self_attr mbind migrate_pages mount mount_setattr move_mount"
    " move_pages nfsservctl open_by_handle_at open_tree open_tree_attr perf_event_open pidfd_getfd pivot_root"
    " process_madvise putpmsg query_module quotactl quotactl_fd reboot request_key security set_mempolicy"
    " set_mempolicy_home_node setdomainname sethostname setns settimeofday swapoff swapon sysfs syslog tuxcall"
    " umount2 unshare uselib userfaultfd ustat vhangup vserver".split()
)
ABOVE_NEWEST = {"file_getattr": 468, "file_setattr": 469}
# What ours allows although Docker's refuses it, with the reason: nothing.
ALLOWED_ALTHOUGH: dict[str, str] = {}
# What ours refuses although Docker's allows it.
STRICTER = {
    "clock_adjtime": "it sets the clock of the host, and adjtimex reads it as well",
    "name_to_handle_at": "nothing needs a handle that it may not open",
    "vmsplice": "pages of a process in a pipe were part of several exploits, and hardly a program uses it",
}


@pytest.fixture(scope="module")
def profile():
    with open(seccomp.PROFILE, encoding="utf-8") as file:
        return json.load(file)


def refused(profile, mask):
    """Return the names of the calls that fail without regard to their arguments."""
    rules = [rule for rule in profile["rules"] if rule["unless"] is None or not seccomp._has(mask, rule["unless"])]
    return {name for rule in rules for name in rule["calls"]}


def test_as_strict_as_docker(profile):
    ours = refused(profile, identity.capability_mask((), ())) | set(ABOVE_NEWEST)
    assert REFUSED_BY_DOCKER - ours == set(ALLOWED_ALTHOUGH)
    assert ours - REFUSED_BY_DOCKER == set(STRICTER)
    assert min(ABOVE_NEWEST.values()) == profile["newest"] + 1


def test_the_numbers_are_those_of_the_kernel(profile):
    """Against the headers of this machine's C library, as far as they go."""
    names = {}
    for machine, path in (
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ):
        with open(path, encoding="utf-8") as file:
            found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", file.read())
        names[machine] = {name: int(number) for name, number in found}
    calls = {name: numbers for rule in profile["rules"] for name, numbers in rule["calls"].items()}
    calls |= {rule["call"]: rule["numbers"] for rule in profile["arguments"] + profile["choices"]}
    calls |= {name: profile[name] for name in ("clone", "clone3")}
    for name, numbers in calls.items():
        for machine, known in names.items():
            if name in known or numbers[machine] is None or numbers[machine] <= 450:
                assert numbers[machine] == known.get(name), (name, machine)


@x86_64
def test_every_refusal_is_in_effect(profile):
    mask = identity.capability_mask((), ())
    calls = {
        name: (numbers["x86_64"], (-1,) * 6) for rule in profile["rules"] for name, numbers in rule["calls"].items()
    }
    chosen = {name: calls[name] for name in refused(profile, mask)}
    chosen |= {name: (number, (-1,) * 6) for name, number in ABOVE_NEWEST.items()}
    found = outcomes(seccomp.default_filter(mask), chosen)
    assert {name for name, number in found.items() if number != errno.EPERM} == set(ABOVE_NEWEST)
    assert {found[name] for name in ABOVE_NEWEST} == {errno.ENOSYS}


SOCKET, PERSONALITY = 41, 135
BITS = 1 << 40  # the kernel does not read them


@x86_64
def test_families_of_sockets(profile):
    mask = identity.capability_mask((), ())
    calls = {f"{family}": (SOCKET, (family, socket.SOCK_DGRAM, 0)) for family in range(46)}
    calls |= {f"{family} and more bits": (SOCKET, (family | BITS, 1, 0)) for family in (38, 40, 44)}
    found = outcomes(seccomp.default_filter(mask), calls)
    assert {name for name, number in found.items() if number == 0} == {"1", "2", "10", "16"}
    assert found.pop("17") == errno.EPERM
    refused_ones = {name: number for name, number in found.items() if number}
    assert set(refused_ones.values()) == {errno.EAFNOSUPPORT}
    without = outcomes(b"", calls)
    assert {name for name in ("17", "38", "40") if without[name] == 0} != set()  # else this would prove nothing
    raw = outcomes(seccomp.default_filter(identity.capability_mask(("NET_RAW",), ())), calls)
    assert raw["17"] == without["17"]
    assert raw["40"] == errno.EAFNOSUPPORT


@x86_64
def test_protocols_of_netlink():
    calls = {f"{number}": (SOCKET, (16, socket.SOCK_RAW, number)) for number in range(24)}
    calls |= {"audit and more bits": (SOCKET, (16 | BITS, 3, 9 | BITS)), "inet": (SOCKET, (2, 1, 6))}
    found = outcomes(seccomp.default_filter(identity.capability_mask((), ())), calls)
    assert found.pop("inet") == 0
    allowed = {"0", "2", "4", "6", "12", "15", "16"}
    assert {number for name, number in found.items() if name not in allowed} == {errno.EPROTONOSUPPORT}
    assert found["0"] == found["4"] == found["16"] == 0
    assert outcomes(b"", calls)["9"] == 0


@x86_64
def test_personalities():
    values = {"linux": 0, "read": 0xFFFFFFFF, "linux32": 8, "no random addresses": 0x40000, "svr4": 1, "more": 8 | BITS}
    calls = {name: (PERSONALITY, (value,)) for name, value in values.items()}
    found = outcomes(seccomp.default_filter(identity.capability_mask((), ())), calls)
    assert {name for name, number in found.items() if number} == {"no random addresses", "svr4"}
    assert {found["no random addresses"], found["svr4"]} == {errno.EPERM}


def rows(profile):
    """Yield the rows of the table in docs/seccomp.md."""
    yield "| system calls | allowed with | what the refusal stops |"
    yield "|---|---|---|"
    for rule in profile["rules"]:
        names = ", ".join(f"`{name}`" for name in rule["calls"])
        yield f"| {names} | {rule['unless'] or 'no capability'} | {rule['stops']} |"
    for rule in profile["arguments"]:
        names = ", ".join(rule["refused"])
        yield f"| `{rule['call']}` with {names} | {rule['unless'] or 'no capability'} | {rule['stops']} |"
    for rule in profile["choices"]:
        when = " of netlink" if rule["when"] else ""
        names = ", ".join(rule["allowed"])
        yield f"| `{rule['call']}`{when}, except for {names} | no capability | {rule['stops']} |"
    yield "| `clone` with flags of namespaces, `clone3` | SYS_ADMIN | as `unshare`; C libraries use `clone` then |"
    yield f"| numbers above {profile['newest']} | no capability | calls of later kernels, which nobody has looked at |"


def test_the_page_describes_the_profile(profile):
    """UPDATE_GOLDEN=1 writes the table anew."""
    table = "\n".join(rows(profile))
    with open(PAGE, encoding="utf-8") as file:
        before, rest = file.read().split(BEGIN)
    written, after = rest.split(END)
    if os.environ.get("UPDATE_GOLDEN"):
        with open(PAGE, "w", encoding="utf-8") as file:
            file.write(f"{before}{BEGIN}\n{table}\n{END}{after}")
        written = table
    assert written.strip() == table
    for name in STRICTER:
        assert f"`{name}`" in after
