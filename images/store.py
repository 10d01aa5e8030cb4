"""The images of this host: an OCI image layout whose layers are kept as EROFS files.

`index.json` names the images, `blobs/sha256/` holds manifests and configurations; see image-layout.md of the OCI
image specification. A manifest describes each layer by its tar; the bytes kept are `layers/<hex>.erofs`, made from
that tar, because an EROFS file can be mounted by a container and attached to a guest, and a tar can be neither.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from images.image import Image, ImageConfig, Layer, architecture
from vmctl import instance, paths
from vmctl.errors import ConflictError, NotFoundError, VmctlError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
INDEX = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"


def path(*parts: str) -> str:
    """Return a path inside the store."""
    return os.path.join(paths.images_root(), *parts)


def layer_path(digest: str) -> str:
    """Return where the EROFS file of a layer is kept, whether it is there or not."""
    return path("layers", digest.partition(":")[2] + ".erofs")


def find(name: str) -> Image:
    """Return the image of that name. Raises NotFoundError with the nearest name there is."""
    descriptors = {_name(descriptor): descriptor for descriptor in _index()}
    if name not in descriptors:
        raise NotFoundError(f"there is no image {name}", hint=_advice(name, list(descriptors)))
    image = _image(descriptors[name])
    for layer in image.layers:
        if not os.path.exists(layer.path):
            raise NotFoundError(f"the image {name} lacks its layer {layer.path}", hint=_recipe(name))
    return image


def ls() -> list[Image]:
    """Return all images, by name."""
    return sorted(_image(descriptor) for descriptor in _index())


def add(name: str, layers: Sequence[Layer], config: ImageConfig, *, created: str) -> Image:
    """Store an image of layers that are in the store and return it; it replaces one of the same name."""
    with locked():
        for layer in layers:
            if not os.path.exists(layer.path):
                raise NotFoundError(f"the layer {layer.digest} is not in the store", hint="build the image again")
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _put(CONFIG, _config_document(layers, config, created)),
            "layers": [{"mediaType": TAR, "digest": layer.digest, "size": layer.size_bytes} for layer in layers],
        }
        descriptor = {**_put(MANIFEST, manifest), "annotations": {REF_NAME: name}}
        _replace(name, descriptor)
    return _image(descriptor)


def remove(name: str) -> None:
    """Remove an image, and what of it no other image has. Raises NotFoundError, or ConflictError where it is in use."""
    with locked():
        image = find(name)
        if users := _users(image.digest):
            raise ConflictError(f"the image {name} is used by {', '.join(users)}", hint=f"`vmctl rm {users[0]}` first")
        _replace(name)


@contextmanager
def locked(lock: str = "lock") -> Iterator[None]:
    """Wait for a lock of the store and hold it (flock(2): it ends with its holder)."""
    os.makedirs(path(), exist_ok=True)
    fd = os.open(path(lock), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def timestamp(seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339, the form of `created`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _index() -> list[dict[str, Any]]:
    try:
        with open(path("index.json"), encoding="utf-8") as file:
            return [{**descriptor, "digest": str(descriptor["digest"])} for descriptor in json.load(file)["manifests"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise VmctlError(
            f"{path('index.json')} is damaged: {error}", hint="remove it and build the images again"
        ) from None


def _write_index(descriptors: list[dict[str, Any]]) -> None:
    instance.write_atomic(path("oci-layout"), '{"imageLayoutVersion": "1.0.0"}')
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors}
    instance.write_atomic(path("index.json"), json.dumps(document, indent=1))


def _replace(name: str, *descriptors: dict[str, Any]) -> None:
    """Put descriptors in the place of a name's, and delete the files that no image and no instance has any more."""
    old = [descriptor for descriptor in _index() if _name(descriptor) == name]
    kept = [*(descriptor for descriptor in _index() if _name(descriptor) != name), *descriptors]
    _write_index(kept)
    doomed = [descriptor for descriptor in old if not _users(descriptor["digest"])]
    for file in _files(doomed) - _files(kept):
        with suppress(FileNotFoundError):
            os.unlink(file)


def _blob_path(digest: str) -> str:
    return path("blobs", *digest.split(":"))


def _put(media_type: str, document: dict[str, Any]) -> dict[str, Any]:
    """Store a JSON document under its digest and return its descriptor."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    import hashlib

    digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    os.makedirs(path("blobs", "sha256"), exist_ok=True)
    instance.write_atomic(_blob_path(digest), text)
    return {"mediaType": media_type, "digest": digest, "size": len(text.encode())}


def _get(digest: str) -> dict[str, Any]:
    try:
        with open(_blob_path(digest), encoding="utf-8") as file:
            document: dict[str, Any] = json.load(file)
    except (OSError, ValueError) as error:
        raise VmctlError(f"the image store lacks {digest}: {error}", hint="build the image again") from None
    return document


def _config_document(layers: Sequence[Layer], config: ImageConfig, created: str) -> dict[str, Any]:
    settings = {
        "Entrypoint": config.entrypoint,
        "Cmd": config.cmd,
        "Env": config.env,
        "WorkingDir": config.workdir,
        "User": config.user,
        "StopSignal": config.stop_signal,
    }
    return {
        "created": created,
        "architecture": architecture(),
        "os": "linux",
        "config": {key: value for key, value in settings.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }


def _image(descriptor: dict[str, Any]) -> Image:
    manifest = _get(descriptor["digest"])
    document = _get(manifest["config"]["digest"])
    diff_ids = document["rootfs"]["diff_ids"]
    layers = (
        Layer(diff_id, layer_path(diff_id), item["size"])
        for diff_id, item in zip(diff_ids, manifest["layers"], strict=True)
    )
    return Image(
        name=_name(descriptor),
        digest=descriptor["digest"],
        architecture=document["architecture"],
        layers=tuple(layers),
        config=_config(document.get("config") or {}),
        created=document.get("created", ""),
    )


def _config(settings: dict[str, Any]) -> ImageConfig:
    return ImageConfig(
        entrypoint=tuple(settings.get("Entrypoint") or ()),
        cmd=tuple(settings.get("Cmd") or ()),
        env=tuple(settings.get("Env") or ()),
        workdir=settings.get("WorkingDir", ""),
        user=settings.get("User", ""),
        stop_signal=settings.get("StopSignal", ""),
    )


def _files(descriptors: Sequence[dict[str, Any]]) -> set[str]:
    """Return the paths of all blobs and layers of some images."""
    images = [(_image(descriptor), _get(descriptor["digest"])["config"]["digest"]) for descriptor in descriptors]
    blobs = {_blob_path(digest) for image, config in images for digest in (image.digest, config)}
    return blobs | {layer.path for image, _ in images for layer in image.layers}


def _users(digest: str) -> list[str]:
    return [name for name in instance.names() if instance.load(name).state.image_digest == digest]


def _name(descriptor: dict[str, Any]) -> str:
    return str(descriptor.get("annotations", {}).get(REF_NAME, ""))


def _recipe(name: str) -> str:
    return f"`vmctl image build {name}` makes it"


def _advice(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    if name == "tiny":
        return _recipe(name)
    if nearest := get_close_matches(name, [*known, "tiny"], n=1, cutoff=0.5):
        return f"did you mean {nearest[0]}? `vmctl image ls` lists what there is"
    return "`vmctl image ls` lists what there is, `vmctl image build tiny` makes the smallest one"
