"""Image archives and what is in them: tars, compressed streams, disks, and the documents of OCI and docker."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile

from fuzz import place
from fuzz.check import target
from images.bundles import index as bundle
from images.disks import diskimage, partitions
from images.layer import compression, tarindex
from images.layer.erofs import Writer
from images.layer.lookup import Reader, View
from images.layer.tarball import store_entries
from images.layer.tarheaders import members
from images.layer.tree import Attributes, Tree
from images.recipes import unpack
from images.recipes.placement import Placement
from images.recipes.state import State
from images.store import config, documents, layout, platforms, store
from images.store.image import Layer, process
from images.transfer import archive, oci, registry, sources
from vmctl.cli.image import history
from vmctl.errors import VmctlError
from vmctl.programs import CommandError
from vmctl.spec.workload import Workload

BLOCK = 512
TAR_WORDS = ("size", "mtime", "path", "linkpath", "uid", "SCHILY.xattr.user.x", "GNU.sparse.map", "GNU.sparse.major")
TAR_WORDS += ("20 size=1e9\n", "30 mtime=1e9\n", ".wh.", ".wh..wh..opq", "ustar\00000", "ustar  \0", "GNU.sparse.size")


def _tar(form, *, deletions=True, **pax):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind, more in (
            ("d", tarfile.DIRTYPE, {}),
            ("d/f", tarfile.REGTYPE, {"size": 5, "pax_headers": {"mtime": "1.5", "SCHILY.xattr.user.x": "y", **pax}}),
            ("d/l", tarfile.SYMTYPE, {"linkname": "../f"}),
            ("d/h", tarfile.LNKTYPE, {"linkname": "d/f"}),
            ("c", tarfile.CHRTYPE, {"devmajor": 1, "devminor": 3}),
            ("p", tarfile.FIFOTYPE, {"uid": 1 << 22}),
            ("n" * 150, tarfile.REGTYPE, {}),
            ("d/.wh.x", tarfile.REGTYPE, {}),
        ):
            if name.endswith(".wh.x") and not deletions:
                continue
            info = tarfile.TarInfo(name)
            info.type = kind
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(b"hello"))
    return out.getvalue()


def _sparse():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("s")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s"}
        info.pax_headers["GNU.sparse.realsize"] = "9000"
        data = b"1\n0\n3\n".ljust(BLOCK, b"\0") + b"abc".ljust(BLOCK, b"\0")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


TARS = (_tar(tarfile.PAX_FORMAT), _tar(tarfile.GNU_FORMAT), _sparse())


def _with_checksums(data):
    """Return a tar whose headers have the right checksum, so that a change of them is not all that is found."""
    blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
    return b"".join(_summed(block) if block[257:262] == b"ustar" else block for block in blocks)


def _summed(block):
    total = sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")
    return block[:148] + b"%06o\0 " % total + block[156:]


@target("tar-layer", *TARS, words=TAR_WORDS, cost=8)
def tar_layer(data):
    with place.memory(b"") as erofs, place.memory(b"") as index:
        source = tarindex.Recorder(io.BytesIO(_with_checksums(data)), index, 1 << 26, lambda _: None)
        writer, tree = Writer(erofs.fileno()), Tree(lambda _: None)
        store_entries(source, tree, writer)
        _finish(tree, writer)


def _finish(tree, writer):
    tree.finish()
    if tree.deletes:
        tree.whiteout.number = writer.other(Attributes(stat.S_IFCHR))
    writer.finish(tree.root)


@target("tar-headers", *TARS, words=TAR_WORDS, cost=2)
def tar_headers(data):
    for _ in members(io.BytesIO(_with_checksums(data)), "it"):
        pass


def _packed():
    import bz2
    import gzip
    import lzma

    import zstandard

    text = b"hello " * 99
    zstd = zstandard.ZstdCompressor().compress(text)
    return [
        gzip.compress(text),
        bz2.compress(text),
        lzma.compress(text),
        zstd,
        zstd + b"\x50\x2a\x4d\x18\x01\0\0\0x" + zstd,
    ]


@target("compression", *_packed(), cost=2)
def packed(data):
    stream, total = compression.plain(io.BytesIO(data), "it"), 0
    while (part := stream.read(1 << 20)) and total < 1 << 24:
        total += len(part)


MEDIA = "application/vnd.oci.image."
SETTINGS = {"Env": ["A=b"], "Cmd": ["x"], "Entrypoint": ["y"], "WorkingDir": "/", "User": "1:1", "StopSignal": "SIGINT"}
SETTINGS |= {"ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}}, "Labels": {"a": "b"}, "OnBuild": ["RUN x"]}
SETTINGS |= {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 5}, "Shell": ["sh"]}
CONFIG = {"architecture": "amd64", "os": "linux", "created": "2020-01-01T00:00:00Z", "author": "me", "variant": "v8"}
CONFIG |= {"config": SETTINGS, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}
CONFIG |= {"history": [{"created": "2020-01-01T00:00:00Z", "created_by": "x", "comment": "y"}, {"empty_layer": True}]}
DIGEST = "sha256:" + "1" * 64
PLATFORM = {"architecture": "amd64", "os": "linux", "variant": "v1"}
DESCRIPTOR = {"mediaType": MEDIA + "manifest.v1+json", "digest": DIGEST, "size": 5, "platform": PLATFORM}
INDEX = {
    "schemaVersion": 2,
    "mediaType": MEDIA + "index.v1+json",
    "manifests": [DESCRIPTOR, {**DESCRIPTOR, "annotations": {}}],
}
LAYERS = [{"mediaType": MEDIA + "layer.v1.tar+gzip", "digest": DIGEST, "size": 3, "annotations": {"a": "b"}}]
MANIFEST = {
    "schemaVersion": 2,
    "config": {"mediaType": MEDIA + "config.v1+json", "digest": DIGEST, "size": 9},
    "layers": LAYERS,
}
JSON_WORDS = (
    "null",
    "{}",
    "[]",
    "true",
    "1e400",
    "NaN",
    "[" * 3000,
    '"\\ud800"',
    '"\\u0000"',
    '"\\u001b[2J"',
    '{"a":' * 2000,
)


@target("oci-index", json.dumps(INDEX), words=JSON_WORDS)
def oci_index(data):
    oci.choose(oci.parse(oci.Index, data, "it"), platforms.parse("amd64"), "it")


@target("oci-manifest", json.dumps(MANIFEST), words=JSON_WORDS)
def oci_manifest(data):
    oci.manifest(data, "it")
    sources.is_index(oci.Descriptor(DIGEST, len(data)), data)


@target("oci-config", json.dumps(CONFIG), words=JSON_WORDS, cost=4)
def oci_config(data):
    """What is accepted as a configuration can be used, shown, and built on."""
    parsed = oci.parse_config(data, "it")
    document = json.loads(data)
    settings = config.read_config(document)
    put = layout.put(layout.CONFIG, data)
    diffs = parsed.rootfs.diff_ids[:3]
    items = [documents.layer_descriptor(Layer(diff, documents.layer_path(diff[7:]), 1)) for diff in diffs]
    manifest = layout.put(layout.MANIFEST, layout.encoded({**MANIFEST, "config": put, "layers": items}))
    image = documents.image_of({**manifest, "annotations": {layout.REF_NAME: "it"}})
    for layer in image.layers:
        place.file(f"lib/images/layers/{layer.key}.erofs", b"")
    history._rows(image)
    json.dumps(store.document(image))
    State(image.layers, document).document()
    process(image, Workload("it", "it", ("sh",)))
    assert image.config == settings


STORED = '{"digest": "sha256:ab", "size": 1, "annotations": {"org.opencontainers.image.ref.name": "it"}}'


@target("store-index", '{"manifests": []}', words=(*JSON_WORDS, STORED, STORED.replace("ab", "../../../etc/x")), cost=4)
def store_index(data):
    place.file("lib/images/index.json", data)
    store.ls(hidden=True, unnamed=True)
    with contextlib.suppress(VmctlError):
        layout.find("it")


class _Documents:
    """An archive of which each file is a part of the input; the digests and sizes in it are made right."""

    where = "it"

    def __init__(self, data):
        index, manifest, configuration, *_ = [*data.split(b"\n\0\n"), b"", b""]
        self.files = {}
        configuration = self._put(configuration)
        manifest = self._put(manifest.replace(b"CONFIG", configuration[0]).replace(b"77", configuration[1]))
        self.files["index.json"] = index.replace(b"MANIFEST", manifest[0]).replace(b"88", manifest[1])

    def _put(self, data):
        digest = hashlib.sha256(data).hexdigest()
        self.files["blobs/sha256/" + digest] = data
        return digest.encode(), str(len(data)).encode()

    def __contains__(self, name):
        return name in self.files

    def open(self, name):
        if name not in self.files:
            raise archive.ImageError("there is no such file")
        return io.BytesIO(self.files[name]), len(self.files[name])


LAYOUT = b"\n\0\n".join(
    [
        json.dumps({**INDEX, "manifests": [{**DESCRIPTOR, "digest": "sha256:MANIFEST", "size": 88}]}).encode(),
        json.dumps({**MANIFEST, "config": {"digest": "sha256:CONFIG", "size": 77}}).encode(),
        json.dumps(CONFIG).encode(),
    ]
)


@target("oci-layout", LAYOUT, words=(*JSON_WORDS, "MANIFEST", "CONFIG", "\n\0\n"), cost=2)
def oci_layout(data):
    sources.images_in(_Documents(data), platforms.parse("amd64"), strict=False)


MEMBER = {"name": "image-1", "sha256": "ab" * 32}
FILES = [{"path": "boot/vmlinuz-6.1", "size_bytes": 9, "executable": False, "member": {**MEMBER, "name": "file-1"}}]
BUNDLE = {
    "format": 1,
    "vmctl": "0.2",
    "architecture": "amd64",
    "images": [{"name": "tiny", "digest": "sha256:" + "cd" * 32, "member": MEMBER}],
    "trees": [{"kind": "kernel", "name": "6.1", "files": FILES}],
    "labs": {"a": "ef" * 32},
}


@target("bundle-index", json.dumps(BUNDLE), words=(*JSON_WORDS, "..", "/", "size_bytes", "sha256", "kind"), cost=2)
def bundle_index(data):
    documents = _Documents(b"")
    documents.files = {bundle.INDEX: data}
    found = bundle.read(documents)
    for file in (file for tree in found.trees for file in tree.files):
        assert os.path.normpath(os.path.join("/top", file.path)).startswith("/top/")
        assert 0 <= file.size_bytes <= bundle.FILE_BYTES_MAX


def _saved():
    out = io.BytesIO()
    config_bytes = json.dumps(CONFIG).encode()
    name = hashlib.sha256(config_bytes).hexdigest() + ".json"
    saved = [{"Config": name, "RepoTags": ["web:1"], "Layers": ["a/layer.tar"]}]
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in ((name, config_bytes), ("a/layer.tar", b"x"), ("manifest.json", json.dumps(saved).encode())):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("b/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../a/layer.tar"
        tar.addfile(link)
    return out.getvalue()


@target("docker-archive", _saved(), words=(*JSON_WORDS, *TAR_WORDS), cost=3)
def docker_archive(data):
    with place.memory(_with_checksums(data)) as file:
        archive.is_image_archive(file, "it")
        file.seek(0)
        for image in sources.images_in(archive.Tar(file, "it"), platforms.parse("amd64"), strict=False):
            for layer in image.layers:
                layer.open()[0].read()


FATAL = 'time="2020" level=fatal msg="Error parsing image name \\"docker://x\\": reading manifest: manifest unknown"\n'


@target(
    "registry-answer", FATAL, "level=fatal msg=x", 'level=fatal msg="x509: bad"', words=("level=fatal msg=", "\\", '"')
)
def registry_answer(data):
    from images.store.reference import parse

    error = registry.translate(parse("host:5/web"), CommandError(["skopeo"], 1, data.decode(errors="replace")))
    assert str(error)


def _erofs():
    with place.memory(b"") as file, place.memory(b"") as index:
        writer, tree = Writer(file.fileno()), Tree(lambda _: None)
        store_entries(tarindex.Recorder(io.BytesIO(TARS[0]), index, None, lambda _: None), tree, writer)
        _finish(tree, writer)
        file.seek(0)
        return file.read()


@target("erofs", _erofs(), cost=4)
def erofs(data):
    path = place.file("layer.erofs", data)
    Reader(path).close()
    with View([Layer("sha256:x", path, 1)]) as view:
        for name in view.names("")[:50]:
            node = view.find(name)
            view.names(name)
            for _ in zip(view.content(name), range(20), strict=False):
                pass
            assert node is None or node.attributes.mode is not None


def _disk():
    head = bytearray(4096 * 4)
    head[510:512] = b"\x55\xaa"
    head[446:462] = bytes.fromhex("80000000830000000100000010000000")
    head[462:478] = bytes.fromhex("00000000050000000400000010000000")
    gpt = bytearray(head)
    gpt[512:520] = b"EFI PART"
    gpt[584:600] = (2).to_bytes(8, "little") + (4).to_bytes(4, "little") + (128).to_bytes(4, "little")
    gpt[1024:1072] = bytes(range(32)) + (4).to_bytes(8, "little") + (9).to_bytes(8, "little")
    return bytes(head), bytes(gpt)


@target(
    "disk", *_disk(), b"QFI\xfb\0\0\0\3" + bytes(100), words=("EFI PART", "XFSB", "hsqs", "KDMV", "vhdxfile", "QFI")
)
def disk(data):
    diskimage.recognise(data[: diskimage.HEAD_BYTES], "it")
    path = place.file("disk", data)
    partitions.of_disk(path)
    partitions.least_bytes(path)
    partitions.has_efi(path)


ADDED = [_tar(form, deletions=False) for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]


@target("add-archive", *ADDED, *map(gzip.compress, ADDED), words=TAR_WORDS, cost=10)
def add_archive(data):
    path = place.file("added.tar", _with_checksums(data))
    if unpack.is_archive(path):
        with View([]) as view, contextlib.ExitStack() as stack:
            placement = Placement(view, owner=None, mode=None, newest_ns=0)
            unpack.unpack(placement, path, "it", "/x", stack)
            for _ in placement.pieces():
                pass
            assert all(f"{where}/".startswith("x/") for where in placement._entries if where)
