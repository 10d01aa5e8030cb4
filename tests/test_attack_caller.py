"""Who calls vmctl as root does so in a folder of somebody else, with files in it that have names vmctl uses."""

import os
import stat

import pytest
from support.attack_table import callers, modes

pytestmark = pytest.mark.timeout(600)

MODULES = ("json", "argparse", "vmctl", "msgspec", "struct", "yaml", "encodings", "sitecustomize", "usercustomize")
PROGRAMS = (
    "env",
    "setpriv",
    "mount",
    "mkfs.erofs",
    "ip",
    "skopeo",
    "qemu-img",
    "qemu-system-x86_64",
    "mke2fs",
    "modprobe",
)


@pytest.fixture
def trap(tmp_path):
    """A folder of modules and programs, each of which leaves a file if it is executed."""
    folder = tmp_path / "trap"
    folder.mkdir()
    fallen = tmp_path / "fallen"
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(fallen)!r}, 'a').write({name!r})\n")
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f"#!/bin/sh\necho {name} >> {fallen}\n")
        program.chmod(0o755)
    yield folder
    assert not fallen.exists(), fallen.read_text()


@pytest.mark.attack("puts Python modules and programs with known names into the folder from which root calls vmctl")
@modes("container", "vm", "host")
@callers("root")
def test_folder_of_the_call(guest_root, trap, mode, caller):
    (trap / "w.yaml").write_text("image: tiny\ncommand: [sleep, '1000']\nready: {exec: ['true'], timeout: 240s}\n")
    environment = {**os.environ, "PATH": f":.:{os.environ['PATH']}::"}
    caller.ok("up", "--quiet", "--mode", mode, "w.yaml", cwd=trap, env=environment)
    for words in (("exec", "w", "--", "true"), ("inspect", "w"), ("down", "w")):
        caller.vmctl(*words, cwd=trap, env=environment)


@pytest.mark.attack(
    "gives a workload file that is a FIFO, a device, a link into /proc or a file without end", who="root"
)
@callers("root")
@pytest.mark.parametrize("kind", ["fifo", "device", "link", "folder", "endless"])
def test_workload_file_of_another_kind(caller, tmp_path, kind):
    path = tmp_path / "w.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    elif kind == "link":
        path.symlink_to("/proc/self/fd/0")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    path.with_name("Dockerfile").symlink_to(path)
    verbs = (("spec", "check"), ("up",), ("bench",), ("image", "build"), ("bench", "verify"), ("bench", "report"))
    for words in ((*verb, str(path)) for verb in verbs):
        caller.refused(*words, timeout_s=60)
