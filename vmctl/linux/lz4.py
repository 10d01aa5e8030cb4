"""LZ4 blocks, decompressed by the host's liblz4, which Python does not offer.

The library is part of a distribution's base system: systemd and erofs-utils need it.
"""

from __future__ import annotations

import ctypes

_NAME = "liblz4.so.1"


Library = ctypes.CDLL


def load() -> Library | None:
    """Return the library for `decompressed`, or None if this host has none."""
    try:
        library = ctypes.CDLL(_NAME)
    except OSError:
        return None
    library.LZ4_decompress_safe.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int)
    return library


def decompressed(library: Library, block: bytes, most_bytes: int) -> bytes:
    """Return the content of one block, at most so many bytes. Raises ValueError if the block is damaged or larger."""
    content = ctypes.create_string_buffer(most_bytes)
    size_bytes = library.LZ4_decompress_safe(block, content, len(block), most_bytes)
    if size_bytes < 0:
        raise ValueError("damaged, or larger than it may be")
    return content.raw[:size_bytes]
