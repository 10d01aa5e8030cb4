"""Lab 17: many copies of one data set."""

from __future__ import annotations

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Value, Verdict, missing, text

_COUNTS = {"container": 4, "vm": 2}
_MIB = (4, 3, 5, 6, 7)
_WAYS = ("before", "after its own write")


def _gather(place: Place) -> Evidence:
    size = place.parameter("data_mib") << 20
    image = place.image("FROM tiny", f"RUN yes 'a row of the table' | head -c {size} >/srv/data")
    seen: dict[str, Value] = {}
    digest = "sha256sum </srv/data | head -c 16; echo"
    for mode, count in _COUNTS.items():
        scripts = [f"{digest}; echo 'row of test {number}' >>/srv/data; {digest}" for number in range(count)]
        for number, answer in enumerate(place.ask(mode, *scripts, image=image), 1):
            for way, line in zip(_WAYS, answer.split("\n"), strict=False):
                seen[f"{mode} {number}: {way}"] = line
    seen["image, at the end"] = place.ask("container", digest, image=image)[0].split("\n")[0]
    return seen


def _decide(seen: Evidence) -> Verdict:
    copies = [f"{mode} {number}" for mode, count in _COUNTS.items() for number in range(1, count + 1)]
    names = [f"{copy}: {way}" for copy in copies for way in _WAYS]
    if unknown := missing(seen, "image, at the end", *names):
        return unknown
    pristine = {text(seen, f"{copy}: before") for copy in copies} | {text(seen, "image, at the end")}
    written = [text(seen, f"{copy}: after its own write") for copy in copies]
    own = not pristine & set(written) and all(
        len({text(seen, f"{mode} {number}: after its own write") for number in range(1, count + 1)}) == count
        for mode, count in _COUNTS.items()
    )
    word = HOLDS if len(pristine) == 1 and own else REFUTED
    return Verdict(
        word, f"{len(pristine)} digest of the data before any write and at the end, each write seen by one: {own}"
    )


LAB = Lab(
    number=17,
    name="pristine-copies",
    claim="From one image, many tests at once each get pristine data.",
    why="Tests that share a database fail in an order that nobody can repeat.",
    steps=(
        f"build an image with {_MIB[0]} MiB of data, or of what the seed draws",
        f"start {_COUNTS['container']} containers and {_COUNTS['vm']} guests of it, all at the same time in each mode",
        "read the digest of the data in each, write another row in each, and read it again; then look at the image",
    ),
    rule="holds if all see the same data before their write, each only its own after it, and the image is as before",
    modes=("container", "vm"),
    parameters={"data_mib": _MIB},
    gather=_gather,
    decide=_decide,
    next=(
        "configs/workloads/postgres.yaml: the same with a real database, and how long until it answers?",
        "vmctl diff of an instance: what has its test written?",
        "a snapshot of a running guest would save its boot; vmctl has none. What else would it save?",
    ),
)
