"""The flags that say how to speak to a registry."""

from __future__ import annotations

import argparse

from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from images.transfer.registry import Access


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add --tls-verify and --authfile."""
    parser.add_argument(
        "--tls-verify",
        nargs="?",
        const="true",
        choices=("true", "false"),
        help="false: take any certificate, or none (default: true, unless registries.conf says otherwise)",
    )
    add_authfile(parser)


def add_authfile(parser: argparse.ArgumentParser) -> None:
    """Add --authfile."""
    parser.add_argument("--authfile", default="", help="where passwords are kept; default: where podman keeps them")


def chosen(args: argparse.Namespace) -> Access:
    """Return what the flags say."""
    from images.transfer.registry import Access

    verify = getattr(args, "tls_verify", None)
    return Access(None if verify is None else verify == "true", args.authfile)
