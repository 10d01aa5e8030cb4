import errno
import json
import os
import signal

import pytest

from vmctl import paths
from vmctl.cli.doctor import checks
from vmctl.linux import abilities, syscalls


def by_name():
    return {check.name: check for check in checks()}


def surroundings():
    with open("/proc/self/mounts", encoding="utf-8") as file:
        on_tmp = [line for line in file if line.split(" ")[1] in ("/tmp", "/tmp/merged")]
    namespaces = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    return on_tmp, namespaces, os.listdir("/proc/self/fd")


def test_every_lack_has_a_hint_and_every_check_says_who_needs_it(empty_root):
    found = checks()
    assert len({check.name for check in found}) == len(found)
    for check in found:
        assert check.found
        assert check.needed_by
        assert check.hint or check.ok is not False
        assert check.ok is not True or not check.hint


def test_looking_changes_nothing(empty_root):
    before = surroundings()
    checks()
    assert surroundings() == before
    assert not os.path.exists(empty_root)


@pytest.mark.skipif(os.geteuid() != 0, reason="what root can do is tried as root")
def test_what_the_other_tests_use_is_found_to_work(empty_root):
    found = by_name()
    for name in ("root", "kernel", "cgroups", "overlayfs", "erofs", "seccomp", "bridge, veth", "/dev/net/tun"):
        assert found[name].ok, found[name]


def test_missing_programs_name_their_packages(empty_root, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    check = by_name()["erofs-utils"]
    assert (check.ok, check.found) == (False, "not installed")
    for words in ("apt install", "dnf install", "pacman -S"):
        assert f"{words} erofs-utils" in check.hint


def test_a_refusal_is_found_by_trying():
    def without_rights():
        syscalls.capset(0)
        syscalls.unshare(syscalls.CLONE_NEWNET)

    error = abilities.failure_of(without_rights)
    assert error is not None
    assert error.errno == errno.EPERM


def test_an_attempt_that_dies_is_a_failure():
    assert abilities.failure_of(lambda: os.kill(os.getpid(), signal.SIGKILL)) is not None
    assert abilities.failure_of(lambda: None) is None


@pytest.mark.skipif(not os.path.exists("/dev/kvm") or os.geteuid() != 0, reason="/dev/kvm is absent")
def test_kvm_is_believed_only_once_a_guest_has_booted(empty_root):
    assert by_name()["/dev/kvm"].ok is None
    os.makedirs(paths.cache_root())
    for name, expected in (("tcg", None), ("kvm", True)):
        with open(os.path.join(paths.cache_root(), "accelerator.json"), "w", encoding="utf-8") as file:
            json.dump({"this host": {"name": name, "why": f"a guest was tried: {name}"}}, file)
        check = by_name()["/dev/kvm"]
        assert (check.ok, check.found) == (expected, f"a guest was tried: {name}")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": "text"}', '{"key": {"name": "kvm"}}'])
def test_a_broken_verdict_is_none(empty_root, content):
    os.makedirs(paths.cache_root())
    with open(os.path.join(paths.cache_root(), "accelerator.json"), "w", encoding="utf-8") as file:
        file.write(content)
    assert by_name()["/dev/kvm"].ok is not True
