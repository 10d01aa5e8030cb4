"""The start of a container from clone3 to exec, in the order that the kernel requires.

The same code starts a plain process: without namespaces in `Launch.namespaces` the root is entered by chroot(2). An
error in the child before exec is sent to the parent through a pipe, which exec closes.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Mapping
from time import monotonic_ns

from containers import identity, imagepath
from containers.mountplan import Overlay, Step
from containers.reports import describe, own_namespaces, phases, receipt
from images.store.image import Process
from vmctl import trace
from vmctl.errors import CommandNotExecutableError, CommandNotFoundError, SpecError
from vmctl.light import signal
from vmctl.linux import netlink, syscalls
from vmctl.linux.cgroups import Cgroup
from vmctl.linux.stdio import is_null
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.net import Link
from vmctl.spec.workload import File, Tmpfs, Volume

if TYPE_CHECKING:
    from typing import NoReturn

    from containers.terminals import Channel
    from vmctl.keeping.runs import Keep
    from vmctl.userns import MappingBarrier

NAMESPACES = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)


class Written(NamedTuple):
    """A file of the workload; its content is decoded before the root is entered."""

    path: str
    content: bytes
    mode: int


class Launch(NamedTuple):
    """Everything the child needs, computed before the start is timed."""

    namespaces: int
    cgroup: Cgroup
    root: Overlay
    steps: tuple[Step, ...]
    volumes: tuple[Volume, ...]
    files: tuple[Written, ...]
    provided: tuple[File, ...]  # files that hide those of the image
    folders: tuple[str, ...]  # created if they are missing
    process: Process
    hostname: str
    links: tuple[Link, ...]
    init: str | None  # path on the host of a reaper that runs as PID 1 and starts the command
    tty: bool  # whether the command gets a terminal of the container's devpts
    first_id: int | None  # id of the host that is 0 inside; None: no user namespace
    tree: int | None  # descriptor of the root as a detached mount; None: `root` is mounted on the host
    volume_trees: tuple[int, ...]  # the same for the volumes
    secrets: tuple[Written, ...]  # the path is only the name
    keep: Keep | None  # what the process that stays with the workload inherits
    joins: int  # descriptor of the network namespace of another container; -1: none
    tmpfs: tuple[Tmpfs, ...]
    read_only: bool  # the root, once all is in it
    capabilities: int | None  # None: keep all
    seccomp: bytes  # empty: no filter


class Streams(NamedTuple):
    """Descriptors that become 0, 1 and 2."""

    stdin: int
    stdout: int
    stderr: int


def clone(launch: Launch, streams: Streams, report: int, plugged: int, channel: Channel | None = None) -> int:
    """Create the container's first process and return its pid.

    The process writes to `report` the time at which it began (T4, nanoseconds) and a newline, then its namespaces and
    the ends of its phases (see containers/reports.py), then the error if exec fails. It reads a byte from `plugged`
    before it configures its network. With `channel` it gets a terminal instead of the streams. Raises OSError if clone3
    fails.
    """
    cgroup_fd = launch.cgroup.open_for_clone()
    # v1 has no CLONE_INTO_CGROUP: the child joins first, because its cgroup becomes the root of the cgroup namespace
    later = syscalls.CLONE_NEWCGROUP if cgroup_fd is None else 0
    barrier = _barrier(launch)
    parent = os.pidfd_open(os.getpid())
    if trace.on:
        from containers import traced

        traced.clone(launch)
    try:
        if launch.joins >= 0:
            from containers import beside

            pid = beside.clone3(launch.joins, launch.namespaces & ~later, cgroup_fd)
        else:
            pid = syscalls.clone3(launch.namespaces & ~later, exit_signal=signal.SIGCHLD, cgroup_fd=cgroup_fd)
        if pid == 0:
            _child(launch, streams, report, plugged, barrier, parent, channel, join_cgroup=cgroup_fd is None)
    finally:
        os.close(parent)
        if cgroup_fd is not None:
            os.close(cgroup_fd)
    if barrier is not None:
        barrier.release(pid)
    return pid


def _barrier(launch: Launch) -> MappingBarrier | None:
    if launch.first_id is None:
        return None
    from vmctl.userns import MappingBarrier, mapping

    return MappingBarrier(mapping(launch.first_id))


def _child(
    launch: Launch,
    streams: Streams,
    report: int,
    plugged: int,
    barrier: MappingBarrier | None,
    parent: int,
    channel: Channel | None,
    *,
    join_cgroup: bool,
) -> NoReturn:
    try:
        os.write(report, b"%d\n" % monotonic_ns())  # T4
        own = own_namespaces()
        os.setsid()  # /dev/tty is no longer the caller's terminal, and its process groups cannot be joined
        if join_cgroup:
            launch.cgroup.join()
            syscalls.unshare(launch.namespaces & syscalls.CLONE_NEWCGROUP)
        if trace.on:
            trace.comment("the new process is there")
        if barrier is not None:
            barrier.wait()
        marks_ns = enter_root(launch)
        user = identity.find_user(launch.process.user)
        if launch.secrets:
            from containers import secretfiles

            secretfiles.attach(launch.secrets, user)
        for file in launch.files:
            _write_file(file)
        if launch.namespaces & syscalls.CLONE_NEWUTS:
            syscalls.sethostname(launch.hostname)
        if launch.links:
            _read_from_parent(plugged, parent)
            for link in launch.links:
                link.network.configure_inside(link)
        elif launch.namespaces & syscalls.CLONE_NEWNET:
            netlink.apply(netlink.set_up("lo"))
        if launch.namespaces & syscalls.CLONE_NEWNET:
            marks_ns["network"] = monotonic_ns()
        if launch.read_only:
            imagepath.make_read_only(launch.process.workdir)
        argv = (_INIT, "-s", "--", *launch.process.argv) if launch.init else launch.process.argv
        redirect(channel.own_terminal(user.uid) if channel is not None else streams)
        enter_folder(imagepath.folder(launch.process.workdir))
        os.write(report, receipt(own) + phases(marks_ns))
        execute(launch.process._replace(argv=argv), user, launch.capabilities, launch.seccomp, parent)
    except BaseException as error:  # report any error to the parent; this copy of vmctl must not continue
        os.write(report, describe(error))
    finally:
        os._exit(125)


def _read_from_parent(pipe: int, parent: int) -> bytes:
    """Return the next bytes from the parent. Exits if the parent does: this process has the pipe's other end too."""
    if pipe not in select.select([pipe, parent], [], [])[0]:
        os._exit(125)
    return os.read(pipe, 64)


_INIT = "/dev/.init"
_IN_MEMORY = (("/run", "755"), ("/tmp", "1777"), ("/var/tmp", "1777"))  # with a read-only root
_PLAIN = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV


def enter_root(launch: Launch) -> dict[str, int]:
    """Mount the root, enter it, mount the rest from inside, and return when each of these phases has ended.

    The old root is stacked on the new one until the kernel's file systems are mounted: a user namespace may mount them
    only where it sees them already. As long as it is there, `/..` leads to it, so no link of the image may be followed.
    """
    own_mounts = bool(launch.namespaces & syscalls.CLONE_NEWNS)
    imagepath.import_nothing()
    if own_mounts:  # else the mounts below would appear on the host
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    _attach_root(launch)
    imagepath.refuse_read_only(launch.root.target)
    old = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    init = syscalls.open_tree(launch.init, recursive=False) if launch.init else None
    os.chdir(launch.root.target)
    if trace.on:
        trace.step(f"cd {launch.root.target}")
    if own_mounts:
        syscalls.pivot_root(".", ".")
    else:
        os.chroot(".")
        if trace.on:
            trace.step("chroot .")
    marks_ns = {"root": monotonic_ns()}
    if launch.first_id is not None:
        identity.become_root()
    imagepath.refuse_links()
    os.umask(0)  # mkdir and mknod must get the modes they request
    os.fchdir(old)
    if own_mounts and trace.on:
        trace.step("cd -P ..", "the old root, which is stacked on the new one")
    for step in launch.steps:  # in /proc, /dev and /sys only: no path of the image is followed
        step.apply()
    if own_mounts:
        syscalls.umount2(".", syscalls.MNT_DETACH)
    os.close(old)
    os.chdir("/")
    for path, mode in _IN_MEMORY if launch.read_only else ():
        _attach(syscalls.new_mount("tmpfs", (("source", "tmpfs"), ("mode", mode)), _PLAIN), path)
    mounts = [(volume.target, tree) for volume, tree in zip(launch.volumes, launch.volume_trees, strict=True)]
    if launch.tmpfs:
        from containers import memory

        mounts = memory.added(mounts, launch.tmpfs)
    for target, tree in mounts:
        _attach(tree, target)
    imagepath.provide(launch.provided, launch.folders, read_only=launch.read_only)
    if init is not None:
        _attach(init, _INIT)
        syscalls.mount(None, _INIT, None, syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY)
    os.umask(0o022)
    return {**marks_ns, "mounts": monotonic_ns()}


def _attach_root(launch: Launch) -> None:
    if launch.tree is None:
        launch.root.apply()
        return
    syscalls.move_mount(launch.tree, launch.root.target)
    for command in str(launch.root).split(" && ") if trace.on else ():
        trace.step(command)


def _attach(tree: int, target: str) -> None:
    """Attach a detached mount to a path inside, which is created if it is missing."""
    mount_point = imagepath.mount_point(target, is_folder=stat.S_ISDIR(os.fstat(tree).st_mode))
    try:
        syscalls.move_mount(tree, mount_point)
    finally:
        os.close(mount_point)


def _write_file(file: Written) -> None:
    if trace.on:
        trace.comment(f"write {file.path} (mode {file.mode:04o}, {len(file.content)} bytes)")
    with os.fdopen(imagepath.file(file.path), "wb") as stream:
        stream.write(file.content)
        os.fchmod(stream.fileno(), file.mode)


def redirect(streams: Streams) -> None:
    """Duplicate the streams to descriptors 0, 1 and 2, inside the root; the null device is opened again there.

    The mode of the host's /dev/null could be changed through a descriptor of it: fchmod(2).
    """
    null = None
    if any(map(is_null, streams)):
        null = imagepath.reach("/dev/null", os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
        if not is_null(null):
            raise SpecError("/dev/null is not the null device", hint="the workload has replaced it")
        os.set_blocking(null, True)
    # none may be overwritten before it is copied
    copies = [null if null is not None and is_null(fd) else os.dup(fd) if fd < 3 else fd for fd in streams]
    for number, fd in enumerate(copies):
        os.dup2(fd, number)


def enter_folder(fd: int) -> None:
    """Enter a folder and close its descriptor."""
    os.fchdir(fd)
    os.close(fd)


def execute(process: Process, user: identity.User, capabilities: int | None, seccomp: bytes, parent: int) -> NoReturn:
    """Execute the process in the current directory, inside its root.

    The kernel kills it when its parent ends, whose pidfd is `parent`. Raises CommandNotFoundError,
    CommandNotExecutableError or OSError.
    """
    env = {"HOME": user.home, **process.env}
    syscalls.reset_signals()
    for path in _candidates(process.argv[0], env):
        imagepath.check_program(path)
    identity.become(user, capabilities)
    # after the change of user, which clears it (prctl(2)), and before the filter, which may refuse it
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([parent], [], [], 0)[0]:  # the parent has ended before, so the kernel sends no signal
        os._exit(125)
    if trace.on:
        from containers import traced

        traced.execute(process._replace(env=env), user, capabilities, seccomp)
    syscalls.close_on_exec_from(3)
    if process.ulimits:  # as late as possible: they limit this interpreter too
        from containers import ulimits

        ulimits.apply(process.ulimits)
    if seccomp:
        syscalls.seccomp_filter(seccomp)
    _exec(process.argv, env)


def _exec(argv: tuple[str, ...], env: Mapping[str, str]) -> NoReturn:
    found: OSError | None = None
    for path in _candidates(argv[0], env):
        try:
            os.execve(path, argv, env)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.exists(path):  # a script whose interpreter, or a program whose loader, is missing
                found = found or FileNotFoundError(2, "its interpreter is not in the image", path)
        except OSError as error:
            found = found or error
    if found is None:
        raise CommandNotFoundError(f"the command {argv[0]} is not in the image")
    raise CommandNotExecutableError(f"the command {argv[0]} cannot be executed: {found.strerror}")


def _candidates(program: str, env: Mapping[str, str]) -> list[str]:
    """Return the paths that execvp(3) would try."""
    folders = [""] if "/" in program else env.get("PATH", os.defpath).split(":")
    return [os.path.join(folder, program) for folder in folders]
