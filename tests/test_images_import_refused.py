"""Archives with one defect: the error names it, and the store is unchanged."""

import hashlib
import json
import os
import tarfile
import zlib
from contextlib import suppress

import pytest
from support.archives import CONFIG, INDEX, LAYER, MANIFEST, Layout, blob_name, docker_files, dump, only_layer, sha256
from support.tars import folder, hard, link, tar_of

from images.store import store
from images.store.image import ImageError
from images.transfer import importing
from vmctl.errors import VmctlError
from vmctl.linux import syscalls

pytestmark = pytest.mark.usefixtures("empty_root")

ONE = tar_of(folder("etc"), ("etc/one", {}, b"one" * 1000))
TWO = tar_of(("etc/two", {}, b"two"))


def everything():
    """Return what there is in the store: every file's content, mode and time."""
    found = {}
    for where, folders, files in os.walk(store.path()):
        for name in (*folders, *files):
            path = os.path.join(where, name)
            status = os.lstat(path)
            content = b""
            if name in files:
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).digest()
            found[os.path.relpath(path, store.path())] = (status.st_mode, status.st_size if content else 0, content)
    return found


@pytest.fixture
def refused(tmp_path):
    """Import a file, which has to fail with these words, and to change nothing."""
    layout = Layout()
    layout.add(layout.image(TWO), "before:1")
    importing.import_path(str(layout.archive(tmp_path / "before.tar")), importing.Options(), lambda _: None)

    def check(path, words, **options):
        before = everything()
        with pytest.raises(ImageError, match=words) as info:
            importing.import_path(str(path), importing.Options(**options), lambda _: None)
        assert everything() == before
        assert len(str(info.value)) < 1000
        return info.value

    return check


def layout_of(*tars, **options):
    layout = Layout()
    return layout.add(layout.image(*tars, **options), "web:1")


# digests, sizes


def flip(data):
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


CHANGES = {
    "a byte of the packed layer": flip,
    "a layer that is another one": lambda data: Layout().blob(data, "") and tar_of(("x", {}, b"x" * 4000)),
    "a layer cut off": lambda data: data[:-20],
    "half a layer": lambda data: data[: len(data) // 2],
    "an empty layer": lambda data: b"",
    "a layer with more behind it": lambda data: data + bytes(100),
}


@pytest.mark.parametrize("packing", ["", "+gzip", "+zstd"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_a_layer_that_is_not_what_its_digest_says(refused, tmp_path, packing, change, form):
    layout = layout_of(ONE, packing=packing)
    name = only_layer(layout)
    layout.files[name] = change(layout.files[name])
    words = (
        r"does not match its digest|is truncated|cannot be decompressed|is longer than|damaged|is not sha256"
        r"|ends in the middle"
    )
    refused(getattr(layout, form)(tmp_path / "web"), words)


def test_a_layer_that_unpacks_to_another_than_the_configuration_says(refused, tmp_path):
    layout = layout_of(ONE, config={"rootfs": {"type": "layers", "diff_ids": [sha256(b"another")]}})
    refused(layout.archive(tmp_path / "web"), "the layer is not sha256:")


@pytest.mark.parametrize("which", [MANIFEST, CONFIG])
def test_a_document_that_is_not_what_its_digest_says(refused, tmp_path, which):
    layout = layout_of(ONE)
    for name, data in layout.files.items():
        if which == MANIFEST and b'"layers": [' in data:
            layout.files[name] = data.replace(b'"schemaVersion": 2', b'"schemaVersion": 2 ')[:-1] + b"}"
        if which == CONFIG and b"diff_ids" in data:
            layout.files[name] = data.replace(b"/bin/sh", b"/bin/su")
    refused(layout.archive(tmp_path / "web"), "does not match its digest|not the [0-9]+ in its descriptor")


@pytest.mark.parametrize("missing", ["layer", "manifest", "config"])
def test_what_is_missing_is_named(refused, tmp_path, missing):
    layout = layout_of(ONE)
    layer = only_layer(layout)
    manifest = blob_name(layout.index[0]["digest"])
    [config] = {name for name in layout.files if name.startswith("blobs")} - {layer, manifest}
    name = {"layer": layer, "manifest": manifest, "config": config}[missing]
    del layout.files[name]
    refused(layout.archive(tmp_path / "web"), f"has no file {name}")
    refused(layout.folder(tmp_path / "folder"), f"has no file {name}")


def test_an_archive_that_is_cut_off(refused, tmp_path):
    path = layout_of(ONE, packing="").archive(tmp_path / "web")
    whole = path.read_bytes()
    end = whole.rindex(b"}") + 1  # what follows is padding
    for size in (end - 1, end - 600, end // 2, 1000, 300):
        path.write_bytes(whole[:size])
        refused(path, "is truncated")


def test_dockers_archives_are_verified_too(refused, tmp_path):
    files = docker_files((["web:1"], [ONE]))
    for name in files:
        changed = {**files, name: files[name].replace(b"one", b"eno").replace(b"/bin/sh", b"/bin/su")}
        if changed == files:
            continue
        (tmp_path / "saved").write_bytes(tar_of(*((name, {}, data) for name, data in changed.items())))
        refused(tmp_path / "saved", "does not match its digest|the layer is not sha256:")


# documents


DEEP = b"[" * 100_000 + b"]" * 100_000
DOCUMENTS = {
    "no JSON": b"{",
    "no text": b"\xff\xfe{}",
    "another type": b"[]",
    "nothing in it": b"{}",
    "nested too deeply": b'{"manifests": [], "config": {}, "layers": [], "x": ' + DEEP + b"}",
    "too large": b'{"x": "' + b"x" * (5 << 20) + b'"}',
    "a number without end": b'{"schemaVersion": ' + b"9" * 100_000 + b"}",
    "docker's first form": b'{"schemaVersion": 1, "fsLayers": []}',
}


@pytest.mark.parametrize("data", DOCUMENTS.values(), ids=DOCUMENTS)
@pytest.mark.parametrize("place", ["index.json", "manifest", "config", "nested", "manifest.json"])
def test_a_document_that_cannot_be_read(refused, tmp_path, data, place):
    layout = Layout()
    if place == "manifest.json":
        (tmp_path / "saved").write_bytes(tar_of(("manifest.json", {}, data)))
        refused(tmp_path / "saved", "manifest.json .*(is invalid|the limit is)|contains no image")
        return
    if place == "index.json":
        layout.files["index.json"] = data
    elif place == "config":
        config = layout.blob(data, CONFIG)
        layout.add(layout.blob(dump({"schemaVersion": 2, "config": config, "layers": []}), MANIFEST))
    else:
        layout.add(layout.blob(data, MANIFEST if place == "manifest" else INDEX))
    refused(layout.archive(tmp_path / "web"), "is invalid|the limit is|contains no image|schema 1|has no image for")


WRONG = {
    "a digest that is a path": ({"digest": "sha256:../../../../etc/passwd"}, "regex"),
    "a digest with a line end": ({"digest": "sha256:" + "0" * 64 + "\n"}, "regex"),
    "a digest of another kind": ({"digest": "md5:" + "0" * 32}, "regex"),
    "a negative size": ({"size": -1}, ">= 0"),
    "a size above all": ({"size": 1 << 70}, "out of range|expected|Expected"),
    "a size that is a text": ({"size": "12"}, "Expected `int`"),
    "a media type of something else": (
        {"mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip"},
        "unknown media type",
    ),
    "an encrypted layer": ({"mediaType": LAYER + "+gzip+encrypted"}, "unknown media type"),
}


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG)
def test_a_layers_description_that_is_wrong(refused, tmp_path, change, words):
    layout = Layout()
    layer = {**layout.blob(ONE, LAYER), **change}
    config = layout.blob(dump({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [sha256(ONE)]}}), CONFIG)
    manifest = {"schemaVersion": 2, "config": config, "layers": [layer]}
    refused(layout.add(layout.blob(dump(manifest), MANIFEST)).archive(tmp_path / "web"), words)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"os": "windows"}, "is for windows, not for Linux"),
        ({"architecture": 5}, "Expected `str`"),
        ({"config": {"Cmd": "sh"}}, "Expected `array"),
        ({"config": {"Env": [1]}}, "Expected `str`"),
        ({"rootfs": {"diff_ids": []}}, "lists 0 layers, its manifest has 1"),
        ({"rootfs": {"diff_ids": ["sha256:x"]}}, "regex"),
    ],
    ids=str,
)
def test_a_configuration_that_is_wrong(refused, tmp_path, config, words):
    refused(layout_of(ONE, config=config).archive(tmp_path / "web"), words)


def test_what_is_no_container_image(refused, tmp_path):
    layout = Layout()
    config = layout.blob(b"{}", "application/vnd.cncf.helm.config.v1+json")
    layout.add(layout.blob(dump({"schemaVersion": 2, "config": config, "layers": []}), MANIFEST))
    refused(layout.archive(tmp_path / "chart"), "is not for a container image but for application/vnd.cncf.helm")


def test_indexes_in_indexes_without_end(refused, tmp_path):
    layout = Layout()
    descriptor = layout.image(ONE)
    for _ in range(5):
        descriptor = layout.nested(descriptor)
    refused(layout.add(descriptor).archive(tmp_path / "web"), "nests indexes too deeply")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "."])
def test_dockers_list_cannot_name_files_outside(refused, tmp_path, name):
    for key in ("Config", "Layers"):
        files = docker_files((["web:1"], [ONE]))
        [listed] = json.loads(files["manifest.json"])
        listed[key] = name if key == "Config" else [name]
        files["manifest.json"] = dump([listed])
        (tmp_path / "saved").write_bytes(tar_of(*((name, {}, data) for name, data in files.items())))
        refused(tmp_path / "saved", "refers to a file outside of itself")
        unpacked = tmp_path / key
        for name_in, data in files.items():
            os.makedirs(os.path.dirname(unpacked / name_in), exist_ok=True)
            (unpacked / name_in).write_bytes(data)
        refused(unpacked, "refers to a file outside of itself")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "manifest.json/..", "loop"])
def test_links_in_an_archive_cannot_lead_out(refused, tmp_path, target):
    files = docker_files((["web:1"], [ONE]))
    layer = next(name for name in files if name.endswith("layer.tar"))
    entries = [(name, {}, data) for name, data in files.items() if name != layer]
    for kind in (link, hard):
        linked = [kind(layer, target), link("loop", "loop")]
        (tmp_path / "saved").write_bytes(tar_of(*entries, *linked))
        refused(tmp_path / "saved", "outside of itself|is not a regular file|has no file")


def test_files_of_a_folder_that_are_none(refused, tmp_path):
    layout = layout_of(ONE)
    there = layout.folder(tmp_path / "web")
    layer = there / only_layer(layout)
    layer.unlink()
    os.mkfifo(layer)
    refused(there, "is not a regular file")


# layers


LAYERS = {
    "a name that leads out": [("../outside", {}, b"x")],
    "a name that leads out later": [folder("a"), ("a/../../outside", {}, b"x")],
    "a folder that is a link out": [link("a", "/"), ("a/etc/passwd", {}, b"x")],
    "a folder that is a link up": [link("a", "../../.."), ("a/etc/passwd", {}, b"x")],
    "a hard link to nowhere": [hard("a", "missing")],
    "a hard link to outside": [hard("a", "../../etc/passwd")],
    "a device that is a deletion": [("a", {"type": tarfile.CHRTYPE})],
    "a device with numbers that cannot be": [("a", {"type": tarfile.BLKTYPE, "devmajor": 0o7777777, "devminor": 0})],
}


@pytest.mark.parametrize("entries", LAYERS.values(), ids=LAYERS)
def test_layers_that_reach_for_the_host_reach_nothing(tmp_path, entries):
    """Refused, or harmless: what such a name means inside of the image's own root is for the layer's tests."""
    outside = sorted(os.listdir(tmp_path)), os.stat("/etc/passwd").st_mtime_ns
    layout = layout_of(tar_of(*entries))
    with suppress(ImageError):
        importing.import_path(str(layout.archive(tmp_path / "web")), importing.Options(), lambda _: None)
    assert sorted(set(os.listdir(tmp_path)) - {"root", "web"}) == outside[0]
    assert os.stat("/etc/passwd").st_mtime_ns == outside[1]


def zeros(size_bytes):
    """A tar, in pieces, with a file of zeros."""
    info = tarfile.TarInfo("zeros")
    info.size = size_bytes
    yield info.tobuf(tarfile.GNU_FORMAT)
    for _ in range(size_bytes >> 20):
        yield bytes(1 << 20)
    yield bytes(1024)


def packed_zeros(size_bytes):
    """Return the gzipped tar of a file of zeros: all but the begin is the same megabyte again and again."""
    deflate, packed = zlib.compressobj(9, zlib.DEFLATED, 31), []
    for piece in zeros(size_bytes):
        packed.append(deflate.compress(piece))
    return b"".join([*packed, deflate.flush()])


def test_a_layer_of_zeros_without_end(refused, tmp_path):
    """64 MiB are used in place of 10 GiB, and a limit of the command line in place of 4 GiB."""
    data = packed_zeros(64 << 20)
    assert len(data) < 100_000
    layout = Layout()
    settings = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [sha256(ONE)]}}
    manifest = {"schemaVersion": 2, "config": layout.blob(dump(settings), CONFIG)}
    layout.add(layout.blob(dump({**manifest, "layers": [layout.blob(data, LAYER + "+gzip")]}), MANIFEST))
    path = layout.archive(tmp_path / "web")
    error = refused(path, "unpacks to more than 32.0 MiB", max_layer_bytes=32 << 20)
    assert "--max-size" in error.hint
    refused(path, "the layer is not sha256:", max_layer_bytes=70 << 20)  # not the size, but the digest
    (tmp_path / "bomb.tar.gz").write_bytes(data)
    refused(tmp_path / "bomb.tar.gz", "unpacks to more than 32.0 MiB", max_layer_bytes=32 << 20)


def test_ten_gigabytes_in_ten_megabytes_are_above_the_limit_and_an_ordinary_image_is_not():
    assert importing.limit_bytes(10 << 20, None) < 10 << 30
    assert importing.limit_bytes(10 << 20, None) == 4 << 30
    assert importing.limit_bytes(450 << 20, None) > 20 << 30
    assert importing.limit_bytes(450 << 20, 1 << 20) == 1 << 20


def test_an_archive_whose_header_promises_ten_gigabytes_is_refused_at_the_header(refused, tmp_path):
    info = tarfile.TarInfo("zeros")
    info.size = 10 << 30
    (tmp_path / "bomb.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    refused(tmp_path / "bomb.tar", "unpacks to more than 4.0 GiB")


def test_a_compressed_archive_that_never_ends(refused, tmp_path):
    blob = tarfile.TarInfo("blobs/sha256/" + "0" * 64)
    blob.size = 64 << 20
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [deflate.compress(blob.tobuf())] + [deflate.compress(bytes(1 << 20)) for _ in range(64)]
    (tmp_path / "bomb.tar.gz").write_bytes(b"".join([*pieces, deflate.flush()]))
    refused(tmp_path / "bomb.tar.gz", "unpacks to more than 8.0 MiB", max_layer_bytes=8 << 20)


def test_an_archive_of_very_many_files(refused, tmp_path):
    (tmp_path / "many").write_bytes(tarfile.TarInfo("blobs").tobuf() * 100_001)
    refused(tmp_path / "many", "has more than 100000 files")


def test_the_second_of_two_images_being_wrong_neither_is_stored(refused, tmp_path):
    layout = layout_of(ONE)
    layout.add(layout.image(TWO, config={"rootfs": {"diff_ids": [sha256(b"x")]}}), "wrong:1")
    refused(layout.archive(tmp_path / "web"), "the layer is not")


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    big = tar_of(("random", {}, os.urandom(4 << 20)))
    layout = layout_of(big)
    path = layout.archive(tmp_path / "web")
    little = Layout()
    little.add(little.image(ONE), "little:1").archive(tmp_path / "little")
    syscalls.mount("tmpfs", str(small), "tmpfs", 0, "size=2m")
    try:
        monkeypatch.setenv("VMCTL_ROOT", str(small))
        importing.import_path(str(tmp_path / "little"), importing.Options(), lambda _: None)
        before = everything()
        with pytest.raises(VmctlError, match="No space left on device"):
            importing.import_path(str(path), importing.Options(), lambda _: None)
        assert everything() == before
        assert [image.name for image in store.ls()] == ["little:1"]
    finally:
        syscalls.umount2(str(small))
