"""Archives of images that were made to write outside of themselves, or to fill the host."""

import bz2
import gzip
import lzma
import os
import resource
import subprocess
import tarfile
import zlib

import pytest
import zstandard
from support.archives import Layout
from support.commands import VMCTL
from support.tars import folder, hard, link, tar_of

pytestmark = pytest.mark.timeout(900)
BOMB = 1 << 30


def traversals(victim):
    """Return name -> entries of a tar that overwrite `victim` if they are unpacked without care."""
    up, name = "../" * 12, os.path.basename(victim)
    content = b"overwritten"
    return {
        "absolute": [(victim, {}, content)],
        "upwards": [(f"{up}{victim.lstrip('/')}", {}, content)],
        "upwards later": [folder("a"), (f"a/{up}{victim.lstrip('/')}", {}, content)],
        "file through a link": [link("out", os.path.dirname(victim)), (f"out/{name}", {}, content)],
        "file through two links": [
            *(link("a", up.rstrip("/")), link("b", "a" + os.path.dirname(victim)), (f"b/{name}", {}, content)),
        ],
        "over a link": [link("out", victim), ("out", {}, content)],
        "hard link": [hard("out", victim), ("out", {}, content)],
        "hard link upwards": [hard("out", up + victim.lstrip("/")), ("out", {}, content)],
        "whiteout": [(f"{up}{os.path.dirname(victim).lstrip('/')}/.wh.{name}", {})],
        "whiteout through a link": [link("out", os.path.dirname(victim)), (f"out/.wh.{name}", {})],
        "opaque through a link": [link("out", os.path.dirname(victim)), ("out/.wh..wh..opq", {})],
        "whiteout of the folder above": [("a/.wh...", {}), (".wh..", {})],
    }


def test_the_tars_are_dangerous(tmp_path):
    """tar(1) with --absolute-names, which takes no care, overwrites the file by most of them."""
    done = []
    for name in traversals("/x"):
        victim = tmp_path / name.replace(" ", "-") / "victim"
        victim.parent.mkdir()
        victim.write_text("whole")
        (tmp_path / "root").mkdir(exist_ok=True)
        words = ["tar", "-xP", "--keep-directory-symlink", "-C", str(tmp_path / "root")]
        subprocess.run(words, input=tar_of(*traversals(str(victim))[name]), stderr=subprocess.DEVNULL)
        if victim.read_text() != "whole":
            done.append(name)
    assert {"absolute", "file through a link"} <= set(done), done


@pytest.mark.attack("overwrites or deletes a file of the host by an image: absolute names, .., links, whiteouts")
def test_traversal(caller, canary):
    for name, entries in traversals(canary.path).items():
        for kind, data in (("layer", tar_of(*entries)), ("image", archive(tar_of(*entries)))):
            seen = imported(caller, data)
            canary.check(seen)
            assert "Traceback" not in seen.err, (name, kind)
            if seen.code == 0:
                exported = caller.vmctl("image", "export", "bad", "-o", os.path.join(caller.folder, "out.tar"))
                canary.check(exported)


@pytest.mark.attack("names files outside of the archive in its index: blobs, configuration and layers by .. and links")
def test_names_in_the_documents(caller, canary):
    up = "../" * 12 + canary.path.lstrip("/")
    for path in (up, canary.path, f"blobs/{up}"):
        for saved in ({"Config": path, "Layers": []}, {"Config": "c.json", "Layers": [path]}):
            files = {"manifest.json": f"[{saved}]".replace("'", '"').encode(), "c.json": b"{}"}
            canary.check(imported(caller, tar_of(*((name, {}, data) for name, data in files.items()))))
            linked = tar_of(("manifest.json", {}, b'[{"Config": "c.json", "Layers": []}]'), link("c.json", path))
            canary.check(imported(caller, linked))


def archive(layer):
    layout = Layout()
    files = layout.add(layout.image(layer), "latest").finished()
    return tar_of(*((name, {}, data) for name, data in files.items()))


def imported(caller, data, *words):
    path = os.path.join(caller.folder, "bad.tar")
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o644)
    return caller.vmctl("image", "import", path, "--name", "bad", *words)


def packed(compressor, size):
    """Return a tar of one file of zeros, compressed piece by piece."""
    info = tarfile.TarInfo("zeros")
    info.size = size
    done = [compressor.compress(info.tobuf())]
    done += [compressor.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*done, compressor.flush()])


def bombs():
    """Yield archives that unpack to a GiB, or claim to be larger than any disk."""
    yield packed(zlib.compressobj(1, wbits=31), BOMB)
    yield packed(zstandard.ZstdCompressor().compressobj(), BOMB)
    yield packed(bz2.BZ2Compressor(), 1 << 27)
    yield packed(lzma.LZMACompressor(preset=0), 1 << 27)
    sparse = tarfile.TarInfo("sparse")
    sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s"}
    sparse.pax_headers["GNU.sparse.realsize"] = str(1 << 60)
    sparse.size = 1024
    yield sparse.tobuf(tarfile.PAX_FORMAT) + b"1\n0\n3\n".ljust(512, b"\0") + b"abc".ljust(512, b"\0") + bytes(1024)
    header = bytearray(tarfile.TarInfo("zeros").tobuf())
    header[124:136] = b"77777777777\0"
    yield gzip.compress(bytes(header))


@pytest.mark.attack("fills disk and memory by an archive that unpacks to much more than it is")
def test_bombs(caller):
    before = caller.stored_bytes()
    for data in bombs():
        seen = imported(caller, bytes(data), "--max-size", "10M")
        assert seen.code == 125, seen
        assert "Traceback" not in seen.err
    assert caller.stored_bytes() - before < 1 << 26
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1 << 20  # KiB


@pytest.mark.attack("breaks an import by very many entries, names of 5000 bytes and folders 2000 deep", who="root")
def test_names(guest_root, tmp_path):
    deep = "/".join(["d"] * 2000)
    long = "n" * 5000
    for entries in ([(deep, {}, b"x")], [(long, {}, b"x")], [("a", {}), link("a/b", "c")], [link("l", "t" * 5000)]):
        path = tmp_path / "names.tar"
        path.write_bytes(tar_of(*entries))
        done = subprocess.run([VMCTL, "image", "import", path, "--name", "names"], capture_output=True, text=True)
        assert done.returncode in (0, 125)
        assert "Traceback" not in done.stderr
        assert "internal error" not in done.stderr
    many = tmp_path / "many.tar"
    with many.open("wb") as file:
        header = bytearray(tarfile.TarInfo("f0000000").tobuf())
        for number in range(100_000):
            header[1:8] = b"%07d" % number
            header[148:156] = b"        "
            header[148:156] = b"%06o\0 " % sum(header)
            file.write(header)
        file.write(bytes(1024))
    done = subprocess.run(
        [VMCTL, "image", "import", many, "--name", "names"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done
    subprocess.run([VMCTL, "image", "rm", "names"], capture_output=True)
