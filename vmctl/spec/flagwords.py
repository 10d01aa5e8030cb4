"""Errors of a start in the words of its command line: the engine names keys of a workload file."""

from __future__ import annotations

import re

from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmctl.errors import VmctlError


def translate(error: VmctlError, flags: Mapping[str, str]) -> None:
    """Replace keys by their flags, in the sentence of an error, its detail and its hint."""
    error.args = (in_flags(str(error), flags),)
    error.detail, error.hint = in_flags(error.detail, flags), in_flags(error.hint, flags)


def in_flags(text: str, flags: Mapping[str, str]) -> str:
    """Return a text with `--network bridge` in place of `network: bridge`; a word without such a mark stays.

    A key is marked by backquotes, by a dot in it, or by a colon after it at the beginning of a problem.
    """
    for key in sorted(flags, key=len, reverse=True):
        name, flag = re.escape(key), flags[key]
        text = re.sub(rf"`{name}: ([^`]+)`", rf"`{flag} \1`", text)
        text = re.sub(rf"(?:the key )?`{name}`", f"`{flag}`", text)
        text = re.sub(rf"(^|: ){name}: ", rf"\1{flag}: ", text, flags=re.MULTILINE)
        if "." in key:
            text = re.sub(rf"(?<![\w.]){name}(?![\w.]\w)", flag, text)
    return text.replace("leave the key out", "leave it out")
