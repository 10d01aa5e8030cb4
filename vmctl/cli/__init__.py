"""The command line: one file per verb, imported when that verb is used.

Only this package prints and exits. Data goes to stdout, everything else to stderr. The file of a verb has `EXAMPLE` (a
command line for `--help`), `arguments` and `run`.
"""

from __future__ import annotations

import gc
import io
import os
import sys
from contextlib import suppress

from vmctl import __version__, interrupts, private
from vmctl.cli import usual
from vmctl.errors import EXIT_VMCTL, VmctlError, of_system
from vmctl.light import import_module, signal
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence
    from typing import NoReturn, TextIO

# verb -> text for `vmctl --help`, in this order
VERBS = {
    "up": "start the workload or the stack of a file and wait until it is ready",
    "run": "run a command in a new instance of an image, and remove the instance afterwards",
    "create": "make an instance of an image or a workload file without starting it",
    "ps": "list instances",
    "exec": "run another command in a running instance",
    "shell": "open a shell in a running instance",
    "cp": "copy files between an instance and the host, or a tar from or to a pipe",
    "attach": "connect with the terminal, or the input and output, of a running workload",
    "console": "connect with the console of a guest; ctrl-] leaves",
    "logs": "show the output of a workload, or the console of a guest",
    "stop": "stop instances: send SIGTERM, and SIGKILL after a timeout",
    "start": "start instances again that have ended, with their files, and wait until they are ready",
    "restart": "stop instances and start them again",
    "kill": "send a signal to instances",
    "pause": "stop all processes of instances, or their guests, where they are",
    "unpause": "let paused instances go on",
    "suspend": "save the memory of guests to the disk and end them, until they are resumed",
    "resume": "let suspended guests go on where they were",
    "wait": "wait until instances exit and print their exit codes, or until they are ready",
    "rename": "give an instance another name",
    "update": "change the limits of instances: memory, processors, processes",
    "stats": "show what instances use: processor, memory, network, disk",
    "top": "show what uses most, live, or the processes of one instance",
    "port": "show where the ports of an instance are on the host",
    "timeline": "draw the phases of the last start of instances, on one scale",
    "events": "print what happens to instances, as it happens, or what has happened",
    "rm": "remove instances",
    "down": "stop and remove instances and stacks, by name or file",
    "scale": "change the number of instances of services of a stack",
    "enable": "start instances at boot, by a unit of systemd",
    "disable": "do not start instances at boot any more",
    "inspect": "show details of instances as JSON",
    "diff": "list the files that an instance has added, changed or deleted",
    "commit": "create an image from an instance and its changes",
    "snapshot": "keep what an instance is now, to start any number of clones from it",
    "clone": "start instances that begin with what a snapshot, or a running instance, has",
    "image": "list, pull, push, build and remove images and kernels",
    "volume": "list, create and remove volumes: files that outlive instances",
    "network": "create, list and remove networks",
    "df": "show the disk usage of images, instances, volumes, kernels and caches",
    "prune": "remove stopped instances and unused data of the image store",
    "compare": "run the same workload in each mode, and show what differs and what is the same",
    "lab": "put what is taught about containers and guests to the test on this machine",
    "bundle": "write images and kernel into one file, for machines without a network",
    "bench": "measure a workload in several modes and compare them",
    "spec": "check a workload file, or print its JSON Schema",
    "doctor": "check what this host supports and what is missing",
    "completion": "print a completion script for bash, zsh or fish",
}

# verbs that make, enter or remove namespaces, cgroups and mounts: an ordinary user has these in namespaces of vmctl
_IN_NAMESPACES = frozenset(
    "up scale run create exec shell attach console cp start restart stop kill pause unpause suspend resume rename "
    "update stats top rm down inspect diff commit clone prune df bench volume compare lab bundle".split()
)
_IMAGES_IN_NAMESPACES = frozenset("build rm prune".split())
_NETWORKS_IN_NAMESPACES = frozenset("connect disconnect rm prune".split())


def sentence(text: str) -> str:
    """Return a short text as a sentence; `str.capitalize` would turn JSON into json."""
    return f"{text[0].upper()}{text[1:]}."


def entry() -> NoReturn:
    """Run as a program. Exits without the interpreter's clean-up, which takes 10 ms."""
    gc.disable()  # a command runs too short for garbage collection to pay off
    private.set_umask()
    _open_missing_streams()
    _keep_descriptors()
    code = main()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _open_missing_streams() -> None:
    """Open /dev/null for each standard stream that is closed: else the next file opened would get its number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # µ in a locale without it, half a character in a record


def _keep_descriptors() -> None:
    """Let no other program inherit descriptors that the caller has open by chance: some of them run for days."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with suppress(OSError):  # that of the listing itself
                os.set_inheritable(int(name), False)


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    words, debug, traced = _global_flags(words)
    if words[:1] == ["help"] and words[1:]:
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        return _help(sys.stdout if words else sys.stderr, 0 if words else EXIT_VMCTL)
    if words[0] == "compose":
        from vmctl.cli import aliases

        os.environ.update(aliases.of_flags(words))
    words = resolved(words)
    if words[0] in ("--version", "-v", "-V"):
        print(f"vmctl {__version__}")
        return 0
    if words[0] not in VERBS:
        return _unknown(words)
    for signum in interrupts.ENDING:
        if signal.getsignal(signum) != signal.SIG_IGN:  # as under nohup(1)
            signal.signal(signum, interrupts.end)
    try:
        if traced:
            from vmctl import trace

            trace.start(traced, words)
        private.close_folders()
        return _run_verb(words[0], words[1:])
    except VmctlError as error:
        if debug:
            raise
        return _report(error)
    except KeyboardInterrupt:
        print("vmctl: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `vmctl logs web | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + 13
    except OSError as error:
        if debug:
            raise
        return _report(of_system(error, _traceback_hint(words[0])))
    except Exception as error:
        if debug:
            raise
        text = f"internal error: {type(error).__name__}: {error} (please report it)"
        return _report(VmctlError(text, hint=_traceback_hint(words[0])))


def resolved(words: list[str]) -> list[str]:
    """Return the words of a command line with the names of this program in place of those of another one."""
    if words[0] in VERBS and words[0] not in ("image", "network", "snapshot", "volume"):
        return words
    from vmctl.cli import aliases

    return aliases.resolved(words, VERBS)


def _global_flags(words: list[str]) -> tuple[list[str], bool, str]:
    """Return the words from the verb on, whether --debug is given, and the file of --trace or VMCTL_TRACE."""
    debug, traced = False, os.environ.get("VMCTL_TRACE", "")
    while words and words[0] in ("--debug", "--trace"):
        if words[0] == "--debug":
            debug, words = True, words[1:]
        else:
            traced, words = "".join(words[1:2]), words[2:]
    return words, debug, traced


def _traceback_hint(verb: str) -> str:
    return f"`vmctl --debug {verb} ...` shows the traceback"


def _run_verb(verb: str, words: list[str]) -> int:
    run, args = parse(verb, words)
    if before := getattr(sys.modules[run.__module__], "before", None):  # done outside of namespaces by an ordinary user
        before(args)
    if os.geteuid() != 0 and _needs_namespaces(verb, words):
        from vmctl import holder

        holder.enter()
    code = run(args)
    sys.stdout.flush()
    return code


def _needs_namespaces(verb: str, words: list[str]) -> bool:
    inside = verb in _IN_NAMESPACES or (verb == "image" and words[0] in _IMAGES_IN_NAMESPACES)
    inside = inside or (verb == "network" and words[0] in _NETWORKS_IN_NAMESPACES)
    inside = inside or (verb == "snapshot" and words[0] not in ("ls", "inspect"))
    checks = verb == "spec" and any(word.startswith("--mode") for word in words)  # as a start would see this host
    probes = verb == "wait" and any(word.startswith("--for") for word in words)
    return inside or checks or probes or (verb == "doctor" and "--fix" in words)


def parse(verb: str, words: list[str]) -> tuple[Callable[[Namespace], int], Namespace]:
    """Return the function of a verb and its parsed arguments. Raises SystemExit if they are wrong."""
    # An exception of a signal handler can be lost in an import, and it crashes msgspec, which defines types there.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.ENDING)
    try:
        module = import_module(f"vmctl.cli.{verb}")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    run = module.run  # before parsing: importing vmctl.cli.bench.run replaces the attribute of vmctl.cli.bench
    words = getattr(module, "expand", list)(words)
    args = usual.parse(module.arguments, words)
    if args is None:
        from vmctl.cli import parser  # it imports argparse

        args = parser.parse(verb, module, words)
    return run, args


def _report(error: VmctlError) -> int:
    from vmctl.console import visible  # texts of images, guests and workloads can be part of an error

    print(f"vmctl: {visible(str(error))}", file=sys.stderr)
    if error.detail:
        print(visible(error.detail), file=sys.stderr)
    if error.hint:
        print(f"hint: {visible(error.hint)}", file=sys.stderr)
    return error.exit_code


def each(names: Sequence[str], act: Callable[[str], object], *, echo: bool = True) -> int:
    """Call `act` for each name, also after a failure, and with `echo` print each name that succeeds.

    Returns 0, or the exit code of the last failure.
    """
    code = 0
    for name in names:
        try:
            act(name)
        except VmctlError as error:
            sys.stdout.flush()
            code = _report(error)
        else:
            if echo:
                print(name)
    return code


def _help(stream: TextIO, code: int) -> int:
    lines = [
        "Usage: vmctl [--debug] [--trace FILE] VERB ...\n",
        "Run the same workload as a QEMU/KVM guest, a container or a plain process.\n",
        *(f"  {verb:<11} {text}" for verb, text in VERBS.items()),
        "\nAs in docker: build, export, history, images, import, load, login, logout, pull, push, rmi, save, tag.",
        "`vmctl VERB --help` shows the flags of a verb and an example, `vmctl --version` the version.",
        "With --debug, an error is shown with its traceback. With --trace FILE, or VMCTL_TRACE=FILE, each step on the",
        "host is appended to FILE as a shell command with its time; FILE can be - for standard error.",
    ]
    print("\n".join(lines), file=stream)
    return code


def _unknown(words: list[str]) -> int:
    if words[0].startswith("-"):
        hint = "flags come after the verb: vmctl VERB FLAGS; `vmctl --help` lists the verbs"
    else:
        from vmctl.cli import foreign

        hint = foreign.of_verb(words, VERBS)
    return _report(VmctlError(f"there is no verb {words[0]}", hint=hint))
