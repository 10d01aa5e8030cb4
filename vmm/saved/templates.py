"""Templates: guests that were saved after their kernel has booted, and before anything is known of an instance.

A guest with `vm: {warm: auto}` waits at that point (vmm/guest/template). If there is a template of the same guest, it
was never started itself: it begins there, with the memory of the template. Else it boots, is saved, and goes on. Seed,
disk, address and workload come after that, so all programs of the workload start anew.

A template is the folder `cache/templates/KEY`. The key is a digest of all that its memory depends on: devices, image,
kernel, initrd and its arguments, QEMU, processor, version of vmctl. Those that were not used for the longest time are
removed when there are too many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from images.kernels import booted
from vmctl import records
from vmctl.errors import VmctlError
from vmctl.instances.instance import Instance
from vmctl.light import json
from vmctl.linux import filetree, locks
from vmctl.linux.filetree import write_atomic
from vmctl.spec.workload import Workload
from vmm import boot, domain, files
from vmm.domain import Machine
from vmm.saved import origin, saving, shape
from vmm.saved.origin import Origin

MOST = 8  # of some 60 MiB each
SEED_STEP_BYTES = 1 << 20  # the guest has read how large the disk of the seed is
_RECORD = "template.json"
_WHAT = "the template"


def wanted(work: Workload, kind: str) -> bool:
    """Return whether a guest that boots in this way begins with a template, if there is one, or becomes one."""
    return work.vm.warm != "off" and not refusal(work, kind)


def refusal(work: Workload, kind: str) -> str:
    """Return why a guest cannot begin with a template; "" if it can."""
    if kind != boot.DIRECT:
        return "it boots a system, which would have to make its identity anew"
    if work.volumes:
        return "it has volumes, and QEMU cannot save their devices"
    return ""


def key(machine: Machine) -> str:
    """Return the key of the template for a guest that is about to boot; its disks exist."""
    from hashlib import sha256

    parts = (
        shape.of(domain.domain_xml(machine)).digest,
        _file(machine.kernel),
        [machine.initrd, *machine.layers],  # their names are digests of what is in them
        machine.firmware,
        machine.cmdline,
        [os.path.getsize(path) for path in (machine.disk, machine.seed)],
        shape.host(machine.emulator, machine.accelerator),
    )
    return sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _file(path: str) -> tuple[str, int, int, int]:
    status = os.stat(path)
    return path, status.st_size, status.st_ino, status.st_mtime_ns


def find(name: str, machine: Machine) -> Origin | None:
    """Return a template; None if it does not exist. Raises VmctlError if it cannot be used; it is removed then."""
    folder = os.path.join(booted.root(), name)
    path = os.path.join(folder, _RECORD)
    try:
        facts = records.checked_format(records.read(path, _WHAT), _WHAT)
        found = Origin(folder, facts, _WHAT, own_files=False)
        origin.check(found, machine.emulator, machine.accelerator)
        os.utime(path)
        return found
    except FileNotFoundError:
        return None
    except VmctlError:
        booted.remove(folder)
        raise


def keep(inst: Instance, name: str, machine: Machine) -> None:
    """Save a guest that waits as a template, unless another command has just done that. Raises VmctlError, OSError."""
    folder, new = os.path.join(booted.root(), name), os.path.join(booted.root(), f".{name}.{os.urandom(4).hex()}")
    os.makedirs(booted.root(), mode=0o700, exist_ok=True)
    fd = locks.lock(new)
    try:
        saving.save(inst, new, disk=False)
        with open(files.domain(inst), encoding="utf-8") as file:
            facts = origin.describe(file.read(), new, machine.emulator, machine.accelerator)
        write_atomic(os.path.join(new, _RECORD), json.dumps(records.versioned({**facts, "image": inst.image})))
        os.rename(new, folder)
    except FileExistsError:
        filetree.remove_tree(new)
    except OSError as error:
        filetree.remove_tree(new)
        if not os.path.exists(os.path.join(folder, _RECORD)):
            raise VmctlError(f"no template was made: {error}") from error
    except BaseException:
        filetree.remove_tree(new)
        raise
    finally:
        os.close(fd)
    for old in list(_oldest())[MOST:]:
        booted.remove(old)


def _oldest() -> Iterator[str]:
    """Yield the folders of templates, those that were used last first; leftovers of killed commands are removed."""
    found = []
    for name in os.listdir(booted.root()):
        path = os.path.join(booted.root(), name)
        if name.startswith("."):
            with suppress(OSError), locks.held_at_once(path):
                filetree.remove_tree(path)
            continue
        with suppress(OSError):
            found.append((os.stat(os.path.join(path, _RECORD)).st_mtime_ns, path))
    return (path for _, path in sorted(found, reverse=True))
