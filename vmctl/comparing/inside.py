"""What a workload sees of its machine: a shell script that is run next to it by `exec`, in the same way in each mode.

The instance is hostile: its answer is bounded, and only known names are taken from it.
"""

from __future__ import annotations

import os
import select
import time

from vmctl import engine
from vmctl.backend import Command
from vmctl.copying.child import in_child
from vmctl.errors import CommandNotFoundError, DeadlineError
from vmctl.instances.instance import Instance
from vmctl.named import NamedTuple
from vmctl.spec.units import format_seconds

ANSWER_BYTES = 1 << 16
ANSWER_S = 120.0  # a guest that is emulated on a busy host takes some seconds
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")

# prints `NAME<tab>VALUE` for each fact that this system and image have; proc(5), sysfs(5). The digest is of each file's
# path, mode, owner, kind and size; left out are folders that are mounts or that each start writes.
_FACTS = r"""
put() { [ -z "$2" ] || printf '%s\t%s\n' "$1" "$2"; }
plain() { tr '\0\n\t' '   ' <"$1"; }
of() { while read -r key value; do case $key in "$1:") echo $value; return ;; esac; done </proc/self/status; }
uptime=$(plain /proc/uptime)
put kernel "$(plain /proc/sys/kernel/osrelease)"
put kernel_build "$(plain /proc/version)"
put boot_id "$(plain /proc/sys/kernel/random/boot_id)"
put uptime_s "${uptime%% *}"
put clock_s "$(date +%s)"
put distribution "$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release | tr -d '"')"
put host_name "$(plain /proc/sys/kernel/hostname)"
put first_process "$(plain /proc/1/cmdline)"
set -- /proc/[0-9]*
put processes $#
put processors "$(grep -c ^processor /proc/cpuinfo)"
put processor "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
put memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"
put user "$(id -u):$(id -g)"
map=
while read -r inside outside count; do map="$map${map:+, }$inside $outside $count"; done </proc/self/uid_map
put id_map "$map"
put capabilities "$(of CapEff)"
put bounding_set "$(of CapBnd)"
put seccomp "$(of Seccomp)"
put no_new_privileges "$(of NoNewPrivs)"
set -- /dev/* /dev/*/*
put devices $#
put block_devices "$(ls /sys/block | tr '\n' ' ')"
put mounts "$(grep -c '' /proc/self/mountinfo)"
put root "$(sed -n 's/^[^ ]* [/] \([^ ]*\) .*/\1/p' /proc/self/mounts | tail -n 1)"
put modules "$(grep -c '' /proc/modules)"
put cgroup "$(plain /proc/self/cgroup)"
for name in cgroup ipc mnt net pid time user uts; do put "ns_$name" "$(readlink /proc/self/ns/$name)"; done
put links "$(sed -n 's/^ *\([^:]*\):.*/\1/p' /proc/self/net/dev | tr '\n' ' ')"
put addresses "$(ip -o -4 addr | sed -n 's/.* inet \([^ ]*\).*/\1/p' | tr '\n' ' ')"
set -- -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp
set -- "$@" -o -path /lib/modules -o -path /usr/lib/modules
set -- "$@" -o -path /etc/hosts -o -path /etc/hostname -o -path /etc/resolv.conf
put tree "$(find / -xdev \( "$@" \) -prune -o -exec stat -c '%n %a %u:%g %F %s' {} + |
    sed 's/ directory [0-9]*$/ directory/' | sort | sha256sum | head -c 64)"
"""
_SCRIPT = f"{{ {_FACTS} }} 2>/dev/null"


class Answer(NamedTuple):
    """What a command wrote to stdout, up to ANSWER_BYTES, and its exit code."""

    text: str
    code: int


def facts(inst: Instance) -> dict[str, str]:
    """Return what the workload of a running instance sees, by name. Raises VmctlError.

    It is empty if the image has no shell.
    """
    try:
        answer = ask(inst, ("sh", "-c", _SCRIPT), ANSWER_S)
    except CommandNotFoundError:
        return {}
    known = set(_names())
    pairs = (line.partition("\t") for line in answer.text.splitlines())
    return {name: value.strip()[:2000] for name, tab, value in pairs if tab and name in known and value.strip()}


def ask(inst: Instance, argv: tuple[str, ...], timeout_s: float | None = None) -> Answer:
    """Run a command in an instance, as `vmctl exec --no-stdin` does, and return its output and exit code.

    Raises VmctlError, DeadlineError if it has not ended after `timeout_s`.
    """
    end_s = None if timeout_s is None else time.monotonic() + timeout_s

    def act(fd: int) -> list[str]:
        null = os.open(os.devnull, os.O_RDWR)
        for number, stream in enumerate((null, fd, null)):
            os.dup2(stream, number)
        return [str(engine.exec_command(inst, Command(argv, stdin=False)))]

    found, part = b"", b"-"
    with in_child(act, reads=False) as (fd, report):
        while part and len(found) < ANSWER_BYTES:
            left_s = None if end_s is None else max(0.0, end_s - time.monotonic())
            if not select.select([fd], [], [], left_s)[0]:
                raise DeadlineError(f"{argv[0]} in {inst.name} did not end in {format_seconds(timeout_s or 0)}")
            found += (part := os.read(fd, ANSWER_BYTES - len(found)))
    return Answer(found.decode(errors="replace"), int(report[0]))


def _names() -> list[str]:
    words = (line.split() for line in _FACTS.splitlines())
    names = [line[1] for line in words if line[:1] == ["put"]]
    return [*names, *(f"ns_{name}" for name in NAMESPACES)]
