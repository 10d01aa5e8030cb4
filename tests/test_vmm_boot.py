"""How a guest comes up: what is decided by the image, what is refused, and the user-data of a system."""

import json
import os
import re

import pytest
from support import images_made, judges
from support.golden import compare

from images.kernels import kernel, moduledisk
from images.layer import lookup
from images.packages import busybox
from images.store.image import ImageConfig
from vmctl.errors import SpecError
from vmctl.programs import run
from vmctl.spec.workload import Resources, VmOptions, Workload
from vmm import boot, configure, disk, guest, seed, system, wayin
from vmm.backend import VmBackend

IDENTITY = seed.Identity(
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea",
)
COMMAND = system.Command(seed.workload_words(["printf", "%s", "it's\nEND\n"], {"A": "b c"}, "/", "1000:1000"), pids=50)
FILES = [
    *(seed.SeedFile("/srv/a", b"hello\nEND\n"), seed.SeedFile("/srv/binary", bytes(range(256)), 0o600)),
    *(seed.SeedFile("/srv/it's", b"no end of line"), seed.SeedFile("/srv/empty", b"")),
]
SYSTEMD, CLOUD_INIT = "usr/lib/systemd/systemd", "usr/bin/cloud-init"


def image(folder, *programs, config=None):
    """Store an image with some programs, all of them empty, and return it."""
    tree = folder / f"tree-{len(programs)}"
    for program in programs:
        os.makedirs(tree / os.path.dirname(program), exist_ok=True)
        (tree / program).touch(0o755)
    tree.mkdir(exist_ok=True)
    return images_made.put("made", tree, config=config or ImageConfig())


@pytest.mark.parametrize(
    ("programs", "config", "asked", "expected"),
    [
        ([SYSTEMD, CLOUD_INIT], ImageConfig(), "auto", "system"),
        ([SYSTEMD, CLOUD_INIT], ImageConfig(cmd=("/sbin/init",)), "auto", "system"),
        ([SYSTEMD, CLOUD_INIT], ImageConfig(cmd=("bash",)), "auto", "direct"),
        ([SYSTEMD, CLOUD_INIT], ImageConfig(cmd=("bash",)), "system", "system"),
        ([SYSTEMD, CLOUD_INIT], ImageConfig(), "direct", "direct"),
        ([SYSTEMD], ImageConfig(), "auto", "direct"),
        ([CLOUD_INIT], ImageConfig(), "auto", "direct"),
        (["bin/busybox"], ImageConfig(), "auto", "direct"),
    ],
)
def test_the_image_decides_unless_told(own_store, tmp_path, programs, config, asked, expected):
    found = image(tmp_path, *programs, config=config)
    for command in (None, ("true",)):
        assert boot.kind(found, Workload("w", "made", command, vm=VmOptions(boot=asked))) == expected


def test_a_system_needs_no_command_and_a_direct_boot_does(own_store, tmp_path):
    found = image(tmp_path, SYSTEMD, CLOUD_INIT)
    assert boot.main_process(found, Workload("w", "made")) is None
    assert boot.main_process(found, Workload("w", "made", ("true",))).argv == ("true",)
    with pytest.raises(SpecError, match="names no command"):
        boot.main_process(found, Workload("w", "made", vm=VmOptions(boot="direct")))
    named = image(tmp_path, SYSTEMD, CLOUD_INIT, config=ImageConfig(cmd=("serve",)))
    assert boot.main_process(named, Workload("w", "made", vm=VmOptions(boot="system"))).argv == ("serve",)


def problems(**changes):
    return [problem.text for problem in VmBackend().check(Workload("w", "made")._replace(**changes))]


def test_keys_that_a_system_does_not_support_are_refused_before_the_start(own_store, tmp_path):
    image(tmp_path, SYSTEMD, CLOUD_INIT)
    assert problems() == []
    assert problems(resources=Resources(pids=5)) == ["resources.pids limits a command, but this workload has none"]
    assert problems(resources=Resources(pids=5), command=("true",)) == []
    (tmp_path / "bad.yaml").write_text("#cloud-config\npackages: [a\nruncmd: []\n")
    (found,) = problems(vm=VmOptions(cloud_init=str(tmp_path / "bad.yaml")))
    assert "bad.yaml" in found
    assert "line 3" in found
    assert "needs cloud-init" in problems(vm=VmOptions("direct", cloud_init="x"), command=("true",))[0]


def test_a_system_without_systemd_or_cloud_init_is_refused(own_store, tmp_path):
    for programs, missing in (([CLOUD_INIT], "systemd"), ([SYSTEMD], "cloud-init")):
        image(tmp_path / missing, *programs)
        (found,) = problems(vm=VmOptions(boot="system"))
        assert f"it has no {missing}" in found


@pytest.mark.parametrize(("name", "command"), [("command", COMMAND), ("none", None)])
def test_golden(name, command):
    compare(f"seed/system-{name}", system.user_data(IDENTITY, FILES, command, ""))


def boothook(tmp_path):
    """Return the script that cloud-init makes of our boothook, and runs in each boot."""
    (tmp_path / "user-data").write_text(system.user_data(IDENTITY, FILES, COMMAND, ""))
    (hook,) = judges.merged_user_data(tmp_path / "user-data")[0]["boothooks"]
    return hook


def test_cloud_init_takes_what_makes_a_boot_shorter(tmp_path):
    (tmp_path / "vendor-data").write_text(system.VENDOR_DATA)
    code, output = judges.cloud_init("schema", "--config-file", str(tmp_path / "vendor-data"))
    assert code == 0, output


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_the_boothook_writes_each_file_as_it_is(tmp_path, shell):
    root = tmp_path / "root"
    (root / "run").mkdir(parents=True)
    script = tmp_path / "hook"
    # what it starts is not here
    script.write_text(re.sub("/(run|srv)/", rf"{root}/\1/", boothook(tmp_path)).replace("systemctl", "echo"))
    units = "vmctl.service vmctl-ready.service vmctl-ssh.socket vmctl-workload.service"
    assert run([shell, "-e", str(script)])[1] == f"start --no-block {units}\n"
    launch = root / "run/vmctl/launch"
    with open(os.path.join(os.path.dirname(guest.__file__), "launch")) as source:
        assert launch.read_text().replace(f"{root}/run/", "/run/") == source.read()
    assert launch.stat().st_mode & 0o777 == 0o755
    assert (root / "run/vmctl/workload").read_text().endswith(f"{COMMAND.words}\n")
    assert (root / "run/vmctl/ssh_host_key").stat().st_mode & 0o777 == 0o600
    assert "TasksMax=50" in (root / "run/systemd/system/vmctl-workload.service").read_text()
    for file in FILES:
        written = root / file.path.lstrip("/")
        assert (written.read_bytes(), written.stat().st_mode & 0o777) == (file.content, file.mode)
    assert not (root / "run/vmctl/refused").exists()


def test_the_boothook_reports_a_file_that_it_cannot_write(tmp_path):
    root = tmp_path / "root"
    os.makedirs(root / "srv" / "a")
    (root / "run").mkdir()
    script = tmp_path / "hook"
    script.write_text(re.sub("/(run|srv)/", rf"{root}/\1/", boothook(tmp_path)).replace("systemctl", "true"))
    run(["sh", str(script)], check=False)
    assert (root / "run/vmctl/refused").read_text() == f"125 the file {root}/srv/a could not be written\n"
    assert (root / "srv/binary").exists()  # the others are written


def test_units_and_host_agree_on_the_port():
    with open(os.path.join(os.path.dirname(guest.__file__), "system/vmctl-ssh.socket")) as file:
        assert f":{wayin.PORT}\n" in file.read()


def test_scripts_are_understood_by_both_shells():
    folder = os.path.dirname(guest.__file__)
    for shell in (["bash"], [busybox.path(), "sh"]):
        for script in ("launch", "system/agent"):
            assert run([*shell, "-n", os.path.join(folder, script)]) == (0, "", "")


def test_explain_tells_how_a_system_boots(own_store, tmp_path):
    image(tmp_path, SYSTEMD, CLOUD_INIT)
    steps = {step.what: step.raw for step in VmBackend().explain(Workload("w", "made", ("serve",)))}
    assert "<serial>modules</serial>" in steps["domain XML"]
    assert "vmctl.system" in steps["domain XML"]
    assert any("vmctl-workload.service" in raw for raw in steps.values())
    assert "cloud-init status" in steps["cloud-init"]


def test_modules_are_packed_once_and_found_where_a_guest_looks(own_store):
    own = kernel.find("debian")
    path = moduledisk.build(own)
    before = os.stat(path)
    assert moduledisk.build(own) == path
    assert os.stat(path).st_ino == before.st_ino
    from images.store.image import Layer

    with lookup.View([Layer("", path, 0)]) as view:
        place = f"/lib/modules/{own.release}/modules.dep"
        with open(os.path.join(own.modules, "modules.dep"), "rb") as file:
            assert b"".join(view.content(place)) == file.read()
    assert path not in moduledisk.stale([own])
    assert path in moduledisk.stale([])


def test_overlay_of_a_disk_is_small_and_not_smaller_than_it(tmp_path):
    base, path = str(tmp_path / "base.qcow2"), str(tmp_path / "disk.img")
    run(["qemu-img", "create", "-q", "-f", "qcow2", base, "64M"])
    with pytest.raises(SpecError, match="expected at least 64"):
        disk.make_overlay(path, base, 1024**2)
    assert not os.path.exists(path)
    disk.make_overlay(path, base, 128 * 1024**2 + 1)
    info = json.loads(run(["qemu-img", "info", "--output=json", path])[1])
    assert (info["virtual-size"], info["backing-filename"]) == (128 * 1024**2 + 512, base)
    assert os.stat(path).st_blocks * 512 < 1024**2


def test_the_seed_of_a_disk_is_that_of_a_system():
    from images.store.image import Image
    from vmctl.instances.folder import Home

    whole = Image("cloud", "sha256:0", "amd64", (), ImageConfig(), "", disk="/cloud.qcow2")
    work = Workload("c", "cloud", ("serve",))
    written = configure.seed_of(work, Home("c", "0" * 8), whole, (), IDENTITY)
    assert "vmctl-workload.service" in written.user_data
