"""Command lines that are read without argparse give what argparse makes of them."""

import random

import pytest

from vmctl.cli import parser, usual

VALUES = ["tiny", "a", "", "-", "--", "5", "-5", "x=y", "vm", "none", "1.5", "-x", "--help", "--na", "--name=", "-n5"]


def declare_all(arguments):
    arguments.add_argument("image")
    arguments.add_argument("command", nargs=usual.REST)
    arguments.add_argument("--name", default="given")
    arguments.add_argument("-e", "--env", action="append", default=["A=1"])
    arguments.add_argument("-t", "--tty", action="store_true", default=None)
    arguments.add_argument("-T", "--no-tty", action="store_false", dest="tty")
    arguments.add_argument("-i", "--keep-stdin", action="store_true")
    arguments.add_argument("--network", choices=("bridge", "none"), default="bridge")
    arguments.add_argument("--pids", type=int, metavar="N", help="number")


def declare_many(arguments):
    arguments.add_argument("names", nargs="*")
    arguments.add_argument("-f", "--force", action="store_true")
    arguments.add_argument("--format", choices=("table", "json"), default="table")


def declare_some(arguments):
    arguments.add_argument("names", nargs="+", choices=("a", "tiny", "vm"))
    arguments.add_argument("-s", "--signal", default="TERM")


def declare_two(arguments):
    arguments.add_argument("source")
    arguments.add_argument("target")
    arguments.add_argument("-q", "--quiet", action="store_true")


def declare_one_more(arguments):
    arguments.add_argument("source")
    arguments.add_argument("count", nargs="?", type=int, default=1)
    arguments.add_argument("-q", "--quiet", action="store_true")
    arguments.add_argument("-j", "--jobs", type=int, default=2)


def declare_optional(arguments):
    arguments.add_argument("name", nargs="?")
    arguments.add_argument("-q", "--quiet", action="store_true")


def with_argparse(declare, words):
    one = parser.Parser(prog="vmctl test", words=words)
    declare(one)
    try:
        return vars(one.parse_args(words))
    except SystemExit:
        return None


@pytest.mark.parametrize(
    "declare", [declare_all, declare_many, declare_some, declare_two, declare_one_more, declare_optional]
)
def test_the_values_are_those_of_argparse(declare, capsys):
    reader = usual._Reader(())
    declare(reader)
    pool = [*VALUES, *reader._flags, *(f"{flag}={value}" for flag in reader._flags for value in ("a", "none", "--"))]
    choose, read = random.Random(1), 0
    for _ in range(6000):
        words = choose.choices(pool, k=choose.randrange(7))
        found = usual.parse(declare, words)
        if found is not None:
            read += 1
            assert vars(found) == with_argparse(declare, words), words
    assert read > 100


@pytest.mark.parametrize(
    "words",
    [
        ["tiny"],
        ["--network", "none", "tiny", "--", "true"],
        ["-e", "A=b", "--env=C=-d", "--pids", "5", "-t", "tiny", "sh", "-c", "exit 3", "--name", "x"],
    ],
)
def test_the_usual_command_lines_need_no_argparse(words):
    assert vars(usual.parse(declare_all, words)) == with_argparse(declare_all, words)


def test_what_argparse_alone_has_is_left_to_it():
    def groups(arguments):
        arguments.add_mutually_exclusive_group().add_argument("--a")

    def twice(arguments):
        arguments.add_argument("--a")
        arguments.add_argument("-b", "--a")

    assert usual.parse(groups, []) is usual.parse(twice, []) is None
