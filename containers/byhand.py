"""The steps of a start inside the namespaces, as lines that can be typed, for `vmctl up --explain`.

Before the root is entered only /proc, /dev and /sys of the image are touched, by paths relative to its root; the rest
comes later, because links of an image lead to the host until then. The image may have no programs for that, so those of
the host are copied.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from functools import singledispatch

from containers import identity, mountplan
from containers.identity import User
from containers.launch import Launch
from images.layer import lookup
from images.store.image import Image, provided
from vmctl import byhand, net
from vmctl.backend import Problem
from vmctl.linux import usernamespace
from vmctl.linux.commands import join, mount, quote
from vmctl.net import Link
from vmctl.spec import rules
from vmctl.spec.workload import Workload
from vmctl.steps import Step

_PROGRAMS = "env setpriv mkdir tee chmod mount umount rmdir"
_HERE = "/dev/.hand"


def problems(work: Workload, *, namespaced: bool) -> Iterator[Problem]:
    """Yield the keys that the lines leave out."""
    values = {
        f"network: {work.network}": rules.neighbour(work),
        "secrets": work.secrets,
        "env_file": work.env_file,
        "init": work.init,
        "read_only": work.read_only,
        "ulimits": work.ulimits,
        "devices": work.devices,
        "tty": work.tty,
        "named volumes": work.has_own_volumes(),
        "volumes": work.volumes and not namespaced,
        "tmpfs": work.tmpfs and not namespaced,
    }
    for key, value in values.items():
        if value:
            yield Problem(f"{key}: a start by hand leaves it out", "`vmctl --trace FILE up` records the real start")
    if not usernamespace.is_host_root():
        yield Problem("the lines mount, so they need root", "without --script, `--explain` shows them")


def inside(work: Workload, image: Image, launch: Launch, links: tuple[Link, ...]) -> Iterator[Step]:
    """Yield the steps in their order."""
    contained = bool(launch.namespaces)
    for step in _all(work, image, launch, links, contained=contained):
        yield step._replace(place="inside")


def _all(work: Workload, image: Image, launch: Launch, links: tuple[Link, ...], *, contained: bool) -> Iterator[Step]:
    if contained:
        raw = 'mount --make-rprivate /\nmount --bind "$W/rootfs" "$W/rootfs"'
        yield Step("own mounts", raw, "no mount below reaches the host; pivot_root(2) wants a mount point", "root")
    raw = 'cd "$W/rootfs"\nfor name in proc dev sys; do [ ! -L $name ] || exit 125; mkdir -p $name; done'
    yield Step("root folder", raw, "a mount follows links, and the image could choose its target", "root")
    for one in launch.steps:
        yield Step("mount", line(one), "", "mounts", short=str(one))
    yield from _programs(contained=contained)
    if contained:
        raw = "mkdir -p .old\npivot_root . .old\ncd /"
        yield Step("pivot_root", raw, 'vmctl needs no folder for the old root: pivot_root(".", ".")', "root")
        yield from _volumes(launch)
        raw = "tool umount -l /.old\ntool rmdir /.old"
        yield Step("old root", raw, "the host's files are out of reach from here on", "root")
    yield from _contents(work, launch, links)
    yield from _identity(image, launch, contained=contained)


def _volumes(launch: Launch) -> Iterator[Step]:
    for number, volume in enumerate(launch.volumes):
        target, source = quote(volume.target), f'"/.old$W/volumes/{number}"'
        made = f"tool mkdir -p {target}"
        if not os.path.isdir(volume.source):
            made = f"tool mkdir -p {quote(posixpath.dirname(volume.target))}\ntool tee -a {target} </dev/null"
        options = f"remount,bind,nosuid,nodev{',ro' if volume.read_only else ''}"
        raw = f"{made}\ntool mount --rbind {source} {target}\ntool mount -o {options} {target}"
        yield Step("volume", raw, f"{volume.source} of the host", "mounts")


def _programs(*, contained: bool) -> Iterator[Step]:
    raw = f"mkdir -p dev/.hand\nmount -t tmpfs -o mode=755 tmpfs dev/.hand\nfor name in {_PROGRAMS}; do\n"
    raw += '    cp "$(command -v $name)" dev/.hand/\n'
    raw += "    cp $(ldd \"$(command -v $name)\" | grep -o '/[^ ]*') dev/.hand/\n"
    raw += "done\nmv dev/.hand/ld-* dev/.hand/ld\n"
    before = "" if contained else 'chroot "$W/rootfs" '
    raw += f'tool() {{ name=$1; shift; {before}{_HERE}/ld --library-path {_HERE} "{_HERE}/$name" "$@"; }}'
    yield Step("programs", raw, "of the host, for what has to be done inside the root", "mounts")


def _contents(work: Workload, launch: Launch, links: tuple[Link, ...]) -> Iterator[Step]:
    for one in launch.tmpfs:
        raw = f"tool mkdir -p {quote(one.target)}\ntool mount -t tmpfs -o {one.options()} tmpfs {quote(one.target)}"
        yield Step("memory", raw, "", "mounts")
    address = links[0].address if links else None
    given = provided(work, launch.hostname, address, net.name_servers(links), net.hosts(links))
    for file in given if launch.namespaces else ():
        raw = byhand.heredoc(f"tool tee {_HERE}/{posixpath.basename(file.path)} >/dev/null", file.content)
        raw += f"[ ! -f {file.path} ] || tool mount --bind {_HERE}/{posixpath.basename(file.path)} {file.path}"
        yield Step(f"hide {file.path}", raw, "behind a file in memory: the layers stay as they are", "mounts")
    for written in launch.files:
        path = quote(written.path)
        raw = f"tool mkdir -p {quote(posixpath.dirname(written.path))}\n"
        raw += byhand.heredoc(f"tool tee {path} >/dev/null", written.content.decode("utf-8", "surrogateescape"))
        yield Step("file", f"{raw}tool chmod {written.mode:o} {path}", "", "mounts")


def _identity(image: Image, launch: Launch, *, contained: bool) -> Iterator[Step]:
    user = _user(image, launch.process.user)
    if launch.capabilities is not None:
        kept = sorted(identity.names(launch.capabilities))
        words = "--no-new-privs --bounding-set"
        yield Step("capabilities", f": keep {' '.join(kept)}", f"of setpriv below: {words}", "exec")
        yield Step("no_new_privs", ": prctl PR_SET_NO_NEW_PRIVS", "setuid programs gain no privileges", "exec")
    if launch.seccomp:
        count = len(launch.seccomp) // 8
        why = (
            "system calls not needed in a container fail; only vmctl does it, setpriv has no option for it before 2.40"
        )
        yield Step("seccomp", f": filter of {count} instructions", why, "exec")
    env = {"HOME": user.home, **launch.process.env}
    variables = [f"{name}={value}" for name, value in env.items()]
    run = f"{_HERE}/ld --library-path {_HERE} {_HERE}"
    options = join(identity.options(user, launch.capabilities))
    folder = quote(launch.process.workdir)
    start = f"{run}/env -C {folder} -i {join(variables)} {run}/setpriv {options} {join(launch.process.argv)}"
    raw = f"tool mkdir -p {folder}\nexec {'' if contained else 'chroot . '}{start} </dev/null"
    what = f"exec {' '.join(launch.process.argv)}"
    yield Step(what, raw, f"as user {user.uid}:{user.gid} in {launch.process.workdir}", "exec")


def _user(image: Image, text: str | None) -> User:
    """Return the ids of a user of the image; a name has to be in its /etc/passwd."""
    name, _, group = (text or "0").partition(":")
    with lookup.View(image.layers) as view:
        rows = _rows(view, "/etc/passwd", 7)
        entry = next((row for row in rows if name in (row[0], row[2])), None)
        groups = _rows(view, "/etc/group", 4) if group else []
    uid = entry[2] if entry else name
    gid = next((row[2] for row in groups if group in (row[0], row[2])), group) or (entry[3] if entry else "0")
    return User(int(uid), int(gid), (), entry[5] if entry else "/")


def _rows(view: lookup.View, path: str, columns: int) -> list[list[str]]:
    found = view.find(path)
    if found is None:
        return []
    text = b"".join(view.content(path)).decode(errors="replace")
    rows = [line.split(":") for line in text.splitlines()]
    return [row for row in rows if len(row) == columns and row[2].isdigit()]


@singledispatch
def line(step: mountplan.Step) -> str:
    """Return the lines for a step of the plan, in the root's folder."""
    return str(step)


@line.register
def _(step: mountplan.Mount) -> str:
    target = step.target.lstrip("/")
    made = mount(step.source or step.fstype, target, step.fstype, step.flags, step.data)
    return f"mkdir -p {target}; {made}"


@line.register
def _(step: mountplan.Hide) -> str:
    path = step.path.lstrip("/")
    folder = f"mount -t tmpfs -o ro,nosuid,nodev,noexec,size=0 tmpfs {path}"
    return f"if [ -d {path} ]; then {folder}; elif [ -e {path} ]; then mount --bind /dev/null {path}; fi"


@line.register
def _(step: mountplan.ReadOnly) -> str:
    path = step.path.lstrip("/")
    again = f"mount -o remount,bind,ro,nosuid,nodev,noexec {path}"
    return f"[ ! -e {path} ] || {{ mount --rbind {path} {path}; {again}; }}"


@line.register
def _(step: mountplan.Device) -> str:
    return str(step).replace(step.path, step.path.lstrip("/"))


@line.register
def _(step: mountplan.HostDevice) -> str:
    path = step.path.lstrip("/")
    return f"touch {path}; mount --bind {step.path} {path}; mount -o remount,bind,ro,nosuid,noexec {path}"


@line.register
def _(step: mountplan.HostTree) -> str:
    option = "-o ro,nosuid,nodev,noexec " if step.read_only else ""
    return f"mkdir -p {step.path.lstrip('/')}; mount --rbind {option}{step.path} {step.path.lstrip('/')}"


@line.register
def _(step: mountplan.Setting) -> str:
    return f"echo {quote(step.value)} > {step.path.lstrip('/')}"


@line.register
def _(step: mountplan.Link) -> str:
    return f"ln -s {step.to} {step.path.lstrip('/')}"
