"""An ordinary user of this host for tests: an unprivileged uid with subordinate ids, without a change of the host.

Its entries in /etc/passwd, /etc/group, /etc/subuid and /etc/subgid exist in a mount namespace only, on copies of these
files. There, the Python of the tests and this checkout can be reached even if they are in a folder that only root may
enter, and /dev/net/tun is usable by everybody, as udev makes it.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

from support.commands import TIMEOUT_S, VMCTL, Checked, Result

from vmctl import paths
from vmctl.linux import syscalls

UID, FIRST_ID, COUNT = 61_001, 0x60000000, 65_536
_OPEN_DEVICES = {"/dev/net/tun": (10, 200)}
_CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_IDS_KEPT = 1 << 17  # distance between the subordinate ids of two users
_USERS_MAX = 512


class OrdinaryUser(Checked):
    """A user with an empty home; a context manager that ends its processes and deletes its home.

    `ids` is the number of its subordinate ids. Each has a uid that no other test has at the same time.
    """

    def __init__(self, *, ids=COUNT, tun=True):
        number, self._lock = _free_number()
        self.uid = UID + number
        self.name = f"vmctl-test-{number}"
        self.first_id, self.ids = FIRST_ID + number * _IDS_KEPT, ids
        self.tun = tun
        self.home = tempfile.mkdtemp(prefix="vmctl-user-")
        self.runtime = tempfile.mkdtemp(prefix="vmctl-rt-")
        self._files = tempfile.mkdtemp(prefix="vmctl-etc-")
        self._namespace = None
        self._groups = []

    def __enter__(self):
        for folder in (self.home, self.runtime):
            os.chown(folder, self.uid, self.uid)
        self._namespace = self._make_namespace()
        return self

    def __exit__(self, *_):
        self.end_processes()
        for group in self._groups:
            for folder, _, _ in os.walk(group, topdown=False):
                os.rmdir(folder)
        os.close(self._namespace)
        os.close(self._lock)
        for folder in (self.home, self.runtime, self._files):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def environment(self):
        """The variables that a login would set."""
        return {
            "HOME": self.home,
            "USER": self.name,
            "LOGNAME": self.name,
            "XDG_RUNTIME_DIR": self.runtime,
            "PATH": f"{os.path.dirname(VMCTL)}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def state(self):
        """The user's state root."""
        return os.path.join(self.home, ".local/share/vmctl")

    def command(self, *words, folder=None):
        """Return (words, options) that execute a command as this user, for subprocess."""
        inside = ["nsenter", f"--mount=/proc/self/fd/{self._namespace}", "--"]
        ids = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--inh-caps=-all", "--"]
        moved = ["env", "-C", folder or self.home]
        return [*inside, *ids, *moved, *words], {"pass_fds": (self._namespace,), "env": self.environment}

    def run(self, *words, stdin="", timeout_s=TIMEOUT_S, env=None, folder=None, **options):
        """Run a command to its end with pipes as its streams."""
        words, others = self.command(*words, folder=folder)
        others["env"] = {**others["env"], **(env or {})}
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            **others,
            **options,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def vmctl(self, *words, **options):
        """Run vmctl to its end with pipes as its streams."""
        return self.run(VMCTL, *words, **options)

    def start(self, *words):
        """Start vmctl with pipes and return the process."""
        words, options = self.command(VMCTL, *words)
        return subprocess.Popen(words, **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE), **options)

    def python(self, source, *words, **options):
        """Run a Python program with the modules of this checkout."""
        return self.run(sys.executable, "-c", source, *words, folder=_CHECKOUT, **options)

    def give_image(self, name="tiny"):
        """Import an image of root's store into the store of this user."""
        archive = os.path.join(self.home, f"{name}.tar")
        subprocess.run([VMCTL, "image", "export", name, "-o", archive], check=True, capture_output=True)
        os.chmod(archive, 0o644)
        self.ok("image", "import", "--name", name, archive)
        os.unlink(archive)

    def give_kernel(self):
        """Copy root's kernels, and the packages that an initrd is made of, into the store of this user."""
        for name in ("kernels", "packages"):
            target = os.path.join(self.state, "images", name)
            self.run("mkdir", "-p", target)
            subprocess.run(["cp", "-rT", "--no-preserve=mode", f"{paths.images_root()}/{name}/", target], check=True)
            subprocess.run(["chown", "-R", f"{self.uid}:{self.uid}", target], check=True)

    def delegate_cgroups(self):
        """Give this user a group of each controller, as the hint of vmctl describes; they are removed with the user."""
        for controller in ("memory", "cpu", "pids"):
            group = f"/sys/fs/cgroup/{controller}/vmctl-{self.uid}"
            os.mkdir(group)
            self._groups.append(group)
            for name in ("", *os.listdir(group)):
                os.chown(os.path.join(group, name), self.uid, self.uid)

    def write(self, name, content):
        """Write a file into the home and return its path."""
        path = os.path.join(self.home, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        os.chown(path, self.uid, self.uid)
        return path

    def processes(self):
        """Return the pids of all processes of this user and of its subordinate ids."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(FileNotFoundError, ProcessLookupError):
                uid = os.stat(f"/proc/{name}").st_uid
                with open(f"/proc/{name}/status", encoding="utf-8", errors="replace") as file:
                    real = next(int(line.split()[1]) for line in file if line.startswith("Uid:"))
                if self.uid in (uid, real) or 0 <= real - self.first_id < self.ids:
                    found.append(int(name))
        return [pid for pid in found if not _is_zombie(pid)]

    def end_processes(self, timeout_s=60.0):
        """Kill every process of this user; they were all started by the test."""
        deadline = time.monotonic() + timeout_s
        while left := self.processes():
            assert time.monotonic() < deadline, left
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _make_namespace(self):
        """Return a descriptor of the mount namespace of this user."""
        ready, done = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self._furnish()
                os.write(ready[1], b"r")
                os.close(done[1])
                os.read(done[0], 1)
            finally:
                os._exit(0)
        os.close(ready[1])
        try:
            assert os.read(ready[0], 1) == b"r", "the mount namespace of the user could not be made"
            return os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        finally:
            for fd in (ready[0], *done):
                os.close(fd)
            os.waitpid(pid, 0)

    def _furnish(self):
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        entry = f"{self.name}:x:{self.uid}:{self.uid}::{self.home}:/bin/bash"
        subordinate = [f"{self.name}:{self.first_id}:{self.ids}"] if self.ids else []
        self._append("/etc/passwd", [entry])
        self._append("/etc/group", [f"{self.name}:x:{self.uid}:"])
        self._append("/etc/subuid", subordinate)
        self._append("/etc/subgid", subordinate)
        _uncover(_CHECKOUT, sys.prefix, sys.base_prefix)
        if self.tun:
            for path, device in _OPEN_DEVICES.items():
                self._open_device(path, device)

    def _append(self, path, lines):
        """Bind a copy with more lines over a file of the host."""
        copy = os.path.join(self._files, os.path.basename(path))
        text = ""
        with suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            text = file.read()
        with open(copy, "w", encoding="utf-8") as file:
            file.write(text + "".join(f"{line}\n" for line in lines))
        os.chmod(copy, 0o644)
        os.chmod(self._files, 0o755)
        syscalls.mount(copy, path, None, syscalls.MS_BIND)

    def _open_device(self, path, device):
        if not os.path.exists(path):
            return
        node = os.path.join(self._files, os.path.basename(path))
        os.mknod(node, 0o020666, os.makedev(*device))
        os.chmod(node, 0o666)
        syscalls.mount(node, path, None, syscalls.MS_BIND)


def _free_number():
    """Return a number and a lock that keeps other tests, also of other checkouts, from taking it (flock(2))."""
    for number in range(_USERS_MAX):
        lock = os.open(f"/run/lock/vmctl-test-user-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return number, lock
        except BlockingIOError:
            os.close(lock)
    raise AssertionError("too many users at the same time")


def _uncover(*folders):
    """Make folders reachable for every user: a folder above them that is closed is covered by an empty one."""
    closed = {}
    for folder in folders:
        if (above := _closed_above(folder)) is not None:
            closed.setdefault(above, []).append((folder, syscalls.open_tree(folder)))
    for above, trees in closed.items():
        syscalls.mount("tmpfs", above, "tmpfs", 0, "mode=755")
        for folder, tree in sorted(trees):
            os.makedirs(folder, exist_ok=True)
            syscalls.move_mount(tree, folder)
            os.close(tree)


def _closed_above(folder):
    path = "/"
    for name in folder.strip("/").split("/"):
        path = os.path.join(path, name)
        if not os.stat(path).st_mode & 0o001:
            return path
    return None


def _is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
