"""vmctl port."""

from __future__ import annotations

from vmctl import engine
from vmctl.cli import output, selection
from vmctl.errors import NotFoundError, SpecError, StateError
from vmctl.instances import published
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from vmctl.spec.workload import Port

EXAMPLE = "vmctl port web 80/tcp"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME [PORT[/tcp|udp]]", nargs="+", help="instance, and a port inside it")
    output.add_format(parser)


def run(args: Namespace) -> int:
    """Print where the ports of an instance are on the host: all of them, or only one."""
    name, *asked = args.names
    if len(asked) > 1:
        raise SpecError(f"port: expected NAME [PORT], got {' '.join(args.names)}", hint=EXAMPLE)
    inst = selection.one(name)
    if engine.status(inst) != "running":
        raise StateError(f"{name} is not running, so none of its ports is published", hint=f"vmctl start {name}")
    wanted = _port(asked[0]) if asked else None
    found = [port for port in published.of(inst) if wanted in (None, (port.port, port.protocol))]
    if wanted and not found:
        raise NotFoundError(
            f"{name} does not publish its port {wanted[0]}/{wanted[1]}", hint=f"`vmctl port {name}` lists those it does"
        )
    if args.format != "table":
        output.show(list(map(_row, found)), (), args.format)
        return 0
    for port in found:
        place = f"{port.shown_address()}:{port.host_port}"
        print(place if wanted else f"{port.port}/{port.protocol} -> {place}")
    return 0


def _port(text: str) -> tuple[int, str]:
    """Return number and protocol of PORT[/PROTOCOL]. Raises SpecError."""
    number, _, protocol = text.partition("/")
    if not (number.isascii() and number.isdigit()) or protocol not in ("", "tcp", "udp"):
        raise SpecError(f"port: expected a port such as 80 or 53/udp, got {text}", hint=EXAMPLE)
    return int(number), protocol or "tcp"


def _row(port: Port) -> dict[str, Any]:
    return port._asdict()
