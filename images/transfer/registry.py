"""Registries, by way of skopeo(1): what it is asked, and its complaints in our words."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import NamedTuple

from images.store.image import ImageError
from images.store.reference import Reference
from vmctl.errors import DeadlineError, NotFoundError, VmctlError
from vmctl.run import CommandError, run

ANSWER_S = 120.0  # for a document of some KiB
_TRANSFER_S = 24 * 3600.0  # one that stands still is ended by the caller's tick
_FATAL = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*"|\S+)')


class Access(NamedTuple):
    """How to speak to a registry; what is not said is as containers-registries.conf(5) and the logins kept have it."""

    tls_verify: bool | None = None
    authfile: str = ""


class DiskFullError(VmctlError):
    """What was to be fetched has no room here."""


def manifest(ref: Reference, access: Access) -> bytes:
    """Return the manifest or index of a name as the registry has it. Raises VmctlError as `failure` says."""
    return _inspect(ref, access, "--raw")


def config(ref: Reference, access: Access) -> bytes:
    """Return the configuration of an image as the registry has it."""
    return _inspect(ref, access, "--raw", "--config")


def download(ref: Reference, folder: str, access: Access, tick: Callable[[int], None]) -> None:
    """Copy an image into the OCI layout `folder`; blobs that are in it are not fetched."""
    words = ["--dest-oci-accept-uncompressed-layers", *_flags(access, "src-")]
    _skopeo(ref, ["copy", "--quiet", *words, f"docker://{ref.full}", "oci:.:image"], cwd=folder, tick=tick)


def upload(ref: Reference, folder: str, access: Access, tick: Callable[[int], None]) -> str:
    """Send the only image of the OCI layout `folder`, its layers gzipped, and return its digest there."""
    words = ["--digestfile", "digest", *_flags(access, "dest-")]
    _skopeo(ref, ["copy", "--quiet", *words, "oci:.", f"docker://{ref.full}"], cwd=folder, tick=tick)
    with open(os.path.join(folder, "digest"), encoding="ascii") as file:
        return file.read().strip()


def login(registry: str, user: str, password: str, access: Access) -> None:
    """Try a password and keep it, where skopeo, podman and buildah look for it. Raises VmctlError."""
    words = ["login", "--username", user, "--password-stdin", *_flags(access)]
    _skopeo(Reference(registry, ""), [*words, registry], stdin=password.encode())


def logout(registry: str, access: Access) -> None:
    """Forget the password for a registry. Raises NotFoundError where none is kept."""
    words = ["--authfile", access.authfile] if access.authfile else []
    _skopeo(Reference(registry, ""), ["logout", *words, registry])


def _inspect(ref: Reference, access: Access, *words: str) -> bytes:
    return _skopeo(ref, ["inspect", *words, *_flags(access), f"docker://{ref.full}"]).encode()


def _flags(access: Access, side: str = "") -> list[str]:
    flags = [f"--authfile={os.path.abspath(access.authfile)}"] if access.authfile else []
    if access.tls_verify is not None:
        flags.append(f"--{side}tls-verify={str(access.tls_verify).lower()}")
    return flags


def _skopeo(
    ref: Reference,
    words: list[str],
    *,
    stdin: bytes = b"",
    cwd: str | None = None,
    tick: Callable[[int], None] | None = None,
) -> str:
    timeout_s = _TRANSFER_S if tick else ANSWER_S
    try:
        return run(["skopeo", *words], stdin=stdin, timeout_s=timeout_s, cwd=cwd, tick=tick)[1]
    except CommandError as error:
        raise failure(ref, error) from None


def failure(ref: Reference, error: CommandError) -> VmctlError:
    """Return what skopeo's end means to the user."""
    reason = _last_words(error.output)
    host, name = ref.registry, ref.there if ref.repository else "it"
    for pattern, kind, text, hint in _MEANINGS:
        if found := re.search(pattern, reason, re.IGNORECASE):
            return kind(text.format(name=name, host=host, reason=found[0]), hint=hint.format(name=name, host=host))
    return ImageError(f"{host} and {name}: {reason}")


_LOGIN = "`vmctl image login {host}`; where you are logged in, the name may be wrong: many registries say the same then"
_UNTRUSTED = "the certificate of {host} is not trusted: {reason}"
_TRUST = "put its CA into /etc/containers/certs.d/{host}/ca.crt, or --tls-verify=false, if you trust the way there"
_AGAIN = "try again: what has arrived is kept"
_MEANINGS: tuple[tuple[str, type[VmctlError], str, str], ...] = (
    (
        r"no space left on device",
        DiskFullError,
        "the disk is full: {name} of {host} has no room",
        "`vmctl image prune` frees some of it",
    ),
    (r"not logged into", NotFoundError, "there is no login for {host}", ""),
    (r"invalid username/password", VmctlError, "{host} does not know this user and password", ""),
    (r"toomanyrequests|rate limit", VmctlError, "{host} has had too many requests from here", _LOGIN),
    (
        r"manifest unknown|name unknown|repository name not known|404 \(Not Found\)|not found: manifest",
        NotFoundError,
        "{host} has no image {name}",
        "",
    ),
    (r"unauthorized|denied|authentication required|\b40[13]\b", VmctlError, "{host} refuses access to {name}", _LOGIN),
    (
        r"gave HTTP response to HTTPS client",
        VmctlError,
        "{host} does not speak TLS",
        "--tls-verify=false, if you trust the way there",
    ),
    (r"x509: [^\"]*", VmctlError, _UNTRUSTED, _TRUST),
    (r"tls: [^\"]*", VmctlError, _UNTRUSTED, _TRUST),
    (r"connection refused", VmctlError, "nothing answers at {host}: connection refused", ""),
    (r"no such host", VmctlError, "there is no host {host}", ""),
    (r"no route to host|network is unreachable", VmctlError, "there is no way to {host}", "is the network there?"),
    (r"timeout|deadline exceeded|did not end within", DeadlineError, "{host} does not answer in time", _AGAIN),
    (
        r"unexpected EOF|: EOF|connection reset|broken pipe|closed network connection",
        VmctlError,
        "{host} ended the connection in the middle of {name}",
        _AGAIN,
    ),
)


def _last_words(output: str) -> str:
    """Return the reason in skopeo's last message, which names the file it was given and the step before."""
    found = _FATAL.findall(output)
    if not found:
        return (output.strip().splitlines() or ["no reason given"])[-1]
    try:
        text = str(json.loads(found[-1]))
    except ValueError:
        text = found[-1].strip('"')
    return re.sub(r'^Error parsing image name "[^"]*": ', "", text)
