"""docs/reference.md is what the parsers and the JSON Schemas generate."""

import os
import re

import pytest
from support.tracked import ROOT

from images.recipes import recipe
from vmctl.cli import reference
from vmctl.cli.commands import commands, flags
from vmctl.spec import schemadocs, workloadfile

with open(os.path.join(ROOT, "docs", "reference.md"), encoding="utf-8") as file:
    PAGE = file.read()
HEADINGS = dict(re.findall(r"(?ms)^#+ vmctl ([^\n]+)\n(.*?)(?=^#|\Z)", PAGE))


def test_the_committed_page_is_what_the_code_generates():
    assert reference.updated(PAGE) == PAGE, "run `make docs`"


@pytest.mark.parametrize("command", list(commands()), ids=lambda command: " ".join(command.words))
def test_each_command_and_each_flag_is_on_the_page(command):
    section = HEADINGS[" ".join(command.words)]
    for action in flags(command.parser):
        for name in action.option_strings:
            assert re.search(rf"^\| `[^`]*{name}\b", section, re.MULTILINE), name


@pytest.mark.parametrize("path", ["name", "resources.memory", "files[].mode", "from.packages.suite", "steps[].copy.to"])
def test_keys_are_on_the_page_by_their_path(path):
    assert f"| `{path}` |" in PAGE


def test_generated_parts_are_replaced_and_the_rest_is_kept():
    page = "before\n<!-- generated: verbs -->\nold\n<!-- end -->\nafter `x`\n"
    new = reference.updated(page)
    assert new.startswith("before\n")
    assert new.endswith("<!-- end -->\nafter `x`\n")
    assert "old" not in new
    assert "[`up`](#vmctl-up)" in new
    with pytest.raises(KeyError, match="nothing"):
        reference.updated(page.replace("verbs", "nothing"))


def test_a_key_without_a_description_is_an_error():
    schema = {"$defs": {"Workload": {"properties": {"name": {}, "newest": {}}}}}
    with pytest.raises(KeyError, match="newest"):
        schemadocs.describe(schema, schemadocs.WORKLOAD)


@pytest.mark.parametrize("schema", [workloadfile.schema(), recipe.schema()], ids=["workload", "recipe"])
def test_each_key_of_a_schema_has_a_description(schema):
    for definition in schema["$defs"].values():
        for key, value in definition["properties"].items():
            assert len(value["description"]) > 5, key


def test_defaults_are_as_in_the_file():
    found = workloadfile.schema()["$defs"]
    assert found["Ready"]["properties"]["timeout"]["default"] == "60s"
    assert found["File"]["properties"]["mode"]["default"] == "0644"
    assert found["Workload"]["properties"]["restart"]["default"] == "no"
    assert "default" not in found["Workload"]["properties"]["command"]
