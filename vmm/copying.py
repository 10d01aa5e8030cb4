"""Copy files out of a guest and into it, by a shell script and tar(1) inside the guest.

The guest is hostile: what it sends is only a tar, which the host reads as such (vmctl/copying). In a guest with our
agent, shell and tar are those of its initramfs, in a booted system its own ones. For a guest that does not run, another
one is started on its disk (vmm/idle.py).
"""

from __future__ import annotations

import fcntl
import os

from vmctl.backend import Command
from vmctl.copying.pack import Rules
from vmctl.copying.place import Target
from vmctl.errors import ConflictError, NotFoundError, StateError, VmctlError
from vmctl.instances.instance import Instance
from vmm import idle

_ABSENT, _CONFLICT, _OF_KERNEL = 44, 45, 46  # exit codes of the scripts
_ERROR_BYTES = 1 << 16

# PATH FOLLOW: writes a folder as ./ and what is in it, anything else by its name
_OUT = """
path=$1
[ "$2" = no ] || path=$(readlink -f "$path")
[ -e "$path" ] || [ -L "$path" ] || exit 44
case $path in */ | */. | */..) ;; *) [ ! -L "$path" ] || link=yes ;; esac
if [ -d "$path" ] && [ ! "$link" ]; then cd "$path" && exec tar -cf - .; fi
if [ ! "$link" ]; then case $(stat -f -c %t "$path") in 9fa0 | 62656572 | 63677270) exit 46 ;; esac; fi
cd "${path%/*}/" && exec tar -cf - "./${path##*/}"
"""
# PATH NAME KIND: KIND is tar, folder, contents or file
_IN = """
umask 022
path=$1 name=$2 kind=$3
absent() { exit 44; }
conflict() { exit 45; }
unpack() { tar -xpf - && cat >/dev/null; }
old=
if [ -d "$path" ]; then
    case $kind in
    folder)
        path=${path%/}/$name
        [ ! -L "$path" ] || conflict
        if [ -d "$path" ]; then old=yes; else [ ! -e "$path" ] || conflict; mkdir "$path"; fi ;;
    file) path=${path%/}/$name ;;
    *) old=yes ;;
    esac
    [ ! "$old" ] || old=$(stat -c '%a %u:%g' "$path")
else
    case $kind:$path in
    tar:*) absent ;;
    file:*/ | file:*/.) absent ;;
    esac
    [ $kind = file ] || [ ! -e "$path" ] || conflict
    path=${path%/}
    above=${path%/*}
    [ -d "${above:-/}" ] || absent
    [ $kind = file ] || mkdir "$path"
fi
if [ $kind != file ]; then # a folder that is there keeps its owner and mode
    cd "$path" && unpack
    code=$?
    [ ! "$old" ] || { chown "${old#* }" . && chmod "${old% *}" .; }
    exit $code
fi
[ ! -d "$path" ] || [ -L "$path" ] || conflict
[ -L "$path" ] || [ ! -e "$path" ] || [ -f "$path" ] || conflict
cd "${path%/*}/" || absent
new=$(mktemp -d ./.vmctl-XXXXXX) && cd "$new" && unpack && cd .. && mv -f "$new/file" "./${path##*/}"
code=$?
rm -rf "$new"
exit $code
"""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def out(inst: Instance, path: str, fd: int, rules: Rules, *, follow: bool) -> list[str]:
    """See HasCopy. What is left out, the reader of the tar finds."""
    what = f"there is no file or folder {path} in {_name(inst)}"
    _run(inst, _OUT, (path, "yes" if follow else "no"), (os.open(os.devnull, os.O_RDONLY), fd), what, what)
    return []


def into(inst: Instance, target: Target, fd: int) -> list[str]:
    """See HasCopy."""
    kind = "tar" if target.tar else _first_kind(target)
    absent = f"there is no folder for {target.path} in {_name(inst)}"
    conflict = f"{target.path} in {_name(inst)} is in the way: a folder replaces no file, and a file no folder"
    words = (target.path, target.name, kind)
    _run(inst, _IN, words, (fd, os.open(os.devnull, os.O_WRONLY)), absent, conflict)
    return []


def _first_kind(target: Target) -> str:
    if not target.is_folder:
        return "file"
    return "contents" if target.contents else "folder"


def _run(
    inst: Instance, script: str, words: tuple[str, ...], streams: tuple[int, int], absent: str, conflict: str
) -> None:
    """Run a script in the guest on these streams. Raises VmctlError for its failure."""
    _refuse(inst)
    errors = os.memfd_create("errors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(errors, _ERROR_BYTES)
    fcntl.fcntl(errors, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)  # the guest must not fill the memory of the host
    for number, stream in enumerate((*streams, errors)):
        os.dup2(stream, number)
    from vmm import execute

    command = Command(("sh", "-c", script, "cp", *words), (("PATH", _PATH),), "/", "0")
    code = execute.execute(inst, command, tool=True)
    if code == _ABSENT:
        raise NotFoundError(absent)
    if code == _CONFLICT:
        raise ConflictError(conflict)
    if code == _OF_KERNEL:
        raise VmctlError(
            f"{words[0]} is made by the kernel when it is read", hint=f"vmctl exec {_name(inst)} -- cat {words[0]}"
        )
    if code != 0:
        text = os.pread(errors, 1000, 0).rstrip(b"\0").decode(errors="replace").strip()
        raise VmctlError(f"the guest {_name(inst)} could not copy: {text or f'exit code {code}'}")


def _refuse(inst: Instance) -> None:
    if inst.is_paused():
        raise StateError(f"{inst.name} is paused", hint=f"`vmctl unpause {inst.name}` lets it go on")


def _name(inst: Instance) -> str:
    """Return the instance whose files they are, which may be reached through another one."""
    name: str = inst.state.own.get(idle.OF, inst.name)
    return name
