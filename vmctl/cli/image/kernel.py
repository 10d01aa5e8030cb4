"""vmctl image kernel."""

from __future__ import annotations

import argparse

from vmctl.cli import each, output, sentence
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_size

if TYPE_CHECKING:
    from typing import Any

EXAMPLE = "vmctl image kernel add --name mine /boot/vmlinuz"
COLUMNS = ("name", "release", "origin", "size_bytes", "instances")
_ACTIONS = {
    "ls": "list the kernels for `vm: {kernel: NAME}` in a workload file",
    "fetch": "download Debian's newest cloud kernel, without installing it",
    "add": "copy a kernel image and its modules into the store",
    "rm": "remove kernels from the store",
}
_EXAMPLES = {"ls": "ls -q", "fetch": "fetch", "add": "add --name mine /boot/vmlinuz", "rm": "rm mine"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="what", required=True, metavar="|".join(_ACTIONS))
    parsers = {name: actions.add_parser(name, help=text, description=sentence(text)) for name, text in _ACTIONS.items()}
    for name, example in _EXAMPLES.items():
        parsers[name].example = f"vmctl image kernel {example}"  # type: ignore[attr-defined]
    parsers["ls"].add_argument("-q", "--quiet", action="store_true", help="print names only")
    output.add_format(parsers["ls"])
    add = parsers["add"]
    add.add_argument("path", metavar="PATH", help="kernel image, such as /boot/vmlinuz-6.1.0-1-amd64")
    add.add_argument("--modules", metavar="DIR", default="", help="its modules (default: next to it, or /lib/modules)")
    add.add_argument("--name", default="", help="name for workload files (default: its release)")
    remove = parsers["rm"]
    remove.add_argument("names", metavar="NAME", nargs="+", help="name of a kernel")
    remove.add_argument("-f", "--force", action="store_true", help="remove it even if instances use it")


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    code: int = {"ls": _ls, "fetch": _fetch, "add": _add, "rm": _rm}[args.what](args)
    return code


def _ls(args: argparse.Namespace) -> int:
    from images.kernels import inventory

    if args.quiet:
        for kept in inventory.ls():
            print(kept.kernel.name)
        return 0
    rows = [
        {
            "name": kept.kernel.name,
            "release": kept.kernel.release,
            "size_bytes": kept.size_bytes,
            "origin": kept.origin,
            "image": kept.kernel.vmlinuz,
            "modules": kept.kernel.modules,
            "instances": kept.users,
        }
        for kept in inventory.ls()
    ]
    output.show(rows, COLUMNS, args.format, _cell)
    return 0


def _cell(name: str, value: Any) -> str:
    if name == "size_bytes":
        return format_size(value) if value else "-"
    return (", ".join(value) or "-") if isinstance(value, list) else str(value)


def _fetch(_: argparse.Namespace) -> int:
    from images.kernels import kernel

    print(kernel.fetch_debian().release)
    return 0


def _add(args: argparse.Namespace) -> int:
    from images.kernels import inventory

    print(inventory.add(args.path, modules=args.modules, name=args.name).name)
    return 0


def _rm(args: argparse.Namespace) -> int:
    from images.kernels import inventory
    from images.upkeep import prune

    code = each(args.names, lambda name: inventory.remove(name, force=args.force))
    for _ in prune.remove(prune.stale_of_kernels()):  # what was made of them: initrds, and the uncompressed kernel
        pass
    return code
