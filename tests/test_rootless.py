"""Every verb for an ordinary user, without sudo."""

import pytest
from support.ordinary_user import OrdinaryUser

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def user():
    with OrdinaryUser() as user:
        user.give_image()
        yield user


def test_run(user):
    assert user.ok("run", "--network", "none", "tiny", "--", "id", "-u") == "0\n"


def test_root_inside_is_the_user_and_the_others_are_subordinate(user):
    lines = user.ok("run", "--network", "none", "tiny", "--", "cat", "/proc/self/uid_map").splitlines()
    assert lines[0].split()[:2] == ["0", str(user.uid)] or lines[0].split()[:2] == ["0", "0"]


def test_namespaces_are_made_once(user):
    user.ok("run", "--network", "none", "tiny", "--", "true")
    holders = [pid for pid in user.processes() if "vmctl-holder" in _command(pid)]
    user.ok("run", "--network", "none", "tiny", "--", "true")
    assert holders == [pid for pid in user.processes() if "vmctl-holder" in _command(pid)] != []


def _command(pid):
    with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
        return file.read()
