"""The files of an OCI image layout: the index with the names of images, and blobs by their digest.

See image-layout.md of the OCI image specification. This module reads and writes the files, and finds names in the
index; store.py gives them their meaning.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from vmctl import paths
from vmctl.errors import NoSuchImage, NotFoundError, SpecError, VmctlError
from vmctl.light import json, re
from vmctl.linux import durable
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"

_DIGEST = r"(sha256:)?[0-9a-f]{6,64}"  # at least as many digits as Docker's users type


def path(*parts: str) -> str:
    """Return a path inside the store."""
    return os.path.join(paths.images_root(), *parts)


def index() -> list[dict[str, Any]]:
    """Return the descriptors of all images. Raises VmctlError if the file is damaged."""
    try:
        with open(path("index.json"), encoding="utf-8") as file:
            return [{**descriptor, "digest": str(descriptor["digest"])} for descriptor in json.load(file)["manifests"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VmctlError(
            f"{path('index.json')} is damaged: {error}", hint="remove this file and build the images again"
        ) from None


def write_index(descriptors: list[dict[str, Any]]) -> None:
    """Replace the index, completely or not at all, also at a loss of power. Raises OSError."""
    if not os.path.exists(path("oci-layout")):
        durable.write(path("oci-layout"), b'{"imageLayoutVersion": "1.0.0"}')
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors}
    durable.write(path("index.json"), json.dumps(document, indent=1).encode())


def name_of(descriptor: Mapping[str, Any]) -> str:
    """Return the name of an image in the index; empty for an image that only instances still use."""
    return str((descriptor.get("annotations") or {}).get(REF_NAME, ""))


def normal(name: str) -> str:
    """Return a name as it is stored, in its short form; anything that is not the name of an image stays as it is."""
    if "/" in name or "@" in name:
        from images.store import reference

        with suppress(SpecError):  # a hidden name, or a mistake: then no image has it
            return reference.familiar(name)
    return name.removesuffix(":latest")


def find(name: str) -> dict[str, Any]:
    """Return the descriptor of a name, a digest, or the beginning of a digest. Raises NotFoundError with advice."""
    descriptors = index()
    stored = normal(name)
    for one in descriptors:
        if name_of(one) == stored or one["digest"] == name:
            return one
    if re.fullmatch(_DIGEST, name):
        found = [one for one in descriptors if one["digest"].startswith("sha256:" + name.removeprefix("sha256:"))]
        if len({one["digest"] for one in found}) == 1:
            return found[0]
        if found:
            raise NotFoundError(f"several images have a digest that begins with {name}", hint="give more digits of it")
    from images.store import shipped

    raise NoSuchImage(f"there is no image {name}", hint=shipped.advice(stored, list(map(name_of, descriptors))))


def blob_path(digest: str) -> str:
    """Return the path of a blob, even if the store does not have it."""
    return path("blobs", *digest.split(":"))


def put(media_type: str, content: bytes) -> dict[str, Any]:
    """Store a blob under its digest and return its descriptor. Raises OSError."""
    import hashlib

    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    os.makedirs(path("blobs", "sha256"), exist_ok=True)
    durable.write(blob_path(digest), content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def get(digest: str) -> dict[str, Any]:
    """Return a blob that is a JSON document. Raises VmctlError."""
    try:
        with open(blob_path(digest), encoding="utf-8") as file:
            document: dict[str, Any] = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise VmctlError(
            f"the image store lacks {digest}: {error}",
            hint="remove the image with `vmctl image rm` and get it again",
        ) from None
    return document


def encoded(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON in canonical form: the same content has the same digest."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
