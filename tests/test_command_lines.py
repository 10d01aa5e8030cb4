"""Each command line that a hint, an error, a page or a script names exists: the verb, the action, the flags."""

import os
import re

import pytest
from support import command_lines
from support.tracked import ROOT, tracked

from vmctl import cli
from vmctl.cli import bench, snapshot
from vmctl.cli.commands import commands

COMMANDS = {command.words: command for command in commands()}
PLACEHOLDER = re.compile(r"[A-Z]+|\.\.\.|…")
READERS = {".py": command_lines.in_python, ".md": command_lines.in_markdown}
SHORT = {"bench": bench.expand, "snapshot": snapshot.expand}  # verbs that can be given without their action
SHELL = ("Makefile", ".ci/run", ".ci/setup")


def pages():
    """Yield each file whose texts users or developers read, and its reader."""
    for name in tracked():
        suffix = os.path.splitext(name)[1]
        if name in SHELL:
            yield name, command_lines.in_shell
        elif suffix in READERS and not name.startswith(("tests/", "bench/reference/")):
            yield name, READERS[suffix]


def found_in(reader, text):
    return [(number, words, typed) for number, words, typed in reader(text) if words[0] not in ("-h", "--version")]


def problem(words):
    """Return what is wrong with a command line, or ""."""
    if PLACEHOLDER.fullmatch(words[0]) or words[0] == "--help":
        return ""
    words = cli.resolved(words)
    if (words[0],) not in COMMANDS:
        return f"there is no verb {words[0]}"
    if words[0] in SHORT and words[1:] and words[1] not in ("ACTION", "..."):
        words = [words[0], *SHORT[words[0]](words[1:])]
    command, rest = COMMANDS[(words[0],)], words[1:]
    while rest and command.actions and rest[0] not in ("-h", "--help") and not PLACEHOLDER.fullmatch(rest[0]):
        if rest[0] not in command.actions:
            return f"vmctl {' '.join(command.words)} has no action {rest[0]}"
        command, rest = COMMANDS[(*command.words, rest[0])], rest[1:]
    known = command.parser._option_string_actions
    for word in rest[: rest.index("--")] if "--" in rest else rest:
        for flag in _flags(word, known):
            if flag not in known:
                return f"vmctl {' '.join(command.words)} has no flag {flag}"
    return ""


def _flags(word, known):
    """Return the flags in a word: none, --one, or each letter of -abc."""
    if not word.startswith("-") or word == "-" or PLACEHOLDER.fullmatch(word):
        return []
    name = word.partition("=")[0]
    if word.startswith("--") or name in known:
        return [name]
    return [f"-{letter}" for letter in word[1:]]


def test_commands_of_each_kind_are_known():
    assert {("up",), ("image", "kernel", "add"), ("bench", "self-test"), ("spec", "schema")} <= COMMANDS.keys()
    assert "--accel" in COMMANDS["run",].parser._option_string_actions


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


def is_parsed(words):
    """Return whether the parser accepts a complete command line."""
    try:
        words = cli.resolved(words)
        cli.parse(words[0], words[1:])
    except SystemExit as error:
        return error.code == 0  # --help
    return True


@pytest.mark.parametrize(("name", "reader"), list(pages()), ids=lambda value: value if isinstance(value, str) else "")
def test_each_command_line_exists(name, reader):
    found = found_in(reader, read(name))
    wrong = [f"{name}:{number}: {text} ({' '.join(words)})" for number, words, _ in found if (text := problem(words))]
    assert wrong == []
    typed = [words for _, words, is_typed in found if is_typed and "..." not in words]
    assert [words for words in typed if not is_parsed(words)] == []


def test_command_lines_are_found_in_hints_pages_and_scripts():
    count = {name: len(found_in(reader, read(name))) for name, reader in pages()}
    assert count["README.md"] > 10
    assert count["Makefile"] >= 4
    assert sum(number for name, number in count.items() if name.endswith(".py")) > 50


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("paws web", "there is no verb paws"),
        ("image lst", "vmctl image has no action lst"),
        ("image kernel get", "vmctl image kernel has no action get"),
        ("rm --every web", "vmctl rm has no flag --every"),
        ("ps -ax", "vmctl ps has no flag -x"),
        ("bench web.yaml --rounds 3", "vmctl bench run has no flag --rounds"),
        ("snapshot web first --rounds", "vmctl snapshot take has no flag --rounds"),
        ("ps -aq", ""),
        ("image ACTION --help", ""),
        ("run -m 16M tiny -- dd --nothing", ""),
        ("bench --self-test", ""),
        ("up SPEC --accel=tcg --no-wait", ""),
    ],
)
def test_problems(line, expected):
    assert problem(line.split()) == expected


@pytest.mark.parametrize(
    ("reader", "text", "expected"),
    [
        (command_lines.in_python, 'raise E("x", hint=f"vmctl rm -f {name}")\n', [(1, "rm -f NAME")]),
        (
            command_lines.in_python,
            'raise E("x", hint="`vmctl rm a` first, or sudo vmctl ps")\n',
            [(1, "rm a"), (1, "ps")],
        ),
        (command_lines.in_python, 'a = Problem("x",\n    "`vmctl doctor` shows it")\n', [(2, "doctor")]),
        (command_lines.in_python, 'title = "vmctl workload"\n# as `vmctl ps -a`\n', [(2, "ps -a")]),
        (command_lines.in_python, '"""One.\n\nTwo `vmctl --debug\nps`.\n"""\n', [(3, "ps")]),
        (command_lines.in_markdown, "A `vmctl up\nSPEC`.\n", [(1, "up SPEC")]),
        (
            command_lines.in_markdown,
            "```console\n$ a | vmctl run tiny -- b; vmctl ps\nvmctl x\n```\n",
            [(2, "run tiny -- b"), (2, "ps")],
        ),
        (command_lines.in_shell, "all:\n\t.venv/bin/vmctl ps -a  # `vmctl df`\n", [(2, "ps -a"), (2, "df")]),
    ],
)
def test_what_is_found(reader, text, expected):
    assert [(number, " ".join(words)) for number, words, _ in reader(text)] == expected
