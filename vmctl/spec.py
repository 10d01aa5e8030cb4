"""Read a workload file: return a frozen `Workload`, or raise an error with the file, the key and what was expected."""

from __future__ import annotations

import os
import re
from typing import Any

import msgspec

from vmctl import schemadocs, specerrors, specfields, yamlfile
from vmctl.errors import SpecError
from vmctl.workload import Workload

FORMAT = 1  # of the workload file; the key `format` may be left out


def load(path: str, *, name: str | None = None) -> Workload:
    """Return the workload of a file; `name` overrides the name in the file. Raises SpecError."""
    document = yamlfile.read_mapping(path)
    base = os.path.basename(path).rpartition(".")[0] or os.path.basename(path)
    document = {"name": base, **document}
    if name:
        document["name"] = name
    try:
        _check_format(document.pop("format", FORMAT))
        work = convert(document)
    except SpecError as error:
        raise SpecError(f"{path}: {error}", hint=error.hint) from None
    folder = os.path.dirname(os.path.abspath(path))
    if work.vm.cloud_init:
        work = work._replace(vm=work.vm._replace(cloud_init=os.path.join(folder, work.vm.cloud_init)))
    return work._replace(volumes=tuple(v._replace(source=os.path.join(folder, v.source)) for v in work.volumes))


def _check_format(number: Any) -> None:
    if type(number) is not int or number < 1:
        raise SpecError(f"the key format: expected {FORMAT}, got {str(number)[:40]!r}", hint="leave it out")
    if number > FORMAT:
        raise SpecError(
            f"it was written for a later vmctl: format {number}, this one reads {FORMAT}", hint="update vmctl"
        )


def convert(document: Any) -> Workload:
    """Return the workload of a parsed document. Raises SpecError."""
    try:
        struct = msgspec.convert(document, specfields.STRUCTS[Workload], dec_hook=specfields.parse_scalar)
    except msgspec.ValidationError as error:
        struct_type, missing = specfields.STRUCTS[Workload], "for instance image: tiny"
        raise specerrors.explained(str(error), struct_type, _HINTS, missing) from None
    work: Workload = specfields.to_values(struct)
    _check_rules(work)
    return work


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the workload file."""
    result = msgspec.json.schema(specfields.STRUCTS[Workload], schema_hook=specfields.scalar_schema)
    workload = result["$defs"]["Workload"]
    workload["required"].remove("name")  # the default is the name of the file
    workload["properties"]["format"] = {"const": FORMAT}
    schemadocs.describe(result, schemadocs.WORKLOAD)
    schemadocs.add_defaults(result, specfields.defaults())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "vmctl workload", **result}


_HINTS = {"command": 'a list, one word each: [sh, -c, "echo hello"]', "user": 'in quotes: "1000:1000"'}


def _check_rules(work: Workload) -> None:
    for rule in (_check_name, _check_texts, _check_ready, _check_numbers, _check_network):
        rule(work)


def _check_name(work: Workload) -> None:
    from vmctl.instance import check_name

    check_name(work.name)


def _check_texts(work: Workload) -> None:
    if work.command is not None and (not work.command or not work.command[0]):
        raise SpecError(
            "the key command: expected a program, got an empty list", hint="leave it out to run the image's command"
        )
    for key in work.env:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise SpecError(f"the key env: {key!r} cannot be the name of a variable")
    for where, path in (("workdir", work.workdir), *((f"files[{i}].path", f.path) for i, f in enumerate(work.files))):
        if path is not None and (not path.startswith("/") or ".." in path.split("/") or "\n" in path):
            raise SpecError(f"the key {where}: expected an absolute path without .., got {path!r}")
    for i, file in enumerate(work.files):
        if file.path.endswith("/"):
            raise SpecError(f"the key files[{i}].path: expected a file, got the folder {file.path}")
    texts = [*(work.command or ()), *work.env.values(), work.user or "", *(file.path for file in work.files)]
    if any("\0" in text for text in texts):
        raise SpecError("a text contains a NUL character, which is not possible in a command, variable or path")


def _check_ready(work: Workload) -> None:
    if work.ready is None:
        return
    probes = [name for name in ("http", "tcp", "log", "exec") if getattr(work.ready, name) is not None]
    if len(probes) != 1:
        raise SpecError(f"the key ready: expected one of http, tcp, log, exec, got {', '.join(probes) or 'none'}")
    if work.ready.exec is not None and not any(work.ready.exec[:1]):
        raise SpecError("the key ready.exec: expected a program, got an empty list")
    if work.ready.log is not None:
        try:
            re.compile(work.ready.log)
        except re.error as error:
            raise SpecError(f"the key ready.log: {work.ready.log!r} is not a regular expression: {error}") from None
    if work.ready.tcp is not None and not 0 < work.ready.tcp < 65536:
        raise SpecError(f"the key ready.tcp: expected a port, got {work.ready.tcp}")


def _check_numbers(work: Workload) -> None:
    limits = work.resources
    for key, value, least in (
        ("cpus", limits.cpus, 0.01),
        ("memory", limits.memory_bytes, 1 << 20),
        ("pids", limits.pids, 1),
    ):
        if value is not None and value < least:
            raise SpecError(f"the key resources.{key}: expected at least {least}, got {value}")


def _check_network(work: Workload) -> None:
    if work.network == "none" and (work.ports or (work.ready and (work.ready.http or work.ready.tcp))):
        raise SpecError("the key network: with none, ports and probes by http or tcp are not possible")
    ends = [(port.address, port.host_port, port.protocol) for port in work.ports]
    for end in ends:
        if ends.count(end) > 1:
            raise SpecError(f"the key ports: {end[0]}:{end[1]}/{end[2]} is given twice")
