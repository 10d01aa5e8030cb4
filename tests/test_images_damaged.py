"""Disks that are damaged, cut off, in other formats, or that no guest can boot: found when they are imported."""

import os
import struct
import subprocess

import pytest
from support.commands import vmctl

from images.store.image import ImageError
from images.transfer import importing
from vmctl.programs import run

MIB = 1 << 20
CONVERTED = ("qcow2", "vmdk", "vhdx", "vdi", "vpc")
OPTIONS = {"compressed.qcow2": ("qcow2", "-c"), "stream.vmdk": ("vmdk", "-o", "subformat=streamOptimized")}
OPTIONS |= {"fixed.vhd": ("vpc", "-o", "subformat=fixed,force_size")}

pytestmark = pytest.mark.usefixtures("empty_root")


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    """A folder with the same file system in each format that is read."""
    folder = tmp_path_factory.mktemp("disks")
    (folder / "root/etc").mkdir(parents=True)
    (folder / "root/etc/os-release").write_text("ID=test\n")
    (folder / "root/data").write_bytes(os.urandom(6 * MIB))
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(folder / "root"), str(folder / "disk.raw"), "16M"])
    for name, (kind, *options) in {**{f"disk.{kind}": (kind,) for kind in CONVERTED}, **OPTIONS}.items():
        run(["qemu-img", "convert", "-O", kind, *options, str(folder / "disk.raw"), str(folder / name)])
    return folder


FILES = ["disk.raw", *(f"disk.{kind}" for kind in CONVERTED), *OPTIONS]


def take(path, **options):
    [image] = importing.import_path(str(path), importing.Options(name="d", **options), lambda _: None)
    return image


@pytest.mark.parametrize("name", FILES)
def test_each_format_is_read_as_it_is(disks, name, tmp_path):
    image = take(disks / name)
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image.disk, str(tmp_path / "raw")])
    with open(tmp_path / "raw", "rb") as found, open(disks / "disk.raw", "rb") as made:
        assert found.read(16 * MIB) == made.read()


@pytest.mark.parametrize("name", FILES)
def test_a_disk_that_is_cut_off_is_refused(disks, name, tmp_path):
    for part in (0.4, 0.95):
        with open(disks / name, "rb") as file:  # with 6 MiB of data; what follows is empty in a disk of fixed size
            content = file.read(int(min(os.path.getsize(disks / name), 6 * MIB) * part))
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=f"{name} is (damaged or )?cut off"):
            take(tmp_path / name, as_layer=part < 0.5)


def test_a_qcow2_with_wrong_tables_is_refused(disks, tmp_path):
    content = bytearray((disks / "disk.qcow2").read_bytes())
    table = struct.unpack_from(">Q", content, 40)[0]  # l1_table_offset
    struct.pack_into(">Q", content, table, 1 << 63 | 5 << 9)
    (tmp_path / "wrong.qcow2").write_bytes(content)
    with pytest.raises(ImageError, match="damaged"):
        take(tmp_path / "wrong.qcow2")


@pytest.mark.parametrize(
    "table", ["label: gpt\nsize=4M\n", "label: dos\nsize=4M\n", "label: dos\nsize=1M\ntype=5\nsize=2M\n"]
)
def test_a_partition_behind_the_end_of_the_disk_is_refused(tmp_path, table):
    path = tmp_path / "cut.raw"
    path.write_bytes(b"")
    os.truncate(path, 16 * MIB)
    subprocess.run(["sfdisk", "-q", str(path)], input=table.encode(), check=True)
    assert take(path).disk
    os.truncate(path, 3 * MIB)
    with pytest.raises(ImageError, match=r"cut off: it has 3\.0 MiB of"):
        take(path)


@pytest.mark.parametrize(
    ("name", "make", "message", "hint"),
    [
        ("old.qcow", "qemu-img create -q -f qcow old.qcow 8M", "in the format qcow,", "convert -f qcow -O qcow2 "),
        ("a.qed", "qemu-img create -q -f qed a.qed 8M", "in the format qed,", "convert -f qed -O qcow2 "),
        ("a.hdd", "qemu-img create -q -f parallels a.hdd 8M", "in the format parallels,", "convert -f parallels"),
        ("a.ova", "touch a.ovf a.vmdk; tar -cf a.ova a.ovf a.vmdk", "an appliance", "tar -xf "),
        ("cd.iso", "mkdir iso; genisoimage -quiet -o cd.iso iso", "image of a CD", "installed"),
    ],
)
def test_what_is_not_read_is_named_with_what_to_do(tmp_path, monkeypatch, name, make, message, hint):
    monkeypatch.chdir(tmp_path)
    run(["sh", "-c", make])
    with pytest.raises(ImageError, match=message) as error:
        take(name)
    assert hint in error.value.hint


def test_differences_from_another_disk_are_refused(disks, tmp_path):
    vhd, vdi = (bytearray((disks / f"disk.{kind}").read_bytes()) for kind in ("vpc", "vdi"))
    struct.pack_into(">I", vhd, 60, 4)
    struct.pack_into("<I", vdi, 76, 4)
    for name, content in (("a.vhd", vhd), ("a.vdi", vdi)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match="only contains the differences"):
            take(tmp_path / name)


BOOT = b"\xfa\xeb\xfe" + bytes(507) + b"\x55\xaa"


@pytest.mark.parametrize(
    ("table", "code", "warning"),
    [
        ("label: dos\nsize=4M\n", BOOT, ""),
        ("label: gpt\nsize=4M, type=U\n", BOOT, ""),  # for both kinds of firmware
        ("label: dos\nsize=4M\n", b"", "it has no boot code"),
        ("label: gpt\nsize=4M, type=L\n", b"", "it has no boot code"),
        ("label: gpt\nsize=4M, type=U\n", b"", "only a boot loader for EFI"),
        ("label: dos\nsize=4M, type=ef\n", b"", "only a boot loader for EFI"),
    ],
)
def test_import_warns_of_a_disk_that_no_guest_can_boot(tmp_path, table, code, warning):
    path = tmp_path / "disk.raw"
    path.write_bytes(b"")
    os.truncate(path, 16 * MIB)
    subprocess.run(["sfdisk", "-q", str(path)], input=table.encode(), check=True)
    with open(path, "r+b") as file:
        file.write(code[:440])
    done = vmctl("image", "import", str(path), "--name", "d")
    assert (done.code, done.out) == (0, "d\n")
    assert ("warning: no guest will boot from d" in done.err) == bool(warning)
    assert warning in done.err
