"""A guest started by hand: QEMU with the real kernel, initrd and seed, but no libvirt and no bridge."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from images.kernels import kernel
from images.store import store
from images.upkeep import defaults
from vmctl.programs import run
from vmm import disk, guest, keys, seed

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAC = "52:54:00:12:34:56"
# what QEMU's user-mode network gives a guest
ADDRESS = seed.Address("eth0", MAC, "10.0.2.15", 24, "10.0.2.2")


class Outcome(NamedTuple):
    """What came out of a guest that has powered off."""

    marks: list[str]
    stdout: str
    stderr: str
    console: str

    @property
    def end(self) -> str:
        """The last mark, or the console's output if there are no marks."""
        return self.marks[-1] if self.marks else self.console


class Guest:
    """The files of one guest in `folder`, and the command that boots it."""

    def __init__(self, folder: Path) -> None:
        defaults.ensure_defaults(lambda text: None)
        self.folder = folder
        self.layers = [layer.path for layer in store.find("tiny").layers]
        self.kernel = kernel.find("debian")
        self.client_key = keys.load_or_make(self.path("client_key"))
        self.host_key = keys.load_or_make(self.path("host_key"))
        self.memory_mib = 128
        self.extra: list[str] = []
        os.mkfifo(self.path("control"))
        disk.make(self.path("disk"), 64 * 1024**2)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def seed(
        self,
        *argv: str,
        env: dict[str, str] | None = None,
        workdir: str = "/",
        user: str = "",
        files: tuple[seed.SeedFile, ...] = (),
        address: seed.Address | None = None,
    ) -> None:
        """Write the seed that makes the guest run `argv`."""
        words = seed.workload_words(argv, {"PATH": PATH, **(env or {})}, workdir, user)
        identity = seed.Identity(self.client_key.public, self.host_key.private, self.host_key.public)
        user_data = seed.user_data(identity, [*files, seed.workload_script(words)])
        texts = seed.Seed(user_data, seed.meta_data("i-1", "guest"), seed.network_config([address] if address else []))
        seed.write_iso(self.path("seed"), texts)

    def command(self) -> list[str]:
        """Return the call of QEMU, with the devices that libvirt gives a guest."""
        argv = [
            "qemu-system-x86_64",
            *("-nodefaults", "-no-user-config", "-display", "none", "-M", "q35,accel=tcg,hpet=off", "-cpu", "max"),
            *("-m", str(self.memory_mib), "-kernel", self.kernel.vmlinuz, "-initrd", guest.initrd(self.kernel)),
            *("-append", guest.KERNEL_ARGS, "-serial", f"file:{self.path('console')}", "-no-reboot"),
            *("-device", "virtio-serial-pci"),
        ]
        for number, layer in enumerate(self.layers):
            argv += _disk(f"layer{number}", layer, "on")
        argv += [*_disk("seed", self.path("seed"), "on"), *_disk("disk", self.path("disk"), "off")]
        for name in ("marks", "stdout", "stderr"):
            argv += ["-chardev", f"file,id={name},path={self.path(name)}", *_port(name)]
        argv += ["-chardev", f"pipe,id=control,path={self.path('control')}", *_port("control")]
        return [*argv, *self.extra]

    def boot(self, timeout_s: float = 240.0) -> Outcome:
        """Run the guest to its end."""
        run(self.command(), timeout_s=timeout_s)
        return self.outcome()

    @contextmanager
    def running(self, timeout_s: float = 240.0) -> Iterator[None]:
        """Run the guest in a thread; the block must make it power off."""
        thread = threading.Thread(target=run, args=(self.command(),), kwargs={"timeout_s": timeout_s})
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 240.0) -> None:
        """Return when `condition` holds; fails after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.outcome()
            time.sleep(0.05)

    def order(self, line: str) -> None:
        """Write a line to the guest's control port."""
        with open(self.path("control"), "w") as fifo:
            fifo.write(line + "\n")

    def outcome(self) -> Outcome:
        """Return the guest's output so far."""
        marks, stdout, stderr, console = (self.read(name) for name in ("marks", "stdout", "stderr", "console"))
        return Outcome(marks.splitlines(), stdout, stderr, console)

    def read(self, name: str) -> str:
        """Return what is in a stream's file by now."""
        try:
            with open(self.path(name), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""


def _disk(serial: str, path: str, read_only: str) -> list[str]:
    drive = f"id={serial},if=none,format=raw,file={path},read-only={read_only}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={serial},serial={serial}"]


def _port(name: str) -> list[str]:
    return ["-device", f"virtserialport,chardev={name},name=org.vmctl.{name}"]
