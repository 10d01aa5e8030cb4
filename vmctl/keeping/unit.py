"""The start of an instance at boot: a unit of systemd, of the system for root, of the user's manager for a user.

The unit only starts and stops the instance: the workload is supervised by vmctl, also in between. It is a file and a
link, made without systemctl, so that it can be made where systemd does not run. See systemd.service(5),
systemd.exec(5), systemd-system.conf(5).
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from vmctl import paths
from vmctl.errors import SpecError, StateError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux import systemd, usernamespace
from vmctl.linux.filetree import write_atomic
from vmctl.programs import run, which

KIND = "unit"  # kind of the journal entry: the unit is removed with the instance
_SYSTEM = "/etc/systemd/system"


def folder() -> str:
    """Return the folder of the units of the caller; VMCTL_UNITS names another one, for example of an image."""
    if other := os.environ.get("VMCTL_UNITS"):
        return os.path.abspath(other)
    if usernamespace.is_host_root():
        return _SYSTEM
    return os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "systemd/user")


def enable(inst: Instance, where: str = "") -> str:
    """Write the unit of an instance, let it be started at boot, and return its path; repeatable.

    `where` is the folder for it, the caller's if it is not given. The caller has the lock.
    Raises SpecError for what a unit cannot contain, StateError for a unit that is not ours, and for `run --rm`.
    """
    if inst.state.removes:
        raise StateError(f"{inst.name} is removed when it has ended (--rm)", hint="start it without --rm")
    path = os.path.join(where or folder(), systemd.name(inst.name))
    text = unit(inst)
    refuse_others(path)
    if {"kind": KIND, "path": path} not in inst.journal.entries():
        inst.journal.record(KIND, path=path)
    os.makedirs(os.path.dirname(systemd.link(path)), mode=0o755, exist_ok=True)
    write_atomic(path, text)
    os.chmod(path, 0o644)
    with suppress(FileExistsError):
        os.symlink(path, systemd.link(path))
    _reload()
    return path


def disable(inst: Instance) -> bool:
    """Remove the unit of an instance; return False if it has none. The caller has the lock."""
    found = [entry for entry in inst.journal.entries() if entry["kind"] == KIND]
    for entry in found:
        systemd.remove(inst.name, entry["path"])
        inst.journal.strike(KIND, path=entry["path"])
    if found:
        _reload()
    return bool(found)


def unit(inst: Instance) -> str:
    """Return the text of the unit. Raises SpecError."""
    if any(secret.env for secret in inst.work.secrets):
        raise SpecError(
            f"{inst.name} has a secret from a variable, which is not set at boot", hint="use `file` for its secrets"
        )
    variables = {key: os.environ[key] for key in ("VMCTL_ROOT", "XDG_DATA_HOME") if os.environ.get(key)}
    if "VMCTL_ROOT" in variables:
        variables["VMCTL_ROOT"] = os.path.dirname(paths.state_root())
    lines = "".join(f"Environment={_quoted(f'{key}={value}')}\n" for key, value in variables.items())
    network = "Wants=network-online.target\nAfter=network-online.target\n" if usernamespace.is_host_root() else ""
    return f"""\
{systemd.MARK} `vmctl disable {inst.name}` removes it.
[Unit]
Description=vmctl instance {inst.name}
{network}
[Service]
Type=oneshot
RemainAfterExit=yes
{lines}ExecStart={_command("start", "--at-boot", "--quiet", inst.name)}
ExecStop={_command("stop", inst.name)}
TimeoutStopSec=infinity
# the supervisor ends with the workload; helpers that other instances use stay
KillMode=process
Delegate=yes

[Install]
WantedBy={systemd.target()}
"""


def _command(*words: str) -> str:
    # the colon: `$` has no meaning in the words
    return " ".join(map(_quoted, (f":{sys.executable}", "-P", "-m", "vmctl", *words)))


def _quoted(word: str) -> str:
    """Return a word of a unit in quotes; specifiers in it have no meaning (systemd.unit(5))."""
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in word):
        raise SpecError(f"{word!r} cannot be part of a unit: it contains a control character")
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def refuse_others(path: str) -> None:
    """Raise StateError if there is a file that is not a unit of ours."""
    if os.path.lexists(path) and not systemd.is_ours(path):
        raise StateError(f"{path} exists, and vmctl has not written it", hint="rename it")


def _reload() -> None:
    """Let systemd read the units again, if it runs."""
    if os.path.isdir("/run/systemd/system") and which("systemctl") and "VMCTL_UNITS" not in os.environ:
        with suppress(VmctlError):  # it reads them at the next boot
            run(["systemctl", *([] if usernamespace.is_host_root() else ["--user"]), "daemon-reload"], timeout_s=30)
