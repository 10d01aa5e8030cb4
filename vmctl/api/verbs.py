"""What a request can ask for. Each function gets what the program has given, and returns values for JSON.

They run in a separate process, see worker.py, and call what the verbs of the command line call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vmctl import backends, engine, fromflags
from vmctl.api import ofimage
from vmctl.backend import HasReceipt
from vmctl.ends import backend_of
from vmctl.errors import DeadlineError, NoSuchInstance, SpecError, StateError, VmctlError
from vmctl.instances import instance, lastrecord, published
from vmctl.instances.instance import Instance
from vmctl.spec import flags

if TYPE_CHECKING:
    from vmctl.api.worker import Caller
    from vmctl.spec.workload import Workload

    Given = dict[str, Any]


class Flags:
    """The flags of a command line, as argparse makes them."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        vars(self).update(given)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def load(given: Given) -> Instance:
    """Return the instance of a request. Raises NoSuchInstance, also if another one has its name by now."""
    inst = instance.load(given["name"])
    if given.get("id", inst.id) != inst.id:
        raise NoSuchInstance(f"the instance {given['name']} was removed, and another one has its name")
    return inst


def described(inst: Instance) -> dict[str, Any]:
    """Return what a program knows of an instance."""
    line = inst.timeline
    took_s = line.between_s("T0", "T6")
    return {
        "name": inst.name,
        "id": inst.id,
        "mode": inst.state.mode,
        "image": inst.work.image,
        "image_digest": inst.state.image_digest,
        "address": inst.state.address,
        "accelerator": inst.state.accelerator,
        "workload_digest": inst.work.digest(),
        "seconds": took_s if took_s is not None else line.between_s("T0", "T1"),
        "warnings": [*inst.state.weakened, *inst.state.warnings],
    }


def before_run(given: Given) -> None:
    """Download the image, if that is asked for."""
    args = Flags(given["flags"])
    if args.platform or args.pull != "never":
        of_flags(given)  # a wrong flag is found before the download
    if args.platform:
        ofimage.refuse_platform(args.platform)
    if args.pull != "never":
        ofimage.pull(args.image, is_kept=args.pull == "missing", progress=lambda text: None)


def of_flags(given: Given) -> Workload:
    """Return the workload of a `run`. Raises SpecError, which names the flag."""
    args = Flags(given["flags"])
    return fromflags.workload(args, args.command, {})


def run(given: Given, caller: Caller) -> Any:
    """Start an image."""
    work = of_flags(given)
    if given["flags"]["publish_all"]:
        work = ofimage.with_exposed(work)
    with flags.named(fromflags.FLAGS):
        return _up(work, given, caller)


def up(given: Given, caller: Caller) -> Any:
    """Start a workload file."""
    from vmctl.spec import textfile, workloadfile
    from vmctl.stacks import yamltree

    raw = textfile.read(given["file"], "workload file")
    if b"services" in raw and yamltree.is_stack(raw):
        raise SpecError(f"{given['file']} is a stack, and not one workload", hint=f"vmctl up {given['file']}")
    return _up(workloadfile.load(given["file"], name=given["name"], raw=raw), given, caller)


def _up(work: Workload, given: Given, caller: Caller) -> Any:
    keep = given["keep"]

    def begin(progress: engine.Progress) -> Instance:
        return engine.up(
            work, given["mode"], options=given["options"], wait=given["wait"], keep=keep, progress=progress
        )

    return described(started(begin, caller, keep=keep))


def started(
    begin: Callable[[engine.Progress], Instance],
    caller: Caller,
    begun: Callable[[Instance], None] = lambda inst: None,
    *,
    keep: bool,
) -> Instance:
    """Start an instance by `begin`; unless it is kept, the server knows it before it runs, and an interruption ends it.

    `begun` is called as soon as it exists.
    """
    mine: list[Instance] = []

    def progress(inst: Instance, phase: str) -> None:
        if not mine and not keep:
            mine.append(inst)
            caller.owns(inst.name, inst.id)
            begun(inst)

    try:
        return begin(progress)
    except BaseException:
        for inst in mine:
            removed(inst.name, inst.id)
            caller.releases(inst.name, inst.id)
        raise


def find(given: Given, caller: Caller) -> Any:
    """Return an instance that exists."""
    return described(load(given))


def execute(given: Given, caller: Caller) -> Any:
    """Run a command on the streams of the request."""
    inst = load(given)
    command = fromflags.command(Flags(given["flags"]), tuple(given["command"]), {})
    receipt = _receipt(inst)
    begun_s = time.monotonic()
    code = engine.exec_command(inst, command._replace(stdin=given["stdin"]))
    return {"code": code, "seconds": time.monotonic() - begun_s, "mode": inst.state.mode, "receipt": receipt}


def _receipt(inst: Instance) -> Mapping[str, Any]:
    try:
        return backends.ability(backends.load(inst.state.mode, inst.state.options), HasReceipt).receipt(inst)
    except VmctlError:
        return {}


def status(given: Given, caller: Caller) -> Any:
    """Return status, exit code and what has ended it."""
    inst = load(given)
    found = engine.status(inst)
    paused = found == "running" and inst.is_paused()
    return {
        "status": "paused" if paused else found,
        "exit_code": inst.state.exit_code,
        "exit_source": inst.state.exit_source,
        "reason": inst.state.reason,
    }


def wait_exit(given: Given, caller: Caller) -> Any:
    """Wait for the end of the workload and return its exit code."""
    from vmctl.spec.units import format_seconds

    inst = load(given)
    lastrecord.hold(inst)
    result = engine.wait(inst, given["timeout_s"])
    if result is None:
        raise DeadlineError(f"{inst.name} is still running after {format_seconds(given['timeout_s'])}")
    return {"code": result.code, "source": result.source}


def ports(given: Given, caller: Caller) -> Any:
    """Return address, host port, port and protocol of each published port."""
    inst = load(given)
    if engine.status(inst) != "running":
        raise StateError(
            f"{inst.name} is not running, so none of its ports is published", hint=f"vmctl start {inst.name}"
        )
    return [[port.address, port.host_port, port.port, port.protocol] for port in published.of(inst)]


def stop(given: Given, caller: Caller) -> Any:
    """Stop it: a signal, then SIGKILL."""
    engine.stop(load(given), given["timeout_s"])


def kill(given: Given, caller: Caller) -> Any:
    """Send a signal."""
    from vmctl.spec import signals

    engine.kill(load(given), signals.parse(str(given["signal"])))


def remove(given: Given, caller: Caller) -> Any:
    """Remove it, also if it runs; nothing happens if it does not exist."""
    removed(given["name"], given["id"])
    caller.releases(given["name"], given["id"])


def removed(name: str, identity: str) -> None:
    """Remove an instance, unless it is gone."""
    from vmctl import removal

    try:
        inst = load({"name": name, "id": identity})
        with inst.locked():
            removal.remove(inst, backend_of(inst), force=True)
    except NoSuchInstance:
        pass


def keep(given: Given, caller: Caller) -> Any:
    """Let it stay when the program ends."""
    caller.releases(given["name"], given["id"])


def copy(given: Given, caller: Caller) -> Any:
    """Copy between the host and the instance; return what was left out."""
    from vmctl.copying import between

    how = between.into if given["into"] else between.out
    return how(load(given), given["source"], given["target"], archive=given["archive"], follow=given["follow"])


def tar_in(given: Given, caller: Caller) -> Any:
    """Unpack the tar on the first stream in a folder."""
    from vmctl.copying import between

    return between.into_from_tar(load(given), 0, given["path"])


def tar_out(given: Given, caller: Caller) -> Any:
    """Write the tar of a file to the second stream."""
    from vmctl.copying import between

    return between.out_as_tar(load(given), given["path"], 1, follow=True)


def _waiting(name: str) -> Callable[[Given, Caller], Any]:
    def act(given: Given, caller: Caller) -> Any:
        from vmctl.api import observing

        return getattr(observing, name)(load(given), given, caller)

    return act


def _going(name: str) -> Callable[[Given, Caller], Any]:
    def act(given: Given, caller: Caller) -> Any:
        from vmctl.api import going

        return getattr(going, name)(load(given), given, caller)

    return act


def _saving(name: str) -> Callable[[Given, Caller], Any]:
    def act(given: Given, caller: Caller) -> Any:
        from vmctl.api import saving

        return getattr(saving, name)(given, caller)

    return act


def compare(given: Given, caller: Caller) -> Any:
    """Return the facts of each mode."""
    from vmctl.comparing import running

    modes = running.chosen(tuple(given["modes"]), f"modes={given['modes']}")
    asked = running.Asked(running.workload(given["what"]), modes, given["options"], tuple(given["command"]))
    return running.compare(asked)


VERBS: dict[str, Callable[[Given, Caller], Any]] = {
    "run": run,
    "up": up,
    "find": find,
    "exec": execute,
    "status": status,
    "wait_exit": wait_exit,
    "ports": ports,
    "stop": stop,
    **{name: _going(name) for name in ("start", "pause", "unpause", "suspend", "resume")},
    "kill": kill,
    "remove": remove,
    "keep": keep,
    "copy": copy,
    "tar_in": tar_in,
    "tar_out": tar_out,
    "wait": _waiting("wait"),
    "logs": _waiting("logs"),
    "diff": _saving("diff"),
    "compare": compare,
    "snapshot": _saving("snapshot"),
    "find_snapshot": _saving("find"),
    "clones": _saving("clones"),
    "remove_snapshot": _saving("remove"),
}
BEFORE: dict[str, Callable[[Given], None]] = {"run": before_run}
