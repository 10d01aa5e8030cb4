"""Read claims from a YAML file: a list of texts, or of objects with `claim` and `source`."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from vmctl.errors import NotFoundError, SpecError

_BYTES_MAX = 1 << 20
_CLAIMS_MAX = 1000


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A claim in a file."""

    claim: str
    source: str = ""


def claims(path: str) -> list[Claim]:
    """Return the claims in a file, in its order. Raises NotFoundError, SpecError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_BYTES_MAX + 1)
        if len(raw) > _BYTES_MAX:
            raise SpecError(f"{path} is larger than {_BYTES_MAX >> 20} MiB")
        value: Any = yaml.safe_load(raw)
        found = msgspec.convert(value, list[str | Claim])
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}") from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        text = f"{path} is not a list of claims: {str(error).splitlines()[0][:200]}"
        raise SpecError(text, hint="a YAML list; each item is a text, or has the keys `claim` and `source`") from None
    if not 0 < len(found) <= _CLAIMS_MAX:
        raise SpecError(f"{path} has {len(found)} claims; it may have 1 to {_CLAIMS_MAX}")
    return [Claim(one) if isinstance(one, str) else one for one in found]
