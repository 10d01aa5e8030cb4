"""Every parser refuses a damaged or hostile input with an error of vmctl: the short form, always with the same inputs.

`make fuzz` is the long form.
"""

import random

import pytest
from fuzz.check import fault
from fuzz.mutate import mutated
from fuzz.targets import TARGETS

INPUTS = 3000  # of the cheapest target


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path))


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs_are_accepted(name):
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_has_an_uncaught_exception(name):
    target, chance = TARGETS[name], random.Random(name)
    found = {}
    for _ in range(max(3, INPUTS // target.cost)):
        data = mutated(target, chance)
        if (kind := fault(target, data)) and kind[0] not in found:
            found[kind[0]] = (data[:2000], kind[1])
    assert found == {}
