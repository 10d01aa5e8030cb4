"""The limits of getrlimit(2) that a workload asks for; only a start with such limits imports this module."""

from __future__ import annotations

import resource

from vmctl.errors import UnavailableError
from vmctl.named import TYPE_CHECKING
from vmctl.spec.workload import Ulimit

if TYPE_CHECKING:
    from collections.abc import Iterable


def raise_hard(limits: Iterable[Ulimit]) -> None:
    """Raise the hard limits of this process to those asked for. Raises UnavailableError if it may not.

    A process in a user namespace inherits them, but could not raise them itself (setrlimit(2), CAP_SYS_RESOURCE).
    """
    for limit in limits:
        kind = _kind(limit)
        soft, hard = resource.getrlimit(kind)
        if not _above(_value(limit.hard), hard):
            continue
        try:
            resource.setrlimit(kind, (soft, _value(limit.hard)))
        except (ValueError, OSError):
            raise UnavailableError(
                f"ulimits: {limit.name} is above the hard limit of this user, {hard}",
                hint=f"--ulimit {limit.name}={hard}, or raise the limit: `ulimit -H` shows it",
            ) from None


def apply(limits: Iterable[Ulimit]) -> None:
    """Set the limits of this process."""
    for limit in limits:
        resource.setrlimit(_kind(limit), (_value(limit.soft), _value(limit.hard)))


def _kind(limit: Ulimit) -> int:
    kind: int = getattr(resource, f"RLIMIT_{limit.name.upper()}")
    return kind


def _value(number: int | None) -> int:
    return resource.RLIM_INFINITY if number is None else number


def _above(asked: int, hard: int) -> bool:
    return hard != resource.RLIM_INFINITY and (asked == resource.RLIM_INFINITY or asked > hard)
