"""Every verb for an ordinary user, without sudo."""

import json
import os
import signal

import pytest
from support.commands import VMCTL, free_port, get, ok, wait_for
from support.ordinary_user import OrdinaryUser
from support.registries import registry

from vmctl.linux import processes

pytestmark = pytest.mark.timeout(900)

MODES = ("container", "host")
WORK = """
name: {name}
image: tiny
command: [sh, -c, "echo begun; rm /etc/passwd; mkdir /srv/new; rm -r /usr; mkdir /usr; touch /usr/only; sleep 1000"]
network: {network}
"""
NETWORK = {"container": "bridge", "host": "host"}


@pytest.fixture(scope="module")
def user():
    with OrdinaryUser() as user:
        user.give_image()
        yield user
        assert user.ok("ps", "-aq") == ""


@pytest.fixture(scope="module", params=MODES)
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def web(user, mode):
    """A running instance of each mode, for verbs that do not end it."""
    name = f"web-{mode}"
    path = user.write(f"{name}.yaml", WORK.format(name=name, network=NETWORK[mode]))
    assert user.ok("up", "--mode", mode, path) == f"{name}\n"
    wait_for(lambda: "A /usr/only" in user.ok("diff", name) or "C /usr" in user.ok("diff", name))
    yield name
    assert name in user.ok("ps", "-q").split()
    assert user.ok("down", name) == f"{name}\n"


def run(user, mode, *words):
    return user.vmctl("run", "--mode", mode, "--network", NETWORK[mode], *words)


def test_run(user, mode):
    result = run(user, mode, "tiny", "--", "sh", "-c", "id -u; exit 7")
    assert (result.code, result.out) == (7, "0\n"), result


def test_files_belong_to_the_user_and_to_subordinate_ids(user, mode):
    folder = os.path.join(user.home, f"volume-{mode}")
    os.mkdir(folder)
    os.chown(folder, user.uid, user.uid)
    result = run(
        user, mode, "-v", f"{folder}:/data", "tiny", "--", "sh", "-c", "touch /data/a; chown 5 /data/a /data/b"
    )
    os.close(os.open(f"{folder}/b", os.O_CREAT))
    result = run(user, mode, "-v", f"{folder}:/data", "tiny", "--", "sh", "-c", "touch /data/own; chown 5 /data/a")
    assert result.code == 0, result
    assert os.stat(f"{folder}/own").st_uid == user.uid
    assert os.stat(f"{folder}/a").st_uid == user.first_id + 4


def test_a_user_inside_has_a_subordinate_id(user, mode):
    result = run(user, mode, "--user", "5:6", "tiny", "--", "sh", "-c", "id -u; id -g")
    assert result.out == "5\n6\n", result


def test_ps_logs_inspect(user, mode, web):
    assert web in user.ok("ps", "-q").split()
    wait_for(lambda: user.ok("logs", web) == "begun\n")
    seen = json.loads(user.ok("inspect", web))[0]
    assert (seen["mode"], seen["status"]) == (mode, "running")
    assert set(seen["footprint"]["pss_by_role"]) == {"workload", "supervisor"}
    assert os.stat(f"/proc/{seen['pid']}").st_uid == user.uid


def test_exec(user, web):
    assert user.ok("exec", web, "--", "sh", "-c", "echo $PPID > /dev/null; echo ok") == "ok\n"
    assert user.vmctl("exec", web, "--", "sh", "-c", "exit 9").code == 9
    assert user.ok("exec", web, "--", "cat", stdin="typed\n") == "typed\n"


def test_diff(user, web):
    changes = user.ok("diff", web).splitlines()
    assert {"D /etc/passwd", "A /srv/new", "C /usr"} <= set(changes)
    assert "A /usr/only" in changes
    assert "D /usr/share" in changes


def test_commit_keeps_deletions_and_replaced_folders(user, mode, web):
    name = f"saved-{mode}"
    user.ok("commit", web, name)
    result = run(user, mode, name, "--", "sh", "-c", "ls /usr; ls /etc/passwd /srv")
    assert result.out == "only\n/srv:\nnew\n", result
    user.ok("image", "rm", name)


def test_commit_stops_the_workload_and_lets_it_go_on(user, mode):
    """Without a delegated freezer the processes are stopped by a signal."""
    name = f"busy-{mode}"
    script = "(while true; do echo x >> /log; done) & while true; do echo y >> /log2; done"
    work = {"name": name, "image": "tiny", "command": ["sh", "-c", script], "network": NETWORK[mode]}
    user.ok("up", "--mode", mode, user.write(f"{name}.yaml", json.dumps(work)))
    try:
        user.ok("commit", name, f"{name}-saved")
        state = {processes.fields(pid)[0] for pid in user.processes() if processes.command(pid)[:2] == ["sh", "-c"]}
        assert state & {"R", "S", "D"}
        assert not state & {"T"}
    finally:
        user.ok("down", "-t", "0", name)
    user.ok("image", "rm", f"{name}-saved")


def test_stop_kill_wait_rm(user, mode):
    name = f"ended-{mode}"
    path = user.write(f"{name}.yaml", WORK.format(name=name, network=NETWORK[mode]))
    user.ok("up", "--mode", mode, path)
    user.ok("kill", "-s", "KILL", name)
    assert user.vmctl("wait", name) == (137, "137\n", "")
    assert user.ok("stop", name) == f"{name}\n"
    user.ok("rm", name)
    user.ok("up", "--mode", mode, path)
    user.ok("stop", "-t", "0", name)
    assert "exited" in user.ok("ps", "-a")
    user.ok("rm", name)


def test_nothing_is_left_of_a_workload_that_made_itself_a_daemon(user, mode):
    """There is no cgroup that lists its processes."""
    script = "setsid sh -c 'setsid sleep 77.5 &' & sleep 0.1; echo done; sleep 1000"
    work = {"name": f"daemon-{mode}", "image": "tiny", "command": ["sh", "-c", script], "network": NETWORK[mode]}
    path = user.write(f"daemon-{mode}.yaml", json.dumps(work))
    user.ok("up", "--mode", mode, path)
    wait_for(lambda: any(processes.command(pid) == ["sleep", "77.5"] for pid in user.processes()))
    user.ok("down", "-t", "0", f"daemon-{mode}")
    assert not [pid for pid in user.processes() if "sleep" in processes.command(pid)[:1] and pid_is(pid, "77.5")]


def pid_is(pid, word):
    return word in processes.command(pid)


@pytest.fixture(scope="module")
def guest(user):
    """A running guest with a published port."""
    user.give_kernel()
    port = free_port()
    script = "echo begun; mkdir -p /www; echo from a guest > /www/index.html; exec httpd -f -p 80 -h /www"
    work = {"name": "guest", "image": "tiny", "command": ["sh", "-c", script], "ports": [f"{port}:80"]}
    work["ready"] = {"tcp": 80, "timeout": "240s"}
    user.ok("up", "--mode", "vm", user.write("guest.yaml", json.dumps(work)))
    yield port
    user.ok("down", "guest")


def test_a_guest_is_reached_from_the_host_and_from_a_container(user, guest):
    assert get(guest) == (200, "from a guest\n")
    address = json.loads(user.ok("inspect", "guest"))[0]["address"]
    assert user.ok("run", "tiny", "--", "wget", "-q", "-O", "-", f"http://{address}/") == "from a guest\n"


def test_exec_logs_and_footprint_of_a_guest(user, guest):
    assert user.ok("exec", "guest", "--", "hostname") == "guest\n"
    assert user.vmctl("exec", "guest", "--", "sh", "-c", "exit 9").code == 9
    wait_for(lambda: user.ok("logs", "guest") == "begun\n")
    assert json.loads(user.ok("inspect", "guest"))[0]["footprint"]["pss_bytes"] > 1 << 26


def test_qemu_has_an_id_that_neither_the_user_nor_a_container_has(user, guest):
    pid = json.loads(user.ok("inspect", "guest"))[0]["pid"]
    assert 61184 - 1 <= os.stat(f"/proc/{pid}").st_uid - user.first_id < 65520
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        status = dict(line.split(":", 1) for line in file)
    for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert sorted(os.listdir(f"/proc/{pid}/root")) == ["dev", "etc", "lib", "lib64", "proc", "run", "sys", "tmp", "usr"]
    assert os.listdir(f"/proc/{pid}/root/proc") == []
    assert not os.path.exists(f"/proc/{pid}/root/{user.state}/holder")


def test_a_guest_runs_attached(user, guest):
    assert user.vmctl("run", "--mode", "vm", "tiny", "--", "sh", "-c", "id -u; exit 7") == (7, "0\n", "")


def test_a_guest_ends_with_its_command(user, guest):
    """The user cannot signal QEMU, but its recorder can."""
    command = user.start("run", "--mode", "vm", "--name", "tied", "tiny", "--", "sleep", "1000")
    try:
        wait_for(lambda: "tied" in user.ok("ps", "-q"))
        (before,) = json.loads(user.ok("inspect", "tied"))
        assert pid_is(before["pid"], "guest=tied,debug-threads=on")
        command.kill()
        command.communicate()
        wait_for(lambda: json.loads(user.ok("inspect", "tied"))[0]["status"] == "exited")
        (after,) = json.loads(user.ok("inspect", "tied"))
        assert (after["exit_code"], after["exit_source"]) == (137, "signal")
        assert not pid_is(before["pid"], "guest=tied,debug-threads=on")
    finally:
        user.ok("rm", "-f", "tied")


@pytest.mark.parametrize("verb", [("diff", "guest"), ("commit", "guest", "saved")])
def test_the_disk_of_a_guest_is_not_read(user, guest, verb):
    text = user.refused(*verb)
    assert "the disk of guest cannot be read: mounting it needs the host's root" in text


def test_a_name_as_long_as_it_can_be_fits_into_the_path_of_a_socket(user, guest):
    name = "n" * 63
    work = {"name": name, "image": "tiny", "command": ["sleep", "1000"], "network": "none"}
    user.ok("up", "--mode", "vm", "--no-wait", user.write("long.yaml", json.dumps(work)))
    user.ok("rm", "-f", name)


def test_a_guest_is_started_again_with_its_disk(user, guest):
    user.ok("exec", "guest", "--", "sh", "-c", "echo kept >/kept")
    uid = os.stat(f"/proc/{json.loads(user.ok('inspect', 'guest'))[0]['pid']}").st_uid
    user.ok("restart", "guest")
    assert get(guest) == (200, "from a guest\n")
    assert user.ok("exec", "guest", "--", "cat", "/kept") == "kept\n"
    wait_for(lambda: user.ok("logs", "guest") == "begun\nbegun\n")
    assert os.stat(f"/proc/{json.loads(user.ok('inspect', 'guest'))[0]['pid']}").st_uid == uid


@pytest.fixture(scope="module")
def built(user):
    """An image with what is hard to unpack: owners, setuid, hard links, FIFO, a replaced folder."""
    folder = os.path.join(user.home, "context")
    os.mkdir(folder)
    os.chown(folder, user.uid, user.uid)
    user.write("context/f", "hello\n")
    user.write(
        "context/Dockerfile",
        "FROM tiny\n"
        "RUN rm -r /usr/share && mkdir /usr/share && touch /usr/share/only && rm /etc/shells\n"
        "COPY f /f\n"
        "RUN chown 33:34 /f && chmod 4755 /f && mkdir -p /a/b && ln /f /a/b/hard\n"
        "RUN mkfifo /a/fifo && ln -s /f /a/link\n",
    )
    user.ok("image", "build", "--network", "none", "-t", "built", folder)
    return "built"


def test_image_build(user, mode, built):
    script = "stat -c '%u:%g %a %h' /f /a/b/hard; readlink /a/link; ls /usr/share; test -p /a/fifo && cat /a/b/hard"
    result = run(user, mode, built, "--", "sh", "-c", script + "; ls /etc/shells")
    assert result.out == "33:34 4755 2\n33:34 4755 2\n/f\nonly\nhello\n", result


def test_a_built_image_is_the_same_as_that_of_root(user, built, tmp_path):
    archive = os.path.join(user.home, "tiny-of-root.tar")
    ok("image", "export", "tiny", "-o", archive)
    own = {"env": {**os.environ, "VMCTL_ROOT": str(tmp_path)}}
    ok("image", "import", "--name", "tiny", archive, **own)
    ok("image", "build", "--network", "none", "-t", "built", os.path.join(user.home, "context"), **own)
    of_root, of_user = (
        json.loads(text)[0]["layers"]
        for text in (ok("image", "inspect", "built", **own), user.ok("image", "inspect", built))
    )
    assert [layer["diff_id"] for layer in of_user] == [layer["diff_id"] for layer in of_root]


def test_df_and_prune(user, mode):
    user.ok("image", "import", "--name", "short-lived", _small_tar(user))
    assert run(user, mode, "short-lived", "--", "/x").code == 127
    rows = {row["kind"]: row for row in json.loads(user.ok("df", "--format", "json"))}
    assert rows["cache"]["size_bytes"] > 0
    user.ok("image", "rm", "short-lived")
    before = set(os.listdir(f"{user.state}/layers"))
    assert "unpacked layer" in user.ok("prune", "-f")
    assert set(os.listdir(f"{user.state}/layers")) < before


def _small_tar(user):
    user.run("sh", "-c", "mkdir -p small/etc && date > small/etc/date && tar -C small -cf small.tar .")
    return "small.tar"


def test_published_ports_and_neighbours(user, mode):
    port, name = free_port(), f"server-{mode}"
    inside = 80 if mode == "container" else free_port()
    script = f"mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p {inside} -h /www"
    work = {"name": name, "image": "tiny", "command": ["sh", "-c", script], "network": NETWORK[mode]}
    work |= {"ports": [f"{port}:{inside}"], "ready": {"tcp": inside, "timeout": "30s"}}
    assert user.ok("up", "--mode", mode, user.write(f"{name}.yaml", json.dumps(work))) == f"{name}\n"
    assert get(port) == (200, "hello\n")
    address = json.loads(user.ok("inspect", name))[0]["address"]
    result = run(user, mode, "tiny", "--", "wget", "-q", "-O", "-", f"http://{address}:{inside}/")
    assert result.out == "hello\n", result
    assert user.vmctl("rm", name).code == 125
    user.ok("rm", "-f", name)
    with pytest.raises(ConnectionRefusedError):
        get(port)


@pytest.fixture(scope="module")
def limited():
    """A user to whom root has given control groups (v1)."""
    with OrdinaryUser() as limited:
        limited.give_image()
        limited.delegate_cgroups()
        yield limited


has_v1 = pytest.mark.skipif(not os.path.isdir("/sys/fs/cgroup/memory"), reason="no cgroups of version 1")


@has_v1
def test_limits_in_delegated_cgroups(limited, mode):
    fill = "head -c 200000000 /dev/zero | tail"
    assert run(limited, mode, "-m", "16M", "tiny", "--", "sh", "-c", fill + "; exit $?").code == 137
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait"
    work = {"name": f"few-{mode}", "image": "tiny", "command": ["sh", "-c", script], "resources": {"pids": 5}}
    limited.ok("up", "--mode", mode, limited.write("few.yaml", json.dumps({**work, "network": NETWORK[mode]})))
    wait_for(lambda: "can't fork" in limited.vmctl("logs", f"few-{mode}").err)
    limited.ok("down", "-t", "0", f"few-{mode}")
    assert not _groups_below(limited)


def _groups_below(user):
    folder = f"/sys/fs/cgroup/memory/vmctl-{user.uid}"
    return [name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name))]


@has_v1
def test_commit_in_delegated_cgroups(limited, mode):
    name = f"frozen-{mode}"
    work = {"name": name, "image": "tiny", "command": ["sleep", "1000"], "network": NETWORK[mode]}
    limited.ok("up", "--mode", mode, limited.write(f"{name}.yaml", json.dumps(work)))
    seen = json.loads(limited.ok("inspect", name))[0]
    assert seen["footprint"]["cgroup_bytes"] > 0
    limited.ok("commit", name, f"{name}-saved")
    limited.ok("down", "-t", "0", name)


def test_a_port_below_1024_is_refused(user):
    text = user.refused("run", "-p", "81:81", "tiny", "--", "true")
    assert "binding 127.0.0.1:81/tcp needs root (ports below 1024)" in text


def test_doctor_lists_what_this_user_has():
    with OrdinaryUser() as other:
        result = other.vmctl("doctor", "--format", "json")
        found = {check["name"]: check for check in json.loads(result.out)}
        assert result.code == 0, result
        for name in ("user namespaces", "subordinate ids", "overlayfs", "namespaces", "bridge, veth", "seccomp"):
            assert found[name]["ok"], found[name]
        assert found["erofs"]["found"] == "not for this user: layers are unpacked"
        assert found["cgroups"]["ok"] is None
        assert f"vmctl-{other.uid}" in found["cgroups"]["hint"]
        assert "sudo" not in result.err
        assert other.processes() == []  # looking has made no namespaces that stay
        assert not os.path.exists(other.state)


@pytest.fixture(scope="module")
def poor():
    with OrdinaryUser(ids=0) as poor:
        poor.give_image()
        yield poor


def test_a_user_without_subordinate_ids_has_only_root(poor, mode):
    assert run(poor, mode, "tiny", "--", "sh", "-c", "id -u; stat -c %u /bin").out == "0\n0\n"
    result = run(poor, mode, "--user", "5", "tiny", "--", "true")
    assert result.code == 125
    assert "the user 5 cannot exist: this user of the host has no subordinate ids" in result.err


def test_a_guest_of_a_user_without_subordinate_ids_is_refused(poor):
    text = poor.refused("run", "--mode", "vm", "tiny", "--", "true")
    assert "libvirt sets the groups of QEMU, which a user without subordinate ids cannot do" in text


def test_doctor_names_the_lack_of_subordinate_ids(poor):
    found = {check["name"]: check for check in json.loads(poor.vmctl("doctor", "--format", "json").out)}
    assert found["subordinate ids"]["ok"] is None
    assert "usermod --add-subuids" in found["subordinate ids"]["hint"]


def test_subordinate_ids_that_are_given_later_are_other_trees(poor):
    """The owners in a tree that was unpacked with one id are lost."""
    poor.ok("run", "--network", "none", "tiny", "--", "true")
    assert os.listdir(f"{poor.state}/layers-of-one-id")
    assert not os.path.exists(f"{poor.state}/layers")


def test_explain(user, mode):
    work = {"name": "explained", "image": "tiny", "command": ["true"], "network": NETWORK[mode]}
    assert "userxattr" in user.ok("up", "--mode", mode, "--dry-run", user.write("e.yaml", json.dumps(work)))


def test_explain_a_guest(user, guest):
    work = {"name": "explained", "image": "tiny", "command": ["true"]}
    assert "-netdev" in user.ok("up", "--mode", "vm", "--dry-run", user.write("e.yaml", json.dumps(work)))


def test_bench(user, mode):
    inside = 80 if mode == "container" else free_port()
    script = f"mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p {inside} -h /www"
    work = {"name": "measured", "image": "tiny", "command": ["sh", "-c", script], "network": NETWORK[mode]}
    path = user.write("measured.yaml", json.dumps({**work, "ready": {"http": f"{inside}/", "timeout": "60s"}}))
    user.ok("bench", path, "--modes", mode, "--runs", "1", "--quick", "--out", f"results-{mode}")
    assert os.path.exists(f"{user.home}/results-{mode}/result.json")


def test_a_terminal(user):
    words = ["script", "-qec", f"{VMCTL} run -t --network none tiny -- tty", "/dev/null"]
    assert "/dev/pts/0" in user.run(*words).out.splitlines()  # also a warning, and what script(1) types at its end


def test_namespaces_are_made_once(user):
    user.ok("run", "--network", "none", "tiny", "--", "true")
    before = holders(user)
    user.ok("run", "--network", "none", "tiny", "--", "true")
    assert holders(user) == before
    assert len(before) == 1


def test_two_commands_at_once_make_one_holder():
    with OrdinaryUser() as other:
        other.give_image()
        other.end_processes()
        runs = [other.start("run", "--network", "none", "tiny", "--", "true") for _ in range(4)]
        for process in runs:
            _, err = process.communicate()
            lines = [line for line in err.splitlines() if b"the number of its processes is not limited" not in line]
            assert (process.returncode, lines) == (0, [])
        assert len(holders(other)) == 1


def test_a_killed_holder_is_found_again_through_a_running_instance(user):
    """Its namespaces live as long as any process in them, and only in these the instance can be stopped."""
    work = {"name": "lives", "image": "tiny", "command": ["sleep", "1000"], "network": "none"}
    user.ok("up", user.write("lives.yaml", json.dumps(work)))
    for pid in holders(user):
        os.kill(pid, signal.SIGKILL)
    assert user.ok("exec", "lives", "--", "echo", "still") == "still\n"
    assert len(holders(user)) == 1
    user.ok("down", "-t", "0", "lives")


def test_a_lost_record_is_found_again_through_a_running_instance(user):
    work = {"name": "lives", "image": "tiny", "command": ["sleep", "1000"], "network": "none"}
    user.ok("up", user.write("lives.yaml", json.dumps(work)))
    for pid in holders(user):
        os.kill(pid, signal.SIGKILL)
    os.unlink(f"{user.state}/holder")
    assert user.ok("exec", "lives", "--", "echo", "still") == "still\n"
    user.ok("down", "-t", "0", "lives")


def test_a_recorded_pid_of_another_process_is_not_entered(user):
    """The record is of the past: its pid may belong to anybody now."""
    for pid in holders(user):
        os.kill(pid, signal.SIGKILL)
    record = {"format": 1, "pid": os.getpid(), "start": processes.start_time(os.getpid()), "user": 1, "mnt": 1}
    for text in (json.dumps(record), "", '{"pid": -1}', "[" * 100_000, json.dumps({**record, "pid": 1 << 80})):
        with open(f"{user.state}/holder", "w", encoding="utf-8") as file:
            file.write(text)
        assert user.ok("run", "--network", "none", "tiny", "--", "id", "-u") == "0\n"
        for pid in holders(user):
            os.kill(pid, signal.SIGKILL)


def test_the_folder_of_the_session_is_not_needed(user):
    """systemd removes XDG_RUNTIME_DIR at the logout; the instances are still there at the next login."""
    work = {"name": "stays", "image": "tiny", "command": ["sleep", "1000"], "network": "none"}
    user.ok("up", user.write("stays.yaml", json.dumps(work)))
    later = {"XDG_RUNTIME_DIR": "/nonexistent"}
    assert user.ok("exec", "stays", "--", "echo", "here", env=later) == "here\n"
    user.ok("down", "-t", "0", "stays", env=later)


def test_a_limit_without_a_delegated_cgroup_is_refused(user, mode):
    result = run(user, mode, "-m", "64M", "tiny", "--", "true")
    assert result.code == 125
    assert "the memory limit 64M cannot be enforced: this user has no control group for it" in result.err
    assert "hint: " in result.err


def test_the_working_directory_is_kept(user):
    user.write("here.yaml", json.dumps({"name": "here", "image": "tiny", "command": ["true"], "network": "none"}))
    assert user.ok("up", "here.yaml") == "here\n"
    user.ok("down", "here")


def holders(user):
    """Return the holders; a child of theirs, which is about to execute sleep(1), has the same command line."""
    found = [pid for pid in user.processes() if "vmctl-holder" in processes.command(pid)]
    return [pid for pid in found if int(processes.fields(pid)[1]) not in found]


def test_push_and_pull(user, tmp_path):
    with registry(str(tmp_path)) as host:
        user.ok("image", "tag", "tiny", f"{host}/team/tiny:1")
        user.ok("image", "push", "--tls-verify=false", f"{host}/team/tiny:1")
        before = json.loads(user.ok("image", "inspect", f"{host}/team/tiny:1"))
        user.ok("image", "rm", f"{host}/team/tiny:1")
        user.ok("image", "pull", "--tls-verify=false", f"{host}/team/tiny:1")
        assert json.loads(user.ok("image", "inspect", f"{host}/team/tiny:1")) == before
        result = run(user, "container", f"{host}/team/tiny:1", "--", "echo", "pulled")
        assert (result.code, result.out) == (0, "pulled\n")
        user.ok("image", "rm", f"{host}/team/tiny:1")
