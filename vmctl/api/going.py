"""Requests that let an instance stop where it is, and go on: pause, suspend, start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmctl import again, pausing, suspending

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmctl.api.worker import Caller
    from vmctl.instances.instance import Instance


def pause(inst: Instance, given: Mapping[str, Any], caller: Caller) -> None:
    """Stop its processes, or its guest, where they are."""
    pausing.pause(inst)


def unpause(inst: Instance, given: Mapping[str, Any], caller: Caller) -> None:
    """Let it go on after `pause`."""
    pausing.unpause(inst)


def suspend(inst: Instance, given: Mapping[str, Any], caller: Caller) -> None:
    """Save its memory to the disk, and end it."""
    suspending.suspend(inst)


def resume(inst: Instance, given: Mapping[str, Any], caller: Caller) -> None:
    """Let it go on after `suspend`."""
    suspending.resume(inst, wait=given["wait"])


def start(inst: Instance, given: Mapping[str, Any], caller: Caller) -> None:
    """Start it again after its end."""
    again.start(inst.name, wait=given["wait"], cold=given["cold"])
