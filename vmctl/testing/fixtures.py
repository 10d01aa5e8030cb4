"""The fixtures of the plugin, and `golden`, which makes more of them from a description in a conftest.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from vmctl.testing.description import MARKER, Description, described, of_markers
from vmctl.testing.state import STATE

if TYPE_CHECKING:
    import vmctl
    from vmctl.testing.session import Session

FAILED = pytest.StashKey[bool]()  # of a test: it has failed, before its fixtures end
USED = pytest.StashKey[list["vmctl.Instance"]]()  # of a test: its instances
MODE = "vmctl_mode"  # the fixture that gets the values of --vmctl-mode


@pytest.fixture
def vmctl_mode(request: pytest.FixtureRequest) -> str | None:
    """The mode of this test that --vmctl-mode or its marker names; None if neither does."""
    mode: str | None = getattr(request, "param", None)
    if mode is None:
        for marker in request.node.iter_markers(MARKER):
            mode = mode or marker.kwargs.get("mode")
    return mode


@pytest.fixture
def vmctl_instance(request: pytest.FixtureRequest, vmctl_mode: str | None) -> Iterator[vmctl.Instance]:
    """A clone for this test alone, of the golden snapshot that `@pytest.mark.vmctl(image=..., ...)` describes."""
    found, reason = None, "no marker describes the instance"
    try:
        found = of_markers([*request.node.iter_markers(MARKER)][::-1])
    except ValueError as error:
        reason = str(error)
    if found is None:
        hint = f'hint: @pytest.mark.{MARKER}("tiny", command=["sleep", "inf"])'
        pytest.fail(f"{request.node.name} uses vmctl_instance: {reason}\n{hint}", pytrace=False)
    yield from _clone(request, found, vmctl_mode)


def golden(
    image: str | None = None, *, name: str | None = None, **described_by: Any
) -> Callable[..., Iterator[vmctl.Instance]]:
    """Return a fixture: a clone for each test that uses it, of a golden snapshot that is taken once in a session.

    The arguments are those of the marker `vmctl`: the keys of a workload file, such as `ports` and `env`; `mode`;
    `prepare`, which is called with the instance that the snapshot is taken of; `stop`. `name` is the name of the
    fixture, by default the name that it is assigned to. Raises ValueError.

        db = golden("postgres", ready={"exec": ["pg_isready"]}, prepare=fill)
    """
    found = described(image, **described_by)

    @pytest.fixture(name=name)
    def clone(request: pytest.FixtureRequest, vmctl_mode: str | None) -> Iterator[vmctl.Instance]:
        yield from _clone(request, found, vmctl_mode)

    return clone


def _clone(request: pytest.FixtureRequest, found: Description, mode: str | None) -> Iterator[vmctl.Instance]:
    """Yield a clone for a test, and remove it afterwards; a failure before the test is reported as its reason."""
    from vmctl.testing import session

    state, node = request.config.stash[STATE], request.node
    mode = mode or found.mode or session.DEFAULT_MODE
    node.user_properties.append((MODE, mode))
    clone, reason = _started(state.session(), found, mode, node)
    if clone is None:
        pytest.fail(f"no instance of {found.image} in mode {mode}: {reason}", pytrace=False)
    node.stash.setdefault(USED, []).append(clone)
    try:
        yield clone
    finally:
        if state.keep and node.stash.get(FAILED, False):
            state.session().keep(clone)
        else:
            clone.remove()


def _started(session: Session, found: Description, mode: str, node: pytest.Item) -> tuple[vmctl.Instance | None, str]:
    """Return a clone, and record how long that took; or None and the reason."""
    from vmctl.console import visible
    from vmctl.errors import VmctlError

    try:
        golden = session.golden(found, mode)
        begun_s = time.monotonic()
        clone = session.clone(golden)
    except VmctlError as error:
        lines = (str(error), error.detail, error.hint and f"hint: {error.hint}")
        return None, visible("\n".join(filter(None, lines)))
    if golden.made_here:
        node.user_properties.append(("vmctl_snapshot_s", round(golden.took_s, 4)))
    node.user_properties.append(("vmctl_instance", clone.name))
    node.user_properties.append(("vmctl_start_s", round(time.monotonic() - begun_s, 4)))
    return clone, ""
