"""Rules for health checks, secrets and files of variables; only a workload that has one of them imports this."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from vmctl.named import TYPE_CHECKING
from vmctl.spec import rules
from vmctl.spec.workload import SECRETS, Health, Secret, Workload

if TYPE_CHECKING:
    Wrong = tuple[str, str, str]  # as in rules.py: key, what was expected of it, hint

LEAST_S, MOST_S = 0.1, 365 * 86400.0
MOST_RETRIES = 10**9


def wrong(work: Workload) -> Iterator[Wrong]:
    """Yield key, text and hint of each value that cannot be used."""
    if work.health is not None:
        yield from _health(work, work.health)
    yield from _secrets(work)
    for i, file in enumerate(work.env_file):
        if not file.path or "\0" in file.path:
            yield f"env_file[{i}]", f"expected a path, got {file.path!r}", ""


def _health(work: Workload, check: Health) -> Iterator[Wrong]:
    probes = check.probes()
    if len(probes) > 1:
        yield "health", f"expected one of exec, http, tcp, got {', '.join(probes)}", ""
    if check.disable and check != Health(disable=True):
        yield "health", "with disable: true, there is nothing else to set", "`health: none` alone"
    if check.exec is not None and not any(check.exec[:1]):
        yield "health.exec", "expected a program, got an empty list", ""
    if check.tcp is not None and not 0 < check.tcp < 65536:
        yield "health.tcp", f"expected a port, got {check.tcp}", ""
    if work.network == "none" and (check.http or check.tcp):
        yield "network", "with none, a check by http or tcp is not possible", "`health: {exec: [program]}`"
    for key in ("interval", "timeout", "start_interval", "start_period"):
        value: float | None = getattr(check, f"{key}_s")
        least = 0.0 if key == "start_period" else LEAST_S
        if value is not None and not least <= value <= MOST_S:
            yield f"health.{key}", f"expected {least:g}s to 365 days, got {value:g}s", ""
    if check.retries is not None and not 0 < check.retries <= MOST_RETRIES:
        yield "health.retries", f"expected at least 1 and at most {MOST_RETRIES}, got {check.retries}", ""


def _secrets(work: Workload) -> Iterator[Wrong]:
    names: set[str] = set()
    for i, secret in enumerate(work.secrets):
        for key, text, hint in _secret(secret):
            yield f"secrets[{i}]{key}", text, hint
        if secret.name in names:
            yield f"secrets[{i}]", f"the name {secret.name} is given twice", ""
        names.add(secret.name)
    if not work.secrets:
        return
    targets = [(f"files[{i}].path", file.path) for i, file in enumerate(work.files)]
    targets += [(f"volumes[{i}]", volume.target) for i, volume in enumerate(work.volumes)]
    targets += [(f"tmpfs[{i}]", one.target) for i, one in enumerate(work.tmpfs)]
    for where, target in targets:
        if f"{posixpath.normpath(target)}/".startswith(f"{SECRETS}/"):
            yield where, f"{target} is where the secrets are", "use another folder than /run/secrets"


def _secret(secret: Secret) -> Iterator[Wrong]:
    if not rules.is_name(secret.name):
        yield ".name", f"expected up to 63 letters, digits, '-', '_' and '.', got {secret.name!r}", ""
    given = [key for key in ("file", "env") if getattr(secret, key) is not None]
    if len(given) != 1:
        yield "", f"expected one of file, env, got {', '.join(given) or 'none'}", ""
    if secret.file is not None and (not secret.file or "\0" in secret.file):
        yield ".file", f"expected a path, got {secret.file!r}", ""
    if secret.env is not None and not rules.is_variable(secret.env):
        yield ".env", f"{secret.env!r} cannot be the name of a variable", ""
    if not 0 < secret.mode <= 0o777:
        yield ".mode", f"expected permission bits from 0001 to 0777, got {secret.mode:04o}", ""
