"""ADD of a URL: the file is downloaded by the process that builds, which is the caller's, often root.

A build file is not trusted, so it must not make this process ask what a RUN step could not reach: services of the host.
A download connects to no address of this host and to no link-local one (where clouds have their credentials), neither
by name nor by a redirect; `--network host` allows it for RUN and ADD alike. A proxy that the caller has set is asked
instead, if the URL has one.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import os
import posixpath
import socket
import ssl
from base64 import b64encode
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from images.recipes.files import Fetched
from images.store.staging import Stage
from vmctl.errors import SpecError, VmctlError

_REDIRECTS_MAX = 10
_TIMEOUT_S = 60.0
_PART = 1 << 20
_LARGEST_BYTES = 16 << 30
_MOVED = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}


def fetch(stage: Stage, url: str, checksum: str, network: str, proxies: Mapping[str, str]) -> Fetched:
    """Download a file into the stage. `checksum` is `sha256:...`, or empty; `network` is that of the build.

    `proxies` has precedence over the proxies of the environment. Raises SpecError, VmctlError.
    """
    if network == "none":
        raise SpecError(f"ADD {url} needs the network, which --network none forbids", hint="COPY a file of the context")
    known = {**getproxies(), **{name.lower().removesuffix("_proxy"): value for name, value in proxies.items()}}
    path = stage.path(f"remote-{os.urandom(6).hex()}")
    try:
        with open(path, "xb") as file:
            answer = _answer(url, known, anywhere=network == "host")
            announced = answer.length
            sha256, size_bytes = hashlib.sha256(), 0
            while data := answer.read(_PART):
                size_bytes += len(data)
                if size_bytes > _LARGEST_BYTES:
                    raise VmctlError(f"{url} has more than {_LARGEST_BYTES >> 30} GiB")
                sha256.update(data)
                file.write(data)
            if announced not in (None, size_bytes):
                raise http.client.IncompleteRead(b"", announced)
    except (http.client.HTTPException, ValueError) as error:
        raise VmctlError(f"{url} could not be downloaded: {error}") from None
    if checksum and checksum != f"sha256:{sha256.hexdigest()}":
        raise VmctlError(f"{url} is not {checksum}: its digest is sha256:{sha256.hexdigest()}")
    name = posixpath.basename(unquote(urlsplit(url).path))
    return Fetched(name, path, size_bytes, _modified_ns(answer))


def _answer(url: str, proxies: Mapping[str, str], *, anywhere: bool) -> http.client.HTTPResponse:
    """Return the answer to a GET, redirects followed."""
    place = url
    for _ in range(_REDIRECTS_MAX):
        parts = urlsplit(place)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise VmctlError(f"{url} leads to {place[:300]}, which is not http or https")
        try:
            connection, target = _connection(parts, proxies, anywhere=anywhere)
            connection.request("GET", target, headers={"User-Agent": "vmctl", "Accept-Encoding": "identity"})
            answer = connection.getresponse()
        except OSError as error:
            reason = error.strerror or str(error)
            hint = "does this host need a proxy? HTTPS_PROXY and HTTP_PROXY name it"
            raise VmctlError(f"{parts.hostname} cannot be reached for {url}: {reason}", hint=hint) from None
        if answer.status not in _MOVED or not (moved := answer.getheader("Location")):
            if answer.status != 200:
                raise VmctlError(f"{parts.hostname} does not give {url}: {answer.status} {answer.reason}")
            return answer
        place = urljoin(place, moved)
    raise VmctlError(f"{url} is redirected more than {_REDIRECTS_MAX} times")


def _connection(
    parts: SplitResult, proxies: Mapping[str, str], *, anywhere: bool
) -> tuple[http.client.HTTPConnection, str]:
    """Return a connection for a URL, and what to ask it for."""
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{parts.query}" if parts.query else "")
    proxy = proxies.get(parts.scheme, "") or proxies.get("all", "")
    if proxy and not proxy_bypass(host):
        return _through(proxy, parts, host, port, path)
    plain = _connected(host, port, anywhere=anywhere)
    connection = http.client.HTTPConnection(parts.netloc.rpartition("@")[2], timeout=_TIMEOUT_S)
    secure = parts.scheme == "https"
    connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
    return connection, path


def _through(proxy: str, parts: SplitResult, host: str, port: int, path: str) -> tuple[http.client.HTTPConnection, str]:
    """Return a connection to a proxy: a tunnel for https (RFC 9110, CONNECT)."""
    there = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    words = f"{unquote(there.username)}:{unquote(there.password or '')}" if there.username else ""
    headers = {"Proxy-Authorization": f"Basic {b64encode(words.encode()).decode()}"} if words else {}
    if parts.scheme == "https":
        tunnel = http.client.HTTPSConnection(there.hostname or "", there.port or 80, timeout=_TIMEOUT_S)
        tunnel.set_tunnel(host, port, headers)
        return tunnel, path
    plain = http.client.HTTPConnection(there.hostname or "", there.port or 80, timeout=_TIMEOUT_S)
    return plain, f"http://{parts.netloc.rpartition('@')[2]}{path}"


def _connected(host: str, port: int, *, anywhere: bool) -> socket.socket:
    """Return a socket that is connected to an address of the host that may be asked. Raises OSError, VmctlError."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if not anywhere and _is_of_host(str(address[0])):
            continue
        found = socket.socket(family, kind, protocol)
        try:
            found.settimeout(_TIMEOUT_S)
            found.connect(address)
        except OSError as error:
            found.close()
            failure = error
        else:
            return found
    if failure is not None:
        raise failure
    raise VmctlError(
        f"{host} is an address of this host, or of its link, which a build may not ask",
        hint="`--network host` allows it to RUN and ADD",
    )


def _is_of_host(text: str) -> bool:
    """Return whether an address is this host's, or not routed: it is this host's if a socket can have it (bind(2))."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
        return True


def _modified_ns(answer: http.client.HTTPResponse) -> int:
    """Return the time of Last-Modified; 0 without it."""
    text = answer.getheader("Last-Modified") or ""
    try:
        return max(0, int(parsedate_to_datetime(text).timestamp())) * 10**9
    except (ValueError, OverflowError):
        return 0
