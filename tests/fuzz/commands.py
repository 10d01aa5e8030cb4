"""Whole command lines: parsing of each verb, and the run of those that do nothing without an instance or an image.

Nothing is started, downloaded or removed: the state root is empty, and an instance is never made.
"""

import contextlib
import importlib
import io
import os

from fuzz import place
from fuzz.check import target
from vmctl import cli
from vmctl.cli import parser as slow
from vmctl.cli import usual
from vmctl.errors import VmctlError
from vmctl.instances import instance

LINES = (
    "run --env A=b -m 256M --cpus 1.5 --pids 10 -p 8080:80 -v ./a:/b:ro -u 1:1 -w /x --name web tiny -- sh -c id",
    "run -it --mode vm --vcpus 2 --network none --userns host --disk 1G --read-only --init tiny",
    "run -d -P --rm --platform linux/amd64 --entrypoint sh --hostname x tiny -c id",
    "up --mode vm --name web --no-wait -q --explain web.yaml",
    "up --mode container --dry-run web.yaml",
    "exec -it -e A=b -u 0 -w / web -- ls -l",
    "shell -u 0 web",
    "ps -a --format json",
    "logs -f --tail 5 --boot web",
    "stop -t 2m web other",
    "kill -s HUP web",
    "wait --timeout 1.5s web",
    "rm -f web",
    "down -t 0 web.yaml",
    "inspect web other",
    "diff --no-pause web",
    "commit web new:1 -m text -c CMD=x",
    "spec check web.yaml --mode vm",
    "spec schema",
    "completion bash",
    "df --format jsonl",
    "prune -f --all",
    "doctor --fix --format json",
    "image ls -q",
    "image inspect tiny --format json",
    "image history tiny",
    "image tag tiny web:1",
    "image rm -f tiny",
    "image build -t web:1 -f Dockerfile --build-arg A=b --platform linux/amd64 .",
    "image import --name web --as-layer web.tar",
    "image export -o web.tar --format docker tiny",
    "image pull --quiet localhost:1/web:1",
    "image kernel add 6.1",
    "image prune -f",
    "bench web.yaml --modes host,vm --runs 3 --quick --out results",
    "bench compare a b --ratios",
    "bench report results -o page.html",
    "docker run tiny",
    "container ls -a",
    "lxc list",
)
FLAGS = ("--", "--format=json", "--help", "-h", "-", "--mode=vm", "--mode", "--name=", "-t", "-f", "-q", "-it", "-abc")
WORDS = tuple(
    f"{word}\0" for word in (*FLAGS, "web", "tiny", "web.yaml", "/dev/zero", "/", "..", "9" * 400, "nan", "1e9")
)
# they need an instance or an image, which do not exist here
HARMLESS = frozenset("run up exec shell ps logs stop kill wait rm inspect diff commit completion spec down".split())
IMAGE = frozenset("ls inspect history tag".split())


class NothingStartsError(VmctlError):
    """An instance was to be made."""


def _refuse(*_, **__):
    raise NothingStartsError("nothing starts")


@target("command-lines", *(line.replace(" ", "\0") for line in LINES), words=WORDS, cost=30)
def command_lines(data):
    """Words of the command line, separated by NUL. Refusals of every kind are right, other exceptions are not."""
    words = [os.fsdecode(word) for word in data.split(b"\0")]
    folder, make = os.getcwd(), instance.create
    os.chdir(os.path.dirname(place.file("web.yaml", b"image: tiny\nready: {log: x}\n")))
    instance.create = _refuse
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            _read(words)
    except (VmctlError, SystemExit, OSError):
        pass
    finally:
        instance.create = make
        os.chdir(folder)


def _read(words):
    words = cli.resolved(words)
    if words[0] not in cli.VERBS:
        cli._unknown(words)
        return
    _both_readers(words[0], words[1:])
    run, args = cli.parse(words[0], words[1:])
    if words[0] in HARMLESS or (words[0] == "image" and args.action in IMAGE):
        args.pull = "never"
        getattr(importlib.import_module(run.__module__), "before", id)(args)
        run(args)


def _both_readers(verb, words):
    """Fail if the quick reader accepts what argparse reads as something else, or refuses."""
    module = importlib.import_module(f"vmctl.cli.{verb}")
    words = getattr(module, "expand", list)(words)
    quick = usual.parse(module.arguments, words)
    if quick is None:
        return
    try:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            whole = slow.parse(verb, module, words)
    except SystemExit:
        if "ambiguous option" in errors.getvalue():  # also among the words of the workload's command
            return
        raise AssertionError(f"argparse refuses {verb} {words}") from None
    assert vars(quick) == vars(whole), (verb, words, vars(quick), vars(whole))
