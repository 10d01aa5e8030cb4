import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import sys

import pytest
import zstandard

from images.layer import compression
from images.store.image import ImageError

DATA = random.Random(1).randbytes(200_000) + bytes(range(256)) * 3000 + bytes(1 << 20)
PACKERS = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "zstd, checksum": zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


def unpacked(data):
    return compression.plain(io.BytesIO(data), "it").read()


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_every_form_is_recognised_also_several_streams_in_one(pack):
    assert unpacked(pack(DATA)) == DATA
    assert unpacked(pack(DATA) + pack(b"more")) == DATA + b"more"
    assert unpacked(pack(b"")) == b""


def test_what_is_not_compressed_comes_as_it_is():
    assert unpacked(DATA) == DATA
    assert unpacked(b"") == b""
    assert unpacked(b"\x1f") == b"\x1f"


def test_what_programs_write_is_read():
    """Other than libraries, they write a stream whose length is not known beforehand, in parts, and skip frames."""
    for program in (
        ["gzip", "-c"],
        ["zstd", "-c", "--check"],
        ["zstd", "-c", "--no-check", "-19"],
        ["xz", "-c", "-T2"],
    ):
        packed = subprocess.run(program, input=DATA, capture_output=True, check=True).stdout
        assert unpacked(packed) == DATA, program
    skippable = (0x184D2A55).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"abc"
    assert unpacked(skippable + zstandard.compress(DATA) + skippable) == DATA
    assert unpacked(gzip.compress(DATA) + bytes(700)) == DATA  # padded to a block of a tape


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("cut", [1, 3, 5, 9, 1000])
def test_an_early_end_is_noticed(pack, cut):
    with pytest.raises(ImageError, match="it cannot be decompressed as"):
        unpacked(pack(DATA)[:-cut])


@pytest.mark.parametrize("kind", ["gzip", "zstd, checksum", "xz", "bzip2"])
def test_damage_is_noticed(kind):
    packed = bytearray(PACKERS[kind](DATA))
    packed[len(packed) // 3] ^= 0x10
    with pytest.raises(ImageError, match="it cannot be decompressed as"):
        unpacked(bytes(packed))


def test_a_window_larger_than_the_limit_is_refused():
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(ImageError, match="it cannot be decompressed as"):
        unpacked(packed.compress(DATA) + packed.flush())


READ_ALL = """
import sys
from images.layer import compression
with open(sys.argv[1], "rb", buffering=0) as file:
    stream = compression.plain(file, "it")
    total = 0
    while data := stream.read(1 << 16):
        total += len(data)
with open("/proc/self/status") as file:  # getrusage(2) would say the parent's
    print(total, next(line.split()[1] for line in file if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize("program", ["gzip -9c", "zstd -19c", "xz -0c"])
def test_zeros_in_plenty_takes_little_memory(tmp_path, program):
    packed = tmp_path / "packed"
    with open(packed, "wb") as file, subprocess.Popen(program.split(), stdin=subprocess.PIPE, stdout=file) as process:
        for _ in range(128):
            process.stdin.write(bytes(1 << 20))
        process.stdin.close()
    packed.write_bytes(packed.read_bytes() * 2)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, packed], capture_output=True, text=True, check=True, env=environment
    )
    total, most_kib = map(int, done.stdout.split())
    assert total == 1 << 28
    assert most_kib < 60 * 1024
