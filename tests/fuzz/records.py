"""Records of instances, which a crash, a full disk, a guest or another user may have damaged."""

import contextlib
import io
import json
import os
import time

from containers import kept
from containers import watch as container_watch
from fuzz import place
from fuzz.check import target
from vmctl import cli, console, leases, paths, records
from vmctl.errors import VmctlError
from vmctl.instances import instance
from vmctl.instances.instance import Instance, State
from vmctl.instances.timeline import Timeline
from vmctl.journal import Journal
from vmctl.snapshots import cloning
from vmctl.snapshots import record as snapshots
from vmctl.spec.workload import Workload
from vmctl.volumes import store as volumes
from vmm import watch as guest_watch

WORK = Workload("it", "tiny", ("sh",), {"A": "b"}, user="1:1")
STATE = (
    '{"format": 1, "id": "0123abcd", "mode": "container", "status": "exited", "created": 1.5, "pid": 1, '
    '"pid_start": 2, "exit_code": 3, "exit_source": "workload", "warnings": ["x"], '
    '"own": {"a": 1}, "marks_ns": {"T0": 1, "T6": 5}}'
) + "\n"
JOURNAL = (
    '{"format": 1, "kind": "lease", "name": "image:x:y:z"}\n{"format": 1, "kind": "mount", "path": "/nowhere/x"}\n'
    '{"format": 1, "kind": "cgroup", "name": "it"}\n{"format": 1, "kind": "process", "pid": 4194305, "start": 2}\n'
    '{"format": 1, "kind": "link", "address": "10.77.0.9"}\n{"format": 1, "struck": {"kind": "lease", "name": "x"}}\n'
)
WORDS = (
    '"kind"',
    '"struck"',
    '"format": 2',
    "null",
    "[]",
    "{}",
    '"\\u0000"',
    '"\\u001b[2J"',
    "NaN",
    "1e999",
    "[" * 2000,
)


def _instance(mode="container", **files):
    """Write the files of the instance `it`."""
    whole = {
        "workload_json": WORK.to_json().encode(),
        "state_jsonl": STATE.replace("container", mode).encode(),
        **files,
    }
    for name, data in whole.items():
        place.file("lib/instances/it/" + name.replace("_json", ".json"), data)


def _command(verb, *words):
    """Run a command line, without what turns an uncaught exception into a message."""
    run, args = cli.parse(verb, list(words))
    out = io.TextIOWrapper(io.BytesIO(), errors="backslashreplace")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(VmctlError):
        run(args)


def _shown():
    _command("ps", "-a")
    _command("ps", "-a", "--format", "json")
    _command("inspect", "it")


@target("state", STATE, STATE * 3, words=WORDS, cost=10)
def state(data):
    _instance(state_jsonl=data)
    _shown()


@target("workload-record", WORK.to_json(), '["web","tiny",["sh"],{},null,null]', words=WORDS, cost=10)
def workload_record(data):
    _instance(workload_json=data)
    _shown()


@target("journal", JOURNAL, JOURNAL[:150] + '{"cut', words=WORDS, cost=10)
def journal(data):
    _instance(journal=data)
    _command("inspect", "it")
    found = Journal(os.path.join(paths.instances_root(), "it", "journal"))
    found.entries()
    found.damaged()


@target("exit-file", "3 workload\n", "137 oom", words=("signal", "vmctl", "999"), cost=4)
def exit_file(data):
    inst = Instance("it", WORK, State(id="0123abcd", mode="container", pid=4194305, pid_start=1))
    place.file("lib/instances/it/exit", data)
    place.file("lib/instances/it/replaced_signal", data)
    found = container_watch.ContainerWatch(inst).result()
    assert found is None or 0 <= found.code < 256


MARKS = "init\nlayers\nexec\nexit 3 workload\n"
SYSTEM = 'system\ncloud-init {"v1": {"errors": ["x"]}}\n'
ERROR = "error 127 exec: nope: not found\n"


@target(
    "marks", MARKS, SYSTEM, ERROR, words=("exit ", "error ", "cloud-init ", "oom", '{"v1": {"errors": ', *WORDS), cost=3
)
def marks(data):
    """What a guest writes to its port; and the same as its console."""
    state = State(id="0123abcd", mode="vm", pid=4194305, pid_start=1, boot="system")
    inst = Instance("it", WORK, state)
    inst.timeline = Timeline({"T0": 1, "T1": time.monotonic_ns()})
    place.file("lib/instances/it/marks", data)
    place.file("lib/instances/it/marks.ends", b"5 1000\n9 2000\n" + data)
    place.file("lib/instances/it/console.log", data)
    watch = guest_watch.GuestWatch(inst)
    found = guest_watch.ended(inst)
    assert found is None or 0 <= found.code < 256
    for look in (watch.result, watch.settled, watch.observe):
        try:
            look()
        except VmctlError:
            pass


def _printable(text):
    assert all(letter.isprintable() or letter == "\n" for letter in text), repr(text)


@target(
    "console",
    "\x1b[1mlogin\x1b[0m:\r\n\x1b]0;title\x07ok\x9b2J",
    words=("\x1b[", "\x1b]", "\x9b", "\x1bP", "\x07", "\u202e"),
)
def console_lines(data):
    for line in console.lines(data.decode(errors="replace")):
        _printable(line)


@target("leases", "image:sha256:x:web:0123abcd", "kernel:x:y:z\nlayer:a:b:c", words=(":", "::::", "..", "\n"), cost=8)
def lease_names(data):
    folder = leases.folder()
    os.makedirs(folder, exist_ok=True)
    links = [os.path.join(os.fsencode(folder), name[:200].replace(b"/", b"_")) for name in data.split(b"\n")[:4]]
    for link in links:
        with contextlib.suppress(OSError, ValueError):
            os.symlink("/nowhere", link)
    assert leases.all_users() == {}
    for link in links:
        with contextlib.suppress(OSError, ValueError):
            os.unlink(link)


VOLUME = '{"created_s": 1.5, "format": 1, "labels": {"a": "1"}}'


@target("volume-record", VOLUME, "[]", words=("created_s", "labels", "format", "name", *WORDS), cost=8)
def volume_record(data):
    place.file("lib/volumes/it/volume.json", data)
    with contextlib.suppress(records.UnreadableError):
        assert volumes.find("it").name == "it"
    _command("volume", "ls")


SNAPSHOT = json.dumps(
    records.versioned(
        {
            **dict.fromkeys(("took_s", "created_s", "pause_s"), 1.5),
            **dict.fromkeys(("size_bytes", "clone_memory_bytes", "clone_disk_bytes"), 1),
            "id": "0123abcd",
            "mode": "container",
            "options": {},
            "workload": records.plain(WORK),
            "image_digest": f"sha256:{'0' * 64}",
            "origin": "it",
            "origin_id": "0123abcd",
            "process_state": False,
            "left_out": ["x"],
            "facts": {"layers": ["0" * 64]},
        }
    )
)


@target("snapshot-record", SNAPSHOT, "[]", words=("facts", "layers", "../", "workload", "temporary", *WORDS), cost=8)
def snapshot_record(data):
    place.file("lib/snapshots/it/snapshot.json", data)
    with contextlib.suppress(VmctlError):
        found = snapshots.find("it")
        assert found.name == "it"
        assert kept.problems(found)  # its image is gone
        for layer in kept.layers(found):
            assert os.path.dirname(layer.path) == found.folder
    with contextlib.suppress(VmctlError):
        cloning.of(snapshots.find("it"), "clone", ())
    _command("snapshot", "ls")


@target("instance-names", "web", ".123.4", words=("..", ".", "\n", "-", " "), cost=8)
def instance_names(data):
    """Folders that others have made below `instances`."""
    _instance()
    name = os.fsdecode(data.replace(b"/", b"_").replace(b"\0", b"")[:250]) or "x"
    path = os.path.join(paths.instances_root(), name)
    with contextlib.suppress(OSError):
        os.mkdir(path)
    _command("ps", "-a")
    with contextlib.suppress(VmctlError):
        instance.load(name)
    with contextlib.suppress(OSError):
        os.rmdir(path)
