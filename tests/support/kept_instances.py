"""Instances as vmctl has written them, one of each form that ever was, and ways to damage them."""

import json
import os
import shutil

DATA = os.path.join(os.path.dirname(__file__), "..", "data", "instances")
FORMS = sorted(os.listdir(DATA))


def put(root, form, name="kept"):
    """Put the committed instance of a form into a state folder, and return its folder."""
    folder = root / "lib/instances" / name
    shutil.copytree(os.path.join(DATA, form), folder)
    for path in folder.iterdir():
        path.write_text(path.read_text().replace("@ROOT@", str(root)))
    return folder


PIECES = (
    b"\0",
    b"\xff",
    b"null",
    b"-1",
    b"1e999",
    b"[]",
    b"{}",
    b'"',
    b"\n",
    b"9" * 400,
    b"true",
    b"[[[[",
    b'"\\ud800"',
)


def changed(content, chance):
    """Return the content with a few places cut, doubled or replaced."""
    for _ in range(chance.randint(1, 4)):
        begin, end = sorted(chance.choices(range(len(content) + 1), k=2))
        end = min(end, begin + chance.choice((0, 1, 5, 50)))
        content = content[:begin] + chance.choice((*PIECES, b"", content[begin:end] * 2)) + content[end:]
    return content


def _replace(name, old, new):
    def damage(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return damage


def _write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def _with(**values):
    def damage(folder):
        path = folder / "workload.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return damage


def _instead(name, make):
    def damage(folder):
        os.unlink(folder / name)
        make(folder / name)

    return damage


HUGE = "9" * 400
# what is wrong with the folder of an instance of form 1, and what the reason contains
DAMAGES = {
    "state of NUL bytes": (_write("state.jsonl", b"\0" * 100 + b"\n"), "state.jsonl is damaged: no line"),
    "empty state": (_write("state.jsonl", b""), "state.jsonl is damaged: no line"),
    "endless state": (_write("state.jsonl", b"x" * (1 << 18)), "state.jsonl is damaged: no line"),
    "no state": (lambda folder: os.unlink(folder / "state.jsonl"), "state.jsonl is missing"),
    "state is a folder": (_instead("state.jsonl", os.mkdir), "state.jsonl cannot be read"),
    "state is a FIFO": (_instead("state.jsonl", os.mkfifo), "state.jsonl cannot be read: it is not a regular file"),
    "state leads to itself": (
        _instead("state.jsonl", lambda path: path.symlink_to(path)),
        "state.jsonl cannot be read: Too many levels",
    ),
    "later state": (_replace("state.jsonl", '"format": 1', '"format": 99'), "state.jsonl was written by a later vmctl"),
    "other mode": (_replace("state.jsonl", '"container"', '"no-such-mode"'), "there is no mode no-such-mode"),
    "odd id": (_replace("state.jsonl", '"id": "', '"id": "../'), "is not an id"),
    "huge time": (_replace("state.jsonl", "1795836407.990171", HUGE), "state.jsonl is damaged: no line"),
    "endless time": (_replace("state.jsonl", "1795836407.990171", "1e999"), "state.jsonl is damaged: no line"),
    "no exit code": (_replace("state.jsonl", '"own"', '"exit_code": 256, "own"'), "256 is not an exit code"),
    "no workload": (lambda folder: os.unlink(folder / "workload.json"), "workload.json is missing"),
    "workload cut": (_write("workload.json", b'{"name": "ke'), "workload.json is damaged: it is not JSON"),
    "workload not UTF-8": (_write("workload.json", b'{"name": "\xff"}'), "workload.json is damaged: it is not JSON"),
    "deep workload": (_write("workload.json", b"[" * 100_000), "workload.json is damaged: it is not JSON"),
    "large workload": (_write("workload.json", b" " * (17 << 20)), "workload.json is larger than 16 MiB"),
    "workload is a FIFO": (_instead("workload.json", os.mkfifo), "workload.json cannot be read"),
    "later workload": (_with(format=99), "workload.json was written by a later vmctl"),
    "later key": (_with(colour="red"), 'workload.json has the unknown key "colour"'),
}
