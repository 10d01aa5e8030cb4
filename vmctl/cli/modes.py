"""The flags for mode, accelerator and libvirt, shared by all verbs that start an instance."""

from __future__ import annotations

import argparse
import os


def add(parser: argparse.ArgumentParser, *, default: str = "container") -> None:
    """Add --mode, --accel and --connect."""
    parser.add_argument("--mode", default=default, help=f"how to run it: vm, container or host (default: {default})")
    add_vm_choices(parser)


def add_vm_choices(parser: argparse.ArgumentParser) -> None:
    """Add --accel and --connect."""
    parser.add_argument(
        "--accel", choices=("auto", "kvm", "tcg"), help="vm: accelerator; tcg is emulation (default: auto)"
    )
    parser.add_argument("--connect", metavar="URI", help="vm: use a running libvirtd, not the embedded driver")


def apply(args: argparse.Namespace) -> None:
    """Set the options of the backend, for this process and the programs it starts."""
    if args.accel:
        os.environ["VMCTL_ACCEL"] = args.accel
    if args.connect:
        os.environ["VMCTL_CONNECT"] = args.connect
