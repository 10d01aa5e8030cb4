"""Access to registries with skopeo(1): its commands, and its errors translated to vmctl's."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from images.store.image import ImageError
from images.store.reference import Reference
from vmctl.errors import DeadlineError, NoSuchImage, NotFoundError, SpecError, VmctlError
from vmctl.programs import CommandError, run
from vmctl.spec import textfile

ANSWER_S = 120.0  # for a document of some KiB
_PAUSES_S = (1.0, 2.0, 4.0)  # before the next tries, after a failure that often passes by itself
_TRANSFER_S = 24 * 3600.0  # a stalled transfer is ended by the caller's tick
_FATAL = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*"|\S+)')


class Access(NamedTuple):
    """How to access a registry; the defaults are those of containers-registries.conf(5) and of the saved logins."""

    tls_verify: bool | None = None
    authfile: str = ""


class TransientError(VmctlError):
    """The registry failed in a way that often passes by itself."""


class RejectedError(VmctlError):
    """The registry rejected the user name or the password."""


class DiskFullError(VmctlError):
    """The disk has no room for the download."""


def manifest(ref: Reference, access: Access) -> bytes:
    """Return the manifest or index of an image in the registry. Raises the errors of `translate`."""
    return _inspect(ref, access, "--raw")


def config(ref: Reference, access: Access) -> bytes:
    """Return the configuration of an image in the registry."""
    return _inspect(ref, access, "--raw", "--config")


def download(ref: Reference, folder: str, access: Access, tick: Callable[[int], None]) -> None:
    """Copy an image into the OCI layout `folder`; blobs that are already there are not fetched."""
    words = ["--dest-oci-accept-uncompressed-layers", *_flags(access, "src-")]
    _skopeo(ref, ["copy", "--quiet", *words, f"docker://{ref.full}", "oci:.:image"], cwd=folder, tick=tick)


def upload(ref: Reference, folder: str, access: Access, tick: Callable[[int], None]) -> str:
    """Send the only image of the OCI layout `folder`, layers gzipped, and return its digest in the registry."""
    words = ["--digestfile", "digest", *_flags(access, "dest-")]
    _skopeo(ref, ["copy", "--quiet", *words, "oci:.", f"docker://{ref.full}"], cwd=folder, tick=tick)
    with open(os.path.join(folder, "digest"), encoding="ascii") as file:
        return file.read().strip()


def watch_transfer(
    report: Callable[[int], None],
    measure: Callable[[int], tuple[int, ...]],
    stalled_s: float,
    error: VmctlError,
) -> Callable[[int], None]:
    """Return a tick for `download` and `upload`, which is called with skopeo's pid.

    It reports the first of the numbers that `measure` returns, and raises `error` if all of them stay the same for
    `stalled_s` seconds.
    """
    last: tuple[int, ...] = ()
    last_s = time.monotonic()

    def tick(pid: int) -> None:
        nonlocal last, last_s
        numbers = measure(pid)
        if numbers != last:
            last, last_s = numbers, time.monotonic()
        elif time.monotonic() - last_s > stalled_s:
            raise error
        report(numbers[0])

    return tick


def login(registry: str, user: str, password: str, access: Access) -> None:
    """Check a password and save it in the file that skopeo, podman and buildah read. Raises VmctlError."""
    if not password:
        raise SpecError("the password is empty")
    words = ["login", "--username", user, "--password-stdin", *_flags(access)]
    _skopeo(Reference(registry, ""), [*words, registry], stdin=password.encode())


def logout(registry: str, access: Access) -> None:
    """Remove the saved password for a registry. Raises NotFoundError if there is no login."""
    words = ["--authfile", access.authfile] if access.authfile else []
    try:
        _skopeo(Reference(registry, ""), ["logout", *words, registry])
    except NotFoundError:
        if access.authfile or not _docker_knows(registry):
            raise
        text = f"the login to {registry} is docker's, in ~/.docker/config.json"
        raise NotFoundError(text, hint=f"`docker logout {registry}`") from None


def _docker_knows(registry: str) -> bool:
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    try:
        return registry in json.loads(textfile.content(os.path.join(folder, "config.json"), 1 << 20))["auths"]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def check_authfile(access: Access) -> None:
    """Raise SpecError if the file with passwords does not exist; skopeo would go on without."""
    if access.authfile and not os.path.exists(access.authfile):
        raise SpecError(
            f"--authfile: there is no file {access.authfile}", hint="`vmctl image login --authfile FILE` makes one"
        )


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
    """Run skopeo and return its output; try again, after growing pauses, if the failure is often a short one.

    skopeo's `--retry-times` also repeats what cannot succeed, such as a refused connection, and not a 503.
    """
    timeout_s = _TRANSFER_S if tick else ANSWER_S
    pauses_s = iter(_PAUSES_S)
    while True:
        try:
            return run(["skopeo", *words], stdin=stdin, timeout_s=timeout_s, cwd=cwd, tick=tick)[1]
        except CommandError as failure:
            error = translate(ref, failure)
        if isinstance(error, RejectedError) and words[0] != "login" and not _has_login(ref.registry, words):
            raise VmctlError(
                f"{ref.registry} refuses access to {ref.there} without a login",
                hint=f"`vmctl image login {ref.registry}`",
            )
        pause_s = next(pauses_s, None) if isinstance(error, TransientError) else None
        if pause_s is None:
            raise error
        time.sleep(pause_s)


def _has_login(registry: str, words: list[str]) -> bool:
    """Return whether the request had a login: the error of skopeo is the same without one."""
    authfile = [word for word in words if word.startswith("--authfile=")]
    code, _, _ = run(["skopeo", "login", "--get-login", *authfile, registry], timeout_s=ANSWER_S, check=False)
    return code == 0


def translate(ref: Reference, error: CommandError) -> VmctlError:
    """Return the error to raise for a failed skopeo command."""
    reason = _fatal_message(error)
    host, name = ref.registry, ref.there if ref.repository else "it"
    for pattern, kind, text, hint in _ERRORS:
        if found := re.search(pattern, reason, re.IGNORECASE):
            return kind(text.format(name=name, host=host, reason=found[0]), hint=hint.format(name=name, host=host))
    return ImageError(f"{host} and {name}: {reason}")


RETRY = "try again: complete layers are kept"
_LOGIN = "`vmctl image login {host}`; if you are logged in, check the name: many registries also refuse unknown names"
_LIMIT = "try again later, or `vmctl image login {host}`: many registries allow more requests after a login"
_UNTRUSTED = "the certificate of {host} is not trusted: {reason}"
_TRUST = "put its CA into /etc/containers/certs.d/{host}/ca.crt, or use --tls-verify=false if you trust the network"
_ERRORS: tuple[tuple[str, type[VmctlError], str, str], ...] = (
    (
        r"no space left on device",
        DiskFullError,
        "the disk is full: no room for {name} from {host}",
        "`vmctl image prune` frees space",
    ),
    (
        r"docker-credential-[\w-]+",
        VmctlError,
        "the program {reason}, which keeps passwords by ~/.docker/config.json, cannot be used",
        "install it, or remove credHelpers and credsStore from that file",
    ),
    (
        r"(?<=unmarshaling JSON at ).*|(?<=unmarshalling JSON at ).*|reading JSON file.*",
        SpecError,
        "the file with passwords cannot be read: {reason}",
        "correct it, or name another one with --authfile",
    ),
    (
        r"(?<=proxyconnect tcp: )[^\"]*",
        VmctlError,
        "the proxy for {host} cannot be used: {reason}",
        "HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the environment name it",
    ),
    (r"not logged into", NotFoundError, "not logged in to {host}", ""),
    (r"invalid username/password", RejectedError, "{host} rejected the user name or password", ""),
    (
        r"blob sha256:[0-9a-f]{12}.* 404",
        ImageError,
        "{host} has the image {name}, but not all of its layers: {reason}",
        "push the image again",
    ),
    (
        r"Digest did not match, expected sha256:[0-9a-f]{12}",
        ImageError,
        "{host} sent a layer of {name} that does not match its digest: {reason}",
        "push the image again",
    ),
    (r"toomanyrequests|rate limit", VmctlError, "{host} refuses more requests: its rate limit is reached", _LIMIT),
    (
        r"manifest unknown|name unknown|repository name not known|404 \(Not Found\)|Code: 404|not found: manifest",
        NoSuchImage,
        "{host} has no image {name}",
        "",
    ),
    (r"unauthorized|denied|authentication required|\b40[13]\b", VmctlError, "{host} refuses access to {name}", _LOGIN),
    (
        r"gave HTTP response to HTTPS client",
        VmctlError,
        "{host} does not support TLS",
        "use --tls-verify=false if you trust the network",
    ),
    (r"x509: [^\"]*", VmctlError, _UNTRUSTED, _TRUST),
    (r"tls: [^\"]*", VmctlError, _UNTRUSTED, _TRUST),
    (r"connection refused", VmctlError, "{host} refused the connection", "is a registry running there?"),
    (r"no such host", VmctlError, "the host name {host} cannot be resolved", ""),
    (r"no route to host|network is unreachable", VmctlError, "no route to {host}", "is the network up?"),
    (r"timeout|deadline exceeded|did not end within", DeadlineError, "{host} does not answer in time", RETRY),
    (
        r"HTTP status: 5\d\d[^\"]*|status code from registry 5\d\d[^\"]*",
        TransientError,
        "{host} reports a failure: {reason}",
        "try again later",
    ),
    (
        r"(?<=loading registries configuration: )loading registries configuration.*",
        VmctlError,
        "skopeo is not configured: {reason}",
        "correct the file, or remove it",
    ),
    (
        r"unexpected EOF|: EOF|connection reset|broken pipe|closed network connection",
        TransientError,
        "{host} closed the connection during the transfer of {name}",
        RETRY,
    ),
)


def _fatal_message(error: CommandError) -> str:
    """Return the reason in skopeo's last message, without the image name in front of it."""
    found = _FATAL.findall(error.output)
    if not found:
        return error.reason
    try:
        text = str(json.loads(found[-1]))
    except ValueError:
        text = found[-1].strip('"')
    return re.sub(r'^Error parsing image name "[^"]*": ', "", text)
