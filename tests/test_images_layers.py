"""Layers, written by our own EROFS writer: judged by the kernel's mount, fsck.erofs and the tar they came from."""

import hashlib
import io
import os
import random
import stat
import struct
import tarfile

import pytest
from support.tars import folder, hard, link, tar_of
from support.trees import facts, of, read

from images.layer import layers, lookup, mounts, pack
from images.store.image import ImageError
from images.store.staging import staging
from vmctl.errors import VmctlError
from vmctl.linux import syscalls
from vmctl.programs import run

pytestmark = pytest.mark.usefixtures("empty_root")

NO = 0xFFFFFFFF  # the id of an entry that has none


@pytest.fixture
def stage():
    with staging() as stage:
        yield stage


@pytest.fixture
def mounted(tmp_path):
    """Mount layers, lowest first, and return the folder; gone after the test."""
    points = []

    def mount(*made):
        folders = []
        for layer in made:
            points.append(str(tmp_path / f"mounted{len(points)}"))
            os.mkdir(points[-1])
            run(["fsck.erofs", layer.path])
            mounts.mount_erofs(layer.path, points[-1])
            folders.append(points[-1])
        if len(made) == 1:
            return folders[0]
        points.append(str(tmp_path / f"mounted{len(points)}"))
        os.mkdir(points[-1])
        syscalls.mount("overlay", points[-1], "overlay", 0, f"lowerdir={':'.join(reversed(folders))}")
        return points[-1]

    yield mount
    for point in reversed(points):
        if os.path.ismount(point):
            syscalls.umount2(point)


# user::rw-, user:1000:r--, group::r--, mask::r--, other::r--; as setfacl(1) hands it to the kernel
ACL = struct.pack("<I" + "HHI" * 5, 2, 1, 6, NO, 2, 4, 1000, 4, 4, NO, 16, 4, NO, 32, 4, NO)


def layer_of(stage, *entries, **options):
    return layers.from_tar(stage, io.BytesIO(tar_of(*entries)), **options)


# what goes in comes out


def test_a_layer_has_all_that_a_folder_has(stage, mounted, tree):
    os.chown(tree / "fifo", 70_000, 4_000_000_000)
    os.utime(tree / "empty", ns=(1, 1_700_000_000_123_456_789))
    os.utime(tree / "fifo", ns=(1, -5_000_000_001))
    run(["setcap", "cap_net_raw+ep", str(tree / "set-uid")])
    os.setxattr(tree / "etc", "trusted.note", b"of a folder")
    os.setxattr(tree / "etc/hosts", "system.posix_acl_access", ACL)
    long = "n" * 255
    (tree / long).mkdir()
    (tree / long / long).write_text("a long name")
    (tree / "umlaut-\udcff").write_text("no UTF-8")
    (tree / "target").symlink_to("x" * 4000)
    assert of(mounted(layers.from_folder(stage, str(tree)))) == of(str(tree))


def test_hard_links_are_one_file(stage, mounted, tree):
    there = mounted(layers.from_folder(stage, str(tree)))
    one, two = os.stat(f"{there}/etc/hosts"), os.stat(f"{there}/hard-link")
    assert one.st_ino == two.st_ino
    assert one.st_nlink == two.st_nlink == 2
    assert os.stat(f"{there}/etc").st_nlink == 2
    assert os.stat(there).st_nlink == 2 + sum(entry.is_dir(follow_symlinks=False) for entry in os.scandir(tree))


def test_contents_of_every_size_come_back(stage, mounted, tmp_path):
    """Sizes around the limits between the ways to store content: with the inode, in blocks, in chunks."""
    content = random.Random(7).randbytes(300_000)
    root = tmp_path / "sizes"
    root.mkdir()
    for size in (0, 1, 3900, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 65535, 65536, 65537, 69632, 131072, 300_000):
        (root / f"{size}").write_bytes(content[:size])
        (root / f"{size}-xattr").write_bytes(content[:size])
        os.setxattr(root / f"{size}-xattr", "user.long", content[:2000])
    assert of(mounted(layers.from_folder(stage, str(root)))) == of(str(root))


def test_folders_of_every_size_come_back(stage, mounted, tmp_path):
    root = tmp_path / "folders"
    for count in (0, 1, 100, 150, 151, 170, 3000):
        (root / f"{count}").mkdir(parents=True)
        for number in range(count):
            (root / f"{count}" / f"{number:06}-name").touch()
    there = mounted(layers.from_folder(stage, str(root)))
    assert of(there) == of(str(root))
    for count in (0, 1, 100, 150, 151, 170, 3000):
        assert len(os.listdir(f"{there}/{count}")) == count
        assert not os.path.exists(f"{there}/{count}/absent")


def test_holes_take_no_room_and_stay_holes(stage, mounted, tmp_path):
    root = tmp_path / "sparse"
    root.mkdir()
    with open(root / "hole", "wb") as file:
        for place in (0, 3 << 20, (64 << 20) - 7):
            file.seek(place)
            file.write(b"content")
    with open(root / "zeros", "wb") as file:
        file.truncate(64 << 20)
    layer = layers.from_folder(stage, str(root))
    assert os.stat(layer.path).st_size < 1 << 20
    there = mounted(layer)
    assert read(f"{there}/hole") == read(root / "hole")
    fd = os.open(f"{there}/zeros", os.O_RDONLY)
    try:
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
    finally:
        os.close(fd)
    assert digest(layers.open_tar(layer)) == layer.digest


def test_gnu_tars_sparse_files_come_back(stage, mounted, tmp_path):
    root = tmp_path / "sparse"
    root.mkdir()
    with open(root / "hole", "wb") as file:
        for place in (200_000, 5 << 20):
            file.seek(place)
            file.write(b"content" * 5000)
        file.truncate(9 << 20)
    for path in (root / "hole", root):
        os.utime(path, (1_600_000_000, 1_600_000_000))  # GNU's own form has no parts of a second
    for form in ("gnu", "posix"):
        run(["tar", "-C", str(root), f"--format={form}", "-S", "-cf", str(tmp_path / form), "."])
        with open(tmp_path / form, "rb") as file:
            layer = layers.from_tar(stage, file)
            assert layer.digest == "sha256:" + hashlib.sha256(read(tmp_path / form)).hexdigest()
        assert os.path.getsize(tmp_path / form) < 1 << 20
        assert of(mounted(layer)) == of(str(root))
        assert digest(layers.open_tar(layer)) == layer.digest


def test_the_same_folder_gives_the_same_bytes_in_whatever_order_it_was_made(stage, tree, tmp_path):
    first = layers.from_folder(stage, str(tree))
    content = read(first.path)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in sorted(os.listdir(tree), reverse=True):
        run(["cp", "-a", str(tree / name), str(copy)])
    os.unlink(copy / "hard-link")
    os.link(copy / "etc/hosts", copy / "hard-link")
    for path in (copy / "etc", copy):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    with staging() as other:
        second = layers.from_folder(other, str(copy))
        assert second.digest == first.digest
        assert read(second.path) == content


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "new").write_text(""),
        lambda tree: (tree / "etc/hosts").write_text("other"),
        lambda tree: (tree / "set-uid").chmod(0o755),
        lambda tree: os.chown(tree / "set-uid", 7, 7),
        lambda tree: os.utime(tree / "set-uid", (1, 1)),
        lambda tree: os.setxattr(tree / "set-uid", "user.note", b"other"),
    ],
    ids=["new file", "content", "mode", "owner", "time", "attribute"],
)
def test_any_change_gives_another_layer(stage, tree, change):
    before = layers.from_folder(stage, str(tree))
    change(tree)
    assert layers.from_folder(stage, str(tree)).digest != before.digest


def test_later_changes_can_count_as_made_at_one_time(stage, mounted, tree):
    (tree / "now").touch()
    there = mounted(layers.from_folder(stage, str(tree), newest_ns=1_650_000_000 * 10**9))
    assert os.stat(f"{there}/now").st_mtime == 1_650_000_000
    assert os.stat(f"{there}/fifo").st_mtime == 1_600_000_000


def test_parts_can_be_left_out(stage, mounted, tree):
    (tree / "etc/sub").mkdir()
    there = mounted(layers.from_folder(stage, str(tree), skip={"etc/sub", "fifo"}))
    assert set(of(str(tree))) - set(of(there)) == {"etc/sub", "fifo"}


@pytest.mark.parametrize("form", ["gnu", "posix", "ustar", "v7"])
def test_any_tar_comes_out_as_it_went_in(stage, mounted, tree, tmp_path, form):
    path = tmp_path / "given.tar"
    os.unlink(tree / "null")  # v7 has no devices
    os.unlink(tree / "fifo")
    os.removexattr(tree / "set-uid", "user.note")
    run(["tar", "-C", str(tree), f"--format={form}", "--numeric-owner", "-cf", str(path), "."])
    with open(path, "rb") as file:
        layer = layers.from_tar(stage, file)
    with layers.open_tar(layer) as file:
        assert file.read() == read(path)
    assert layer.size_bytes == os.path.getsize(path)
    there = of(mounted(layer))
    assert {name: fact[:-1] for name, fact in there.items()} == {n: f[:-1] for n, f in of(str(tree)).items()}


def test_an_empty_tar_is_an_empty_layer(stage, mounted):
    assert os.listdir(mounted(layer_of(stage))) == []
    assert os.listdir(mounted(layers.from_tar(stage, io.BytesIO(bytes(1024))))) == []


# what layers change in the layers below


LOWER = [
    folder("a"),
    ("a/one", {}, b"1"),
    ("a/two", {}, b"2"),
    folder("b", mode=0o700, uid=7),
    ("b/one", {}, b"1"),
    folder("c"),
    folder("c/d"),
    ("c/d/deep", {}, b"d"),
    link("l", "b"),
]


@pytest.mark.parametrize(
    ("upper", "left"),
    [
        ([folder("a"), ("a/.wh.one", {})], {"a", "a/two", "b", "b/one", "c", "c/d", "c/d/deep", "l"}),
        ([(".wh.a", {}), (".wh.l", {})], {"b", "b/one", "c", "c/d", "c/d/deep"}),
        (
            [folder("a"), ("a/.wh..wh..opq", {}), ("a/new", {})],
            {"a", "a/new", "b", "b/one", "c", "c/d", "c/d/deep", "l"},
        ),
        ([(".wh.a", {}), folder("a"), ("a/new", {})], {"a", "a/new", "b", "b/one", "c", "c/d", "c/d/deep", "l"}),
        ([folder("a"), ("a/new", {}), (".wh.a", {})], {"a", "a/new", "b", "b/one", "c", "c/d", "c/d/deep", "l"}),
        ([(".wh.c", {}), ("c", {}, b"a file now")], {"a", "a/one", "a/two", "b", "b/one", "c", "l"}),
        ([("c", {}, b"a file now"), ("c/.wh.d", {})], {"a", "a/one", "a/two", "b", "b/one", "c", "l"}),
        ([folder("a"), ("a/.wh..wh..opq", {}), ("a/.wh.one", {})], {"a", "b", "b/one", "c", "c/d", "c/d/deep", "l"}),
        (
            [(".wh..wh.plnk", {}), (".wh.absent", {})],
            {"a", "a/one", "a/two", "b", "b/one", "c", "c/d", "c/d/deep", "l"},
        ),
    ],
    ids="file folder opaque replaced replaced-late file-for-folder file-and-contents opaque-and-file aufs".split(),
)
def test_what_an_upper_layer_deletes_is_gone(stage, mounted, upper, left):
    lower = layer_of(stage, *LOWER)
    top = layer_of(stage, *upper, below=[lower])
    there = mounted(lower, top)
    assert set(of(there)) - {"."} == left
    with lookup.View([lower, top]) as view:
        for path in {entry[0] for entry in LOWER} | left:
            assert (view.find(path, follow=False) is not None) == (path in left), path
        assert view.names("/") == sorted(os.listdir(os.fsencode(there)))


def test_a_folder_that_only_a_lower_layer_describes_keeps_owner_and_mode(stage, mounted):
    lower = layer_of(stage, *LOWER)
    top = layer_of(stage, ("b/new", {}, b"new"), ("fresh/new", {}), below=[lower])
    there = mounted(lower, top)
    assert (os.stat(f"{there}/b").st_mode & 0o7777, os.stat(f"{there}/b").st_uid) == (0o700, 7)
    assert os.stat(f"{there}/fresh").st_mode & 0o7777 == 0o755
    assert sorted(os.listdir(f"{there}/b")) == ["new", "one"]
    # on other layers it is another file, by the same diff id
    elsewhere = layer_of(stage, ("b/new", {}, b"new"), ("fresh/new", {}))
    assert elsewhere.digest == top.digest
    assert elsewhere.key != top.key


def test_a_name_behind_a_link_of_a_lower_layer_lands_where_the_link_leads(stage, mounted):
    lower = layer_of(stage, *LOWER)
    there = mounted(lower, layer_of(stage, ("l/new", {}, b"new"), below=[lower]))
    assert os.readlink(f"{there}/l") == "b"
    assert read(f"{there}/b/new") == b"new"


def test_an_overlays_upper_folder_becomes_a_layer(stage, mounted, tmp_path):
    lower = layer_of(stage, *LOWER)
    below = mounted(lower)
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    merged = tmp_path / "merged"
    options = f"lowerdir={below},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    syscalls.mount("overlay", str(merged), "overlay", 0, options)
    try:
        os.unlink(merged / "a/one")
        run(["rm", "-r", str(merged / "c")])
        (merged / "c").mkdir()
        (merged / "c/new").write_text("new")
        (merged / "b/one").chmod(0o600)
        expected = of(str(merged))
    finally:
        syscalls.umount2(str(merged))
    top = layers.from_folder(stage, str(tmp_path / "upper"), overlay=True)
    assert of(mounted(lower, top)) == expected
    with layers.open_tar(top) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        assert {".", "a", "a/.wh.one", "c", "c/.wh..wh..opq", "c/new", "b", "b/one"} == set(tar.getnames())


# what must not come in


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("../etc/passwd", {}, b"x")], "leads out of it"),
        ([("a/../../etc/passwd", {}, b"x")], "leads out of it"),
        ([("a/../../../x", {}, b"x")], "leads out of it"),
        ([hard("x", "../x")], "leads out of it"),
        ([link("out", "../.."), ("out/etc/passwd", {}, b"x")], "leads out of the image"),
        ([link("a", "b"), link("b", "a"), ("a/x", {})], "too many symbolic links"),
        ([hard("x", "nowhere")], "which is not in the layer"),
        ([folder("d"), hard("x", "d")], "which is not in the layer"),
        ([("f", {}, b""), ("f/x", {}, b"")], "both a file and a folder in the layer"),
        ([("null", {"type": tarfile.CHRTYPE, "devmajor": 0, "devminor": 0})], "0:0"),
        ([("disk", {"type": tarfile.BLKTYPE, "devmajor": 99999, "devminor": 1})], "a device has an invalid number"),
        ([("x" * 256, {})], "has an invalid name"),
        ([(".", {}, b"root as a file")], "the root of the layer is not a folder"),
        ([(".wh..wh..opq", {})], "opaque root folder"),
        ([("a/.wh...", {})], "without a valid name"),
        ([("x", {"pax_headers": {"SCHILY.xattr.trusted.overlay.redirect": "/etc"}})], "reserved for overlayfs"),
        ([("x", {"pax_headers": {"SCHILY.xattr.system.nonsense": "1"}})], "has a prefix that EROFS cannot store"),
        ([("x", {"pax_headers": {"SCHILY.xattr.user." + "n" * 300: "1"}})], r"longer than EROFS can store"),
        ([("x", {"pax_headers": {"mtime": "99999999999999999999"}})], "an invalid time"),
        ([("x", {"pax_headers": {"mtime": "yesterday"}})], "an invalid time"),
        ([link("x", "t" * 5000)], "4096 bytes or more"),
        ([("x", {"uid": 1 << 33})], "an invalid owner"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_layer_may_be_is_refused(stage, entries, words):
    with pytest.raises(ImageError, match=words):
        layer_of(stage, *entries)
    assert not [name for name in os.listdir(stage.folder) if name.endswith(".erofs")]


def test_harmless_names_are_taken_as_other_unpackers_take_them(stage, mounted):
    entries = [
        folder("/usr"),
        folder("./usr/bin"),
        ("/usr/bin/py", {}, b"py"),
        hard("/usr/bin/python", "/usr/bin/py"),
        ("t/../u/./x", {}, b"x"),
        ("/../../top", {}, b"top"),
        link("/usr/link", "/usr/bin"),
        ("/usr/link/through", {}, b"through"),
    ]
    there = mounted(layer_of(stage, *entries))
    found = sorted(os.path.relpath(os.path.join(at, name), there) for at, _, names in os.walk(there) for name in names)
    assert found == ["top", "u/x", "usr/bin/py", "usr/bin/python", "usr/bin/through"]
    assert os.readlink(f"{there}/usr/link") == "/usr/bin"


def test_an_absolute_whiteout_deletes(stage, mounted):
    lower = layer_of(stage, ("etc/passwd", {}, b"x"), ("etc/group", {}, b"x"))
    assert os.listdir(f"{mounted(lower, layer_of(stage, ('/etc/.wh.passwd', {}), below=[lower]))}/etc") == ["group"]


@pytest.mark.parametrize("seconds", [9300000000, 99999999999])
def test_a_time_after_2262_is_kept(stage, mounted, seconds):
    layer = layer_of(stage, ("x", {"pax_headers": {"mtime": f"{seconds}.5"}}, b"x"))
    assert os.stat(f"{mounted(layer)}/x").st_mtime_ns == seconds * 10**9 + 500_000_000
    with layers.open_tar(layer) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        assert {info.name: info.pax_headers.get("mtime") for info in tar if info.name == "x"} == {"x": f"{seconds}.5"}


def test_links_that_lead_out_are_kept_as_long_as_nothing_goes_through_them(stage, mounted):
    there = mounted(layer_of(stage, link("a", "/etc/passwd"), link("b", "../../..")))
    assert os.readlink(f"{there}/a") == "/etc/passwd"


def test_another_digest_than_announced_is_refused(stage):
    with pytest.raises(ImageError, match="the layer is not sha256:0000"):
        layer_of(stage, ("x", {}), diff_id="sha256:" + "0" * 64)


@pytest.mark.parametrize("cut", [100, 600, 1200, 70_000])
def test_a_tar_that_ends_early_is_refused(stage, cut):
    data = tar_of(("x", {}, b"x" * 600), ("y", {}, b"y" * 100_000))
    with pytest.raises(ImageError, match=r"the tar (ends in the middle|is damaged)"):
        layers.from_tar(stage, io.BytesIO(data[:cut]))


def test_a_damaged_header_is_refused(stage):
    data = bytearray(tar_of(("x", {}, b"x"), ("y", {}, b"y")))
    data[1024 + 3] ^= 1
    with pytest.raises(ImageError, match="the tar is damaged near byte"):
        layers.from_tar(stage, io.BytesIO(bytes(data)))


def test_attributes_of_gigabytes_are_refused_before_they_are_read(stage):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 33
    with pytest.raises(ImageError, match="longer than 1 MiB"):
        layers.from_tar(stage, io.BytesIO(info.tobuf(tarfile.GNU_FORMAT)))


def test_a_layer_above_the_limit_is_refused(stage):
    with pytest.raises(ImageError, match=r"unpacks to more than 1\.0 MiB"):
        layer_of(stage, ("zeros", {}, bytes(2 << 20)), limit_bytes=1 << 20)
    assert layer_of(stage, ("zeros", {}, bytes(2 << 20)), limit_bytes=3 << 20).size_bytes > 2 << 20


@pytest.mark.parametrize("seed", range(8))
def test_a_tar_with_random_damage_is_refused_or_comes_out_as_it_went_in(stage, seed):
    chance = random.Random(seed)
    whole = tar_of(
        *LOWER,
        ("n" * 150, {"pax_headers": {"SCHILY.xattr.user.x": "v" * 50, "mtime": "1.5"}}, b"z" * 5000),
        hard("h", "a/one"),
        ("b/.wh.x", {}),
        ("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
    )
    for _ in range(150):
        data = with_correct_checksums(damaged(bytearray(whole), chance))
        try:
            layer = layers.from_tar(stage, io.BytesIO(data), limit_bytes=1 << 24)
        except ImageError:
            continue
        run(["fsck.erofs", layer.path])
        with layers.open_tar(layer) as file:
            assert file.read() == data


def damaged(data, chance):
    """Change, take out, double or cut off a part."""
    place = chance.randrange(len(data))
    match chance.randrange(4):
        case 0:
            data[place] = chance.randrange(256)
        case 1:
            del data[place : place + chance.choice([1, 512, 1024])]
        case 2:
            data[place:place] = data[place : place + 512]
        case 3:
            del data[place + 1 :]
    return data


def with_correct_checksums(data):
    """Make the damage reach what lies behind the checksums: tar(5)."""
    for start in range(0, len(data) - 511, 512):
        if data[start + 257 : start + 262] == b"ustar":
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    return bytes(data)


HUGE = str(1 << 62)


@pytest.mark.parametrize("records", [{"size": HUGE}, {"GNU.sparse.size": HUGE, "GNU.sparse.map": "0,1"}])
def test_sizes_that_only_a_header_has_are_refused_at_the_header(stage, records):
    entry = ("x", {"pax_headers": records}, b"x")
    for limit in (1 << 20, None):
        with pytest.raises(ImageError, match="larger than the maximum of" if limit is None else "unpacks to more"):
            layer_of(stage, entry, limit_bytes=limit)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    syscalls.mount("tmpfs", str(small), "tmpfs", 0, "size=256k")
    monkeypatch.setenv("VMCTL_ROOT", str(small))
    try:
        with pytest.raises(VmctlError, match="No space left"), staging() as stage:
            layer_of(stage, ("x", {}, random.Random(1).randbytes(1 << 20)))
        assert [name for _, _, names in os.walk(small) for name in names] == []
    finally:
        syscalls.umount2(str(small))


def test_damage_to_a_layers_file_is_noticed_when_it_is_read(stage):
    layer = layer_of(stage, ("x", {}, b"x"))
    os.chmod(layer.path, 0o600)
    os.truncate(layer.path, 1000)
    with pytest.raises(ImageError, match="is damaged"):
        lookup.find([layer], "/x")


def digest(file):
    with file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def test_what_is_found_without_a_mount_is_what_the_mount_shows(stage, mounted, tree):
    layer = layers.from_folder(stage, str(tree))
    there = mounted(layer)
    with lookup.View([layer]) as view:
        for path in of(there):
            node, status = view.find(path, follow=False), os.lstat(os.path.join(there, path))
            assert node.attributes[:4] == (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
            assert (node.links, node.device) == (status.st_nlink, status.st_rdev)
            if stat.S_ISREG(status.st_mode):
                assert b"".join(view.content(path)) == read(os.path.join(there, path))
        assert facts(os.path.join(there, "set-uid"))[-2] == view.find("set-uid").attributes.xattrs


def test_the_packer_makes_a_tar_that_others_read(tree):
    with pack.open_folder(str(tree)) as file:
        data = file.read()
    listing = run(["tar", "--xattrs", "-tvf", "-"], stdin=data)[1].splitlines()
    assert len(listing) == len(of(str(tree)))
