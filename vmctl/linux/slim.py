"""For small processes that stay: give back the memory that only the interpreter's start needed.

`_ctypes` rather than `ctypes`: the package around it costs more memory (2.5 MB) than is given back here.
"""

from __future__ import annotations

import _ctypes

_MADV_DONTNEED = 4


class _Word(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "L"


def forget_start_up() -> None:
    """Unmap every page of programs and libraries that was never written to (madvise(2), MADV_DONTNEED).

    The pages stay in the page cache and come back when they are next touched: a process that now sleeps keeps mapped
    what its waiting needs, and no more.
    """
    madvise = _ctypes.dlsym(_ctypes.dlopen("libc.so.6", 2), "madvise")
    calls = [(_Word(start), _Word(end - start), _MADV_DONTNEED) for start, end in _clean_file_mappings()]
    call = _ctypes.call_function
    for arguments in calls:  # nothing but calls from here on: other code would map its pages again
        call(madvise, arguments)


def _clean_file_mappings() -> list[tuple[int, int]]:
    """Return the spans of read-only file mappings without a page of their own (proc(5), smaps)."""
    spans = []
    start = end = 0
    with open("/proc/self/smaps", encoding="utf-8") as file:
        for line in file:
            words = line.split()
            if words[0] == "Anonymous:":  # relocated read-only data counts here, and must stay
                if start and words[1] == "0":
                    spans.append((start, end))
            elif not words[0].endswith(":"):
                is_read_only_file = words[-1].startswith("/") and "w" not in words[1]
                start, end = (int(address, 16) for address in words[0].split("-")) if is_read_only_file else (0, 0)
    return spans
