"""What a build is asked for, and to whom it reports its progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

# variables that --build-arg can set without an ARG, and that do not change the result
_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PROXIES = frozenset((*_NAMES, *map(str.lower, _NAMES)))


class Options(NamedTuple):
    """The options of a build."""

    name: str  # name of the image
    context: str  # the folder that COPY reads; empty: none
    arguments: Mapping[str, str] = {}
    target: str = ""  # the last stage to build
    cache: bool = True
    network: str = "bridge"
    epoch_s: int | None = None  # SOURCE_DATE_EPOCH
    secrets: Mapping[str, bytes] = {}  # for `RUN --mount=type=secret`
    labels: Mapping[str, str] = {}  # of the image, in addition to those of the build file

    @property
    def proxies(self) -> dict[str, str]:
        """The arguments that name proxies."""
        return {name: value for name, value in self.arguments.items() if name in PROXIES}


class Reporter(Protocol):
    """Receives the progress of a build."""

    def step(self, number: int, total: int, text: str) -> None:
        """A step begins."""

    def done(self, how: str) -> None:
        """The step is done; `how` is `CACHED`, or the layer's size."""

    def output(self, data: bytes) -> None:
        """A command has written output."""

    def progress(self, text: str) -> None:
        """The progress within a step."""

    def warn(self, text: str) -> None:
        """A warning for the user."""
