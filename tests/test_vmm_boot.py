"""How a guest comes up: what is decided by the image, what is refused, and the user-data of a system."""

import json
import os

import pytest
from support import images_made, judges
from support.golden import compare

from images.kernels import kernel, moduledisk
from images.layer import lookup
from images.packages import busybox
from images.store.image import ImageConfig
from vmctl.errors import SpecError
from vmctl.run import run
from vmctl.spec.workload import Resources, VmOptions, Workload
from vmm import boot, configure, disk, guest, seed, system, userdata
from vmm.backend import VmBackend

IDENTITY = seed.Identity(
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea",
)
COMMAND = system.Command(seed.workload_words(["printf", "%s", "it's\nEND\n"], {"A": "b c"}, "/", "1000:1000"), pids=50)
FILES = [seed.SeedFile("/srv/a", b"hello\n")]
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("packages: [htop]\n", "is not user-data"),
        ("#cloud-config\n- a list\n", "does not contain a mapping"),
        ("#cloud-config\nusers: alice\n", "the key users: expected a list"),
        ("#cloud-config\na: 1\na: 2\n", "line 3"),
        (b"#!/bin/sh\necho \xff\n", ":2: not UTF-8 text"),
    ],
)
def test_user_data_that_is_wrong_is_refused_with_file_and_line(tmp_path, text, message):
    path = tmp_path / "user-data"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError, match=message) as error:
        userdata.load(str(path))
    assert str(path) in str(error.value)


def test_user_data_that_is_not_there(tmp_path):
    with pytest.raises(SpecError, match="No such file"):
        userdata.load(str(tmp_path / "none"))


@pytest.mark.parametrize(("name", "command"), [("command", COMMAND), ("none", None)])
def test_golden(name, command):
    compare(f"seed/system-{name}", system.user_data(IDENTITY, FILES, command, None))


def merged(tmp_path, text=None, name="extra"):
    """Return what cloud-init makes of the user-data: its configuration and the scripts it would run."""
    added = None
    if text is not None:
        (tmp_path / name).write_text(text)
        added = userdata.load(str(tmp_path / name))
    (tmp_path / "user-data").write_text(system.user_data(IDENTITY, FILES, COMMAND, added))
    return judges.merged_user_data(str(tmp_path / "user-data"))


def test_cloud_init_understands_every_part(tmp_path):
    found = merged(tmp_path)
    assert found["config"]["ssh_keys"]["ed25519_public"] == IDENTITY.host_public
    assert [user if user == "default" else user["name"] for user in found["config"]["users"]] == ["default", "root"]
    path = tmp_path / "config"
    path.write_text("#cloud-config\n" + json.dumps(found["config"]))
    code, output = judges.cloud_init("schema", "--config-file", str(path))
    assert code == 0, output
    (hook,) = found["boothooks"]
    assert hook.startswith("#!/bin/sh\n")


def test_what_the_user_adds_is_merged_and_our_keys_win(tmp_path):
    text = """#cloud-config
users: [{name: alice}]
write_files: [{path: /srv/b, content: b}]
runcmd: [[touch, /srv/c]]
packages: [htop]
ssh_keys: {ed25519_private: wrong, ed25519_public: wrong}
"""
    config = merged(tmp_path, text)["config"]
    assert [user["name"] for user in config["users"]] == ["alice", "root"]
    assert [file["path"] for file in config["write_files"]] == ["/srv/b", "/srv/a"]
    assert (config["runcmd"], config["packages"]) == ([["touch", "/srv/c"]], ["htop"])
    assert config["ssh_keys"]["ed25519_public"] == IDENTITY.host_public


def test_scripts_and_messages_of_the_user_are_parts_too(tmp_path):
    script = merged(tmp_path, "#!/bin/sh\r\necho ü\n")
    assert [part["type"] for part in script["parts"]][:2] == ["text/cloud-boothook", "text/x-shellscript"]
    nested = merged(
        tmp_path,
        'Content-Type: multipart/mixed; boundary="vmctl"\nMIME-Version: 1.0\n\n--vmctl\n'
        "Content-Type: text/cloud-config\n\n#cloud-config\ntimezone: UTC\n--vmctl--\n",
    )
    assert nested["config"]["timezone"] == "UTC"
    assert nested["config"]["ssh_keys"]["ed25519_public"] == IDENTITY.host_public


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_the_boothook_writes_each_file_as_it_is(tmp_path, shell):
    (hook,) = merged(tmp_path)["boothooks"]
    root = tmp_path / "root"
    script = tmp_path / "hook"
    # what it starts is not here
    script.write_text(hook.replace("/run/", f"{root}/run/").replace("systemctl", "true"))
    run([shell, "-e", str(script)])
    launch = root / "run/vmctl/launch"
    with open(os.path.join(os.path.dirname(guest.__file__), "launch")) as source:
        assert launch.read_text().replace(f"{root}/run/", "/run/") == source.read()
    assert launch.stat().st_mode & 0o777 == 0o755
    assert (root / "run/vmctl/workload").read_text().endswith(f"{COMMAND.words}\n")
    assert "TasksMax=50" in (root / "run/systemd/system/vmctl-workload.service").read_text()


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
    written = configure.seed_of(work, Home("c", "0" * 8), whole, None, IDENTITY)
    assert "vmctl-workload.service" in written.user_data
