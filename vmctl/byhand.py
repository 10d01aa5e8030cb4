"""The steps of a start as one shell script, which also takes away what it has made: `vmctl up --explain --script`.

The script has the lines that `--explain` shows, so a test that executes it has executed each of them. A step is undone
if it was begun, in the reverse order, when the workload has ended, on a signal, and after an error.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence

from vmctl import phases
from vmctl.linux.cgroups import Cgroup, Limits
from vmctl.net import Link
from vmctl.steps import Step

HOST, INSIDE, GUEST = "host", "inside", "guest"  # where a step is typed; what is in a guest, its init does

_HEAD = """\
#!/bin/sh
# {name} in mode {mode}, started by hand. The comments are those of `vmctl up --explain`.
# It waits for the end of the workload, and takes away what it has made, also on Ctrl-C.
# Files are made in the folder $W only; names on the host begin with it, or with the name of the workload.
# shellcheck disable=SC2016,SC2046,SC2086,SC2317 # lists of pids and files are split on purpose, and traps call undo
set -eu
[ "$(id -u)" = 0 ] || {{ echo "$0: it mounts and makes namespaces, so it needs root" >&2; exit 1; }}
step=0
"""

_TRAPS = """\
trap undo EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
"""

BRIDGE = "bridge0"


def folder(*more: str) -> Step:
    """Return the step that makes the folder $W."""
    raw = "\n".join(("W=$(mktemp -d /run/by-hand.XXXXXX)", "export W", 'chmod 711 "$W"', *more))
    undo = 'rm -rf --one-file-system "$W"'
    return Step("folder", raw, "everything that this start makes on the host", "image", undo=undo)


def cgroup(group: Cgroup, limits: Limits) -> Iterator[Step]:
    """Yield the steps that make a control group and set its limits."""
    for path in _folders(group):
        parent = os.path.dirname(path)
        lines = [f"mkdir -p {path}"]
        if group.layout.version == 2:
            names = " ".join(f"+{name}" for name in sorted(group.folders))
            above = (os.path.dirname(parent), parent)
            enabled = [f"echo '{names}' > {one}/cgroup.subtree_control" for one in above]
            lines = [f"mkdir -p {parent}", *enabled, *lines]
        undo = f"rmdir {path}; rmdir {parent}"
        why = "the instance's resources are counted and limited here"
        yield Step("cgroup", "\n".join(lines), why, "limits", undo=undo)
    for controller, file, value in group.settings(limits):
        if controller in group.folders:  # of an ordinary user, only a default can be without one
            yield Step(f"limit of {controller}", f"echo {value} > {group.folders[controller]}/{file}", "", "limits")


def join(group: Cgroup) -> str:
    """Return what moves a shell into a control group, before what it executes."""
    return "".join(f"echo $$ > {path}/cgroup.procs; " for path in _folders(group))


def end(group: Cgroup) -> str:
    """Return what ends all processes of a control group."""
    files = [f"{path}/cgroup.procs" for path in _folders(group)][:1]
    return "; ".join(f"while grep -q . {file}; do kill -KILL $(cat {file}); sleep 0.05; done" for file in files) or ":"


def _folders(group: Cgroup) -> list[str]:
    return sorted(set(group.folders.values()))


def switch(name: str, link: Link) -> Step:
    """Return the step that makes a network namespace of this name, with a bridge for a link."""
    raw = f"ip netns add {name}\nip -n {name} link set lo up\nip -n {name} link add {BRIDGE} type bridge\n"
    if link.gateway:
        raw += f"ip -n {name} addr add {link.gateway}/{link.prefix} dev {BRIDGE}\n"
    raw += f"ip -n {name} link set {BRIDGE} up"
    why = "a bridge in a network namespace: the host's network is not changed"
    return Step("switch", raw, why, "cable", undo=f"ip netns del {name}")


def script(name: str, mode: str, steps: Iterable[Step]) -> str:
    """Return the script. The last step of the host is a command that reads the steps inside as its input."""
    every = [step for step in steps if step.place != GUEST]
    host = [step for step in every if step.place == HOST]
    inside = [step for step in every if step.place == INSIDE]
    parts = [_HEAD.format(name=shlex.quote(name), mode=mode), _undo(host), _TRAPS]
    for number, step in enumerate(host[:-1], 1):
        parts.append(_commented(host[number - 2].phase if number > 1 else "", step) + f"step={number}\n{_raw(step)}")
    parts.append(_commented(host[-2].phase if len(host) > 1 else "", host[-1]))
    parts.append(f"step={len(host)}\n{host[-1].raw.rstrip()} <<'END_OF_INSIDE' &\nset -eu\n")
    parts.append(_inside(host[-1].phase, inside))
    parts.append('END_OF_INSIDE\nwork=$!\ncode=0\nwait "$work" || code=$?\nexit "$code"\n')
    return "\n".join(parts)


def _undo(host: Sequence[Step]) -> str:
    """Return the function that takes away what the steps up to the current one have made."""
    lines = ["undo() {", "    trap - EXIT INT TERM HUP", "    set +e", "    cd /"]
    for number, step in reversed(list(enumerate(host, 1))):
        if step.undo:
            lines.append(f'    [ "$step" -lt {number} ] || {{ {step.undo}; }} 2>/dev/null')
    return "\n".join([*lines, "}\n"])


def _inside(before: str, steps: Sequence[Step]) -> str:
    parts = []
    for step in steps:
        parts.append(_commented(before, step) + _raw(step))
        before = step.phase
    return "\n".join(parts)


def _commented(before: str, step: Step) -> str:
    """Return the comments of a step, after the title of its phase unless the step before is of the same one."""
    found = phases.PHASES.get(step.phase)
    title = f"### {found.title}: {found.why}\n" if found and step.phase != before else ""
    text = f"{step.what}: {step.why}" if step.why else step.what
    return title + "".join(f"# {line}\n" for line in text.splitlines())


def _raw(step: Step) -> str:
    return step.raw if step.raw.endswith("\n") else step.raw + "\n"


def heredoc(command: str, text: str) -> str:
    """Return a command with a text as its input; a text that is not lines of plain characters is in base64."""
    import base64

    lines = text.removesuffix("\n").split("\n")
    if not (text.endswith("\n") and all(map(_is_plain, lines))):
        command, text = f"base64 -d | {command}", base64.encodebytes(text.encode(errors="surrogateescape")).decode()
    end = "END"
    while end in lines:
        end += "_"
    first, pipe, rest = command.partition(" |")
    return f"{first} <<'{end}'{pipe}{rest}\n{text}{end}\n"


def _is_plain(line: str) -> bool:
    return line.replace("\t", "").isprintable() and line != "END_OF_INSIDE"
