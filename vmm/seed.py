"""The cloud-init seed: three files on an ISO image. It is the guest's only configuration.

See https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html. The files have a fixed layout, one
item per line and free text in base64: cloud-init reads them as YAML, and the small init reads them with awk.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from vmctl import trace
from vmctl.spec import inside
from vmctl.spec.workload import Tmpfs

LABEL = "cidata"
HERE = "/run/vmctl"
WORKLOAD_SCRIPT = f"{HERE}/workload"
LAUNCH = f"{HERE}/launch"
LIMITS = f"{HERE}/limits"


_QUOTED = re.compile(r"""(?:'[^']*'|"'"|[^\s'"])+""")  # a word as shlex.quote returns it


class SeedFile(NamedTuple):
    """A file that is written in the guest before the command starts."""

    path: str
    content: bytes
    mode: int = 0o644
    owner: str = "root:root"


class Address(NamedTuple):
    """The address of an interface of the guest, which is identified by its MAC."""

    name: str  # that the interface gets
    mac: str
    address: str
    prefix: int
    gateway: str  # empty: it is not the way out
    resolver: str = ""  # address of a name server, if there is one
    search: tuple[str, ...] = ()  # domains in which names are looked up


class Identity(NamedTuple):
    """The SSH keys by which guest and host identify each other."""

    client_public: str  # the key that may log in, as a line of authorized_keys
    host_private: str  # the guest's host key, in OpenSSH's format
    host_public: str


class Seed(NamedTuple):
    """The files of a seed ISO, by name."""

    user_data: str
    meta_data: str
    network_config: str
    vendor_data: str = ""  # a cloud-config that the user's has priority over

    def files(self) -> dict[str, str]:
        """Return file name -> text."""
        found = {"user-data": self.user_data, "meta-data": self.meta_data, "network-config": self.network_config}
        return {**found, "vendor-data": self.vendor_data} if self.vendor_data else found


class Share(NamedTuple):
    """A volume, as the guest mounts it."""

    tag: str  # of the virtiofs device
    target: str
    read_only: bool
    is_file: bool  # then the device has a folder with nothing but `file`

    def line(self) -> str:
        """Return the line for the guest's init; the path is in base64, because cloud-init reads it as YAML."""
        options = f"{'ro,' if self.read_only else ''}nosuid,nodev"
        path = base64.b64encode(self.target.encode()).decode()
        return f"vmctl-volume: {self.tag} {options} {'file' if self.is_file else '-'} {path}"


def meta_data(
    instance_id: str,
    hostname: str,
    mounts: Sequence[Tmpfs | Share] = (),
    shm_bytes: int | None = None,
    sysctls: Mapping[str, str] = {},
) -> str:
    """Return the meta-data; a new instance-id makes cloud-init apply everything again.

    Only the small init reads the mounts, in their order, each a line `vmctl-tmpfs: OPTIONS PATH`, or as in `Share`, and
    the settings of the kernel, each a line `vmctl-sysctl: PATH VALUE`.
    """
    settings = [f"vmctl-sysctl: {inside.path(name)} {value}" for name, value in sysctls.items()]
    shm = [] if shm_bytes is None else [f"vmctl-shm: {shm_bytes}"]
    lines = [one.line() if isinstance(one, Share) else f"vmctl-tmpfs: {one.options()} {one.target}" for one in mounts]
    return "\n".join((f"instance-id: {instance_id}", f"local-hostname: {hostname}", *shm, *lines, *settings, ""))


def network_config(addresses: Sequence[Address]) -> str:
    """Return the network-config, version 2 (netplan's format), for the interfaces of a guest."""
    if not addresses:
        return "version: 2\nethernets: {}\n"
    return "version: 2\nethernets:\n" + "".join(map(_interface, addresses))


def _interface(one: Address) -> str:
    """Return an interface; the small init takes the lines that begin with `-` for addresses and routes."""
    route = f'    routes:\n    - to: "0.0.0.0/0"\n      via: {_quoted(one.gateway)}\n' if one.gateway else ""
    search = f", search: [{', '.join(map(_quoted, one.search))}]" if one.search else ""
    resolver = f"    nameservers: {{addresses: [{_quoted(one.resolver)}]{search}}}\n" if one.resolver else ""
    return f"""\
  {one.name}:
    match:
      macaddress: {_quoted(one.mac)}
    set-name: {one.name}
    addresses:
    - {_quoted(f"{one.address}/{one.prefix}")}
{route}{resolver}"""


def user_data(identity: Identity, files: Sequence[SeedFile]) -> str:
    """Return the user-data for our init: the key that may log in, the host key, files to write, the command to run."""
    return (
        f"#cloud-config\ndisable_root: false\nusers:\n{_root_user(identity)}{_host_keys(identity)}"
        f"{write_files(files)}runcmd:\n- [{_quoted(WORKLOAD_SCRIPT)}]\n"
    )


def write_files(files: Sequence[SeedFile]) -> str:
    """Return the section of user-data that writes files."""
    return f"write_files:\n{''.join(map(_write_file, files))}"


def _root_user(identity: Identity) -> str:
    """Return the item of `users` that lets the host log in as root."""
    return f"- name: root\n  ssh_authorized_keys:\n  - {_quoted(identity.client_public)}\n"


def _host_keys(identity: Identity) -> str:
    """Return the keys of a cloud-config that give the guest the host key made for it, and no other."""
    private = "".join(f"    {line}\n" for line in identity.host_private.strip().splitlines())
    return f"""\
ssh_deletekeys: true
ssh_keys:
  ed25519_private: |
{private}  ed25519_public: {_quoted(identity.host_public)}
"""


def workload_words(
    argv: Sequence[str], env: Mapping[str, str] | Sequence[tuple[str, str]], workdir: str, user: str
) -> str:
    """Return `USER WORKDIR NAME=VALUE... -- COMMAND ARG...`, quoted for a shell: the arguments of `launch`."""
    pairs = env.items() if isinstance(env, Mapping) else env
    return shlex.join([user, workdir, *(f"{name}={value}" for name, value in pairs), "--", *argv])


def workload_script(words: str, folders: Sequence[str] = ()) -> SeedFile:
    """Return the script that runs the workload; it is the same for every init of a guest.

    Its second line makes the working directory and the folders that the image names. It is executed before, too, if the
    root becomes read-only.
    """
    workdir = next(islice(_QUOTED.finditer(words), 1, None))[0]
    made = "".join(f"[ -e {folder} ] || mkdir -p {folder} 2>/dev/null; " for folder in map(shlex.quote, folders))
    script = f"#!/bin/sh\n{made}[ -d {workdir} ] || mkdir -p {workdir}\nexec {LAUNCH} {words}\n"
    return SeedFile(WORKLOAD_SCRIPT, script.encode(), 0o700)


def limits_file(pids: int) -> SeedFile:
    """Return the file with the limits that the guest's kernel enforces, with the names of cgroup v2."""
    return SeedFile(LIMITS, f"pids.max {pids}\n".encode(), 0o600)


def write_iso(path: str, seed: Seed) -> None:
    """Write the seed as an ISO 9660 image; Rock Ridge and Joliet both keep the names unchanged."""
    from io import BytesIO

    from pycdlib import PyCdlib

    iso = PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for name, text in seed.files().items():
        raw = text.encode()
        plain = name.upper().replace("-", "_")
        iso.add_fp(BytesIO(raw), len(raw), iso_path=f"/{plain}.;1", rr_name=name, joliet_path=f"/{name}")
    iso.write(path)
    iso.close()
    if trace.on:
        trace.comment(f"write {path}: ISO 9660, label {LABEL}, {', '.join(seed.files())}")


def _write_file(file: SeedFile) -> str:
    return f"""\
- path: {_quoted(file.path)}
  permissions: "{file.mode:04o}"
  owner: {_quoted(file.owner)}
  encoding: b64
  content: {_quoted(base64.b64encode(file.content).decode())}
"""


def _quoted(text: str) -> str:
    """Return the text as a JSON string, which is also a YAML string."""
    return json.dumps(text, ensure_ascii=False)
