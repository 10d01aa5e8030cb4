"""The folders of vmctl: a persistent one (images, instances), and one that a reboot may empty.

For root they are /var/lib/vmctl and /run/vmctl, for another user a folder of XDG_DATA_HOME and one in it, on which a
tmpfs is mounted in the user's namespaces (holder.py). VMCTL_ROOT moves both below one folder.
"""

from __future__ import annotations

import os

from vmctl.linux import usernamespace


def state_root() -> str:
    """Return the folder of images and instances."""
    if root := os.environ.get("VMCTL_ROOT"):
        return os.path.join(os.path.abspath(root), "lib")
    if usernamespace.is_host_root():
        return "/var/lib/vmctl"
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(base, "vmctl")


def run_root() -> str:
    """Return the folder of mount points, sockets and the switch namespace."""
    if root := os.environ.get("VMCTL_ROOT"):
        return os.path.join(os.path.abspath(root), "run")
    return "/run/vmctl" if usernamespace.is_host_root() else os.path.join(state_root(), "run")


def images_root() -> str:
    """Return the folder of the image store."""
    return os.path.join(state_root(), "images")


def instances_root() -> str:
    """Return the folder that contains one folder per instance."""
    return os.path.join(state_root(), "instances")


def volumes_root() -> str:
    """Return the folder that contains one folder per named volume."""
    return os.path.join(state_root(), "volumes")


def cache_root() -> str:
    """Return the folder of files that can be created again (accelerator probe, QEMU's capabilities)."""
    return os.path.join(state_root(), "cache")
