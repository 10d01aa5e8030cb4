"""`vmctl compare` against a hostile image, whose shell answers the questions."""

import json
import os

import pytest
from support.attack_table import callers, modes
from support.attacks import image

from bench import labs
from bench.labs import lab, place

LIAR = b"""#!/bin/busybox sh
printf 'kernel\\t\\033[2Jforged\\nhost_process\\tforged\\nuser\\t'
while :; do echo -n 99999999999999999999999999999999; done
"""


@pytest.mark.attack("answers the questions of `compare` with escapes, facts of the host, and without an end")
@modes("container")
@callers("root")
def test_a_shell_that_lies(caller, mode):
    image(caller, "liar", ("bin/sh", {"mode": 0o755}, LIAR), without=("bin/sh",))
    spec = caller.write("liar.yaml", "image: liar\ncommand: [busybox, sleep, '100000']\n")
    found = json.loads(caller.ok("compare", "--modes", mode, "--format", "json", spec))
    values = {one["name"]: one["values"][mode] for one in found}
    assert "forged" in values["kernel"]
    assert "busybox" in values["host_process"]
    assert len(values["user"]) == 2000
    for form in ("table", "md", "html"):
        assert "\x1b" not in caller.ok("compare", "--modes", mode, "--format", form, spec)
    assert caller.ok("ps", "-aq") == ""


FORGED = b"""#!/bin/busybox sh
case $2 in *'put boot_id'*) printf 'kernel\\t9.9-forged\\nboot_id\\tforged\\n'; exit ;; esac
exec /bin/busybox sh "$@"
"""
FORGED_NAME = b"#!/bin/busybox sh\necho 9.9-forged\n"


@pytest.mark.attack("reports another kernel than it runs on, as a container and as a guest, to turn a lab's verdict")
@modes("container")
@callers("root")
def test_a_forged_kernel(caller, mode):
    image(caller, "uname", ("bin/uname", {"mode": 0o755}, FORGED_NAME), without=("bin/uname",))
    image(caller, "forged", ("bin/sh", {"mode": 0o755}, FORGED), without=("bin/sh",))
    room, decide = place.Room({}, lambda text: None), labs.find("shared-kernel").decide
    (answer,) = room.ask(mode, "/bin/uname -r", image="uname")
    assert answer == "9.9-forged\nexit 0"
    host, honest = room.facts(("host",)), room.facts((mode,), image="uname")
    assert honest[f"{mode}: kernel"] == os.uname().release  # the labs do not ask uname(1)
    guest = {"vm: boot_id": "another"}
    assert decide({**host, **honest, **guest}).word == lab.HOLDS
    forged = room.facts((mode,), image="forged")
    assert forged[f"{mode}: boot_id"] == "forged"
    verdict = decide({**host, **forged, **guest})
    assert (verdict.word, f"mode {mode} reports is not true" in verdict.reason) == (lab.UNDECIDABLE, True)
    for seen, word in ((honest, lab.REFUTED), (forged, lab.UNDECIDABLE)):  # as if a guest were a container
        as_guest = {name.replace(f"{mode}:", "vm:"): value for name, value in seen.items()}
        assert decide({**host, **honest, **as_guest}).word == word
    assert caller.ok("ps", "-aq") == ""
