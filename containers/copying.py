"""Copy files out of a container and into it, from inside of its root and with no more rights than its own root.

The process that does it is a copy of vmctl that has entered the mount namespace and the user namespace of it. All paths
are resolved there, so a link leads to nothing but files of the container, even if it was exchanged just now. It does
not enter the PID namespace: no process inside sees it, can signal it or look into it (its memory is vmctl's).

A container that does not run has no namespaces. Its root is then mounted in a mount namespace of this process, which
ends with it, and entered in the same way.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack

from containers import enter, identity, imagepath, preparation, trees
from containers.launch import Launch
from containers.watch import ContainerWatch
from images.layer import mounts, volumes
from images.store import store
from vmctl import userns
from vmctl.copying.pack import Packer, Rules
from vmctl.copying.place import Target, receive
from vmctl.copying.tar import PART
from vmctl.errors import NotFoundError
from vmctl.instances.instance import Instance
from vmctl.linux import syscalls
from vmctl.linux.cgroups import Cgroup
from vmctl.linux.stdio import write_all

# what root needs to read and write the files of all users
_CAPABILITIES = identity.capability_mask(("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"), ("ALL",))


def out(inst: Instance, path: str, fd: int, rules: Rules, *, follow: bool, namespaced: bool) -> list[str]:
    """See HasCopy; this process is inside afterwards."""
    with ExitStack() as stack:
        _enter(inst, stack, namespaced=namespaced)
        packer = Packer(lambda data: write_all(fd, data), rules, _is_of_kernel)
        try:
            _pack(packer, path, follow=follow)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"there is no file or folder {path} in {inst.name}") from None
        return packer.left_out


def into(inst: Instance, target: Target, fd: int, *, namespaced: bool) -> list[str]:
    """See HasCopy; this process is inside afterwards."""
    with ExitStack() as stack:
        _enter(inst, stack, namespaced=namespaced)
        os.umask(0)
        left_out = receive(lambda count: os.read(fd, count), target, _open_folder)
        while os.read(fd, PART):  # what follows the end of the tar
            pass
        return left_out


def _pack(packer: Packer, path: str, *, follow: bool) -> None:
    above, name = os.path.split(path)
    if follow or name in ("", ".", ".."):
        found = imagepath.reach(path)
        if stat.S_ISDIR(os.fstat(found).st_mode):
            os.close(found)
            packer.folder(_open_folder(path))
            return
        os.close(found)
        path = os.path.realpath(path) if follow else path
        above, name = os.path.split(path.rstrip("/"))
    packer.one(imagepath.reach(above, os.O_PATH | os.O_DIRECTORY), name)


def _open_folder(path: str) -> int:
    return imagepath.reach(path, os.O_RDONLY | os.O_DIRECTORY)


def _is_of_kernel(fd: int) -> bool:
    return syscalls.file_system(fd) in imagepath.OF_KERNEL


def _enter(inst: Instance, stack: ExitStack, *, namespaced: bool) -> None:
    """Enter the root of an instance, for good. Raises the errors of vmctl.errors, OSError."""
    os.setsid()
    if ContainerWatch(inst).alive():
        _enter_running(inst, preparation.resume(inst, namespaced=namespaced))
    else:
        stack.enter_context(inst.locked())
        if ContainerWatch(inst).alive():  # the command that had the lock has started it
            _enter_running(inst, preparation.resume(inst, namespaced=namespaced))
        else:
            _enter_at_rest(inst, stack, namespaced=namespaced)
    identity.become(identity.User(0, 0, (), "/"), _CAPABILITIES)


def _close_up() -> None:
    """Prepare to be inside: no module comes from there, and no process of it gets at our memory (ptrace(2))."""
    imagepath.import_nothing()
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def _enter_running(inst: Instance, launch: Launch) -> None:
    assert inst.state.pid is not None
    container = os.pidfd_open(inst.state.pid)
    _close_up()
    enter.join(launch, container, launch.namespaces & (syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUSER))
    os.chdir("/")


def _enter_at_rest(inst: Instance, stack: ExitStack, *, namespaced: bool) -> None:
    """Mount the root of an instance that does not run where only this process sees it, and enter it."""
    image = preparation.of_clone(inst, store.lease(inst.image, inst))
    if inst.work.volumes and not inst.state.starts:
        volumes.prepare(inst.work, image, inst, first=True)
    layers = [mounts.mount_layer(layer, inst) for layer in image.stack]
    preparation.make_folders(inst, layers[-1])
    flags = preparation.namespaces(inst.work) if namespaced else 0
    own_users = bool(flags & syscalls.CLONE_NEWUSER)
    launch = preparation.launch(inst.work, image, layers, inst.directory, Cgroup(inst.cgroup), (), flags)
    launch = trees.make(inst, launch, own_users=own_users)
    inst.save()  # the range of ids, if it is new
    users = None
    if launch.first_id:  # 0: an ordinary user, whose containers have the ids of this namespace
        users = stack.enter_context(userns.namespace_with(userns.mapping(launch.first_id)))
    _close_up()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    assert launch.tree is not None
    syscalls.move_mount(launch.tree, launch.root.target)
    os.chdir(launch.root.target)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")
    for volume, tree in zip(launch.volumes, launch.volume_trees, strict=True):
        place = imagepath.mount_point(volume.target, is_folder=stat.S_ISDIR(os.fstat(tree).st_mode))
        syscalls.move_mount(tree, place)
        os.close(place)
    if users is not None:
        syscalls.setns(users, syscalls.CLONE_NEWUSER)
        identity.become_root()
