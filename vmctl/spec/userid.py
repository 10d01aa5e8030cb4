"""Ids of users and groups in texts: `user:` of a workload, `--user`, USER of an image, `--chown`, /etc/passwd."""

from __future__ import annotations

from vmctl.errors import SpecError

# as in Docker; larger numbers are not safe: to setresuid(2) and chown(2), 4294967295 means "leave it as it is"
LARGEST = 2147483647


def is_number(text: str) -> bool:
    """Return whether a text is written as an id, not as a name."""
    return text.isascii() and text.isdigit()


def number(text: str) -> int:
    """Return the id that these digits are. Raises ValueError if no user or group can have it."""
    if not is_number(text) or len(text) > 10 or int(text) > LARGEST:
        shown = text if len(text) <= 20 else f"{text[:20]}..."
        raise ValueError(f"ids of users and groups are numbers from 0 to {LARGEST}, not {shown}")
    return int(text)


def check_numbers(user: str) -> None:
    """Raise ValueError if `user[:group]` has a number that is not an id; names are not looked up."""
    for text in filter(is_number, user.split(":")):
        number(text)


def check(user: str | None) -> None:
    """Raise SpecError if `user[:group]` has a number that is not an id; names are not looked up."""
    try:
        check_numbers(user or "")
    except ValueError as error:
        raise SpecError(f"the user {(user or '')[:40]}: {error}") from None
