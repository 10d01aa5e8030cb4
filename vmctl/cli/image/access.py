"""The flags for access to a registry."""

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
        help="false: accept any certificate, or plain HTTP (default: true, or as set in registries.conf)",
    )
    add_authfile(parser)


def add_authfile(parser: argparse.ArgumentParser) -> None:
    """Add --authfile."""
    parser.add_argument("--authfile", default="", metavar="FILE", help="file with passwords (default: that of podman)")


def chosen(args: argparse.Namespace) -> Access:
    """Return the access options of the flags."""
    from images.transfer.registry import Access

    verify = getattr(args, "tls_verify", None)
    return Access(None if verify is None else verify == "true", args.authfile)
