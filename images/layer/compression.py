"""Reads compressed streams forward: gzip, zstd, xz, bzip2, or none, recognised by their first bytes.

Concatenated compressed streams are read as one, as gzip(1), zstd(1) and xz(1) do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from images.layer.readers import Source, from_iterator
from images.store.image import ImageError

# memory limit of a decoder: zstd's default, and more than `xz -9` needs
MEMORY_BYTES_MAX = 128 << 20
HEAD_BYTES = 6  # enough to recognise every format
_PART = 1 << 20
_PACKED_PART = 256 << 10

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}
_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_ZSTD_RLE = 1


# A layer may unpack to this many bytes, or to this multiple of its compressed size if that is more: gzip compresses
# text to a tenth and zeros to a thousandth.
LAYER_BYTES, LAYER_FACTOR = 4 << 30, 100


def limit_bytes(packed_bytes: int, stated_bytes: int | None) -> int:
    """Return the limit for the unpacked size of a layer; `stated_bytes` is the user's limit, None if not given."""
    return max(LAYER_BYTES, LAYER_FACTOR * packed_bytes) if stated_bytes is None else stated_bytes


class _Decoder(Protocol):
    """A decoder of one compressed stream, with the interface of lzma.LZMADecompressor."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def recognise(head: bytes) -> str:
    """Return "gzip", "zstd", "xz" or "bzip2", or "" if the first bytes match none of them."""
    if int.from_bytes(head[:4], "little") in _ZSTD_SKIPPABLE:
        return "zstd"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def plain(source: Source, what: str) -> BinaryIO:
    """Return the decompressed content of a stream. If the data is damaged, reading raises ImageError naming `what`.

    Decompresses no more than is read, even if the data is compressed very well.
    """
    packed = _Packed(source)
    kind = recognise(packed.peek(HEAD_BYTES))
    pieces = packed.rest()
    if kind == "zstd":
        pieces = _checked(_zstd(packed), what, kind)
    elif kind:
        pieces = _checked(_inflated(packed, _DECODERS[kind]), what, kind)
    return from_iterator(pieces)


class _Packed:
    """The compressed bytes. `peek` reads ahead without consuming."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = b""

    def peek(self, length: int) -> bytes:
        """Return the next bytes, fewer only at the end, without consuming them."""
        while len(self._buffer) < length and (data := self._source.read(_PACKED_PART)):
            self._buffer += data
        return self._buffer[:length]

    def take(self, length: int) -> bytes:
        """Return exactly the next `length` bytes. Raises EOFError."""
        data = self.peek(length)
        if len(data) < length:
            raise EOFError("unexpected end of data")
        self._buffer = self._buffer[length:]
        return data

    def some(self) -> bytes:
        """Return some bytes, none at the end."""
        data, self._buffer = self._buffer or self._source.read(_PACKED_PART), b""
        return data

    def give_back(self, data: bytes) -> None:
        self._buffer = data + self._buffer

    def skip_zeros(self) -> bool:
        """Skip the padding that gzip(1) and xz(1) allow between streams; return whether more data follows."""
        while data := self.some():
            if data := data.lstrip(b"\0"):
                self.give_back(data)
                return True
        return False

    def rest(self) -> Iterator[bytes]:
        while data := self.some():
            yield data


def _checked(pieces: Iterator[bytes], what: str, kind: str) -> Iterator[bytes]:
    import lzma
    import zlib

    import zstandard

    try:
        yield from pieces
    except (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise ImageError(f"{what} cannot be decompressed as {kind}: {error}") from None


def _inflated(packed: _Packed, new_decoder: Callable[[], _Decoder]) -> Iterator[bytes]:
    while packed.skip_zeros():
        decoder = new_decoder()
        while not decoder.eof:
            data = packed.some() if decoder.needs_input else b""
            if not data and decoder.needs_input:
                raise EOFError("unexpected end of data")
            if out := decoder.decompress(data, _PART):
                yield out
        packed.give_back(decoder.unused_data)


class _Gzip:
    """zlib's decompressor with the interface of lzma's."""

    def __init__(self) -> None:
        import zlib

        self._zlib = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        # the buffer is full: zlib may still have output although it has consumed all input
        self.needs_input = not self._zlib.unconsumed_tail and len(out) < max_length
        return out


def _xz() -> _Decoder:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_BYTES_MAX)


def _bzip2() -> _Decoder:
    import bz2

    return bz2.BZ2Decompressor()


_DECODERS: dict[str, Callable[[], _Decoder]] = {"gzip": _Gzip, "xz": _xz, "bzip2": _bzip2}


def _zstd(packed: _Packed) -> Iterator[bytes]:
    """Yield the content of zstd frames, block by block: RFC 8878, 3.1.

    zstandard's stream reader does not notice a truncated stream, and its decompressobj does not limit the output of
    one call. A block has at most 128 KiB, so walking the blocks solves both.
    """
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=MEMORY_BYTES_MAX)
    while head := packed.peek(4):
        magic = int.from_bytes(packed.take(len(head)), "little")
        if magic in _ZSTD_SKIPPABLE:
            _skip(packed, struct.unpack("<I", packed.take(4))[0])
            continue
        if magic != _ZSTD_MAGIC:
            raise EOFError("data follows that is not a zstd frame")
        frame = decompressor.decompressobj()
        descriptor = packed.take(1)
        frame.decompress(head + descriptor + packed.take(_zstd_header_bytes(descriptor[0])))
        last = False
        while not last:
            start = packed.take(3)
            bits = int.from_bytes(start, "little")
            last, kind, size = bool(bits & 1), bits >> 1 & 3, bits >> 3
            if out := frame.decompress(start + packed.take(1 if kind == _ZSTD_RLE else size)):
                yield out
        if descriptor[0] & 0x04:  # a checksum follows; the decoder verifies it
            frame.decompress(packed.take(4))


def _zstd_header_bytes(descriptor: int) -> int:
    """Return how many bytes of a frame's header follow its descriptor: window, dictionary, content size."""
    single = bool(descriptor & 0x20)
    dictionary = (0, 1, 2, 4)[descriptor & 3]
    content = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    return (0 if single else 1) + dictionary + content


def _skip(packed: _Packed, length: int) -> None:
    while length:
        length -= len(packed.take(min(length, _PACKED_PART)))
