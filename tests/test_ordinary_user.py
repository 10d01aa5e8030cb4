"""The ordinary user that other tests run vmctl as: what it has, and that the host does not notice."""

import os

import pytest
from support.ordinary_user import OrdinaryUser


@pytest.fixture(scope="module")
def user():
    with OrdinaryUser() as user:
        yield user


def test_it_is_unprivileged_and_has_a_home(user):
    assert user.run("id", "-un").out == f"{user.name}\n"
    assert user.run("cat", "/proc/self/status").out.count("0000000000000000\n") >= 4  # capability sets
    assert user.run("pwd").out == f"{user.home}\n"
    assert user.run("test", "-r", "/etc/shadow").code == 1


def test_it_can_run_this_vmctl(user):
    assert user.vmctl("--version").out.startswith("vmctl ")
    assert user.python("import vmctl; print(vmctl.__file__)").out.endswith("/vmctl/__init__.py\n")


def test_it_has_subordinate_ids(user):
    result = user.run("unshare", "--map-auto", "--map-root-user", "cat", "/proc/self/uid_map")
    assert [line.split() for line in result.out.splitlines()] == [
        ["0", str(user.uid), "1"],
        ["1", str(user.first_id), str(user.ids - 1)],
    ], result


def test_a_user_without_subordinate_ids_cannot_map_them():
    with OrdinaryUser(ids=0) as poor:
        assert poor.run("unshare", "--map-auto", "--map-root-user", "true").code != 0
        assert poor.run("unshare", "--map-root-user", "true").code == 0


def test_the_host_does_not_know_it(user):
    for path in ("/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid"):
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                assert user.name not in file.read()


def test_its_processes_end_with_it():
    with OrdinaryUser() as other:
        other.run("bash", "-c", "setsid sleep 600 > /dev/null 2>&1 &")
        assert other.processes()
        home = other.home
    assert not other.processes()
    assert not os.path.exists(home)
