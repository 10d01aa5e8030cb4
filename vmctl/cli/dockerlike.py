"""The document of `inspect` with the names that docker has, for templates such as `{{.State.Status}}`."""

from __future__ import annotations

from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def view(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of docker that have an equal here; an instance that cannot be read has only its state."""
    work = document.get("workload") or {}
    found = {"Id": document["name"], "State": _state(document)}
    if not work:
        return found
    return {
        **found,
        "Config": _config(work),
        "HostConfig": _host_config(document, work),
        "NetworkSettings": _network(document, work),
        "Mounts": [_mount(volume) for volume in work["volumes"]],
        "RestartCount": max(0, document["starts"] - 1),
        "LogPath": f"{document['directory']}/stdout.log",
    }


def _state(document: Mapping[str, Any]) -> dict[str, Any]:
    status = document["status"]
    return {
        "Status": status,
        "Running": status in ("running", "paused"),
        "Paused": status == "paused",
        "OOMKilled": document["exit_source"] == "oom",
        "Dead": status == "failed",
        "Pid": document["pid"] or 0,
        "ExitCode": document["exit_code"] or 0,
        "Error": document["reason"] or "",
        "Health": {"Status": document.get("health") or "none"},
    }


def _config(work: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Hostname": work["hostname"] or work["name"],
        "User": work["user"] or "",
        "Env": [f"{name}={value}" for name, value in work["env"].items()],
        "Cmd": list(work["command"] or ()),
        "Entrypoint": list(work["entrypoint"] or ()),
        "Image": work["image"],
        "WorkingDir": work["workdir"] or "",
        "Labels": work["labels"],
        "StopSignal": work["stop_signal"],
    }


def _host_config(document: Mapping[str, Any], work: Mapping[str, Any]) -> dict[str, Any]:
    resources = work["resources"]
    return {
        "Memory": resources["memory_bytes"] or 0,
        "NanoCpus": int((resources["cpus"] or 0) * 10**9),
        "PidsLimit": resources["pids"],
        "NetworkMode": _networks(work["network"])[0],
        "RestartPolicy": {"Name": work["restart"]["policy"]},
        "ReadonlyRootfs": work["read_only"],
        "AutoRemove": document["removes"],
    }


def _network(document: Mapping[str, Any], work: Mapping[str, Any]) -> dict[str, Any]:
    address = document["address"] or ""
    ports: dict[str, list[dict[str, str]]] = {}
    for port in work["ports"]:
        place = {"HostIp": port["address"], "HostPort": str(port["host_port"])}
        ports.setdefault(f"{port['port']}/{port['protocol']}", []).append(place)
    addresses = document.get("addresses") or {}
    networks = {name: {"IPAddress": addresses.get(name, address)} for name in _networks(work["network"])}
    return {"IPAddress": address, "Ports": ports, "Networks": networks}


def _networks(choice: Any) -> list[str]:
    return [choice] if isinstance(choice, str) else [one["name"] for one in choice["networks"]] or ["none"]


def _mount(volume: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Type": "bind" if volume["source"][:1] in ("/", ".") else "volume",
        "Source": volume["source"],
        "Destination": volume["target"],
        "RW": not volume["read_only"],
    }
