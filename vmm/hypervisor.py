"""QEMU's command line for a machine, as one would type it: with files in place of libvirt's descriptors."""

from __future__ import annotations

from collections.abc import Iterator

from vmctl.backend import Problem
from vmctl.linux import usernamespace
from vmctl.spec.workload import Workload
from vmm import pmem
from vmm.domain import SLOW_IF_EMULATED, Machine, ports

_SANDBOX = "on,obsolete=deny,elevateprivileges=allow,spawn=deny,resourcecontrol=deny"  # -runas changes the user


def problems(work: Workload) -> Iterator[Problem]:
    """Yield the keys that the line leaves out."""
    values = {
        "secrets": work.secrets,
        "env_file": work.env_file,
        "volumes": work.volumes,
        "tty, stdin_open": work.tty or work.stdin_open,
        "several networks": len(work.joined()) > 1,
    }
    for key, value in values.items():
        if value:
            yield Problem(f"{key}: a start by hand leaves it out", "`vmctl --trace FILE up` records the real start")
    if not usernamespace.is_host_root():
        yield Problem("the lines make a tap device, so they need root", "without --script, `--explain` shows them")


def line(machine: Machine) -> str:
    """Return the command, an option on each line; the guest's files are in the folder $W."""
    return " \\\n  ".join((machine.emulator, *_options(machine)))


def _options(machine: Machine) -> Iterator[str]:
    off = "".join(f",-{name}" for name in SLOW_IF_EMULATED) if machine.accelerator == "tcg" else ""
    yield f"-name {machine.name} -machine q35,usb=off -cpu max{off}"
    yield " ".join(f"-accel {name}" for name in _accelerators(machine.accelerator))
    yield f"-smp {machine.vcpus} -m {machine.memory_bytes >> 20}"
    yield "-nodefaults -no-user-config -display none -monitor none"
    yield f"-runas {machine.uid}:{machine.uid} -sandbox {_SANDBOX}"
    yield "-action panic=shutdown,reboot=reset,shutdown=poweroff -device pvpanic"
    if machine.kernel:
        yield from (f"-bios {name}" for name in [machine.firmware] if name)
        yield f"-kernel '{machine.kernel}'"
        yield f"-initrd '{machine.initrd}'"
        yield f"-append '{machine.cmdline}'"
    yield from _disks(machine)
    words = pmem.arguments(machine)
    yield from (f'{option} "{value}"' for option, value in zip(words[::2], words[1::2], strict=True))
    for number, nic in enumerate(machine.nics):
        yield f"-netdev tap,id=net{number},ifname={nic.tap},script=no,downscript=no"
        mtu = f",host_mtu={nic.mtu}" if nic.mtu != 1500 else ""
        yield f"-device virtio-net-pci,netdev=net{number},mac={nic.mac},romfile={mtu}"
    yield "-chardev file,id=console,path=/dev/stdout,append=on -device isa-serial,chardev=console"
    yield f"-device virtio-serial-pci,max_ports={ports(machine)}"
    yield from _ports(machine)
    yield "-device virtio-balloon-pci,free-page-reporting=on"
    yield "-object rng-random,id=random,filename=/dev/urandom -device virtio-rng-pci,rng=random"
    yield "</dev/null"


def _accelerators(name: str) -> tuple[str, ...]:
    return ("kvm", "tcg") if name == "auto" else (name,)  # QEMU takes the first that works


def _disks(machine: Machine) -> Iterator[str]:
    layers = (one for one in enumerate(machine.layers) if one[0] not in dict(machine.dax))
    disks = [(f"layer{number}", path, True) for number, path in layers]
    disks += [("modules", machine.modules, True)] if machine.modules else []
    disks += [("seed", machine.seed, True), ("disk", machine.disk, False)]
    for serial, path, read_only in disks:
        form = "raw" if machine.kernel or read_only else "qcow2"
        boot = ",bootindex=1" if not machine.kernel and not read_only else ""
        options = "readonly=on" if read_only else "discard=unmap"
        yield f'-drive "if=none,id={serial},file={path},format={form},{options}"'
        yield f"-device virtio-blk-pci,drive={serial},serial={serial}{boot}"


def _ports(machine: Machine) -> Iterator[str]:
    """Yield the ports; what the workload writes goes to the output of QEMU."""
    for name, path in machine.outputs:
        short = name.rpartition(".")[2]
        target = {"stdout": "/dev/stdout", "stderr": "/dev/stderr"}.get(short, path)
        yield f'-chardev "file,id={short},path={target},append=on"'
        yield f"-device virtserialport,chardev={short},name={name}"
    name, path = machine.control
    yield f'-chardev "pipe,id=control,path={path}" -device virtserialport,chardev=control,name={name}'
    if machine.agent:
        name, path = machine.agent
        yield f'-chardev "socket,id=agent,path={path},server=on,wait=off"'
        yield f"-device virtserialport,chardev=agent,name={name}"
