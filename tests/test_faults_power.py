"""A loss of power at any moment: the image store is the one of before or after, and complete.

The store is on a file system in a file. What the file contains at one moment is what a disk contains after a loss of
power: all that was not synced is missing. A copy of it is mounted and used.
"""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager

import pytest
from support.commands import VMCTL, ok, vmctl, wait_for

from vmctl.linux import mountinfo

SIZE_MIB = 48


@contextmanager
def mounted(file):
    """Mount a file system in a file, as VMCTL_ROOT of the commands."""
    root = tempfile.mkdtemp(prefix="vmctl-")
    subprocess.run(["mount", "-o", "loop,commit=300", file, root], check=True)
    try:
        yield {**os.environ, "VMCTL_ROOT": root}
    finally:
        mountinfo.unmount_all(root)
        wait_for(lambda: not os.listdir(root))
        os.rmdir(root)


@pytest.fixture
def disk(tmp_path):
    file = str(tmp_path / "disk")
    subprocess.run(["mke2fs", "-qt", "ext4", file, f"{SIZE_MIB}M"], check=True, capture_output=True)
    return file


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Archives of a few images that have a layer in common."""
    folder = tmp_path_factory.mktemp("archives")
    for number in range(4):
        context = folder / f"c{number}"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM tiny\nCOPY content /content\n")
        (context / "content").write_bytes(random.Random(number).randbytes(300_000))
        ok("image", "build", "-t", f"power{number}", str(context))
        ok("image", "export", f"power{number}", "-o", str(folder / f"{number}.tar"))
        ok("image", "rm", f"power{number}")
    return [str(folder / f"{number}.tar") for number in range(4)]


def images(env):
    return set(ok("image", "ls", "-q", env=env).split())


def use(env, names):
    """Read every byte of the images in a store that has come back."""
    for name in names:
        ok("image", "export", name, "-o", "/dev/null", env=env)


def test_an_image_is_on_the_disk_when_its_command_ends(disk, archives, tmp_path):
    with mounted(disk) as env:
        for number, archive in enumerate(archives[:2]):
            ok("image", "import", archive, "--name", f"web{number}", env=env)
            shutil.copyfile(disk, tmp_path / "after")
            with mounted(str(tmp_path / "after")) as later:
                names = images(later)
                assert f"web{number}" in {name.partition(":")[0] for name in names}
                use(later, names)
        ok("image", "rm", "web0", env=env)
        shutil.copyfile(disk, tmp_path / "after")
    with mounted(str(tmp_path / "after")) as later:
        assert {name.partition(":")[0] for name in images(later)} == {"web1"}
        use(later, images(later))


def test_a_store_is_complete_after_any_moment(disk, archives, tmp_path):
    chance = random.Random(5)
    with mounted(disk) as env:
        ok("image", "import", archives[0], "--name", "web0", env=env)
        for moment in range(8):
            name = f"web{1 + moment % 3}"
            words = ["image", "import", archives[1 + moment % 3], "--name", name]
            if name in {one.partition(":")[0] for one in images(env)}:
                words = ["image", "rm", name]
            process = subprocess.Popen([VMCTL, *words], env=env, stdout=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.05, 0.6))
            process.send_signal(signal.SIGSTOP)
            shutil.copyfile(disk, tmp_path / "crashed")
            process.send_signal(signal.SIGCONT)
            assert process.wait() == 0
            with mounted(str(tmp_path / "crashed")) as later:
                names = images(later)
                assert "web0" in {one.partition(":")[0] for one in names}
                use(later, names)
                assert vmctl("prune", "-f", env=later).code == 0
                assert vmctl("doctor", "--fix", env=later).code == 0
