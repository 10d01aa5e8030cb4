"""`spec check --mode`: what a mode does not support, before anything starts; the documentation's own workload files."""

import json
import os
import re
import urllib.request

import pytest
from support.commands import free_port, ok, vmctl

from vmctl import backends

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODES = sorted(backends.modes())


def documented(page, tmp_path):
    """Return the path of the workload file of a page, with a port that is free."""
    with open(os.path.join(ROOT, page), encoding="utf-8") as file:
        text = re.search(r"## (?:The workload|Workload) file\n\n```yaml\n(.*?)```", file.read(), re.DOTALL)[1]
    assert '"8080:8000"' in text
    path = tmp_path / f"{os.path.basename(page)}.yaml"
    path.write_text("name: documented\n" + re.sub(r"^name: .*\n", "", text).replace('"8080:', f'"{free_port()}:'))
    return str(path)


@pytest.mark.parametrize("page", ["README.md", "docs/reference.md"])
def test_documented_files_are_supported_in_every_mode(guest_root, tmp_path, page):
    path = documented(page, tmp_path)
    said = ok("spec", "check", "--mode", "all", path).splitlines()[1:]
    assert said == [f"{path}: mode {mode}: it can run" for mode in MODES]


@pytest.mark.parametrize("mode", MODES)
def test_the_file_of_the_readme_runs(guest_root, tmp_path, mode):
    path = documented("README.md", tmp_path)
    ok("up", "-q", "--mode", mode, path)
    try:
        port = json.loads(ok("ps", "--format", "json"))[0]["ports"][0]
        address = re.search(r"127\.0\.0\.1:\d+", json.dumps(port) if not isinstance(port, str) else port)[0]
        with urllib.request.urlopen(f"http://{address}/", timeout=20) as answer:
            assert answer.read() == b"<h1>hello</h1>"
        assert ok("exec", "documented", "--", "sh", "-c", "echo $GREETING") == "hello\n"
    finally:
        ok("down", "documented")


def test_what_each_mode_refuses(own_root, tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text("image: tiny\ncommand: [sleep, '1']\nnetwork: none\nvolumes: ['./none:/d']\nrestart: always\n")
    seen = vmctl("spec", "check", str(path), "--mode", "all")
    lines = [line.partition(": mode ")[2] for line in seen.out.splitlines()[1:]]
    assert seen.code == 125
    assert {line.partition(":")[0] for line in lines} == set(MODES)
    assert sum("none does not exist" in line for line in lines) == len(MODES)
    assert any(line.startswith("host: network: none needs a network namespace") for line in lines)
    for mode in MODES:
        alone = vmctl("spec", "check", str(path), "--mode", mode)
        assert alone.code == 125
        assert [line.partition(": mode ")[2] for line in alone.out.splitlines()[1:]] == [
            line for line in lines if line.startswith(f"{mode}:")
        ]
    assert vmctl("spec", "check", str(path)).code == 0
    unknown = vmctl("spec", "check", str(path), "--mode", "jail")
    assert (unknown.code, "there is no mode jail" in unknown.err) == (125, True)
    assert not os.path.exists(os.path.join(own_root, "lib", "instances"))


def test_it_sees_the_host_as_a_start_does(own_root, tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text("image: absent\n")
    seen = vmctl("spec", "check", str(path), "--mode", "container")
    assert (seen.code, "mode container: there is no image absent" in seen.out) == (125, True)
