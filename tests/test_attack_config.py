"""Images and results whose texts were made to act on the person who starts them or looks at them."""

import json
import os

import msgspec
import pytest
from fuzz.results import scripts
from support.attack_table import callers
from support.attacks import image
from support.bench_results import make
from support.commands import Terminal

from vmctl import __version__

pytestmark = pytest.mark.timeout(900)
ESCAPE = "\x1b]0;owned\x07\x1b[2J\x1b[6n\u202e"


def run(caller, mode, *words):
    return caller.vmctl("run", "--mode", mode, "--network", "none", *words)


@pytest.mark.attack(
    "sets variables for the runtime, or runs commands, by line breaks and quotes in variables of an image"
)
def test_variables(caller, mode, canary):
    touched = f"touch {canary.path}.touched"
    env = [
        "A=b\nLD_PRELOAD=/x.so",
        f"B='; {touched}; '",
        f"C=$({touched})",
        f"D=`{touched}`",
        "=x",
        "E",
        "F=\\",
        "G= h ",
    ]
    config = {"Env": ["PATH=/bin", *env], "Cmd": ["sh", "-c", "env; echo end"], "WorkingDir": "/srv;x"}
    image(caller, "variables", config=config)
    seen = run(caller, mode, "variables")
    assert not os.path.exists(canary.path + ".touched")
    canary.check(seen)
    if seen.code == 0:
        assert "LD_PRELOAD" not in {line.partition("=")[0] for line in seen.out.replace("A=b\n", "A=b ").splitlines()}
    assert "internal error" not in seen.err
    assert "Traceback" not in seen.err


@pytest.mark.attack("breaks a start by an entrypoint of 2 MB, 20,000 variables, a user or folder that is none")
def test_sizes(caller, mode):
    settings = [{"Entrypoint": ["echo", "x" * (2 << 20)]}, {"Env": [f"V{number}=x" for number in range(20_000)]}]
    settings += [{"User": "4294967296"}, {"User": "-1"}, {"User": "a:b:c"}, {"User": "\n"}, {"WorkingDir": "../../.."}]
    if mode == "vm":  # each takes seconds
        settings = settings[:2]
    for config in settings:
        image(caller, "sizes", config=config)
        seen = run(caller, mode, "sizes", *([] if "Entrypoint" in config else ["--", "echo", "hi"]))
        assert "internal error" not in seen.err, seen
        assert "Traceback" not in seen.err, seen
        assert seen.code != 0 or seen.out


@pytest.mark.attack(
    "sends escape sequences to the terminal by labels, authors, history, names and commands of an image"
)
def test_escape_sequences(caller):
    config = {"Labels": {"a": ESCAPE, ESCAPE: "b"}, "Cmd": [ESCAPE], "User": ESCAPE, "Env": [f"A={ESCAPE}"]}
    image(caller, "escapes", config={**config, "WorkingDir": f"/{ESCAPE}", "StopSignal": ESCAPE})
    for words in (
        ("image", "ls"),
        ("image", "inspect", "escapes"),
        ("image", "history", "--no-trunc", "escapes"),
        ("df",),
    ):
        seen = caller.vmctl(*words)
        assert "\x1b" not in seen.out + seen.err, words
    for mode in ("container", "host"):
        network = ("--network", "none") if mode == "container" else ()
        seen = caller.vmctl("run", "--mode", mode, *network, "escapes")
        assert "\x1b" not in seen.err, seen


TAG = '"><script>document.title="owned"</script><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def hostile_result(tmp_path_factory):
    """A result with code in each of its texts."""
    folder = tmp_path_factory.mktemp("result")
    document = json.loads(msgspec.json.encode(make(runs=2, metrics=("boot",))))

    def poisoned(value):
        if isinstance(value, dict):
            return {key: poisoned(part) for key, part in value.items()}
        return [poisoned(part) for part in value] if isinstance(value, list) else value

    for sample in document["samples"]:
        sample["texts"] = {"accelerator": TAG + ESCAPE}
        sample["error"] = sample["error"] and TAG + ESCAPE
    document["plan"]["workload"]["name"] = TAG + ESCAPE
    document["host"] |= {"cpu": TAG + ESCAPE, "kernel": "=cmd|' /C calc'!A0", "vmctl": TAG, "id": ESCAPE}
    document["refusals"] = [{"mode": "vm", "kind": "", "reason": TAG + ESCAPE}]
    (folder / "result.json").write_text(json.dumps(poisoned(document)))
    return folder


@pytest.mark.attack("puts scripts into the page that `bench report` makes of a result that was handed in", mode="any")
@callers("root")
def test_page(caller, hostile_result):
    for form in ("html", "md", "csv"):
        seen = caller.vmctl("bench", "report", "--format", form, str(hostile_result))
        assert seen.code == 0, seen
    page = (hostile_result / "report.html").read_text()
    assert "owned" in page
    found = [tag for tag in scripts(page) if tag[0] == "script" or "on" in tag[1][:2]]
    assert [tag for tag in found if dict(tag[1:]).get("type") != "application/json"] == []
    assert "<script>document" not in (hostile_result / "report.md").read_text()
    cells = [
        cell.strip('"')
        for line in (hostile_result / "samples.csv").read_text().splitlines()
        for cell in line.split(",")
    ]
    assert not [cell for cell in cells if cell.startswith(("=", "@"))]


@pytest.mark.attack("hands in a folder of results with FIFOs and devices without an end in place of its files")
@callers("root")
def test_files_of_a_result_that_are_none(caller, tmp_path):
    document = json.loads(msgspec.json.encode(make(runs=2, metrics=("boot",))))
    document["host"]["vmctl"] = __version__  # else its reports are not looked at
    whole = json.dumps(document).encode()
    for name in ("result.json", "samples.jsonl", "report.md", "report.html", "plan.json"):
        for number, make_it in enumerate((os.mkfifo, lambda path: os.symlink("/dev/zero", path))):
            folder = tmp_path / f"{name}{number}"
            folder.mkdir()
            (folder / "result.json").write_bytes(whole)
            (folder / name).unlink(missing_ok=True)
            make_it(folder / name)
            held = os.open(folder / name, os.O_RDWR)  # a FIFO with a writer who writes nothing
            verb = ("--resume",) if name == "plan.json" else ("verify",)
            seen = caller.vmctl("bench", *verb, str(folder), timeout_s=60)
            os.close(held)
            assert "is not a regular file" in seen.out + seen.err, (name, seen)
            assert seen.code == (125 if name in ("result.json", "plan.json") else 1), seen


@pytest.mark.attack("sends escape sequences to the terminal of who verifies or compares a result that was handed in")
@callers("root")
def test_terminal_of_the_judge(caller, hostile_result):
    place = str(hostile_result)
    for words in (("bench", "verify", place), ("bench", "compare", place, place), ("bench", "history", place)):
        _, seen = Terminal(*words).end()
        assert "\x1b]" not in seen, words
        assert "\x1b[2J" not in seen, words
