"""The flags that choose a mode, an accelerator and a libvirt, the same for every verb that starts something."""

from __future__ import annotations

import argparse
import os


def add(parser: argparse.ArgumentParser, *, default: str = "container") -> None:
    """Add --mode, --accel and --connect."""
    parser.add_argument("--mode", default=default, help=f"vm, container or host (default: {default})")
    add_vm_choices(parser)


def add_vm_choices(parser: argparse.ArgumentParser) -> None:
    """Add --accel and --connect."""
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), help="vm: how guest code runs (default: auto)")
    parser.add_argument("--connect", metavar="URI", help="vm: a running libvirtd instead of the embedded driver")


def apply(args: argparse.Namespace) -> None:
    """Hand the backend's own choices on; they hold for the programs that this process starts, too."""
    if args.accel:
        os.environ["VMCTL_ACCEL"] = args.accel
    if args.connect:
        os.environ["VMCTL_CONNECT"] = args.connect
