"""The kernel that a bzImage contains: taken out once, and only where QEMU can load it."""

import bz2
import gzip
import lzma
import os
import struct

import pytest
import zstandard

from images.kernels import kernel, uncompressed
from images.kernels.kernel import Kernel
from images.upkeep import prune, totals
from vmctl.linux import lz4

NOTE = struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8)  # XEN_ELFNOTE_PHYS32_ENTRY
SETUP = 4


def elf(note=NOTE, machine=62):
    """Return a kernel with two program headers: its notes, and all of it."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 2)
    notes = struct.pack("<IIQQQQQQ", 4, 4, 176, 0, 0, len(note), len(note), 4)
    rest = bytes(200_000) + os.urandom(1000)
    load = struct.pack("<IIQQQQQQ", 1, 4, 176, 0, 0, len(note) + len(rest), len(note) + len(rest), 4)
    return head + bytes(64 - len(head)) + notes + load + note + rest


def bzimage(payload, size_bytes, *, version=0x020F, length=None, appended=True):
    """Return a bzImage with this payload, which is followed by its size as the build of the kernel does it."""
    packed = payload + (struct.pack("<I", size_bytes) if appended else b"")
    head = bytearray((SETUP + 1) * 512)
    head[0x1F1], head[0x202:0x206] = SETUP, b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<II", head, 0x248, 64, len(packed) if length is None else length)
    return bytes(head) + bytes(64) + packed


def lz4_legacy(content):
    """Return the content in the form of `lz4 -l`, in blocks that are literals only."""
    packed = b"\x02\x21\x4c\x18"
    for start in range(0, len(content), 8 << 20):
        part = content[start : start + (8 << 20)]
        more, rest = divmod(len(part) - 15, 255)
        block = b"\xf0" + b"\xff" * more + bytes([rest]) + part
        packed += struct.pack("<I", len(block)) + block
    return packed


@pytest.fixture
def made(own_root, tmp_path):
    """Return a function that makes a kernel of a bzImage."""

    def make(image):
        path = tmp_path / "vmlinuz-1.0"
        path.write_bytes(image)
        return Kernel("x", "1.0", str(path), str(tmp_path))

    return make


def test_debians_kernel_is_taken_out_once_and_whole(own_store):
    found = kernel.find("debian")
    path = uncompressed.image(found)
    status = os.stat(path)
    assert (uncompressed.image(found), os.stat(path).st_ino) == (path, status.st_ino)
    assert status.st_blocks * 512 < status.st_size  # room for variables is a hole
    assert status.st_mode & 0o133 == 0
    with open(found.vmlinuz, "rb") as file:
        image = file.read()
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    assert struct.unpack_from("<I", image, start + length - 4) == (status.st_size,)  # that it boots, each guest shows


@pytest.mark.parametrize("form", ["lz4", "gzip", "xz", "bzip2", "lzma", "zstd"])
def test_each_form_that_a_kernel_may_have(made, form):
    plain = elf()
    pack = {
        "lz4": lz4_legacy,
        "gzip": gzip.compress,
        "xz": lambda content: lzma.compress(content, check=lzma.CHECK_CRC32),
        "bzip2": bz2.compress,
        "lzma": lambda content: lzma.compress(content, format=lzma.FORMAT_ALONE),
        "zstd": zstandard.ZstdCompressor().compress,
    }[form]
    found = made(bzimage(pack(plain), len(plain), appended=form != "gzip"))
    path = uncompressed.image(found)
    assert path != found.vmlinuz
    with open(path, "rb") as file:
        assert file.read() == plain


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"MZ" * 5000,
        elf(),
        bzimage(gzip.compress(elf(b"")), 0, appended=False),  # without the note
        bzimage(gzip.compress(elf(machine=183)), 0, appended=False),
        bzimage(gzip.compress(elf())[:300], 300),  # cut off
        bzimage(gzip.compress(elf()), 0, version=0x0204, appended=False),
        bzimage(gzip.compress(elf()), 0, length=1 << 30),
        bzimage(b"\x89LZO" + bytes(1000), 1000),
        bzimage(b"\x02\x21\x4c\x18" + struct.pack("<I", 1 << 31) + bytes(1000), 1000),
        bzimage(b"\x02\x21\x4c\x18" + struct.pack("<I", 0) * 100, 1000),
        bzimage(b"\x02\x21\x4c\x18" + struct.pack("<I", 500) + os.urandom(500), 1000),
        bzimage(lzma.compress(bytes(1000), format=lzma.FORMAT_ALONE)[:-9], 1000),
        bzimage(gzip.compress(b"\x7fELF\x02\x01" + b"\xff" * 500), 506, appended=False),
        bzimage(gzip.compress(elf(struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 1))), 0, appended=False),
    ],
)
def test_any_other_image_is_booted_as_it_is(made, image):
    found = made(image)
    assert uncompressed.image(found) == found.vmlinuz
    assert uncompressed.image(found) == found.vmlinuz  # also when that is known


@pytest.mark.parametrize("form", ["lz4", "xz"])
def test_a_kernel_that_unpacks_to_too_much_is_not_unpacked(made, monkeypatch, form):
    monkeypatch.setattr(uncompressed, "MOST_BYTES", 1 << 20)
    large = bytes(3 << 20)
    packed = lz4_legacy(large) if form == "lz4" else lzma.compress(large)
    found = made(bzimage(packed, len(large)))
    assert uncompressed.image(found) == found.vmlinuz
    found = made(bzimage(packed, 1000))  # the stated size is a lie
    assert uncompressed.image(found) == found.vmlinuz


def test_another_kernel_in_the_same_place_is_taken_out_anew(made):
    first, second = (gzip.compress(elf()) for _ in range(2))
    paths = [uncompressed.image(made(bzimage(packed, 0, appended=False))) for packed in (first, second)]
    assert paths[0] != paths[1]
    with open(paths[1], "rb") as file:
        assert file.read() == gzip.decompress(second)


def test_without_the_library_the_image_is_booted_and_nothing_is_remembered(made, monkeypatch):
    plain = elf()
    found = made(bzimage(lz4_legacy(plain), len(plain)))
    monkeypatch.setattr(lz4, "_NAME", "liblz4.so.no-such")
    assert uncompressed.image(found) == found.vmlinuz
    monkeypatch.undo()
    assert uncompressed.image(found) != found.vmlinuz


def test_prune_removes_those_of_kernels_that_are_gone_and_df_counts_them(made):
    kept = uncompressed.image(kernel.find("debian"))
    before = {total.kind: total.size_bytes for total in totals.totals()}["kernels"]
    path = uncompressed.image(made(bzimage(gzip.compress(elf()), 0, appended=False)))
    after = {total.kind: total.size_bytes for total in totals.totals()}["kernels"]
    assert after > before
    (item,) = (item for item in prune.stale_of_kernels() if item.kind == prune.UNCOMPRESSED)
    assert item.name == path
    assert next(iter(prune.remove([item]))).size_bytes > 0
    assert (os.path.exists(path), os.path.exists(kept)) == (False, True)


def test_a_full_disk_is_no_reason_not_to_start(made):
    found = made(bzimage(gzip.compress(elf()), 0, appended=False))
    os.makedirs(os.path.dirname(uncompressed._folder()), exist_ok=True)
    with open(uncompressed._folder(), "w"):  # as good as a full disk: no file can be made there
        pass
    assert uncompressed.image(found) == found.vmlinuz
