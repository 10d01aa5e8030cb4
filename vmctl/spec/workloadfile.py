"""Read a workload file: return a frozen `Workload`, or raise an error with the file, the key and what was expected."""

from __future__ import annotations

import os
from base64 import b64encode
from contextlib import suppress
from typing import Any

import msgspec

from vmctl.errors import SpecError
from vmctl.spec import networking, rules, schemadocs, specerrors, specfields, textfile, yamlfile
from vmctl.spec.workload import File, Workload

FORMAT = 1  # of the workload file; the key `format` may be left out


def load(path: str, *, name: str | None = None, raw: bytes | None = None) -> Workload:
    """Return the workload of a file; `name` overrides the name in the file, `raw` is its content if that is known.

    Raises SpecError.
    """
    document = yamlfile.read_mapping(path, raw=raw)
    base = os.path.basename(path).rpartition(".")[0] or os.path.basename(path)
    document = {"name": base, **document}
    if name:
        document["name"] = name
    try:
        _check_format(document.pop("format", FORMAT))
        work = convert(document)
        return completed(work, os.path.dirname(os.path.abspath(path)))
    except SpecError as error:
        raise SpecError(f"{path}: {error}", hint=error.hint) from None


def completed(work: Workload, folder: str) -> Workload:
    """Return a workload with the content of its `files`, and with absolute paths; its file is in `folder`.

    Raises SpecError.
    """
    work = work._replace(
        files=tuple(_with_content(file, i, folder) for i, file in enumerate(work.files)),
        secrets=tuple(one._replace(file=one.file and _path(folder, one.file)) for one in work.secrets),
        env_file=tuple(one._replace(path=_path(folder, one.path)) for one in work.env_file),
    )
    if work.vm.cloud_init:
        work = work._replace(vm=work.vm._replace(cloud_init=os.path.join(folder, work.vm.cloud_init)))
    return work._replace(volumes=tuple(volume.beside(folder) for volume in work.volumes))


def _path(folder: str, path: str) -> str:
    return os.path.join(folder, os.path.expanduser(path))


def _with_content(file: File, number: int, folder: str) -> File:
    """Return a file with the content of its source, so that the workload is complete and its digest covers it."""
    if file.source is None:
        return file
    raw = textfile.read(os.path.join(folder, file.source), f"source of files[{number}]")
    file = file._replace(source=None)
    with suppress(UnicodeDecodeError):
        return file._replace(content=raw.decode())
    return file._replace(base64=b64encode(raw).decode())


def _check_format(number: Any) -> None:
    if type(number) is not int or number < 1:
        raise SpecError(f"the key format: expected {FORMAT}, got {str(number)[:40]!r}", hint="leave it out")
    if number > FORMAT:
        raise SpecError(
            f"it was written for a later vmctl: format {number}, this one reads {FORMAT}", hint="update vmctl"
        )


def convert(document: Any) -> Workload:
    """Return the workload of a parsed document. Raises SpecError."""
    if isinstance(document, dict) and document.get("ready") == {}:
        raise SpecError(
            "the key ready: expected one of http, tcp, log, exec, got none",
            hint="`ready: {timeout: 30s}` alone is the time within which the workload must have started",
        )
    try:
        struct = msgspec.convert(_in_full(document), specfields.STRUCTS[Workload], dec_hook=specfields.parse_scalar)
    except msgspec.ValidationError as error:
        struct_type, missing = specfields.STRUCTS[Workload], "for instance image: tiny"
        raise specerrors.explained(str(error), struct_type, _HINTS, missing) from None
    work: Workload = specfields.to_values(struct)
    if not isinstance(work.network, str):
        work = work._replace(network=networking.normalized(work.network))
    rules.check(work)
    return work


def _in_full(document: Any) -> Any:
    """Return a document whose keys with a short form have the long one: `health: none`, `env_file: FILE`."""
    if not isinstance(document, dict):
        return document
    found = dict(document)
    if found.get("health") == "none":
        found["health"] = {"disable": True}
    if isinstance(files := found.get("env_file"), str | list):
        files = [files] if isinstance(files, str) else files
        found["env_file"] = [{"path": file} if isinstance(file, str) else file for file in files]
    return found


def _with_short_forms(properties: dict[str, Any]) -> None:
    """Add to a JSON Schema what `_in_full` understands."""
    properties["health"]["anyOf"].append({"const": "none"})
    mapping = properties["env_file"].pop("items")
    either = [{"type": "string"}, {"type": "array", "items": {"anyOf": [mapping, {"type": "string"}]}}]
    properties["env_file"] = {"anyOf": either}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the workload file."""
    result = msgspec.json.schema(specfields.STRUCTS[Workload], schema_hook=specfields.scalar_schema)
    workload = result["$defs"]["Workload"]
    workload["required"].remove("name")  # the default is the name of the file
    workload["properties"]["format"] = {"const": FORMAT}
    _with_short_forms(workload["properties"])
    schemadocs.describe(result, schemadocs.WORKLOAD)
    schemadocs.add_defaults(result, specfields.defaults())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "vmctl workload", **result}


_HINTS = {"command": 'a list, one word each: [sh, -c, "echo hello"]', "user": 'in quotes: "1000:1000"'}
