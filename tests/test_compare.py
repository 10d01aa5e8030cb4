"""`vmctl compare`: the facts of each mode are true, the table shows them, and nothing is left."""

import json
import os
import re

import pytest
from support.commands import free_port, ok, refused

from vmctl.cli import compare as cli
from vmctl.comparing import page, rows
from vmctl.linux import processes

pytestmark = pytest.mark.timeout(900)
SPEC = """
image: tiny
command: [httpd, -f, -p, "PORT", -h, /srv]
files: [{path: /srv/index.html, content: hello}]
ports: ["PORT:PORT"]
ready: {http: PORT/, timeout: 300s}
"""


def compared(caller, *words):
    """Return the values of each fact by mode, and the names of those that are the same."""
    found = json.loads(caller.ok("compare", "--format", "json", *words))
    return {one["name"]: one["values"] for one in found}, {one["name"] for one in found if one["same"]}


def test_what_differs_and_what_is_the_same(caller):
    spec = caller.write("web.yaml", SPEC.replace("PORT", str(free_port())))
    values, same = compared(caller, spec, "--", "sh", "-c", "echo out; exit 3")
    assert same >= {"image", "tree", "page", "distribution", "exit_code", "output"}
    assert values["exit_code"] == dict.fromkeys(("host", "container", "vm"), "3")
    assert values["output"]["vm"] == "out"
    assert values["page"]["vm"].startswith("status 200, sha256 2cf24dba5fb0")  # of hello
    assert re.fullmatch("[0-9a-f]{64}", values["tree"]["vm"])
    for name in ("kernel", "boot_id"):
        assert values[name]["host"] == values[name]["container"] != values[name]["vm"], name
    assert values["kernel"]["host"] == os.uname().release
    assert values["boot_id"]["host"] == processes.boot_id()
    pids = values["host_sees_workload"]
    assert pids["host"]
    assert pids["container"]
    assert pids["vm"] is None
    assert "qemu" in values["host_process"]["vm"]
    assert "httpd" in values["host_process"]["container"]
    assert values["ns_pid"]["container"] != values["ns_pid"]["host"]
    assert "pid" in values["host_namespaces"]["container"].split()
    assert values["processes"]["container"] == "2"  # httpd and the shell that asks
    assert int(values["processes"]["host"]) >= len(os.listdir("/proc/self/task"))
    assert int(values["memory_kib"]["vm"]) < 256 << 10 < int(values["memory_kib"]["container"])
    assert values["granted_memory"]["vm"] == "256.0 MiB (default)"
    with open("/proc/self/status", encoding="ascii") as file:  # who tests us may have a filter
        ours = next(line.split()[1] for line in file if line.startswith("Seccomp:"))
    assert values["seccomp"] == {"host": ours, "container": "2", "vm": "0"}
    assert values["id_map"]["vm"] == "0 0 4294967295"
    assert re.fullmatch(r"0 \d+ \d+(, \d+ \d+ \d+)*", values["id_map"]["container"])
    assert json.loads(caller.ok("ps", "-a", "--format", "json")) == []


def test_an_image_and_a_file_that_ends(caller):
    values, _ = compared(caller, "--modes", "container", "tiny", "--", "no-such-program")
    assert values["exit_code"] == {"container": "127"}
    assert values["first_process"]["container"].startswith("sh -c trap")
    spec = caller.write("ends.yaml", "image: tiny\ncommand: ['true']\n")
    assert "ended before it could be looked at" in caller.refused("compare", "--modes", "host", spec)
    assert json.loads(caller.ok("ps", "-a", "--format", "json")) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--modes", "host,moon", "tiny"), "there is no mode moon"),
        (("--modes", "host,host", "tiny"), "names a mode twice"),
        (("tiny", "--modes", "host"), "--modes comes after tiny"),
        (("no-such-image",), "no-such-image"),
        (("no-such-file.yaml",), "no-such-file.yaml"),
        (("--modes", "host", "--accel", "kvm", "tiny"), "has no option --accel"),
    ],
)
def test_wrong_calls(own_root, words, message):
    assert message in refused("compare", *words)


def test_a_mode_that_cannot_run_it_is_refused_before_anything_starts(own_root, tmp_path):
    (tmp_path / "tty.yaml").write_text("image: tiny\nvm: {boot: system}\ntty: true\n")
    assert "cannot run in mode vm" in refused("compare", str(tmp_path / "tty.yaml"))
    assert ok("ps", "-aq") == ""


FOUND = rows.rows(
    [
        {"kernel": "6.1", "boot_id": "a", "user": "0:0", "output": "<b>|\x1b[31m"},
        {"kernel": "6.2", "boot_id": "b", "user": "0:0", "output": "x"},
        {"kernel": "6.3", "user": "0:0", "output": "y"},
    ]
)
MODES = ("host", "container", "vm")


def test_rows_that_differ_come_first():
    assert [(row.fact.name, row.same) for row in FOUND] == [
        ("kernel", False),
        ("boot_id", False),
        ("output", False),
        ("user", True),
    ]
    assert FOUND[1].values == ("a", "b", None)


def test_each_form(capsys, monkeypatch):
    for columns in (40, 80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        cli._show(FOUND, MODES, reasons=True)
        table = capsys.readouterr().out
        assert table.index("DIFFERENT") < table.index("kernel") < table.index("THE SAME") < table.index("0:0")
        assert "\x1b" not in table
    markdown, html = page.markdown(FOUND, MODES), page.html(FOUND, MODES)
    assert "| kernel | 6.1 | 6.2 | 6.3 |" in markdown
    for text in (markdown, html):
        assert "<b>" not in text
        assert "\x1b" not in text
    assert len({line.count("|") for line in markdown.splitlines() if "&lt;b" in line or "boot id" in line}) == 1
