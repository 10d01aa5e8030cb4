"""A stack of somebody else: a Compose file that names files of the host, never ends, or grows without end."""

import os
import subprocess

import pytest
from support.commands import VMCTL, refused, vmctl

pytestmark = pytest.mark.timeout(600)

SERVICE = "image: tiny, command: ['true']"
MEMORY_BYTES = 300 << 20
SECONDS = 60


@pytest.fixture
def folder(tmp_path, own_root):
    (tmp_path / "stack").mkdir()
    os.mkfifo(tmp_path / "stack/fifo")
    (tmp_path / "stack/endless").symlink_to("/dev/zero")
    return tmp_path / "stack"


def up(folder, text):
    """Run a dry `up`, which must end within limits of time and memory, and return its (code, out, err)."""
    path = folder / "compose.yaml"
    path.write_text(text)
    limits = ("prlimit", f"--as={MEMORY_BYTES}", "--", VMCTL)
    done = subprocess.run(
        [*limits, "up", "--dry-run", "-f", path], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert "internal error" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


FILES = {
    "include": "include: [./{file}]\nservices: {{a: {{{service}}}}}",
    "extends": "services: {{a: {{extends: {{file: ./{file}, service: a}}}}}}",
    "env_file": "services: {{a: {{{service}, env_file: [./{file}]}}}}",
    "secret": "services: {{a: {{{service}, secrets: [s]}}}}\nsecrets: {{s: {{file: ./{file}}}}}",
    "config": "services: {{a: {{{service}, configs: [c]}}}}\nconfigs: {{c: {{file: ./{file}}}}}",
    ".env": "services: {{a: {{{service}}}}}",
}


@pytest.mark.attack("makes the caller wait or its memory fill by a stack whose files are FIFOs or without end")
@pytest.mark.parametrize("file", ["fifo", "endless"])
@pytest.mark.parametrize("key", FILES)
def test_files_that_are_none(folder, key, file):
    if key == ".env":
        os.symlink(file, folder / ".env")
    up(folder, FILES[key].format(file=file, service=SERVICE))


def _aliases():
    lines = ["x-0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join([*lines, "services: {a: {image: tiny, command: *a8}}"])


def _chain(key, count):
    services = [f"  a{n}: {{{key.format(n + 1)}}}" for n in range(count)]
    return "\n".join(["services:", *services, f"  a{count}: {{{SERVICE}}}"])


def _ports():
    return f"services: {{a: {{{SERVICE}, ports: [{', '.join(['1-999'] * 3000)}]}}}}"


def _defaults(depth):
    text = "x"
    for _ in range(depth):
        text = f"${{A:-{text}}}"
    return f"services: {{a: {{image: tiny, command: ['{text}']}}}}"


VARIABLES = ["A0=xxxxxxxxxx", *(f"A{n}=${{A{n - 1}}}${{A{n - 1}}}${{A{n - 1}}}" for n in range(1, 30))]
HOSTILE = {
    "aliases": _aliases(),
    "ports": _ports(),
    "extends": _chain("extends: a{}", 2000),
    "replicas": f"services: {{a: {{{SERVICE}, deploy: {{replicas: 999999999}}}}}}",
    "nested lists": f"services: {{a: {{image: tiny, command: {'[' * 9000}{']' * 9000}}}}}",
    "nested defaults": _defaults(2000),
    "variables": "services: {a: {image: tiny, command: ['$A29']}}",
}


@pytest.mark.attack("fills the caller's memory by a small stack file that becomes large, or is deep")
@pytest.mark.parametrize("kind", HOSTILE)
def test_files_that_grow(folder, kind):
    if kind == "variables":
        (folder / ".env").write_text("\n".join(VARIABLES))
    done = up(folder, HOSTILE[kind])
    assert done.returncode == 125, done
    assert "memory" not in done.stderr.lower(), done


NAMES = {
    "volume": "services: {{a: {{{service}, volumes: ['v:/v']}}}}\nvolumes: {{v: {{name: {outside}}}}}",
    "external volume": "services: {{a: {{{service}, volumes: ['v:/v']}}}}\n"
    "volumes: {{v: {{name: {outside}, external: true}}}}",
    "key of a volume": "services: {{a: {{{service}, volumes: [{{type: volume, source: {outside}, target: /v}}]}}}}\n"
    "volumes: {{{outside}: {{external: true}}}}",
    "network": "services: {{a: {{{service}, networks: [n]}}}}\nnetworks: {{n: {{name: {outside}}}}}",
    "host's network": "services: {{a: {{{service}, networks: [n]}}}}\nnetworks: {{n: {{name: host, external: true}}}}",
    "service": "services: {{{outside}: {{{service}}}}}",
    "container": "services: {{a: {{{service}, container_name: {outside}}}}}",
    "secret": "services: {{a: {{{service}, secrets: [{{source: s, target: ../../etc/passwd}}]}}}}\n"
    "secrets: {{s: {{environment: HOME}}}}",
    "config": "services: {{a: {{{service}, configs: [{{source: c, target: ../../../..{outside}/made}}]}}}}\n"
    "configs: {{c: {{content: x}}}}",
    "stack": "name: ..{outside}\nservices: {{a: {{{service}}}}}",
    "label": "services: {{a: {{{service}, labels: {{vmctl.stack: another}}}}}}",
    "alias": 'services: {{a: {{{service}, networks: {{default: {{aliases: ["x\\n10.77.0.1 y"]}}}}}}}}',
    "extra host": 'services: {{a: {{{service}, extra_hosts: ["x y\\n10.77.0.1 z:10.0.0.1"]}}}}',
}


@pytest.mark.attack("names folders of the host, the host's network or other stacks as volumes, networks and services")
@pytest.mark.parametrize("kind", NAMES)
def test_names_that_are_paths(folder, tmp_path, kind):
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "compose.yaml").write_text(NAMES[kind].format(outside=outside, service=SERVICE))
    try:
        refused("up", "-f", str(folder / "compose.yaml"))
        assert up(folder, (folder / "compose.yaml").read_text()).returncode == 125  # and so is the explanation
    finally:
        vmctl("down", "-f", str(folder / "compose.yaml"))
    assert os.listdir(outside) == []
