"""Imports that are killed, that run at the same time, and what they take."""

import gzip
import os
import random
import signal
import subprocess
import time

import pytest
from support.archives import Layout, sha256
from support.commands import VMCTL, ok, refused, start, wait_for
from support.tars import tar_of

from images.store import store
from images.transfer import importing

pytestmark = pytest.mark.usefixtures("empty_root")

BASE = tar_of(("base", {}, random.Random(1).randbytes(1 << 20)))


def big(number, mib=24):
    return tar_of((f"big{number}", {}, random.Random(number).randbytes(1 << 20) * mib))


def archive(tmp_path, *tars, name="web:1"):
    layout = Layout()
    return str(layout.add(layout.image(*tars, packing=""), name).archive(tmp_path / f"{name}.tar".replace("/", "-")))


def under_way():
    """Whether some import has written a part of a layer into its stage."""
    root = store.path("stages")
    for folder, _, files in os.walk(root) if os.path.isdir(root) else ():
        if any(name.endswith(".new") and os.path.getsize(os.path.join(folder, name)) > 1 << 20 for name in files):
            return True
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_import_that_is_ended_changes_nothing_and_the_next_command_cleans_up(tmp_path, number):
    path = archive(tmp_path, BASE, big(1, mib=120))
    process = start("image", "import", path)
    wait_for(under_way)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert store.ls() == []
    assert len(os.listdir(store.path("stages"))) == (1 if number == signal.SIGKILL else 0)
    small = archive(tmp_path, BASE, name="small:1")
    assert ok("image", "import", small) == "small:1\n"
    assert os.listdir(store.path("stages")) == []
    assert store.unreferenced() == []


def test_imports_of_the_same_at_once_give_one_image(tmp_path):
    path = archive(tmp_path, BASE, big(1), big(2))
    processes = [start("image", "import", path) for _ in range(3)]
    for process in processes:
        out, err = process.communicate()
        assert (process.returncode, out, err) == (0, b"web:1\n", b"")
    assert [image.name for image in store.ls()] == ["web:1"]
    assert len(os.listdir(store.path("layers"))) == 3 * 2  # the layer and its index
    assert store.unreferenced() == []
    assert os.listdir(store.path("stages")) == []


def test_imports_and_removals_at_once_leave_whole_images(tmp_path):
    """Two images share a layer: that one is removed while the other arrives takes nothing away from it."""
    one, two = archive(tmp_path, BASE, big(1, 2), name="one:1"), archive(tmp_path, BASE, big(2, 2), name="two:1")
    ok("image", "import", one)
    for _ in range(3):
        processes = [start("image", "import", two), start("image", "rm", "one:1")]
        assert [process.communicate() and process.returncode for process in processes] == [0, 0]
        image = store.find("two:1")
        ok("image", "export", image.name, "-o", str(tmp_path / "out"))  # verifies the layers
        ok("image", "import", one)
        ok("image", "rm", "two:1")
    assert store.unreferenced() == []


# what it takes


def peak_kib(*words):
    """Run the command and return the most memory it had resident; wait4(2)'s number may be the parent's."""
    process = subprocess.Popen([VMCTL, *words], stdout=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status") as file:
                most = max(most, *(int(line.split()[1]) for line in file if line.startswith("VmHWM")), 0)
        except (OSError, TypeError):
            pass
        time.sleep(0.01)
    assert process.returncode == 0
    return most


def test_memory_does_not_grow_with_the_image(tmp_path):
    small, large = archive(tmp_path, big(1, 4), name="small:1"), archive(tmp_path, big(2, 64), name="large:1")
    first, second = peak_kib("image", "import", small), peak_kib("image", "import", large)
    assert second < first + 8 * 1024
    assert second < 150 * 1024
    assert peak_kib("image", "export", "large:1", "-o", str(tmp_path / "out")) < 150 * 1024
    assert peak_kib("image", "export", "small:1", "-o", str(tmp_path / "out"), "--compress", "gzip") < 150 * 1024


def test_many_small_files_take_little_memory(tmp_path):
    """Each name is kept until the layer is complete."""
    entries = ((f"d{number % 300}/f{number}", {}, b"x" * 100) for number in range(10_000))
    (tmp_path / "many.tar.gz").write_bytes(gzip.compress(tar_of(*entries), 1))
    assert peak_kib("image", "import", str(tmp_path / "many.tar.gz")) < 150 * 1024


def test_the_second_image_of_a_base_reads_only_what_is_its_own(tmp_path):
    base = big(1, 16)
    importing.import_path(archive(tmp_path, base), importing.Options(), lambda _: None)
    told = []
    path = archive(tmp_path, base, BASE, name="more:1")
    [image] = importing.import_path(path, importing.Options(), told.append)
    assert [layer.digest for layer in image.layers] == [sha256(base), sha256(BASE)]
    assert not [text for text in told if "layer 1 of 2" in text]


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    assert "there is no file" in refused("image", "import", str(tmp_path / "missing"))
    os.symlink("loop", tmp_path / "loop")
    assert "cannot be read: Too many levels" in refused("image", "import", str(tmp_path / "loop"))
    assert "a size such as" in refused_call("image", "import", "x", "--max-size", "big")


def refused_call(*words):
    done = subprocess.run([VMCTL, *words], capture_output=True, text=True)
    assert done.returncode == 125
    return done.stderr
