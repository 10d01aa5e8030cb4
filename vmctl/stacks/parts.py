"""A service that is being translated, and what all services of a stack share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vmctl.errors import SpecError
from vmctl.stacks.draft import Draft
from vmctl.stacks.item import Place
from vmctl.stacks.keys import Warn
from vmctl.stacks.shared import Provided
from vmctl.stacks.stack import Network, Volume


class Context(NamedTuple):
    """What the services of a stack share."""

    stack: str
    networks: Mapping[str, Network]
    volumes: Mapping[str, Volume]
    secrets: Mapping[str, Provided]
    configs: Mapping[str, Provided]
    values: Mapping[str, str]
    warn: Warn


class Parts(NamedTuple):
    """A service that is being translated."""

    place: Place
    found: Mapping[str, Place]
    draft: Draft
    context: Context
    missing: list[SpecError]  # what is not on this host
