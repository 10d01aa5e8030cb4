"""Archives of images made by hand, so that a test can make one of them wrong in one place."""

import gzip
import hashlib
import json
import os

import zstandard
from support.tars import tar_of

from images.store.image import architecture

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
PACKERS = {"": bytes, "+gzip": lambda data: gzip.compress(data, mtime=0), "+zstd": zstandard.compress}
REF_NAME, CONTAINERD_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"


def sha256(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def dump(document):
    return json.dumps(document).encode()


def blob_name(digest):
    return "blobs/" + digest.replace(":", "/")


class Layout:
    """An OCI image layout that grows blob by blob; `files` may be changed before it is written."""

    def __init__(self):
        self.files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        self.index = []

    def blob(self, data, media_type):
        self.files[blob_name(sha256(data))] = data
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}

    def image(self, *tars, packing="+gzip", arch="", config=None, **manifest):
        """Add an image of layers and return the descriptor of its manifest."""
        settings = {
            "architecture": arch or architecture(),
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["A=b"]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]},
            **(config or {}),
        }
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(dump(settings), CONFIG),
            "layers": [self.blob(PACKERS[packing](tar), LAYER + packing) for tar in tars],
            **manifest,
        }
        return self.blob(dump(document), MANIFEST)

    def add(self, descriptor, name="", **more):
        """List a descriptor in index.json, under a name, and return the layout."""
        annotations = {"annotations": {REF_NAME: name}} if name else {}
        self.index.append({**descriptor, **annotations, **more})
        return self

    def nested(self, *descriptors):
        """Add an index of descriptors and return its own."""
        return self.blob(dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors}), INDEX)

    def finished(self):
        """Return all files, index.json last, as skopeo and docker write it."""
        index = dump({"schemaVersion": 2, "manifests": self.index})
        return {**self.files, "index.json": self.files.get("index.json", index)}

    def folder(self, path):
        for name, data in self.finished().items():
            os.makedirs(os.path.dirname(path / name), exist_ok=True)
            (path / name).write_bytes(data)
        return path

    def archive(self, path, pack=bytes):
        path.write_bytes(pack(tar_of(*((name, {}, data) for name, data in self.finished().items()))))
        return path


def only_layer(layout):
    """Return the name of the only layer's file."""
    names = [name for name, data in layout.files.items() if name.startswith("blobs/") and not data.startswith(b"{")]
    assert len(names) == 1
    return names[0]


def docker_files(*images):
    """Return the files of an archive as `docker save` wrote it until version 24: (tags, tars) for each image."""
    files, listed = {}, []
    for tags, tars in images:
        config = dump(
            {
                "architecture": architecture(),
                "os": "linux",
                "config": {"Cmd": ["/bin/sh"]},
                "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]},
            }
        )
        name = f"{sha256(config)[7:]}.json"
        places = [f"{sha256(tar)[7:]}/layer.tar" for tar in tars]
        files |= dict(zip(places, tars, strict=True))
        files |= {os.path.dirname(place) + "/VERSION": b"1.0" for place in places}
        files[name] = config
        listed.append({"Config": name, "RepoTags": tags, "Layers": places})
    return {**files, "manifest.json": dump(listed)}
