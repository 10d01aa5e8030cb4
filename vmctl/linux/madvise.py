"""Memory of small long-running processes: give back the pages that only the interpreter's start needed.

Uses `_ctypes`, not `ctypes`: the package takes more memory (2.5 MB) than is given back here.
"""

from __future__ import annotations

import _ctypes

_MADV_DONTNEED = 4


class _Word(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "L"


def drop_clean_pages() -> None:
    """Unmap every page of programs and libraries that was never written to (madvise(2), MADV_DONTNEED).

    The pages stay in the page cache and are mapped again when they are touched. So a process that sleeps from now on
    keeps only the pages that its waiting needs.
    """
    madvise = _ctypes.dlsym(_ctypes.dlopen("libc.so.6", 2), "madvise")
    calls = [(_Word(start), _Word(end - start), _MADV_DONTNEED) for start, end in _clean_file_mappings()]
    call = _ctypes.call_function
    for arguments in calls:  # only these calls from here on: other code would map its pages again
        call(madvise, arguments)


def _clean_file_mappings() -> list[tuple[int, int]]:
    """Return (start, end) of each read-only file mapping that has no private page (proc(5), smaps)."""
    spans = []
    start = end = 0
    with open("/proc/self/smaps", encoding="utf-8") as file:
        for line in file:
            words = line.split()
            if words[0] == "Anonymous:":  # includes read-only data after relocation, which must stay
                if start and words[1] == "0":
                    spans.append((start, end))
            elif not words[0].endswith(":"):
                is_read_only_file = words[-1].startswith("/") and "w" not in words[1]
                start, end = (int(address, 16) for address in words[0].split("-")) if is_read_only_file else (0, 0)
    return spans
