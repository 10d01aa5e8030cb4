"""Which keys a stack file can have: those that are honoured, refused with a reason, and without effect with a warning.

The names are those of the Compose Specification; a service can also have the keys of a workload file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from vmctl.stacks.item import Place, near

Warn = Callable[[str], None]


class Keys(NamedTuple):
    """The keys of one mapping; the texts of `refused` and `idle` are the reason."""

    known: Collection[str]
    refused: Mapping[str, str] = {}
    idle: Mapping[str, str] = {}


def check(place: Place, keys: Keys, warn: Warn) -> dict[str, Place]:
    """Return the entries of a mapping that are honoured. Raises SpecError for a key that is refused or unknown."""
    found = {}
    for name, part in place.entries().items():
        if name.startswith("x-"):
            continue
        if name in keys.refused:
            if not _is_off(part):
                raise part.error(keys.refused[name])
        elif name in keys.idle:
            warn(part.warning(f"it has no effect: {keys.idle[name]}"))
        elif name in keys.known:
            found[name] = part
        else:
            known = [*keys.known, *keys.refused, *keys.idle]
            raise part.error("the key is unknown", near(name, known))
    return found


def _is_off(part: Place) -> bool:
    """Return whether a key has the value that it has anyway: `privileged: false`, an empty list."""
    return part.value in (None, [], {}) or (part.is_text() and part.text().lower() in ("false", "0", ""))


# the keys of a workload file that Compose has not; `ready` and `resources` are the usual ones
NATIVE = frozenset("env workdir files resources logs ready network stop_timeout vm container mode health".split())
# keys whose value a workload file has in the same form
SAME = frozenset("files resources logs ready vm container stop_timeout health".split())

_ONE_HOST = "a stack runs on one host"
_DEVICES = "`devices` of the service names each device"
SERVICE = Keys(
    known=frozenset(
        (
            *NATIVE,
            *"image build command entrypoint environment env_file ports expose volumes depends_on healthcheck".split(),
            *"restart networks network_mode container_name hostname labels profiles user working_dir init tty".split(),
            *"stdin_open secrets configs deploy mem_limit cpus cpu_quota cpu_period pids_limit cap_add".split(),
            *"cap_drop security_opt read_only tmpfs shm_size ulimits sysctls extra_hosts stop_signal".split(),
            *"dns dns_search dns_opt devices".split(),
            *"stop_grace_period platform pull_policy logging scale extends".split(),
        )
    ),
    refused={
        "privileged": "instances are isolated; use cap_add for single capabilities",
        "device_cgroup_rules": _DEVICES,
        "gpus": _DEVICES,
        "runtime": "the mode decides how it runs: `mode: container` or `mode: vm`",
        "isolation": "the mode decides how it runs: `mode: container` or `mode: vm`",
        "pid": "processes of an instance are in their own namespace",
        "ipc": "each instance has its own IPC namespace",
        "uts": "each instance has its own host name",
        "userns_mode": "`container: {userns: host}` runs a container with the ids of the host",
        "cgroup": "each instance has its own cgroup namespace",
        "cgroup_parent": "vmctl makes the cgroup of an instance",
        "blkio_config": "limits of disk bandwidth are not available",
        "cpuset": "an instance cannot be bound to certain processors",
        "cpu_rt_period": "real-time limits are not available",
        "cpu_rt_runtime": "real-time limits are not available",
        "mem_swappiness": "swap is the host's",
        "oom_kill_disable": "an instance without this limit would endanger the host",
        "oom_score_adj": "the order in which the kernel ends processes is not a setting of an instance",
        "group_add": "further groups are not available; `user: UID:GID` sets user and group",
        "storage_opt": "`resources: {disk: 1G}` limits the writable layer",
        "credential_spec": "it is for Windows",
        "mac_address": "vmctl chooses the MAC addresses of its network",
        "volumes_from": "name the volumes of the other service in `volumes`",
        "external_links": "instances of another stack are reached by a network that both are on",
        "domainname": "write the whole name in `hostname`",
        "provider": "services of a provider are not available",
        "models": "models are not available",
        "use_api_socket": "there is no daemon with a socket",
        "post_start": "hooks are not available",
        "pre_stop": "hooks are not available",
        "label_file": "write the labels in `labels`",
    },
    idle={
        "links": "all services of a network reach each other by name",
        "develop": "`vmctl up --build` again rebuilds what has changed",
        "annotations": "no runtime reads them",
        "attach": "`vmctl logs` shows the output of services",
        "mem_reservation": "it guarantees nothing on one host",
        "memswap_limit": "swap is not limited",
        "cpu_shares": "without a limit in `cpus` the kernel shares processors fairly",
        "cpu_count": "`cpus` is the limit",
        "cpu_percent": "`cpus` is the limit",
    },
)
BUILD = Keys(
    known=frozenset("context dockerfile args target network no_cache pull tags".split()),
    refused={
        "platforms": "images are built for this host's platform",
        "ssh": "forwarding an SSH agent into a build is not available",
        "secrets": "secrets in builds are not available in stack files",
        "privileged": "builds are isolated",
        "entitlements": "builds are isolated",
        "isolation": "it is for Windows",
        "dockerfile_inline": "write it to a file, and name that in `dockerfile`",
        "additional_contexts": "a build has one context",
        "extra_hosts": "entries of /etc/hosts for builds are not available",
        "ulimits": "limits for builds are not available",
        "sbom": "attestations are not available",
        "provenance": "attestations are not available",
    },
    idle={
        "cache_from": "the build cache is local",
        "cache_to": "the build cache is local",
        "labels": "`labels` of the service are labels of its instances",
        "shm_size": "/dev/shm of a build has its default size",
    },
)
_SWARM = "it is for a swarm of hosts"
DEPLOY = Keys(
    known=frozenset("resources replicas mode restart_policy".split()),
    refused={"placement": _ONE_HOST},
    idle={
        "update_config": _SWARM,
        "rollback_config": _SWARM,
        "endpoint_mode": _SWARM,
        "labels": "`labels` of the service are labels of its instances",
    },
)
RESOURCES = Keys(known=("limits", "reservations"))
LIMITS = Keys(known=("cpus", "memory", "pids"), refused={"devices": _DEVICES})
RESERVATIONS = Keys(
    known=(),
    refused={"devices": _DEVICES, "generic_resources": _DEVICES},
    idle=dict.fromkeys(("cpus", "memory", "pids"), "it guarantees nothing on one host"),
)
RESTART_POLICY = Keys(
    known=("condition", "max_attempts"), idle={"delay": "the pause grows by itself", "window": "restarts are counted"}
)
LOGGING = Keys(known=("driver", "options"))
LOG_OPTIONS = Keys(
    known=("max-size", "max-file"),
    idle=dict.fromkeys(("labels", "env", "tag", "compress", "mode", "max-buffer-size"), "logs are files of vmctl"),
)
HEALTHCHECK = Keys(
    known=frozenset("test interval timeout retries start_period disable".split()),
    idle={"start_interval": "`interval` is used from the start"},
)
DEVICE = Keys(known=("source", "target", "permissions"))
DEPENDS = Keys(known=("condition", "required", "restart"))
EXTENDS = Keys(known=("service", "file"))
ENV_FILE = Keys(known=("path", "required", "format"))
PORT = Keys(
    known=frozenset("target published protocol host_ip".split()),
    idle=dict.fromkeys(("mode", "name", "app_protocol"), "a published port is one of this host"),
)
MOUNT = Keys(known=frozenset("type source target read_only bind volume tmpfs consistency".split()))
BIND = Keys(
    known=("create_host_path", "selinux"),
    refused={"propagation": "mounts of one side are not passed on", "recursive": "mounts below are not passed on"},
)
VOLUME_OPTIONS = Keys(known=("nocopy",), refused={"subpath": "a volume is mounted whole"})
TMPFS_OPTIONS = Keys(known=("size", "mode"))
SECRET_USE = Keys(
    known=("source", "target", "mode"),
    refused=dict.fromkeys(("uid", "gid"), "the file belongs to the user of the workload, or to root"),
)
ATTACHMENT = Keys(
    known=("aliases", "ipv4_address", "priority", "gw_priority"),
    refused={
        "ipv6_address": "IPv6 addresses of the network are not chosen by hand",
        "link_local_ips": "addresses are those of the network",
        "mac_address": "vmctl chooses the MAC addresses of its network",
        "interface_name": "interfaces are called eth0, eth1, ...",
    },
    idle={"driver_opts": "the network is a bridge of vmctl"},
)
_DRIVER = "the network is a bridge of vmctl"
NETWORK = Keys(
    known=frozenset("driver external name internal ipam labels".split()),
    idle={
        "attachable": "every instance can join a network",
        "driver_opts": _DRIVER,
        "enable_ipv4": _DRIVER,
        "enable_ipv6": _DRIVER,
    },
)
IPAM = Keys(known=("driver", "config"), idle={"options": _DRIVER})
SUBNET = Keys(known=("subnet", "gateway"), idle=dict.fromkeys(("ip_range", "aux_addresses"), _DRIVER))
VOLUME = Keys(known=frozenset("driver external name labels driver_opts".split()))
SECRET = Keys(
    known=("file", "environment", "name"),
    refused={
        "external": "secrets are files or variables of this host: `file:` or `environment:`",
        "driver": _SWARM,
        "template_driver": _SWARM,
    },
    idle={"labels": "secrets are not objects of vmctl"},
)
CONFIG = Keys(
    known=("file", "environment", "content", "name"),
    refused={
        "external": "configurations are files or texts of this stack: `file:`, `content:` or `environment:`",
        "template_driver": _SWARM,
    },
    idle={"labels": "configurations are not objects of vmctl"},
)
INCLUDE = Keys(known=("path", "project_directory", "env_file"))
TOP = Keys(
    known=frozenset("name services networks volumes secrets configs include mode".split()),
    refused={"models": "models are not available"},
    idle={"version": "all versions are read alike"},
)
