"""Archives of images that were made to write outside of themselves, or to fill the host."""

import bz2
import gzip
import io
import lzma
import os
import resource
import shutil
import subprocess
import tarfile
import zlib

import pytest
import zstandard
from support.archives import Layout, dump, sha256
from support.commands import VMCTL
from support.tars import hard, link, tar_of, traversals

from images.store.image import architecture

pytestmark = pytest.mark.timeout(900)
BOMB = 1 << 30


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
    secret = tar_of(("secret", {}, canary.secret.encode()))
    outside = os.path.join(caller.folder, "outside.tar")
    with open(outside, "wb") as file:
        file.write(secret)
    os.chmod(outside, 0o644)
    up = "../" * 12 + outside.lstrip("/")
    for path in (up, outside, f"blobs/{up}", "../outside.tar"):
        for number, entries in enumerate(([], [link("layer.tar", path)], [hard("layer.tar", path)])):
            data = saved("layer.tar" if entries else path, secret, *entries)
            canary.check(refused_import(caller, data))
            if number < 2:
                canary.check(refused_import(caller, data, unpacked=True))
    layout = Layout()
    layout.add({**layout.image(secret), "digest": f"sha256:{up}"}, "latest")
    refused_import(caller, tar_of(*((name, {}, data) for name, data in layout.finished().items())), unpacked=True)
    right = saved("layer.tar", secret, ("layer.tar", {}, secret))
    assert imported(caller, right).code == 0  # so only the place of the layer was wrong


def saved(layer, content, *entries):
    """Return an archive as of docker-save(1) whose only layer has this name, and the digest of the content."""
    rootfs = {"type": "layers", "diff_ids": [sha256(content)]}
    settings = {"architecture": architecture(), "os": "linux", "rootfs": rootfs}
    listed = [{"Config": "c.json", "RepoTags": [], "Layers": [layer]}]
    return tar_of(("manifest.json", {}, dump(listed)), ("c.json", {}, dump(settings)), *entries)


def refused_import(caller, data, *, unpacked=False):
    """Import an archive, as a tar or as a folder, and return the result, which has to be a refusal."""
    place = os.path.join(caller.folder, "unpacked")
    if unpacked:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            tar.extractall(place, filter="fully_trusted")
        subprocess.run(["chmod", "-R", "go+rX", place], check=True)
    seen = caller.vmctl("image", "import", place, "--name", "bad") if unpacked else imported(caller, data)
    shutil.rmtree(place, ignore_errors=True)
    assert seen.code == 125, seen
    return seen


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
