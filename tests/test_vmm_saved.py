"""Guests that begin with the memory of others: snapshots, clones, templates. One guest boots, all others follow it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
import uuid
from types import SimpleNamespace

import pytest
from paramiko import SSHException
from support.commands import VMCTL, ok, refused, vmctl, wait_for

from images.kernels import booted
from images.upkeep import prune
from vmctl import paths
from vmctl.instances import instance
from vmctl.linux import processes
from vmctl.snapshots import record
from vmm import domain, files, keys, ssh
from vmm.saved import saving, shape, templates

# the workload counts, and would show in its log if it had begun again
WORK = """
image: tiny
command:
- sh
- -c
- >-
  echo begun; mkdir -p /srv/www; httpd -p 8000 -h /srv/www; n=0;
  while :; do n=$((n + 1)); echo $n >/srv/next; mv /srv/next /srv/www/count; sleep 0.1; done
resources: {memory: 128M}
ports: ["127.0.0.1::8000"]
ready: {http: "8000/count"}
vm: {warm: auto}
"""
SEEN = (
    "hostname; cat /etc/hostname; cat /sys/class/net/eth0/address; head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'"
    "; echo; date +%s; ip -4 -o address show eth0; ip route; cat /etc/hosts; cat /srv/www/count"
)


@pytest.fixture(scope="module")
def own_cache(guest_root):
    """The host's cache without its templates."""
    shared = os.path.realpath(paths.cache_root())
    os.unlink(paths.cache_root())
    os.mkdir(paths.cache_root())
    for name in os.listdir(shared):
        if name != "templates":
            os.symlink(os.path.join(shared, name), os.path.join(paths.cache_root(), name))


@pytest.fixture(scope="module")
def made(own_cache, tmp_path_factory):
    """A guest, its snapshot, and two clones of that."""
    path = tmp_path_factory.mktemp("saved") / "web.yaml"
    path.write_text(WORK)
    up = vmctl("up", "--mode", "vm", "--name", "base", str(path))
    assert up.code == 0, up
    ok("exec", "base", "--", "sh", "-c", "mkdir -p /etc; echo 0123456789abcdef0123456789abcdef >/etc/machine-id")
    taken = vmctl("snapshot", "base", "gold")
    assert taken.code == 0, taken
    cloned = vmctl("clone", "gold", "2", "--name", "clone")
    assert cloned.code == 0, cloned
    yield SimpleNamespace(path=str(path), up=up, taken=taken, cloned=cloned)
    for name in instance.names():
        vmctl("rm", "-f", name)
    for name in record.names():
        vmctl("snapshot", "rm", "-f", name)


def digest_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seen(name):
    lines = ok("exec", name, "--", "sh", "-c", SEEN).splitlines()
    return dict(zip(("hostname", "file", "mac", "random", "date"), lines, strict=False)) | {
        "rest": "\n".join(lines[5:])
    }


def count(name):
    return int(ok("exec", name, "--", "cat", "/srv/www/count"))


def test_the_guest_goes_on_after_its_snapshot(made):
    assert re.search(r"base was paused for [0-9.]+ m?s", made.taken.err), made.taken
    assert "random numbers" in made.taken.err
    first = count("base")
    wait_for(lambda: count("base") > first)
    assert ok("logs", "base").count("begun") == 1


def test_clones_go_on_with_the_program_and_begin_nothing_again(made):
    for name in ("clone-1", "clone-2"):
        first = count(name)
        assert first > 0
        wait_for(lambda name=name, first=first: count(name) > first)
        assert ok("logs", name) == ""
        inst = instance.load(name)
        assert (inst.state.warm, inst.state.boot) == ("snapshot", "direct")
        port = ok("port", name, "8000").strip()
        assert int(subprocess.check_output(["curl", "-sf", f"http://{port}/count"])) > first


def test_each_clone_has_an_identity_of_its_own(made):
    found = {name: seen(name) for name in ("base", "clone-1", "clone-2")}
    for key in ("hostname", "file", "mac", "random"):
        assert len({one[key] for one in found.values()}) == 3, key
    for name, one in found.items():
        state = instance.load(name).state
        assert (one["hostname"], one["file"], one["mac"]) == (name, name, state.mac)
        assert f"inet {state.address}/" in one["rest"]
        assert f"{state.address}\t{name}" in one["rest"] or f"{state.address} {name}" in one["rest"]
        assert "default via" in one["rest"]
        assert abs(int(one["date"]) - time.time()) < 60
    ids = [ok("exec", name, "--", "cat", "/etc/machine-id").strip() for name in found]
    assert len(set(ids)) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", text) for text in ids)


def test_each_clone_has_a_host_key_of_its_own(made):
    publics = set()
    for name in ("base", "clone-1"):
        inst = instance.load(name)
        public = keys.load_or_make(files.host_key(inst)).public
        publics.add(public)
        guest = ssh.Guest(name, inst.state.address, ssh.PORT, files.client_key(inst), public, lambda: True)
        with ssh._transport(guest) as transport:  # which checks the key
            assert transport.is_authenticated()
        stranger = guest._replace(client_key=files.client_key(instance.load("clone-2")))
        with pytest.raises(SSHException), ssh._transport(stranger):
            pass
    assert len(publics) == 2


def test_the_memory_of_the_snapshot_is_shared(made):
    inst = instance.load("clone-2")
    found = json.loads(ok("inspect", "clone-2"))[0]["footprint"]
    assert found["pss_bytes"] < 100 << 20
    with open(f"/proc/{inst.state.pid}/smaps") as file:
        text = file.read()
    mapped = text[text.index(os.path.join(record.folder("gold"), saving.RAM)) :]
    values = {line.split(":")[0]: int(line.split()[1]) for line in mapped.splitlines()[1:20] if line.endswith("kB")}
    assert values["Size"] == 128 << 10
    assert values["Private_Dirty"] < values["Rss"]


def test_a_snapshot_in_use_stays_and_a_clone_of_a_clone_is_a_clone(made):
    assert "is used by clone-1" in refused("snapshot", "rm", "gold")
    before = count("clone-1")
    ok("clone", "clone-1", "--name", "grandchild")
    assert count("grandchild") >= before
    assert seen("grandchild")["mac"] != seen("clone-1")["mac"]
    ok("rm", "-f", "grandchild")
    assert [name for name in record.names() if name != "gold"] == []


def test_an_update_of_the_memory_is_refused_with_the_reason(made):
    assert "has no memory balloon" in refused("update", "--memory", "100M", "base")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda facts: facts["host"].update(QEMU="/usr/bin/other 1 1"), "was made with another QEMU"),
        (lambda facts: facts["host"].update(processor="kvm 1"), "was made with another processor"),
        (lambda facts: facts["files"].update(ram=[1, 2, 3]), "its file ram was changed after it was made"),
        (lambda facts: facts.pop("host"), "is damaged"),
    ],
)
def test_a_snapshot_of_another_host_or_with_other_files_is_refused(made, change, expected):
    path = os.path.join(record.folder("gold"), record.RECORD)
    with open(path) as file:
        text = file.read()
    values = json.loads(text)
    change(values["facts"])
    try:
        with open(path, "w") as file:
            file.write(json.dumps(values))
        assert expected in refused("clone", "gold", "--name", "never")
    finally:
        with open(path, "w") as file:
            file.write(text)
    assert "never" not in instance.names()


def test_a_second_start_begins_with_the_template_and_gives_the_output_and_the_code(made):
    (folder,) = booted.folders()
    assert [item.name for item in prune.unused(everything=True) if item.kind == prune.TEMPLATE] == [folder]
    before = digest_of(os.path.join(folder, saving.RAM))
    result = vmctl("up", "--mode", "vm", "--name", "warm", made.path)
    assert result.code == 0, result
    assert "warm, from a template" in result.err
    assert ok("logs", "warm").count("begun") == 1
    inst = instance.load("warm")
    assert inst.state.warm == "template"
    one, other = seen("warm"), seen("base")
    assert one["hostname"] == "warm"
    assert one["mac"] == inst.state.mac != other["mac"]
    assert one["random"] != other["random"]
    assert digest_of(os.path.join(folder, saving.RAM)) == before
    os.truncate(os.path.join(folder, saving.RAM), 128 << 20)  # of the same size, but changed
    with pytest.raises(Exception, match="its file ram was changed"):
        templates.find(os.path.basename(folder), SimpleNamespace(emulator=QEMU, accelerator=inst.state.accelerator))
    assert not os.path.exists(folder)
    assert count("warm") > 0  # the guest goes on without it
    vmctl("exec", "warm", "--", "reboot", "-f")
    wait_for(lambda: json.loads(ok("inspect", "warm"))[0]["status"] == "exited")
    assert "was rebooted from inside" in json.loads(ok("inspect", "warm"))[0]["reason"]
    ok("rm", "-f", "warm")


def spoil():
    """Change the template so that only QEMU notices it."""
    (folder,) = booted.folders()
    path, record = os.path.join(folder, saving.DEVICES), os.path.join(folder, "template.json")
    change(path, bytes(4096))
    status = os.stat(path)
    with open(record) as file:
        facts = json.load(file)
    facts["files"][saving.DEVICES] = [status.st_size, status.st_ino, status.st_ctime_ns]
    with open(record, "w") as file:
        json.dump(facts, file)


@pytest.mark.long  # it boots two guests
def test_a_template_that_qemu_cannot_load_is_removed_and_the_guest_boots(made):
    how = ("--mode", "vm", "--name", "again", made.path)
    ok("up", "-q", *how)
    ok("rm", "-f", "again")
    spoil()
    booted_cold = vmctl("up", *how)
    assert booted_cold.code == 0, booted_cold
    assert "again boots, because the template was of no use: QEMU cannot load" in booted_cold.err
    assert instance.load("again").state.warm == ""
    assert ok("logs", "again").count("begun") == 1
    ok("rm", "-f", "again")
    spoil()
    assert "QEMU cannot load the state of the template" in refused("up", "--warm", "on", *how)
    assert "again" not in instance.names()
    assert booted.folders() == []


QEMU = "/usr/bin/qemu-system-x86_64"


def test_nothing_is_left_of_clones(made):
    inst = instance.load("clone-2")
    pid, start = inst.state.pid, inst.state.pid_start
    ok("rm", "-f", "clone-2")
    assert not processes.alive(pid, start)
    assert not os.path.exists(inst.run_dir)
    assert record.find("gold").users() == ["clone-1"]


def test_a_suspended_guest_goes_on_after_a_reboot_of_the_host(made):
    inst, before, first = instance.load("clone-1"), seen("clone-1"), count("clone-1")
    suspended = vmctl("suspend", "clone-1")
    assert suspended.code == 0, suspended
    assert re.search(r"clone-1 is suspended after .* on the disk", suspended.err)
    assert not processes.alive(inst.state.pid, inst.state.pid_start)
    modes = {name: os.stat(os.path.join(inst.suspended, name)).st_mode & 0o777 for name in os.listdir(inst.suspended)}
    assert modes == dict.fromkeys(("ram", "devices", "suspended.json"), 0o600)
    used = {row["kind"]: row["size_bytes"] for row in json.loads(ok("df", "--format", "json"))}
    assert used["instances"] > os.stat(os.path.join(inst.suspended, "ram")).st_blocks * 512
    for words in (("cp", "clone-1:/etc/hostname", "-"), ("diff", "clone-1"), ("commit", "clone-1", "never")):
        assert "is suspended" in refused(*words)
    assert "is suspended" in refused("snapshot", "clone-1", "never")
    shutil.rmtree(inst.run_dir)  # as by a reboot
    inst = instance.load("clone-1")
    inst.state.boot_id = str(uuid.uuid4())
    inst.save()
    assert "clone-1 goes on after" in vmctl("resume", "clone-1").err
    assert not os.path.exists(inst.suspended)
    assert ok("logs", "clone-1") == ""
    after = seen("clone-1")
    assert [after[key] for key in ("hostname", "file", "mac")] == [before[key] for key in ("hostname", "file", "mac")]
    assert after["rest"].splitlines()[:-1] == before["rest"].splitlines()[:-1]  # all but the count
    assert after["random"] != before["random"]
    assert abs(int(after["date"]) - time.time()) < 60
    wait_for(lambda: count("clone-1") > first)
    port = ok("port", "clone-1", "8000").strip()
    assert int(subprocess.check_output(["curl", "-sf", f"http://{port}/count"])) > first


def change(path, text):
    with open(path, "r+b") as file:
        file.write(text)


def test_what_was_saved_is_checked_before_the_guest_runs(made):
    inst, first = instance.load("base"), count("base")
    ok("suspend", "base")
    path = os.path.join(inst.suspended, "suspended.json")
    with open(path) as file:
        record = file.read()
    facts = json.loads(record)

    def written(**values):
        with open(path, "w") as file:
            json.dump({**facts, **values}, file)

    for name in ("ram", "devices"):
        with open(os.path.join(inst.suspended, name), "rb") as file:
            content = file.read(16)
        change(file.name, b"not the same!!!!")
        text = refused("resume", "base")
        assert f"is damaged: its file {name} was changed" in text
        assert "`vmctl start --cold base`" in text
        change(file.name, content)
    for values, expected in (
        ({"host": {**facts["host"], "QEMU": "/usr/bin/other 1 1"}}, "was made with another QEMU"),
        ({"host": {**facts["host"], "version of vmctl": "0.1"}}, "was made with another version of vmctl"),
        ({"format": 9}, "later"),
        ({"devices": "0"}, "other devices"),
        ({"disk": [0, 0]}, "was written to after it was suspended"),
        ({"checksums": {}}, "is damaged"),
    ):
        written(**values)
        text = refused("start", "base")
        assert expected in text
        assert "`vmctl start --cold base`" in text
    os.unlink(path)
    assert "its record is missing" in refused("resume", "base")
    written()
    assert json.loads(ok("inspect", "base"))[0]["status"] == "suspended"
    ok("start", "base")
    wait_for(lambda: count("base") > first)


def test_a_guest_that_cannot_be_saved_goes_on(made):
    inst = instance.load("base")
    full = subprocess.run(  # 512 KiB for each file
        ["sh", "-c", 'ulimit -f 1024; exec "$0" suspend base', VMCTL], capture_output=True, text=True, check=False
    )
    assert full.returncode == 125, full
    assert "File too large" in full.stderr
    assert not os.path.exists(inst.suspended)
    first = count("base")
    wait_for(lambda: count("base") > first)
    assert json.loads(ok("inspect", "base"))[0]["status"] == "running"


def test_a_workload_that_cannot_be_warm_is_refused_only_with_on(own_cache, tmp_path):
    text = f'image: tiny\ncommand: ["true"]\nvolumes: ["{tmp_path}:/data"]\nvm: {{warm: on}}\n'
    (tmp_path / "on.yaml").write_text(text)
    assert "it has volumes" in refused("up", "--mode", "vm", "--name", "never", str(tmp_path / "on.yaml"))


def golden(name):
    with open(os.path.join(os.path.dirname(__file__), "golden", "domain", name)) as file:
        return file.read()


def test_the_shape_of_a_guest_is_its_devices_and_not_its_names():
    one = shape.of(golden("kvm-network.xml"))
    assert one.balloon
    other = re.sub("<name>.*</name>", "<name>other</name>", golden("kvm-network.xml"))
    other = re.sub("52:54:00:[0-9a-f:]{8}", "52:54:00:00:00:99", other)
    assert shape.of(other).digest == one.digest
    assert shape.of(other).macs != one.macs
    assert shape.of(golden("layers-and-odd-names.xml")).digest != one.digest
    less = other.replace('model="virtio" freePageReporting="on"', 'model="none"')
    assert not shape.of(less).balloon


def test_memory_is_written_with_holes(tmp_path):
    block = saving._BLOCK_BYTES
    data = bytes(block) + b"a" * block + b"b" * block + bytes(2 * block) + b"c" * 10
    fd = saving._new(str(tmp_path / "ram"))
    os.truncate(fd, 4 * block + len(data))
    assert saving._write_blocks(fd, memoryview(data), 4 * block) == 2 * block + 10
    os.close(fd)
    assert (tmp_path / "ram").read_bytes() == bytes(4 * block) + data
    assert (tmp_path / "ram").stat().st_blocks * 512 < 5 * block
    assert oct((tmp_path / "ram").stat().st_mode & 0o777) == "0o600"


def test_a_guest_with_a_saved_memory_has_neither_kernel_nor_balloon():
    machine = domain.Machine(
        *("one", "0" * 36, "tcg", QEMU, 1, 128 << 20, ("/l",), "/d", "/s", "/c", ()), control=("c", "/f"), kernel="/k"
    )
    xml = domain.domain_xml(machine._replace(kernel="", balloon=False, ram="/a,b"))
    assert "<kernel>" not in xml
    assert "<boot" not in xml
    assert "mem-path=/a,,b,share=off,size=131072K" in xml
    assert 'memballoon model="none"' in xml
