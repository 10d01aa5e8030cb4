"""An error of a new process before exec, on its way through a pipe to the parent."""

from __future__ import annotations

from vmctl.errors import CommandNotExecutableError, CommandNotFoundError, VmctlError, advice

_KINDS = {kind.__name__: kind for kind in (CommandNotFoundError, CommandNotExecutableError)}


def describe(error: BaseException) -> bytes:
    """Return an error as bytes for the pipe to the parent."""
    if isinstance(error, OSError):
        text = f"{error.strerror} ({error.filename})" if error.filename else error.strerror or str(error)
    else:
        text = str(error) or type(error).__name__
    hint = advice(error) if isinstance(error, OSError) else getattr(error, "hint", "")
    return "\0".join((type(error).__name__, text, hint)).encode(errors="replace")


def revive(raw: bytes, name: str, failed: str = "could not be started") -> VmctlError:
    """Return the error that `describe` wrote, about instance `name`, to which `failed` happened.

    A process that is killed writes nothing.
    """
    if not raw:
        return VmctlError(f"{name} {failed}: the new process was killed", hint="`dmesg` may show why")
    kind, text, hint = raw.decode(errors="replace").split("\0")
    if kind in _KINDS:
        return _KINDS[kind](text, hint=hint)
    return VmctlError(f"{name} {failed}: {text}", hint=hint)
