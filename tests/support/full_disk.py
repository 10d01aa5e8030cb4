"""A small file system as VMCTL_ROOT that a test can fill: to the last byte, or to the last file."""

import os
import subprocess
import tempfile
from contextlib import contextmanager, suppress

from vmctl import paths
from vmctl.linux import mountinfo, syscalls

KINDS = ("blocks", "inodes")


class FullDisk:
    """A mounted file system: ext4 in a file to run out of blocks, tmpfs to run out of inodes."""

    def __init__(self, root, kind):
        self.root, self.kind = root, kind

    def fill(self):
        """Take what is left, also what the last blocks of the instances' records have."""
        for folder, _, names in os.walk(paths.instances_root()):
            for name in names:
                if name in ("state.jsonl", "journal"):
                    _pad(os.path.join(folder, name))
        if self.kind == "blocks":
            self._fill_blocks()
        else:
            self._fill_inodes()
        assert self.is_full()

    def is_full(self):
        """Return whether not even one more file with one byte fits."""
        path = os.path.join(self.root, "one-more")
        try:
            with open(path, "wb") as file:
                file.write(b"x")
        except OSError:
            return True
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)
        return False

    def free(self):
        """Give the space back."""
        for name in os.listdir(self.root):
            if name.startswith("fill"):
                os.unlink(os.path.join(self.root, name))

    def _fill_blocks(self):
        number = 0
        with suppress(OSError):
            while True:
                with open(os.path.join(self.root, f"fill{number}"), "wb", buffering=0) as file:
                    with suppress(OSError):
                        while True:
                            file.write(bytes(1 << 16))
                    with suppress(OSError):
                        while True:
                            file.write(bytes(512))
                    assert file.tell()
                os.sync()  # blocks that were reserved for more than was needed
                number += 1
                if self.is_full():
                    return

    def _fill_inodes(self):
        with suppress(OSError):
            for number in range(100_000):
                open(os.path.join(self.root, f"fill{number}"), "wb").close()


@contextmanager
def full_disk(kind, size_mib=24):
    """Yield a new file system of this size; unmount it at the end with all that is mounted in it."""
    with tempfile.TemporaryDirectory(prefix="vmctl-") as folder:
        root = os.path.join(folder, "m")
        os.mkdir(root)
        if kind == "blocks":
            file = os.path.join(folder, "disk")
            subprocess.run(
                ["mke2fs", "-q", "-t", "ext4", "-b", "1024", "-O", "^has_journal", file, f"{size_mib}M"], check=True
            )
            subprocess.run(["mount", "-o", "loop", file, root], check=True)
        else:
            syscalls.mount("tmpfs", root, "tmpfs", 0, f"size={size_mib}m,nr_inodes=400")
        try:
            yield FullDisk(root, kind)
        finally:
            mountinfo.unmount_all(root)


def _pad(path):
    """Lengthen the last line with blanks to the end of its block: the next line needs another one."""
    with open(path, "r+b") as file:
        text = file.read().rstrip(b"\n")
        file.seek(len(text))
        file.write(b" " * (-(len(text) + 1) % 4096) + b"\n")
