"""Why the command of a build step did not reach another host, and what to type: a hint for its error."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from vmctl.net import uplink
from vmctl.spec.workload import Workload

# what the C library, curl, wget, apt, apk, npm, Go and Java print; only for the choice of a hint
_TROUBLE = re.compile(
    r"name resolution|not resolve|unable to resolve|bad address|name or service not known|unknownhost|getaddrinfo"
    r"|temporary failure resolving|no such host|enotfound|eai_again|temporary error|network (is )?unreachable"
    r"|no route to host|(could|cannot|can't|unable to) connect|connect(ion)? (is |was )?(refused|timed out)",
    re.IGNORECASE,
)
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_OWN = re.compile(r"\blocalhost\b|\b127\.\d+\.\d+\.\d+|\[?::1\b\]?")


def hint(work: Workload, output: str) -> str:
    """Return what helps a command with this last output; "" if its trouble is not the network, or not known."""
    if not _TROUBLE.search(output):
        return ""
    if work.network == "none":
        return "the step has no network; without `--network none` and RUN --network=none it has one"
    if work.network == "bridge" and (why := uplink.missing()):
        return f"{why}, so the step reaches no other host; `vmctl doctor` shows what is missing"
    if about_proxies := _about_proxies(work.env, is_host=work.network == "host"):
        return about_proxies
    own = "" if work.network == "host" else _OWN.search(output)
    return f"{own[0]} is the step itself: `--network host` reaches this host's services" if own else ""


def _about_proxies(env: Mapping[str, str], *, is_host: bool) -> str:
    given = [name for name in _PROXIES if env.get(name)]
    if name := next((name for name in given if not is_host and _is_own(env[name])), ""):
        return f"{name} is a proxy on this host's loopback, which a step reaches only with `--network host`"
    if not given and (name := next((name for name in _PROXIES if os.environ.get(name)), "")):
        return f"this host uses a proxy: `--build-arg {name}` passes it to RUN"
    return ""


def _is_own(proxy: str) -> bool:
    try:
        host = urlsplit(proxy if "://" in proxy else f"http://{proxy}").hostname or ""
    except ValueError:
        return False
    return bool(_OWN.fullmatch(host))
