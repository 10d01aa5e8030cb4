"""vmctl create."""

from __future__ import annotations

from contextlib import nullcontext

from vmctl import creation
from vmctl.cli import keepingflags, modes, usual
from vmctl.cli import run as run_verb
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING
from vmctl.spec import flags

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vmctl.spec.workload import Workload

EXAMPLE = "vmctl create --name web --publish 8080:80 tiny -- httpd -f -p 80"
_OF_A_FILE = ("image", "mode", "name", "command", "rm")  # what can be given together with a workload file


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    run_verb.add_instance(parser, "image, or workload file (.yaml)")


before = run_verb.before


def run(args: Namespace) -> int:
    """Create an instance that `start` starts, and print its name."""
    from images.store import store

    from_file = args.image.endswith((".yaml", ".yml"))
    work = _of_file(args) if from_file else run_verb.exposed(args)
    with (
        nullcontext() if from_file else flags.named(run_verb.FLAGS),
        creation.created(work, args.mode, options=modes.chosen(args), state=keepingflags.removes(args, work)) as inst,
    ):
        inst.state.image_digest = store.lease(work.image, inst).digest  # its name may belong to another one later
    print(inst.name)
    return 0


def _of_file(args: Namespace) -> Workload:
    """Return the workload of a file. Raises SpecError for flags that the file has keys for."""
    from vmctl.spec import workloadfile

    plain = usual.parse(lambda parser: arguments(parser), [args.image])
    for name, value in vars(args).items():
        if not name.startswith("option_") and name not in _OF_A_FILE and value != getattr(plain, name, value):
            raise SpecError(
                f"--{name.replace('_', '-')} cannot be given together with a workload file",
                hint=f"write it into {args.image}",
            )
    if args.command:
        raise SpecError("a command cannot be given together with a workload file", hint="its key is `command`")
    return workloadfile.load(args.image, name=args.name)
