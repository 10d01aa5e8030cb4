"""vmctl run."""

from __future__ import annotations

import sys

from vmctl import engine, fromflags
from vmctl.cli import keepingflags, modes, terminals
from vmctl.cli.usual import REST
from vmctl.fromflags import FLAGS as FLAGS
from vmctl.named import TYPE_CHECKING
from vmctl.spec import flags
from vmctl.spec.workload import Workload

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from contextlib import AbstractContextManager

    from vmctl.engine import Progress

EXAMPLE = "vmctl run --mode vm --publish 8080:80 tiny -- httpd -f -p 80"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    add_instance(parser, "image to run")
    parser.add_argument(
        "-d",
        "--detach",
        action="store_true",
        help="leave it in the background and print its name; it stays, unless --rm",
    )
    parser.add_argument("--keep", action="store_true", help="keep the instance when it has ended")
    parser.add_argument("--verbose", action="store_true", help="show each phase of the start with its time")
    parser.add_argument(
        "--step",
        action="store_true",
        help="wait for Enter after each step of the start (--verbose: each of many alike)",
    )
    terminals.add_detach_keys(parser)


def add_instance(parser: ArgumentParser, image: str) -> None:
    """Add what `run` and `create` have in common; `image` describes the argument IMAGE."""
    parser.add_argument("image", metavar="IMAGE", help=image)
    parser.add_argument("command", nargs=REST, metavar="-- CMD", help="command to run (default: the image's)")
    modes.add(parser)
    parser.add_argument("--name", help="name of the instance (default: random)")
    keepingflags.add_remove(parser)
    _add_image(parser)
    _add_process(parser)
    _add_stop(parser)
    _add_limits(parser)
    _add_environment(parser)
    keepingflags.add(parser)


def _add_image(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--pull",
        choices=("never", "missing", "always"),
        default="never",
        help="whether to download the image first: always, or if the store does not have it (default: never)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress of --pull")
    parser.add_argument(
        "--platform", metavar="OS/ARCH", help="platform of the image, which has to be that of this host"
    )
    parser.add_argument(
        "-l", "--label", action="append", default=[], metavar="NAME[=VALUE]", help="label, for `vmctl ps --filter`"
    )


def add_process_flags(parser: ArgumentParser, owner: str) -> None:
    """Add the flags of a process that `run`, `exec` and `shell` have; `owner` has the defaults."""
    parser.add_argument(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set an environment variable (without a value: the caller's, if it has one)",
    )
    parser.add_argument(
        "--env-file", action="append", default=[], metavar="FILE", help="file with one NAME=VALUE on each line"
    )
    parser.add_argument("-u", "--user", metavar="USER[:GROUP]", help=f"user to run as (default: the {owner}'s)")
    parser.add_argument("-w", "--workdir", metavar="DIR", help=f"working directory (default: the {owner}'s)")


def _add_process(parser: ArgumentParser) -> None:
    add_process_flags(parser, "image")
    parser.add_argument(
        "--entrypoint", metavar="PROGRAM", help="program that gets CMD as arguments (default: the image's)"
    )
    parser.add_argument(
        "--read-only", action="store_true", help="read-only root; /run, /tmp and /var/tmp are in memory"
    )
    parser.add_argument("--init", action="store_true", help="run an init as PID 1, which reaps zombies")
    parser.add_argument("-t", "--tty", action="store_true", help="give the command a terminal")
    parser.add_argument(
        "-i",
        "--interactive",
        action="store_true",
        help="keep stdin open for `vmctl attach`; in the foreground it is always connected",
    )


def _add_stop(parser: ArgumentParser) -> None:
    parser.add_argument("--stop-signal", metavar="SIGNAL", help="signal that SIGTERM becomes (default: the image's)")
    parser.add_argument("--stop-timeout", metavar="SECONDS", help="time before `stop` sends SIGKILL")


def _add_limits(parser: ArgumentParser) -> None:
    parser.add_argument("-m", "--memory", metavar="SIZE", help="memory limit, such as 256M")
    parser.add_argument("--cpus", metavar="N", help="CPU limit, such as 1.5")
    parser.add_argument("--pids", "--pids-limit", metavar="N", help="limit for the number of processes and threads")
    parser.add_argument(
        "--ulimit",
        action="append",
        default=[],
        metavar="NAME=SOFT[:HARD]",
        help="limit for each process, such as nofile=1024:2048",
    )
    parser.add_argument("--disk", metavar="SIZE", help="size of the writable layer, such as 1G")


def _add_environment(parser: ArgumentParser) -> None:
    parser.add_argument("--hostname", metavar="NAME", help="host name inside (default: the name of the instance)")
    parser.add_argument(
        "--tmpfs",
        action="append",
        default=[],
        metavar="DIR[:OPTIONS]",
        help="folder in memory; options: size=64m,mode=1777,noexec",
    )
    parser.add_argument("--shm-size", metavar="SIZE", help="size of /dev/shm, such as 1g")
    parser.add_argument(
        "-p",
        "--publish",
        action="append",
        default=[],
        metavar="[ADDRESS:]HOST:GUEST[/udp]",
        help="publish a port of the instance on the host (default address: 127.0.0.1)",
    )
    parser.add_argument(
        "-P",
        "--publish-all",
        action="store_true",
        help="publish each port that the image exposes, at a free port of 127.0.0.1: see `vmctl port`",
    )
    parser.add_argument(
        "-v",
        "--volume",
        action="append",
        default=[],
        metavar="SOURCE:TARGET[:ro]",
        help="mount a file or folder of the host (./data:/data), or a volume by its name (data:/data)",
    )
    parser.add_argument(
        "--mount",
        action="append",
        default=[],
        metavar="type=TYPE,...",
        help="the same in docker's long form: type=bind|volume|tmpfs,source=...,target=...,readonly",
    )
    _add_of_host(parser)
    _add_network(parser)
    parser.add_argument(
        "--userns",
        choices=("auto", "host"),
        default="auto",
        help="container: user namespace with a separate range of ids (auto, the default), or the ids of the host",
    )


def _add_of_host(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="SOURCE[:TARGET][:rw]",
        help="device of the host, such as /dev/fuse; only in mode container",
    )
    parser.add_argument(
        "--sysctl",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="setting of the kernel: net.*, fs.mqueue.* and those of System V IPC, such as net.core.somaxconn=512",
    )
    parser.add_argument(
        "--add-host",
        action="append",
        default=[],
        metavar="NAME:ADDRESS",
        help="one more entry of /etc/hosts; NAME:host-gateway is this host, with the services of its loopback",
    )


def _add_network(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--network",
        "--net",
        action="append",
        default=[],
        metavar="NAME[:alias=A,ip=B]",
        help="network: none, host or a name of `vmctl network ls`; several of them are possible (default: bridge)",
    )
    parser.add_argument(
        "--network-alias", action="append", default=[], metavar="NAME", help="one more name for others of its networks"
    )
    parser.add_argument(
        "--egress",
        action="append",
        default=[],
        metavar="DEST",
        help="destination outside of its networks, such as 203.0.113.0/24:443 or example.org; or none (default: all)",
    )
    parser.add_argument(
        "--dns",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="name server outside of this host, asked instead of those of the host; names of its networks stay known",
    )
    parser.add_argument(
        "--dns-search", action="append", default=[], metavar="DOMAIN", help="domain in which names are looked up too"
    )
    parser.add_argument(
        "--dns-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="option of resolv.conf(5), such as ndots:2",
    )
    parser.add_argument("--ip", metavar="ADDRESS", help="its address in the first network (default: a free one)")


def run(args: Namespace) -> int:
    """Run the command and return its exit code."""
    work = exposed(args)
    with flags.named(FLAGS):
        return _detached(args, work) if args.detach else _attached(args, work)


def _attached(args: Namespace, work: Workload) -> int:
    pressed = b""
    if args.tty:
        from vmctl.attach import keys

        pressed = keys.parse(args.detach_keys)
    options = modes.chosen(args)
    with _shown(args, work, options) as progress:
        result = engine.run(
            work,
            args.mode,
            options=options,
            detach_keys=pressed,
            on_weakened=_warn,
            keep=args.keep,
            progress=progress,
            state=keepingflags.removes(args, work),
        )
    if result is None:
        return terminals.left(work.name)
    if result.source == "oom":
        print("vmctl: the workload ran out of memory and was killed by the kernel (OOM)", file=sys.stderr)
    return result.code


def _shown(args: Namespace, work: Workload, options: dict[str, str]) -> AbstractContextManager[Progress | None]:
    """Return a context with what shows the progress of the start."""
    if not args.step:
        return terminals.shown(args)
    from vmctl import backends
    from vmctl.cli import stepped

    return stepped.shown(work, backends.load(args.mode, options), options, each=args.verbose)


def before(args: Namespace) -> None:
    """Check --step and --platform, and download the image if --pull asks for it.

    Raises SpecError, NotFoundError, UnavailableError.
    """
    if getattr(args, "step", False):  # `create` starts nothing
        from vmctl.cli import stepped

        stepped.check()
    if not args.platform and args.pull == "never":
        return
    workload(args)  # a wrong flag is found before the download
    from vmctl.api import ofimage

    if args.platform:
        ofimage.refuse_platform(args.platform)
    if args.pull != "never":
        from vmctl.cli import output

        progress = output.Progress(quiet=args.quiet)
        try:
            ofimage.pull(args.image, is_kept=args.pull == "missing", progress=progress)
        finally:
            progress.clear()


def _detached(args: Namespace, work: Workload) -> int:
    """Start the command in the background and print the name of the instance."""
    options = modes.chosen(args)
    with _shown(args, work, options) as progress:
        inst = engine.up(work, args.mode, options=options, progress=progress, state=keepingflags.removes(args, work))
    print(inst.name)
    for text in (*inst.state.weakened, *inst.state.warnings):
        _warn(text, of="")
    return 0


def _warn(text: str, of: str = "vmctl: ") -> None:
    # in the foreground the workload prints to the same stream, so the line names who wrote it
    from vmctl.cli import output

    if not output.is_known(text):
        output.note(f"{of}warning: {text}")


def separated(command: list[str]) -> bool:
    """Return whether `--` is before the command; argparse has dropped it."""
    return sys.argv[-len(command) - 1 :][:1] == ["--"]


def workload(args: Namespace) -> Workload:
    """Return the workload that the flags describe. Raises SpecError."""
    command = args.command
    if command[:1] == ["--"]:
        command = command[1:]
    elif command and command[0].startswith("-") and not separated(command) and args.entrypoint is None:
        from vmctl.api import ofimage

        ofimage.refuse_misplaced(args.image, command[0])
    return fromflags.workload(args, command, terminals.of_terminal() if args.tty else {})


def exposed(args: Namespace) -> Workload:
    """Return the same with the ports of the image, if they are to be published. Raises NotFoundError, SpecError."""
    if not args.publish_all:
        return workload(args)
    from vmctl.api import ofimage

    return ofimage.with_exposed(workload(args))
