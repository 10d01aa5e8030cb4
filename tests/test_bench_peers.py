"""Our cost compared with others: the same program from the same files, and reasons if one cannot run."""

import json
import os

import pytest
from support.commands import ok

from bench.peers import claims, containers, engines, guests, report, savings
from bench.peers.command import time_command
from bench.peers.root import shared_root
from bench.peers.study import Study, study
from images.kernels import kernel
from vmctl.errors import UnavailableError, VmctlError
from vmctl.instances import instance
from vmctl.programs import run, which

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root here")


def silent(_):
    pass


def broken():
    raise VmctlError("it is broken")


def test_a_verdict_needs_a_measurement():
    one = Study("title", {"a": [1.0, None], "b": [2.0, 3.0], "c": [None, None]}, {"c": "is broken"})
    assert claims.ratio_verdict("", one, "a", "b", 0.5)[2:] == ("0.50", True)
    assert claims.ratio_verdict("", one, "a", "b", 0.4).met is False
    assert claims.ratio_verdict("", one, "a", "c", 1.0)[2:] == ("is broken", None)
    assert claims.difference_verdict("", one, "b", "a", 1.0).met is False
    assert claims.size_verdict("", None, 1).met is None


def test_peers_start_the_same_program_and_leave_nothing(guest_root):
    with shared_root(containers.workload()) as root:
        with engines.contenders(root) as others:
            contenders = {**containers.contenders(root), **others}
            done = study("peers", {**contenders, "broken": broken}, 1, 1, silent)
        assert os.path.ismount(root.path)
    able = [containers.OURS_ATTACHED, containers.OURS_DETACHED, containers.FLOOR, containers.SAME_CALLS]
    assert all(done.median_s(name) > 0 for name in able), done.failures
    assert done.seconds["broken"] == [None]
    assert done.failures["broken"] == "it is broken"
    for name, seconds in done.seconds.items():
        assert (seconds == [None]) == bool(done.failures.get(name)), name
    assert not os.path.exists(root.folder)
    assert instance.names() == []


def test_who_is_installed_can_do_it(guest_root):
    """The command works if the program is installed; otherwise it is listed with the reason."""
    programs = filter(which, ("bwrap", "systemd-nspawn", "podman"))
    with shared_root(containers.workload()) as root:
        commands = {**dict(containers.others(root)), "podman": engines.podman(root.path)}
        answers = {program: run(commands[program], check=False) for program in programs}
    assert "bwrap" in answers
    assert {program: (code, out.strip()) for program, (code, out, _) in answers.items()} == dict.fromkeys(
        answers, (0, "hello")
    ), answers


def test_docker_without_a_service_is_listed_with_the_reason(guest_root, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{guest_root}/nobody")
    with shared_root(containers.workload()) as root, engines.contenders(root) as others:
        done = study("peers", {engines.DOCKER: others[engines.DOCKER]}, 1, 1, silent)
    assert done.failures[engines.DOCKER].startswith("docker cannot be used here: ")
    assert report.study_rows(done)[0][-1] == done.failures[engines.DOCKER]


def test_a_program_that_is_not_installed_is_listed_with_the_reason():
    done = study("peers", {"gone": lambda: time_command(["nobody-has-this"]).exit_s()}, 1, 1, silent)
    assert done.failures["gone"] == "the program nobody-has-this is not installed"


def test_virsh_without_a_daemon_is_refused_with_the_reason(guest_root, monkeypatch, tmp_path):
    nowhere = f"qemu+unix:///system?socket={tmp_path}/nobody"
    monkeypatch.setattr(guests, "VIRSH", ("virsh", "--quiet", "--connect", nowhere))
    with pytest.raises(UnavailableError, match="no libvirtd answers"):
        guests.with_virsh()
    assert instance.names() == []


def test_virsh_gets_the_same_domain_under_another_name():
    given = "<domain><name>a</name><uuid>1-2</uuid><source path='/there/stdout.log'/><memory>5</memory></domain>"
    expected = "<domain><name>b</name><source path='/there/by-hand-stdout'/><memory>5</memory></domain>"
    assert guests.as_another(given, "b") == expected


def test_qemu_by_hand_gets_the_same_arguments_without_libvirts_descriptors():
    given = ["qemu", "-S", "-chardev", "socket,id=charmonitor,fd=13,server=on", "-add-fd", "set=2,fd=11,opaque=x"]
    given += ["-chardev", "file,id=charchannel1,path=/dev/fdset/2,append=on", "-m", "256"]
    given += ["-chardev", "socket,id=charchannel4,fd=13,server=on,wait=off"]
    expected = ["qemu", "-chardev", "null,id=charmonitor"]
    expected += ["-chardev", "file,id=charchannel1,path=/there/by-hand-charchannel1,append=on", "-m", "256"]
    expected += ["-chardev", "socket,id=charchannel4,path=/there/charchannel4,server=on,wait=off"]
    assert guests.without_libvirt(given, "/there") == expected


def test_qemu_by_hand_boots_to_the_first_byte_without_savings_and_with_all(guest_root):
    with savings.contenders(kernel.find("debian").vmlinuz) as ways:
        assert ways[savings.NONE]() > 0
        assert ways[savings.ALL]() > 0
    assert instance.names() == []


def test_each_saving_alone_and_none_are_other_command_lines():
    device = '{"driver":"virtio-serial-pci","id":"virtio-serial0"%s}'
    given = ["qemu", "-kernel", "/cache/vmlinux", "-bios", "qboot.rom", "-cpu", "max,erms=off,fsrm=off", "-device"]
    ways = savings.ways([*given, device % ',"max_ports":6'], "/boot/vmlinuz")
    alone = ["uncompressed kernel", "qboot", "used ports only", "no erms, fsrm"]
    assert list(ways) == [savings.NONE, *alone, savings.ALL]
    assert ways[savings.NONE] == ["qemu", "-kernel", "/boot/vmlinuz", "-cpu", "max", "-device", device % ""]
    assert ways[savings.ALL] == [*given, device % ',"max_ports":6']
    assert ways["qboot"] == [
        "qemu",
        "-kernel",
        "/boot/vmlinuz",
        "-bios",
        "qboot.rom",
        "-cpu",
        "max",
        "-device",
        device % "",
    ]
    assert list(savings.ways(ways[savings.NONE], "/boot/vmlinuz")) == [
        savings.NONE,
        savings.ALL,
    ]  # a host that has none of them


def test_if_no_guest_starts_the_savings_are_listed_with_the_reason(guest_root, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")  # without QEMU
    one = report.of_savings("/boot/vmlinuz", 1, silent)
    assert set(one.failures) == {savings.NONE, savings.ALL}
    assert "QEMU is not installed" in one.failures[savings.ALL]
    assert claims.ratio_verdict("", one, savings.ALL, savings.NONE, savings.AT_MOST).met is None


@pytest.mark.long
def test_the_verb_writes_tables_and_every_sample(guest_root, tmp_path):
    document = json.loads(
        ok("bench", "--peers", "--runs", "1", "--seed", "4", "--out", str(tmp_path), "--format", "json")
    )
    assert document == json.loads((tmp_path / "peers.json").read_text())
    starts, *_, guest = document["studies"]
    assert set(starts["seconds"]) >= {"vmctl, attached", "runc run", "systemd-nspawn", "docker run", "podman run"}
    assert set(guest["seconds"]) == {guests.OURS, guests.BY_HAND, guests.VIRSH_CREATE}
    for study_of in document["studies"]:
        for name, seconds in study_of["seconds"].items():
            assert seconds != [None] or study_of["failures"][name]
    text = (tmp_path / "peers.md").read_text()
    assert all(f"| {name} |" in text for name in starts["seconds"])
    assert instance.names() == []
