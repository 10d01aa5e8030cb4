"""From the name or the digest of an image to its descriptor in the index, or to an error with advice."""

from __future__ import annotations

import re

from images.store.layout import index, name_of
from vmctl.errors import NotFoundError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

_DIGEST = r"(sha256:)?[0-9a-f]{6,64}"  # at least as many digits as Docker's users type
_LIST = "`vmctl image ls` lists the images"


def normal(name: str) -> str:
    """Return a name as it is stored: without `:latest`."""
    return name.removesuffix(":latest")


def descriptor(name: str) -> dict[str, Any]:
    """Return the index's entry for a name, a digest, or the beginning of a digest. Raises NotFoundError."""
    descriptors = index()
    for one in descriptors:
        if name_of(one) == normal(name) or one["digest"] == name:
            return one
    if re.fullmatch(_DIGEST, name):
        found = [one for one in descriptors if one["digest"].startswith("sha256:" + name.removeprefix("sha256:"))]
        if len({one["digest"] for one in found}) == 1:
            return found[0]
        if found:
            raise NotFoundError(f"several images have a digest that begins with {name}", hint="give more digits of it")
    raise NotFoundError(f"there is no image {name}", hint=_advice(name, list(map(name_of, descriptors))))


def _advice(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    from images.store import shipped

    buildable = ["tiny", *shipped.names()]
    if name in buildable:
        return f"`vmctl image build {name}` builds it"
    named = [one for one in known if one and not one.startswith(".")]
    if nearest := get_close_matches(name, [*named, *buildable], n=1, cutoff=0.5):
        return f"did you mean {nearest[0]}? {_LIST}"
    return f"{_LIST}, `vmctl image build tiny` builds the smallest one"
