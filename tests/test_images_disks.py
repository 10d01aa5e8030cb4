"""Disks as images: made by qemu-img, sfdisk, mke2fs and mkfs.erofs."""

import gzip
import hashlib
import json
import lzma
import os
import subprocess

import pytest
from support import others, trees
from support.overlays import mounted

from images.disks import partitions
from images.store import store
from images.store.image import ImageError
from images.transfer import importing
from vmctl.programs import run

pytestmark = pytest.mark.usefixtures("empty_root")

MIB = 1 << 20


def take(path, **options):
    [image] = importing.import_path(str(path), importing.Options(**options), lambda _: None)
    return image


def mke2fs(folder, path, size):
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(folder), str(path), size])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder that looks like a root file system."""
    folder = tmp_path_factory.mktemp("root")
    others.fill_base(str(folder))
    others.write(str(folder), "etc/os-release", b"ID=test\n")
    return folder


@pytest.fixture(scope="module")
def ext4(root, tmp_path_factory):
    """A file with that root file system, as ext4."""
    path = tmp_path_factory.mktemp("ext4") / "root.img"
    mke2fs(root, path, "24M")
    return path


@pytest.fixture(scope="module")
def shown(ext4, tmp_path_factory):
    """What the kernel shows of that file system; mke2fs did not take the folder's every time and mode."""
    there = tmp_path_factory.mktemp("shown")
    run(["mount", "-o", "loop,ro", str(ext4), str(there)])
    try:
        return {path: facts for path, facts in trees.of(there).items() if path != "lost+found"}
    finally:
        run(["umount", str(there)])


def partitioned(path, table, *contents):
    """Write a disk of 80 MiB with a partition table and contents in the partitions named `DISKn`."""
    path.write_bytes(b"")
    os.truncate(path, 80 * MIB)
    subprocess.run(["sfdisk", "--quiet", str(path)], input=table.encode(), check=True, capture_output=True)
    listed = json.loads(run(["sfdisk", "--json", str(path)])[1])["partitiontable"]["partitions"]
    places = {int(part["node"].removeprefix(str(path))): part for part in listed}
    with open(path, "r+b") as disk:
        for number, content in contents:
            disk.seek(places[number]["start"] * 512)
            disk.write(content.read_bytes() if hasattr(content, "read_bytes") else content)
    return path


def disk_of(image):
    with open(image.disk, "rb") as file:
        return file.read()


# kept as they are, or turned into qcow2


def test_a_qcow2_is_kept_byte_by_byte(ext4, tmp_path):
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(ext4), str(tmp_path / "Cloud-12.qcow2")])
    image = take(tmp_path / "Cloud-12.qcow2")
    assert (image.name, image.layers) == ("cloud-12", ())
    assert disk_of(image) == (tmp_path / "Cloud-12.qcow2").read_bytes()
    assert os.path.basename(image.disk) == hashlib.sha256(disk_of(image)).hexdigest() + ".qcow2"
    assert os.stat(image.disk).st_mode & 0o777 == 0o444
    assert os.listdir(store.path("stages")) == []


@pytest.mark.parametrize(
    "form", ["raw", "vmdk", "vmdk -o subformat=streamOptimized", "vhdx", "qcow2 -o compat=0.10", "qcow2 -c"]
)
def test_every_form_is_recognised_and_has_the_same_content(ext4, tmp_path, form):
    path = tmp_path / "disk"
    run(["qemu-img", "convert", "-f", "raw", "-O", *form.split(), str(ext4), str(path)])
    image = take(path)
    run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(ext4), image.disk])


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_compressed_disk_is_unpacked(ext4, tmp_path, pack):
    (tmp_path / "disk.img.xz").write_bytes(pack(ext4.read_bytes()))
    image = take(tmp_path / "disk.img.xz")
    assert image.name == "disk"
    run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(ext4), image.disk])
    assert [layer.size_bytes > 0 for layer in take(tmp_path / "disk.img.xz", as_layer=True).layers] == [True]


# files that reach for others


def made(tmp_path, form):
    """Make a disk that is more than its one file."""
    secret, path = tmp_path / "secret", str(tmp_path / "disk")
    secret.write_bytes(b"root:$y$secret\n" * 1000)
    create = ["qemu-img", "create", "-q", "-f"]
    if form == "backing file":
        run([*create, "qcow2", "-b", str(secret), "-F", "raw", path])
    elif form == "backing file, old":
        run([*create, "qcow2", "-o", "compat=0.10", "-b", str(secret), "-F", "raw", path])
    elif form == "backing file of a vmdk":
        run([*create, "vmdk", str(tmp_path / "base.vmdk"), "1M"])
        run([*create, "vmdk", "-b", str(tmp_path / "base.vmdk"), "-F", "vmdk", path])
    elif form == "data file":
        run([*create, "qcow2", "-o", f"data_file={secret}.data,data_file_raw=on", path, "1M"])
    elif form == "description":
        run([*create, "vmdk", "-o", "subformat=monolithicFlat", path, "1M"])
    elif form == "description inside":  # QEMU: block/vmdk.c takes a capacity of 0 for a sign of one
        run([*create, "vmdk", path, "1M"])
        with open(path, "r+b") as file:
            file.seek(12)
            file.write(bytes(8))
    elif form == "encrypted":  # docs/interop/qcow2.txt: the method is at 32
        run([*create, "qcow2", path, "1M"])
        with open(path, "r+b") as file:
            file.seek(32)
            file.write((1).to_bytes(4, "big"))
    return path


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("backing file", "has a backing file, which is not supported"),
        ("backing file, old", "has a backing file, which is not supported"),
        ("backing file of a vmdk", "needs other files"),
        ("data file", "has its data in another file"),
        ("description", "only describes a disk"),
        ("description inside", "only describes a disk"),
        ("encrypted", "is encrypted"),
    ],
)
@pytest.mark.parametrize("as_layer", [False, True])
def test_a_disk_that_is_more_than_its_file_is_refused(tmp_path, form, words, as_layer):
    with pytest.raises(ImageError, match=words):
        take(made(tmp_path, form), as_layer=as_layer)
    assert store.ls() == []
    assert not os.path.exists(store.path("disks"))
    assert os.listdir(store.path("stages")) == []


@pytest.mark.parametrize("magic", [b"QFI\xfb", b"KDMV", b"vhdxfile"])
@pytest.mark.parametrize("rest", [b"", b"\0" * 200, b"\xff" * 5000])
def test_a_disk_that_is_none_is_refused(tmp_path, magic, rest):
    (tmp_path / "disk").write_bytes(magic + rest)
    with pytest.raises(ImageError):
        take(tmp_path / "disk")
    assert store.ls() == []


# the root file system as a layer


ROOT_TYPE = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"  # Discoverable Partitions Specification: root, x86-64
TABLES = {
    "gpt": "label: gpt\nsize=8M, type=uefi\nsize=30M, type=linux\nsize=20M, type=linux\n",
    "gpt, its type says root": f"label: gpt\nsize=40M, type=linux\nsize=25M, type={ROOT_TYPE}\n",
    "mbr": "label: dos\nsize=8M, type=c\nsize=30M, type=83\n",
    "mbr, logical": "label: dos\n1: size=8M\n2: size=60M, type=5\n5: size=10M\n6: size=30M\n",
}
PLACES = {"gpt": 2, "gpt, its type says root": 2, "mbr": 2, "mbr, logical": 6}


@pytest.mark.parametrize("kind", TABLES)
def test_the_root_file_system_of_a_disk_is_a_layer(shown, ext4, tmp_path, kind):
    disk = partitioned(tmp_path / "disk", TABLES[kind], (1, b"\xeb<\x90mkfs.fat"), (PLACES[kind], ext4))
    image = take(disk, as_layer=True)
    assert (image.name, image.disk, len(image.layers)) == ("disk", "", 1)
    with mounted(image) as there:
        assert trees.of(there) == shown
    assert os.listdir(store.path("stages")) == []
    assert str(tmp_path) not in run(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"])[1]


@pytest.mark.parametrize("kind", ["ext4", "erofs", "qcow2"])
def test_a_disk_without_partitions_is_its_own_root(root, shown, ext4, tmp_path, kind):
    disk = tmp_path / "disk"
    if kind == "erofs":
        run(["mkfs.erofs", "--quiet", "-Eforce-inode-extended", str(disk), str(root)])
    else:
        run(["qemu-img", "convert", "-f", "raw", "-O", "raw" if kind == "ext4" else kind, str(ext4), str(disk)])
    with mounted(take(disk, as_layer=True)) as there:
        assert trees.of(there) == (trees.of(root) if kind == "erofs" else shown)


def test_a_file_system_that_was_not_unmounted_is_read_with_its_journal(ext4, tmp_path):
    disk, there = tmp_path / "disk", tmp_path / "there"
    disk.write_bytes(ext4.read_bytes())
    there.mkdir()
    run(["mount", "-o", "loop", str(disk), str(there)])
    try:
        (there / "late").write_text("written last")
        fd = os.open(there / "late", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        (tmp_path / "torn").write_bytes(disk.read_bytes())
    finally:
        run(["umount", str(there)])
    assert "needs_recovery" in run(["dumpe2fs", "-h", str(tmp_path / "torn")])[1]
    with mounted(take(tmp_path / "torn", as_layer=True)) as root, open(os.path.join(root, "late")) as file:
        assert file.read() == "written last"


def test_a_disk_without_a_root_file_system_is_refused_with_what_it_has(tmp_path, ext4):
    (tmp_path / "data").mkdir()
    mke2fs(tmp_path / "data", tmp_path / "data.img", "8M")
    lvm = bytes(512 + 24) + b"LVM2 001"
    table = "label: gpt\nsize=16M, type=linux\nsize=8M, type=lvm\nsize=4M, type=linux\n"
    disk = partitioned(tmp_path / "disk", table, (1, tmp_path / "data.img"), (2, lvm))
    with pytest.raises(ImageError, match=r"its partitions: ext4 of 16\.0 MiB, LVM of 8\.0 MiB, unknown of 4\.0 MiB"):
        take(disk, as_layer=True)
    assert store.ls() == []


def test_tables_that_make_no_sense_lead_nowhere(tmp_path):
    """A chain of logical partitions that leads back into itself, partitions beyond the end, sizes of all ones."""
    disk = partitioned(tmp_path / "disk", TABLES["mbr, logical"])
    with open(disk, "r+b", buffering=0) as file:
        whole = file.read(512)
        for at in range(446, 510):
            for value in (0, 5, 0xFF):
                os.pwrite(file.fileno(), whole[:at] + bytes([value]) + whole[at + 1 :], 0)
                assert all(0 <= part.offset < 80 * MIB for part in partitions.of_disk(str(disk)))
        chain = b"\0\0\0\0\x05\0\0\0" + (1).to_bytes(4, "little") + b"\x09\0\0\0" + bytes(48) + b"\x55\xaa"
        itself = b"\0\0\0\0\x05\0\0\0" + bytes(4) + b"\xff" * 4 + bytes(48) + b"\x55\xaa"
        os.pwrite(file.fileno(), chain, 446)
        os.pwrite(file.fileno(), itself, 512 + 446)
    assert [part.kind for part in partitions.of_disk(str(disk))] == [""]
