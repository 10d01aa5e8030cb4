"""From what a snapshot keeps to the host, and by another user into what it keeps."""

import os
import secrets

import pytest
from support.as_nobody import reached_below
from support.attack_table import callers, modes
from test_attack_copy import EXCHANGER, contents

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def snapshot(caller):
    """The name of a snapshot, which is removed with its clones."""
    name = f"kept-{secrets.token_hex(4)}"
    yield name
    caller.vmctl("rm", "-f", f"{name}-1")
    caller.vmctl("snapshot", "rm", name)


@pytest.mark.attack("leaves links to the host, nodes of its devices and setuid programs in what a snapshot keeps")
@modes("container")
def test_links_and_nodes_that_are_kept(caller, cell, canary, snapshot):
    up = "/".join([".."] * 12)
    script = f"""
        mkdir -p /kept; ln -s {canary.path} /kept/file; ln -s {up}{canary.path} /kept/above; ln -s / /kept/root
        ln -s /proc/self/root{canary.path} /kept/magic
        cp /bin/busybox /kept/id && chmod 4755 /kept/id
        mknod /kept/memory c 1 1; mknod /kept/disk b 8 0
        ln -sfn {os.path.dirname(canary.path)} /srv/data
        true"""
    assert cell.shell(script).code == 0
    caller.ok("snapshot", cell.name, snapshot)
    folder = os.path.join(caller.state, "snapshots", snapshot)
    canary.check(contents(folder))
    caller.ok("clone", snapshot)
    seen = caller.vmctl(
        "exec",
        f"{snapshot}-1",
        "--",
        "sh",
        "-c",
        "cat /kept/file /kept/above /kept/magic /kept/root/etc/shadow /srv/data/*",
    )
    canary.check(seen.out.encode())
    opened = "for node in memory disk; do head -c 1 /kept/$node >/dev/null 2>&1 && echo $node; done; true"
    assert caller.ok("exec", f"{snapshot}-1", "--", "sh", "-c", opened) == ""


@pytest.mark.attack("exchanges a folder and a link to the host's files while a snapshot reads them")
@modes("container")
def test_exchanged_links_while_it_is_taken(caller, cell, canary):
    program = cell.compiled(EXCHANGER)
    secret = os.path.dirname(canary.path)
    setup = f"""
        mkdir -p /srv/d; for i in $(seq 100); do echo harmless > /srv/d/$i; done
        ln -sfn {secret} /srv/l
        {program} /srv/d /srv/l >/dev/null 2>&1 </dev/null &
        echo $! > /tmp/exchanger
    """
    assert cell.shell(setup).code == 0
    names = [f"race-{secrets.token_hex(3)}" for _ in range(4)]
    try:
        for name in names:
            caller.ok("snapshot", cell.name, name)
            canary.check(contents(os.path.join(caller.state, "snapshots", name)))
        assert cell.shell("kill -0 $(cat /tmp/exchanger)").code == 0
    finally:
        cell.shell("kill -9 $(cat /tmp/exchanger); rm -rf /srv/*")
        caller.vmctl("snapshot", "rm", *names)


@pytest.mark.attack("names a snapshot so that it would be outside of its folder")
@callers("root")
@modes("container")
def test_names_that_lead_out(caller, cell):
    for name in ("../out", "/tmp/out", "..", ".hidden", "a/b", "x\n", "a" * 64):
        caller.refused("snapshot", cell.name, name)
        caller.refused("snapshot", "rm", "-f", name)
        caller.refused("clone", name)
    assert os.listdir(os.path.join(caller.state, "snapshots")) == []


@pytest.mark.attack("as another user of the host, reads what a snapshot keeps")
@callers("root")
@modes("container")
def test_another_user_reads_a_snapshot(caller, cell, snapshot):
    cell.shell("echo secret >/etc/key; chmod 644 /etc/key")
    caller.ok("snapshot", cell.name, snapshot)
    caller.ok("clone", snapshot)
    folder = os.path.join(caller.state, "snapshots")
    assert any(name.endswith(".erofs") for name in os.listdir(os.path.join(folder, snapshot)))
    os.chmod(folder, 0o755)  # even if one could enter the folder of all of them
    try:
        assert reached_below(caller.state) == []
    finally:
        os.chmod(folder, 0o700)
