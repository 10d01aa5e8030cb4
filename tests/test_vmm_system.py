"""Real systems (TCG): Debian with systemd and cloud-init, on layers and on a disk. Three boots, two at a time."""

import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import disk_made
from support.commands import inspect, ok, start, vmctl, wait_for

from images.store import store
from vmctl.instances import instance
from vmctl.linux.filetree import allocated_bytes
from vmctl.volumes import store as volumes
from vmm import domain
from vmm import marks as reported
from vmm.backend import VmBackend

UP_TIMEOUT_S = 1700.0

pytestmark = pytest.mark.timeout(1800)  # the first test waits for the boots

LAYERS = """
image: debian
command:
- sh
- -c
- cat of-the-user; id -un; echo err >&2; trap 'echo bye; exit 9' TERM; while :; do sleep 0.1; done
env_file: vars.env
secrets: [{name: key, file: key.txt}]
workdir: /srv
user: nobody
files: [{path: /srv/of-the-workload, content: "workload\\n"}]
resources: {pids: 50, memory: 512M}
vm: {cloud_init: extra.yaml}
volumes: ["found:/etc/apt", "./extra.yaml:/opt/a b/one:ro", "found:/var/tmp/second"]
"""
# a template, only its own users, an sshd that lets nobody in from the host, and a root without a password
EXTRA = """## template: jinja
#cloud-config
users: [{name: alice}, {name: root, lock_passwd: true}]
write_files:
- {path: /srv/written, content: "{{ 'user' }} "}
- {path: /etc/ssh/sshd_config.d/own.conf, content: "AllowUsers alice\\nPermitRootLogin no\\nPort 2222\\n"}
runcmd: ["cat /srv/written > /srv/of-the-user; id -un alice >> /srv/of-the-user"]
"""
DISK = """
image: cloud
resources: {disk: 2G}
"""
FAILING = """
image: debian
command: [touch, /srv/never]
vm: {cloud_init: broken.yaml}
"""
# the first boot is cut short by a reboot, with which a first `up` goes on
BROKEN = """#cloud-config
bootcmd: ["[ -e /var/tmp/id ] || { cat /proc/sys/kernel/random/boot_id >/var/tmp/id; sync; reboot; sleep 60; }"]
runcmd: ["grep -qf /var/tmp/id /proc/sys/kernel/random/boot_id || echo the reason; exit 3"]
"""


@pytest.fixture(scope="module")
def started(own_store, shipped, tmp_path_factory):
    """The standard error of `up` for each of the three guests."""
    folder = tmp_path_factory.mktemp("system")
    shipped.bring("debian")
    bring_disk(folder)
    for name, text in (("layers", LAYERS), ("disk", DISK), ("failing", FAILING)):
        (folder / f"{name}.yaml").write_text(text)
    (folder / "extra.yaml").write_text(EXTRA)
    (folder / "vars.env").write_text('GREETING="it\'s hello"\n')
    (folder / "key.txt").write_text("only for the workload")
    (folder / "broken.yaml").write_text(BROKEN)

    def up(name):
        return vmctl("up", "--mode", "vm", str(folder / f"{name}.yaml"), timeout_s=UP_TIMEOUT_S)

    names = ("layers", "disk", "failing")
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield dict(zip(names, pool.map(up, names), strict=True))
    for name in instance.names():
        ok("rm", "-f", name)


def bring_disk(folder):
    made = folder / "disk"
    made.mkdir()
    ok("image", "import", disk_made.make(str(made), store.find("debian"), 600), "--name", "cloud")
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def layers(started):
    assert started["layers"].code == 0, started["layers"]
    return instance.load("layers")


@pytest.fixture(scope="module")
def disk(started):
    assert started["disk"].code == 0, started["disk"]
    return instance.load("disk")


def test_up_waits_for_cloud_init(layers):
    marks = layers.timeline.marks_ns
    assert marks["T1"] < marks["T4"] < marks["TS"] <= marks["T6"]
    words = [line.split(" ")[0] for line in reported.lines(layers)]
    assert words[:5] == ["init", "mounts", "secrets", "system", "cloud-init"]
    assert inspect("layers")["boot"] == "system"


def test_the_command_runs_after_what_the_user_added_as_its_user_and_on_its_streams(layers):
    wait_for(lambda: os.path.getsize(layers.stderr_log))
    with open(layers.stdout_log) as out, open(layers.stderr_log) as err:
        assert (out.read(), err.read()) == ("user alice\nnobody\n", "err\n")


def test_volumes_are_there_before_the_system(layers):
    script = """
        cat '/opt/a b/one' | head -n 1; ls /var/tmp/second; echo new >/etc/apt/made
        touch '/opt/a b/one' || echo protected; findmnt -no FSTYPE,OPTIONS /etc/apt"""
    output = ok("exec", "--user", "0", "layers", "--", "sh", "-c", script).splitlines()
    assert output[0] == "## template: jinja"
    assert "sources.list" in output or "sources.list.d" in output  # what the image has in that folder
    assert output[-2] == "protected"
    assert output[-1].split()[0] == "virtiofs"
    assert "nosuid,nodev" in output[-1]
    with open(f"{volumes.data('found')}/made") as file:
        assert file.read() == "new\n"


def test_exec_is_as_the_workload_unless_told(layers):
    output = ok("exec", "layers", "--", "sh", "-c", "echo $GREETING; pwd; id -un; cat of-the-workload; env | wc -l")
    assert output.splitlines() == ["it's hello", "/srv", "nobody", "workload", "4"]
    assert ok("exec", "--user", "1000:0", "layers", "--", "id", "-u").strip() == "1000"
    for command, code in ((["sh", "-c", "exit 41"], 41), (["/srv"], 126), (["no-such"], 127)):
        assert vmctl("exec", "layers", "--", *command).code == code


def test_secrets_are_in_memory_only(layers):
    script = "cat /run/secrets/key; echo; stat -c '%a %U' /run/secrets/key; findmnt -no FSTYPE -T /run/secrets/key"
    assert ok("exec", "layers", "--", "sh", "-c", script).split() == "only for the workload 400 nobody tmpfs".split()
    found = subprocess.run(["grep", "-rlE", "only for the workload|it's hello", layers.directory], capture_output=True)
    assert found.stdout == b""


def test_exec_ends_and_fails_as_in_a_guest_with_an_agent(layers):
    with start("exec", "layers", "--", "yes") as command:
        assert command.stdout.read(4) == b"y\ny\n"
        command.stdout.close()
        assert command.wait(60) == 128 + 13
    with start("exec", "layers", "--", "sh", "-c", "trap '' INT; echo ready; while :; do sleep 0.1; done") as command:
        assert command.stdout.readline() == b"ready\n"
        for _ in range(2):
            command.send_signal(2)
            time.sleep(0.5)
        assert command.wait(60) == 128 + 9
    with open("/dev/full", "w") as full:
        failed = start("exec", "layers", "--", "echo", "lost", stdout=full, stdin=subprocess.DEVNULL)
        assert b"the output could not be written: No space left" in failed.communicate()[1]
        assert failed.returncode == 125
    long = ("-e", f"BIG={'x' * 100_000}", "layers", "--", "sh", "-c", f"umask; echo ${{#BIG}}; cat; : {'y' * 100_000}")
    assert ok("exec", *long, stdin="input\n") == "0022\n100000\ninput\n"


def test_what_the_user_wants_of_users_and_sshd_is_so_and_the_host_comes_in(started, layers):
    script = (
        "getent passwd debian; id -un alice; head -n 1 /etc/shadow | cut -d: -f2; sshd -T | grep -E '^port|^allowusers'"
    )
    output = ok("exec", "--user", "0", "layers", "--", "sh", "-c", script).splitlines()
    assert output == ["alice", "!*", "port 2222", "allowusers alice"]
    assert "nobody can come" not in started["layers"].err


def test_the_system_is_whole(layers):
    script = """
        systemctl is-system-running; cat /etc/machine-id; systemctl show -P TasksMax vmctl-workload
        modprobe --show-depends dummy | wc -l; hostname; cloud-init status; findmnt -no FSTYPE /"""
    output = ok("exec", "--user", "0", "layers", "--", "sh", "-c", script).split()
    (domain,) = (entry["uuid"] for entry in inspect("layers")["journal"] if entry["kind"] == "domain")
    assert output == ["running", domain.replace("-", ""), "50", "1", "layers", "status:", "done", "overlay"]
    resolver = ok("exec", "layers", "--", "sh", "-c", "cat /etc/resolv.conf; getent hosts localhost")
    assert resolver.startswith("nameserver 10.77.0.1\nsearch .\n")


def test_verbs_are_those_of_a_guest_with_an_agent(layers, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("there\n")
    ok("cp", f"{tmp_path}/in", "layers:/opt/")
    ok("cp", "layers:/opt/in", f"{tmp_path}/back")
    assert (tmp_path / "back/file").read_text() == "there\n"
    script = "cat; cat /opt/in/file >/tmp/made; sleep 1000"
    ok("exec", "-d", "layers", "--", "sh", "-c", script, stdin="typed")
    assert wait_for(lambda: vmctl("exec", "layers", "--", "cat", "/tmp/made").out) == "there\n"
    assert "sleep 1000" in ok("top", "layers")
    assert vmctl("exec", "-d", "layers", "--", "no-such").code == 127
    ok("pause", "layers")
    assert "is paused" in vmctl("exec", "layers", "--", "true").err
    ok("unpause", "layers")
    ok("update", "--memory", "400M", "--pids", "60", "layers")
    assert "would leave nothing free" in vmctl("update", "--memory", "96M", "layers").err
    script = (
        "awk '/MemTotal/ { print $2 }' /proc/meminfo; cat /sys/fs/cgroup/system.slice/vmctl-workload.service/pids.max"
    )
    total, pids = map(int, ok("exec", "layers", "--", "sh", "-c", script).split())
    assert (total < 400 << 10, pids) == (True, 60)


def test_an_idle_instance_is_small_and_the_modules_are_shared(layers):
    footprint = VmBackend().footprint(layers)
    assert footprint.disk_bytes < 16 * 1024**2
    shared = layers.state.own["shared"]
    assert any("/modules/" in path for path in shared)
    assert not any(path.startswith(layers.directory) for path in shared)


def test_its_writable_layer_has_no_keys_and_nothing_of_ours(layers):
    found = ok("diff", "layers").splitlines()
    assert "A /srv/of-the-workload" in found
    assert not [line for line in found if "/run/vmctl" in line or "/var/lib/cloud" in line or "ssh_host" in line]
    with VmBackend().writable(layers, pause=False) as writable:
        assert not os.path.lexists(f"{writable.folder}/root/.ssh/authorized_keys")
        assert not os.path.lexists(f"{writable.folder}/etc/hostname")
        assert not os.path.lexists(f"{writable.folder}/etc/resolv.conf")
        assert os.path.lexists(f"{writable.folder}/etc/passwd")
    # it goes on afterwards
    assert ok("exec", "--user", "0", "layers", "--", "sh", "-c", "echo x >/srv/x; cat /srv/x") == "x\n"


def test_a_second_writable_layer_waits_for_the_first(layers):
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda _: ok("diff", "layers"), range(2))
    assert first.splitlines() == second.splitlines()
    assert [line.split(" ")[0] for line in reported.lines(layers)[-4:]] == ["frozen", "thawed", "frozen", "thawed"]


def test_stop_ends_the_workload_and_then_the_system(layers, disk):
    ok("stop", "layers")
    found = inspect("layers")
    assert (found["status"], found["exit_code"], found["exit_source"]) == ("exited", 9, "workload")
    with open(layers.stdout_log) as file:
        assert file.read().endswith("bye\n")
    assert "reboot: Power down" in ok("logs", "--boot", "layers")
    assert "A /srv/x" in ok("diff", "layers").splitlines()  # of one that has ended, too


def test_a_disk_image_boots_as_it_is(disk):
    assert "the disk's own initrd found" in ok("logs", "--boot", "disk")
    found = inspect("disk")
    assert found["boot"] == "disk"
    assert found["receipt"]["boot_id"] == ok("exec", "disk", "--", "cat", "/proc/sys/kernel/random/boot_id").strip()
    assert found["receipt"]["machine"] == domain.machine_uuid(disk.id)
    output = ok("exec", "disk", "--", "sh", "-c", "findmnt -no FSTYPE /; lsblk -bdno SIZE /dev/vdb")
    assert output.split() == ["ext4", str(2 * 1024**3)]


def test_the_disk_of_the_image_stays_as_it_was(disk):
    image = store.find("cloud")
    assert image.disk in disk.state.own["shared"]
    assert allocated_bytes(disk.path("disk.img")) < 64 * 1024**2
    assert os.stat(image.disk).st_mode & 0o222 == 0


def test_the_system_itself_is_the_workload_and_stop_powers_it_off(disk):
    assert not os.path.exists(disk.stdout_log) or os.path.getsize(disk.stdout_log) == 0
    with start("wait", "disk", stdin=subprocess.DEVNULL) as waiting:
        ok("stop", "disk")
        assert waiting.wait(timeout=300) == 0
    assert "reboot: Power down" in ok("logs", "--boot", "disk")
    found = inspect("disk")
    assert (found["exit_code"], found["exit_source"]) == (0, "workload")


def test_errors_of_cloud_init_are_those_of_the_start(started):
    found = started["failing"]
    assert (found.code, found.out) == (125, "")
    assert "cloud-init in the guest failing failed: " in found.err
    assert "the reason" in found.err  # the console's tail
    assert "failing" not in instance.names()
