"""The namespaces of an ordinary user: nobody else enters them, and no workload passes for them."""

import json
import os
import subprocess

import pytest
from support.as_nobody import as_nobody
from support.commands import VMCTL, wait_for
from support.ordinary_user import OrdinaryUser

from vmctl.linux import processes, syscalls

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def user():
    with OrdinaryUser() as user:
        user.give_image()
        user.ok("run", "--network", "none", "tiny", "--", "true")
        yield user


def holder_of(user):
    with open(f"{user.state}/holder", encoding="utf-8") as file:
        return json.load(file)["pid"]


def workload(user, name, script, **keys):
    work = {"name": name, "image": "tiny", "command": ["sh", "-c", script], "network": "none", **keys}
    user.ok("up", user.write(f"{name}.yaml", json.dumps(work)))
    return json.loads(user.ok("inspect", name))[0]["pid"]


@pytest.mark.attack(
    "as another user of the host, enters the namespaces of an ordinary user through the process of vmctl", who="user"
)
def test_another_user_at_the_holder(user):
    holder = holder_of(user)

    def reached():
        found = []
        for name in ("root", "cwd", "environ", "mem", "maps", "ns/user", "ns/mnt", "fd"):
            try:
                path = f"/proc/{holder}/{name}"
                os.listdir(path) if name == "fd" else os.open(path, os.O_RDONLY)
                found.append(name)
            except OSError:
                pass
        try:
            syscalls.setns(os.pidfd_open(holder), syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
            found.append("setns")
        except OSError:
            pass
        return [*found, *([user.state] if os.access(user.state, os.X_OK) else [])]

    assert as_nobody(reached) == []
    assert as_nobody(reached, uid=user.uid) != []  # the attempt is a real one: it succeeds for the user


@pytest.mark.attack(
    "in a container of an ordinary user, passes for that user's namespaces", mode="container", who="user"
)
def test_container_that_looks_like_the_namespaces(user):
    run_root = f"{user.state}/run"
    script = f"mkdir -p {run_root} && mount -t tmpfs x {run_root} && echo ready; sleep 1000"
    # the weakest container that this user can ask for: in the user's own user namespace, and allowed to mount
    weak = {"container": {"cap_add": ["ALL"], "userns": "host", "seccomp": "unconfined"}}
    pid = workload(user, "double", script, **weak)
    wait_for(lambda: "ready" in user.ok("logs", "double"))
    attempt = f"from vmctl import holder; one = holder._described({pid}); print(holder._join(one))"
    assert user.python(attempt).out == "False\n"
    # the attempt is a real one: without the check it succeeds
    assert user.python(f"from vmctl import holder; holder._is_ours = lambda _: True; {attempt}").out == "True\n"
    os.unlink(f"{user.state}/holder")
    found = user.python(
        "from vmctl import holder; holder.enter(); import os; print(os.stat('/proc/self/ns/mnt').st_ino)"
    )
    assert found.out != f"{os.stat(f'/proc/{pid}/ns/mnt').st_ino}\n"
    user.ok("rm", "-f", "double")


@pytest.mark.attack(
    "in a container of an ordinary user, kills or traces processes of that user on the host",
    mode="container",
    who="user",
)
def test_processes_of_the_user(user):
    holder = holder_of(user)
    pid = workload(user, "killer", "sleep 1000", container={"cap_add": ["ALL"]})
    assert os.stat(f"/proc/{pid}").st_uid == user.uid  # root inside is the user outside
    user.vmctl("exec", "killer", "--", "sh", "-c", f"kill -9 {holder}; kill -9 -1; cat /proc/{holder}/environ")
    assert processes.command(holder)[:1] == ["sh"]
    user.ok("rm", "-f", "killer")


@pytest.mark.attack("gives root a VMCTL_ROOT with records that name processes of the host", who="root")
def test_root_in_the_state_root_of_a_user(user):
    root = os.path.join(user.home, "theirs")
    user.run("mkdir", "-p", f"{root}/lib/instances/bait", f"{root}/run")
    victim = subprocess.Popen(["sleep", "1000"])
    try:
        entry = {"kind": "process", "pid": victim.pid, "start": processes.start_time(victim.pid), "role": "supervisor"}
        user.write("theirs/lib/instances/bait/journal", json.dumps(entry) + "\n")
        for words in (["rm", "-f", "bait"], ["ps"], ["down", "bait"], ["doctor", "--fix"]):
            done = subprocess.run(
                [VMCTL, *words], env={**os.environ, "VMCTL_ROOT": root}, capture_output=True, text=True, check=False
            )
            assert done.returncode != 0, words
            assert "belongs to" in done.stderr, done
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_a_host_that_forbids_user_namespaces_is_named():
    """In a user namespace of a test, in which the limit is another one than the host's (namespaces(7))."""
    with OrdinaryUser() as user:
        source = (
            "import os, sys; from vmctl.linux import kernelfile, syscalls; from vmctl import holder\n"
            "from vmctl.linux import abilities\n"
            "abilities.enter_user_namespace()\n"
            "kernelfile.write('/proc/sys/user/max_user_namespaces', '0')\n"
            "try: holder._make()\n"
            "except Exception as error: print(error, '|', error.hint)\n"
        )
        done = user.python(source)
        assert done.out.startswith(
            "this host forbids user namespaces to ordinary users: user.max_user_namespaces is 0"
        ), done
        assert "sudo sysctl -w user.max_user_namespaces=15000" in done.out
