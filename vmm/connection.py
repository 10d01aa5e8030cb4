"""The connection to libvirt: every call of libvirt goes through here.

By default the QEMU driver runs in our own process (`qemu:///embed`, https://libvirt.org/drvqemu.html), with one root
folder per instance; QEMU outlives the process. A process can open one root, and only once: see launcher.py.
"""

from __future__ import annotations

import os
import threading

# libvirt reads this when it is loaded. Errors reach us as exceptions; on stderr they would be reported twice.
os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null")

import libvirt

from vmctl import paths
from vmctl.errors import UnavailableError, VmctlError
from vmctl.linux import filetree, syscalls, usernamespace
from vmm import files

EMBEDDED = "qemu:///embed"

# No virtlogd, and no cgroups, namespaces or labels by libvirt: it runs one guest only, and the journal has the rest.
# Owners of files stay unchanged, because instances share layers.
QEMU_CONF = """\
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
"""


class Connection:
    """An open connection. Everything here raises VmctlError."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        _start_event_loop()
        try:
            self._connection = libvirt.open(uri)
        except libvirt.libvirtError as error:
            raise _unavailable(uri, error) from error

    def check_user(self) -> None:
        """Raise UnavailableError if a daemon runs QEMU as a user who reaches no file of root's vmctl."""
        if self.uri.startswith(EMBEDDED) or not usernamespace.is_host_root():
            return
        if other := user_of_qemu(self._connection.getCapabilities()):
            raise UnavailableError(
                f"QEMU of {self.uri} runs as {other}, who cannot reach the files of vmctl",
                hint='leave --connect out, or set user = "root" and group = "root" in its qemu.conf',
            )

    def probe(self, emulator: str, domain_type: str) -> None:
        """Let libvirt probe QEMU's capabilities now, not during a start: the first time takes 4 s."""
        try:
            self._connection.getDomainCapabilities(emulator, "x86_64", "q35", domain_type)
        except libvirt.libvirtError as error:
            raise VmctlError(f"libvirt cannot use {emulator} as {domain_type}: {_sentence(error)}") from error

    def create(self, name: str, xml: str, *, paused: bool = False) -> dict[str, int]:
        """Start a transient domain and return its actual size, with the names of `domain.Machine`."""
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        try:
            _, memory_kib, _, vcpus, _ = self._connection.createXML(xml, flags).info()
        except libvirt.libvirtError as error:
            raise VmctlError(f"libvirt cannot start the guest {name}: {_sentence(error)}") from error
        return {"vcpus": vcpus, "memory_bytes": memory_kib * 1024}

    def command_line(self, xml: str) -> str:
        """Return the QEMU command line that libvirt would execute for a domain."""
        try:
            return str(self._connection.domainXMLToNative("qemu-argv", xml, 0))
        except libvirt.libvirtError as error:
            raise VmctlError(f"libvirt cannot translate the domain: {_sentence(error)}") from error


def user_of_qemu(capabilities: str) -> str:
    """Return `+UID:+GID` with which a libvirt runs QEMU, "" if that is root, by its capabilities (formatcaps.html)."""
    from xml.etree import ElementTree

    for model in ElementTree.fromstring(capabilities).iterfind("./host/secmodel"):
        for label in model.iterfind("baselabel") if model.findtext("model") == "dac" else ():
            if label.text != "+0:+0":
                return label.text or ""
    return ""


def make_root(root: str, threads: int | None = None) -> str:
    """Create the root folder of an embedded driver and return its URI. One of an earlier start is removed.

    `threads` is how many QEMU may have; libvirt sets this limit for QEMU alone (RLIMIT_NPROC, setrlimit(2)).

    As uid 0 of a user namespace libvirt writes to /run/libvirt regardless of its root, and the path of a socket in the
    home of a user is too long. So for an ordinary user this process, which must be a child that ends with libvirt, gets
    a /run with nothing but a link to the root.

    QEMU's user owns two folders below it; a QEMU of an earlier start may have put links there, which libvirt would
    follow. All roots share one cache of QEMU's capabilities. libvirt writes it by rename, so two can write at the same
    time.
    """
    from urllib.parse import quote

    filetree.remove_tree(root)
    shared = files.capabilities()
    link = os.path.join(root, "cache", "qemu", "capabilities")
    for folder in (shared, os.path.dirname(link), os.path.join(root, "etc")):
        os.makedirs(folder, exist_ok=True)
    os.symlink(shared, link)
    with open(os.path.join(root, "etc", "qemu.conf"), "w", encoding="utf-8") as file:
        file.write(QEMU_CONF if threads is None else f"{QEMU_CONF}max_processes = {threads}\n")
    if not usernamespace.is_host_root():
        _cover_run(root)
        root = files.ALIAS
    return f"{EMBEDDED}?root={quote(root)}"


def _cover_run(root: str) -> None:
    kept = [path for path in (paths.state_root(), paths.run_root(), root) if path.startswith("/run/")]
    syscalls.unshare(syscalls.CLONE_NEWNS)
    # mounts of the user's namespace, such as the switch, appear here later too; the one below does not appear there
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    trees = [syscalls.open_tree(path) for path in kept]
    syscalls.mount("tmpfs", "/run", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755,size=1m")
    for path, tree in zip(kept, trees, strict=True):
        os.makedirs(path, exist_ok=True)
        syscalls.move_mount(tree, path)
        os.close(tree)
    os.symlink(root, files.ALIAS)


def _start_event_loop() -> None:
    """Run libvirt's event loop, which reads QEMU's monitor, in a thread; without it every call would block."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_run_event_loop, name="libvirt", daemon=True).start()


def _run_event_loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def _unavailable(uri: str, error: libvirt.libvirtError) -> UnavailableError:
    text = _sentence(error)
    if "parse user" in text or "parse group" in text:  # compiled into libvirt, and looked up regardless of qemu.conf
        return UnavailableError(f"libvirt cannot start here: {text}", hint="`make setup` creates this system user")
    if "no connection driver" in text or "not found" in text:
        return UnavailableError(f"libvirt has no QEMU driver: {text}", hint="`vmctl doctor` shows how to install it")
    return UnavailableError(f"libvirt cannot open {uri}: {text}")


def _sentence(error: libvirt.libvirtError) -> str:
    return str(error.get_error_message() or error).strip().splitlines()[0]
