"""What users of docker, incus, multipass, lima and virsh type is understood, or the error names it."""

import os
import re
import shlex

import pytest
from support.commands import refused
from support.tracked import ROOT

from vmctl import cli
from vmctl.cli import foreign
from vmctl.errors import EXIT_VMCTL

with open(os.path.join(ROOT, "tests", "data", "foreign.txt"), encoding="utf-8") as file:
    TABLE = [tuple(map(str.strip, line.rsplit("|", 1))) for line in file if "|" in line and not line.startswith("#")]


def answer(words, capsys):
    """Return what vmctl answers to words without running them: "" if the parser accepts them."""
    words = cli.resolved(words)
    if words[0] == "--version":
        return ""
    if words[0] not in cli.VERBS:
        assert cli.main(words) == EXIT_VMCTL
        return capsys.readouterr().err
    code = None
    try:
        cli.parse(words[0], words[1:])
    except SystemExit as error:
        code = error.code
    assert code in (None, EXIT_VMCTL), "it printed a help text"
    return capsys.readouterr().err


@pytest.mark.parametrize(("typed", "expected"), TABLE, ids=[typed for typed, _ in TABLE])
def test_each_command_works_or_the_error_says_what_to_type(typed, expected, capsys):
    err = answer(shlex.split(typed)[1:], capsys)
    if expected == "works":
        assert err == ""
        return
    assert re.match(r"vmctl: [^\n]+\nhint: [^\n]+\n(usage: [^\n]+\n)?$", err), err
    assert expected.removeprefix("flag ") in err


def test_the_table_has_the_commands_of_each_program():
    programs = [typed.split()[0] for typed, _ in TABLE]
    assert programs.count("docker") >= 168
    assert sum(map(programs.count, ("incus", "multipass", "limactl"))) >= 57
    assert programs.count("virsh") >= 47
    assert len(set(TABLE)) == len(TABLE)


@pytest.mark.parametrize("word", ["prun", "dwn", "rmm", "dow", "kil", "stp", "rmii", "image rmm"])
def test_no_typo_is_answered_by_a_verb_that_removes(word):
    hint = refused(*word.split()).partition("hint: ")[2]
    assert "did you mean" not in hint


@pytest.mark.parametrize("command", foreign.FLAGS)
def test_no_flag_of_the_table_exists(command):
    """A flag that has been added is no longer foreign; a flag whose values are foreign stays in the table."""
    from vmctl.cli.commands import commands

    parser = next(found.parser for found in commands() if " ".join(found.words) == command)
    assert set(foreign.FLAGS[command]) & set(parser._option_string_actions) <= {"--format"}
