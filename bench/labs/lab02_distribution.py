"""Lab 2: another distribution and another kernel."""

from __future__ import annotations

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Verdict, chosen, missing
from vmctl.errors import VmctlError

_MODES = ("container", "vm")
_OTHER = "debian"
_MADE = 'PRETTY_NAME="Another one, made for this lab: a distribution is files"'


def _gather(place: Place) -> Evidence:
    seen = dict(chosen(place.facts(("host", *_MODES)), "distribution boot_id", ("this machine", *_MODES)))
    try:
        other = place.facts(_MODES, _OTHER)
    except VmctlError:  # no such image here
        other = place.facts(_MODES, place.image("FROM tiny", f"RUN echo '{_MADE}' >/etc/os-release"))
    more = chosen(other, "distribution boot_id", _MODES)
    return {**seen, **{name.replace(":", " of another:"): value for name, value in more.items()}}


def _decide(seen: Evidence) -> Verdict:
    places = [f"{mode}{of}" for mode in _MODES for of in ("", " of another")]
    names = [f"{place}: {fact}" for place in places for fact in ("distribution", "boot_id")]
    if unknown := missing(seen, "this machine: boot_id", *names):
        return unknown
    differ = all(seen[f"{mode}: distribution"] != seen[f"{mode} of another: distribution"] for mode in _MODES)
    shared = [place for place in places if seen[f"{place}: boot_id"] == seen["this machine: boot_id"]]
    if differ and shared == places[:2]:
        return Verdict(HOLDS, "two distributions, and both containers run on this machine's kernel, both guests do not")
    return Verdict(
        REFUTED, f"distributions differ: {differ}; on this machine's kernel: {', '.join(shared) or 'nothing'}"
    )


LAB = Lab(
    number=2,
    name="distribution",
    claim="Another distribution is not another kernel.",
    why="A Debian container on another Linux has Debian's programs and the host's kernel, modules and settings.",
    steps=(
        f"start the image tiny and a second one, {_OTHER} or one made for this lab, as containers and as guests",
        "read /etc/os-release and the boot id inside of each",
    ),
    rule="holds if os-release differs in both modes, and only the guests have another boot id than this machine",
    modes=("host", *_MODES),
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl image build configs/images/debian.yaml, and this lab again: it takes that image then",
        "vmctl run debian -- cat /proc/version: which compiler has built that kernel?",
        "try to load a module in a container of another distribution",
    ),
)
