"""Descriptions and defaults in a JSON Schema, for editors and for the reference of the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vmctl.spec.workload import Bytes, FileMode, Restart, Seconds

# definition -> key -> description; a key without a description is an error of `describe`
WORKLOAD = {
    "Workload": {
        "format": "format of this file; may be left out",
        "name": "name of the instance (default: the name of the file without its extension)",
        "image": "image in the store; `vmctl image ls` lists them",
        "command": "program and arguments, or only arguments if there is an entrypoint (default: the image's)",
        "entrypoint": "program that gets the command as its arguments, instead of the image's entrypoint and command",
        "env": "environment variables, in addition to those of the image; a number or true is turned into a text",
        "workdir": "absolute path of the working directory (default: the image's)",
        "user": "user, or user and group, by name or number (default: the image's)",
        "files": "files that are written before the command starts",
        "ports": "published ports: `[address:]host:guest[/udp]` (default address: 127.0.0.1)",
        "volumes": "files or folders of the host, `./source:target[:ro]`, next to this file; volumes by name, "
        "`name:target`; or `target` alone: a volume that is removed with the instance",
        "resources": "limits",
        "logs": "the workload's output that is kept",
        "ready": "probe that decides when the workload is ready: one of http, tcp, log, exec; or only a timeout",
        "restart": "when the command is started again after its end, with a pause that grows to a minute: no, always, "
        "unless-stopped, on-failure (an exit code other than 0) or on-failure:N (at most N times)",
        "network": "bridge: the default network; none: only loopback; host: the host's network; container:NAME: "
        "the network namespace of another container; or the name of a network of `vmctl network create`; or a mapping",
        "init": "true: an init is PID 1 and reaps zombies; false: the command is PID 1",
        "vm": "options that only mode vm reads",
        "container": "options that only mode container reads",
        "hostname": "host name inside (default: the name of the instance); mode host has that of the host",
        "tmpfs": "folders in memory, with size, mode and noexec if given; not in mode host",
        "shm_size": "size of /dev/shm (default: 64M; half of the memory of a guest)",
        "ulimits": "limits for each process, exec included (default: the caller's); not yet in mode vm",
        "sysctls": "settings of the kernel by name, such as net.core.somaxconn: those of its network, of System V IPC "
        "and of message queues; the same ones in a guest, whose kernel is its own",
        "extra_hosts": "more entries of /etc/hosts: `NAME:ADDRESS`, or `NAME:host-gateway` for this host",
        "labels": "texts by name, no effect on the workload; `vmctl ps --filter label=NAME=VALUE` finds them",
        "read_only": "true: only volumes, /dev/shm, /run, /tmp and /var/tmp can be written, the last three in memory",
        "tty": "true: the command gets a terminal, which `vmctl attach` connects with yours",
        "stdin_open": "true: the input of a command without a terminal stays open, for `vmctl attach`",
        "stop_signal": "signal by which `stop` asks the command to end (default: the image's, or SIGTERM)",
        "health": "check that decides whether it is healthy: one of exec, http, tcp; or only times for the check of "
        "the image; `none`: no check (default: HEALTHCHECK of the image)",
        "secrets": "files in /run/secrets, in memory only; their content is in no record, log or image",
        "env_file": "files with variables, one NAME=VALUE on each line, read at each start; `env` replaces those of "
        "the same name; their content is in no record, log or image",
        "devices": "devices of the host: `/dev/fuse`, or `source:target:rw` with the access; only in mode container",
        "stop_timeout": "time before `stop` sends SIGKILL (default: the image's, or 10s; 60s if a system boots)",
    },
    "NetworkOptions": {
        "networks": "networks of the instance, each a name or a mapping; the first is the way out (default: bridge)",
        "aliases": "more names by which the other instances of these networks find it",
        "egress": "what it may reach outside of its networks: all, none, or a list of addresses, networks and names, "
        "each with ports or without, such as 203.0.113.0/24, example.org:443, :53/udp",
        "dns": "IPv4 addresses of name servers outside of this host, which are asked instead of those of the host; "
        "names of its networks are known as before",
        "dns_search": "domains in which names are looked up that are not known as they are; `.`: none",
        "dns_opt": "options of resolv.conf(5), such as ndots:2 or timeout:1; not for a guest that boots a system",
    },
    "Joined": {
        "name": "name of the network",
        "aliases": "more names by which the other instances of this network find it",
        "address": "address in the subnet of the network (default: the first free one)",
    },
    "File": {
        "path": "absolute path in the instance",
        "content": "text of the file",
        "mode": "permission bits, octal and in quotes",
        "base64": "content in base64, for bytes that are not text; instead of `content`",
        "source": "file of the host with the content, at most 1 MiB; a relative path is next to this file",
    },
    "Resources": {
        "cpus": "processors; 1.5 is a quota of one and a half, in mode vm on 2 virtual processors (default: all of the "
        "host; in mode vm 1)",
        "memory": "limit of the cgroup; in mode vm the memory of the guest (default: no limit; in mode vm 256M, for an "
        "image that boots as a system 512M, for a disk 1G)",
        "pids": "limit for the number of processes and threads (default: 4096)",
        "disk": "size of the writable layer (default: as large as the file system of the host; in mode vm 1G)",
    },
    "Logs": {
        "size": "size of the log of each stream, at least 128K; the oldest output is dropped in larger pieces",
    },
    "Ready": {
        "http": "port and path of a GET request that must be answered with a status below 400",
        "tcp": "port that must accept a connection",
        "log": "regular expression that must be found in the output",
        "exec": "command in the instance that must exit with 0",
        "timeout": "time after which the start has failed, counted from when the command runs. Without a probe: time "
        "in which the command has to run and the system around it to be up, from the start (without `ready`: no "
        "limit in modes container and host; in mode vm 15 minutes until the command runs, 30 for cloud-init)",
    },
    "Health": {
        "exec": "command in the instance that must exit with 0",
        "http": "port and path of a GET request that must be answered with a status below 400",
        "tcp": "port that must accept a connection",
        "interval": "time between two checks (default: the image's, or 30s)",
        "timeout": "time after which a check has failed (default: the image's, or 30s)",
        "retries": "failures in a row after which it is unhealthy (default: the image's, or 3)",
        "start_period": "time after the start in which failures do not count (default: the image's, or 0s)",
        "start_interval": "time between two checks until the first that succeeds (default: the image's, or 1s)",
        "disable": "true: no check, also not that of the image",
    },
    "Secret": {
        "name": "name of the file in /run/secrets",
        "file": "file of the host with the content, at most 512 KiB; a relative path is next to this file",
        "env": "variable of the calling process with the content, instead of `file`",
        "mode": "permission bits, octal and in quotes; the owner is the user of the command",
    },
    "EnvFile": {
        "path": "file of the host; a relative path is next to this file",
        "required": "false: the file may be missing",
        "format": "quoted: values can be in quotes, as in Compose; raw: quotes are part of the value",
    },
    "VmOptions": {
        "boot": "direct: vmctl's init runs the command; system: the init of the image boots; auto: the image decides",
        "kernel": "`debian`, `host`, a path, or a name of `vmctl image kernel ls`",
        "cloud_init": "file with additional user-data, for an image that is booted with cloud-init",
        "console": "messages of the kernel: late: when the workload runs; live: as they come, which takes time",
        "warm": "auto, on: the boot is saved once, and later starts begin after it: docs/clones.md; no memory balloon",
    },
    "ContainerOptions": {
        "cap_add": "capabilities in addition to the default ones",
        "cap_drop": "default capabilities to drop, or ALL",
        "seccomp": "filter for system calls",
        "userns": "auto: a user namespace with a separate range of ids; host: the host's ids, with a warning",
    },
}


def describe(schema: dict[str, Any], texts: Mapping[str, Mapping[str, str]]) -> None:
    """Add the description of each key to a JSON Schema. Raises KeyError for a key that has none in `texts`."""
    for name, definition in schema["$defs"].items():
        definition.pop("description", None)  # the docstring of a class
        for key, value in definition["properties"].items():
            value["description"] = texts[name][key]


def add_defaults(schema: dict[str, Any], defaults: Mapping[str, Mapping[str, Any]]) -> None:
    """Add the default of each key that has one to a JSON Schema, as it would be written in the file."""
    for name, values in defaults.items():
        properties = schema["$defs"][name]["properties"]
        for key, value in values.items():
            text = _in_file(value)
            if text not in (None, ""):
                properties[key]["default"] = text


def _in_file(value: Any) -> Any:
    """Return a default as it would be written in a workload file; None for an empty list, a mapping, or no default."""
    match value:
        case Restart():
            return value.policy
        case FileMode():
            return f"{value:04o}"
        case Bytes():
            return f"{value >> 20}M"
        case Seconds():
            return f"{value:g}s"
        case bool() | int() | float() | str():
            return value
    return None
