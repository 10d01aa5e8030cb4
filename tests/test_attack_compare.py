"""`vmctl compare` against a hostile image, whose shell answers the questions."""

import json

import pytest
from support.attack_table import callers, modes
from support.attacks import image

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
