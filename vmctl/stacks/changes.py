"""What `up` has to do: compare the instances that a stack should have with those that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from vmctl import records
from vmctl.instances.instance import Instance
from vmctl.spec import rules
from vmctl.spec.workload import Workload

Kind = Literal["create", "replace", "start", "keep", "remove"]


RUNNING = ("running", "restarting", "paused")


class Wanted(NamedTuple):
    """An instance that a stack should have."""

    work: Workload
    service: str
    mode: str
    inputs: str = ""  # digest of files and variables whose content is not in the workload
    once: bool = False  # another service waits until it has ended: it is not started again


class Present(NamedTuple):
    """An instance of the stack that is there."""

    inst: Instance
    status: str
    inputs: str = ""


class Change(NamedTuple):
    """What happens to one instance, and why."""

    name: str
    kind: Kind
    service: str
    reasons: tuple[str, ...] = ()
    wanted: Wanted | None = None

    def text(self) -> str:
        """Return it in words, such as `replaced: image, env`."""
        words = {
            "create": "created",
            "replace": "replaced",
            "start": "started",
            "keep": "unchanged",
            "remove": "removed",
        }
        return words[self.kind] + (f": {', '.join(self.reasons)}" if self.reasons else "")


def plan(
    wanted: Mapping[str, Wanted],
    present: Mapping[str, Present],
    digest_of: Callable[[str], str | None],
    *,
    replace: bool = False,
) -> list[Change]:
    """Return a change for each instance that is wanted, in the same order; `digest_of` returns that of an image.

    With `replace`, instances are replaced even if nothing has changed.
    """
    found = {name: _change(one, present.get(name), digest_of, replace=replace) for name, one in wanted.items()}
    for _ in found:  # one may be in the network of one that is in the network of another
        for name, change in found.items():
            other = found.get(rules.neighbour(wanted[name].work))
            if other is not None and other.kind != "keep" and change.kind in ("keep", "start"):
                found[name] = change._replace(kind="replace", reasons=(f"network of {other.name}",))
    return list(found.values())


def _change(wanted: Wanted, there: Present | None, digest_of: Callable[[str], str | None], *, replace: bool) -> Change:
    name = wanted.work.name
    if there is None:
        return Change(name, "create", wanted.service, (), wanted)
    reasons = tuple(differences(wanted, there, digest_of)) or (("as asked",) if replace else ())
    if there.status not in (*RUNNING, "suspended", "exited") and not reasons:
        reasons = (f"its last start has {'failed' if there.status == 'failed' else 'not been finished'}",)
    if reasons:
        return Change(name, "replace", wanted.service, reasons, wanted)
    done = there.status in RUNNING or (wanted.once and there.inst.state.exit_code == 0)
    return Change(name, "keep" if done else "start", wanted.service, (), wanted)


def differences(wanted: Wanted, there: Present, digest_of: Callable[[str], str | None]) -> Iterator[str]:
    """Yield what is different: keys of the workload file, the mode, the content of the image."""
    inst = there.inst
    if wanted.mode != inst.state.mode:
        yield f"mode {inst.state.mode} -> {wanted.mode}"
    before, after = records.differing(inst.work), records.differing(wanted.work)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield key.removesuffix("_bytes").removesuffix("_s")
    if inst.work.image == wanted.work.image and inst.state.image_digest:
        digest = digest_of(wanted.work.image)
        if digest is not None and digest != inst.state.image_digest:
            yield "content of the image"
    if wanted.inputs != there.inputs:
        yield "content of env_file or secrets"
