"""Stacks on this host: started in order, changed, moved between modes, scaled, logged, and removed without a trace."""

import json
import os
import signal
import subprocess

import pytest
from support.commands import VMCTL, Terminal, ok, refused, vmctl, wait_for
from support.host_state import PREFIX, host_state, left_behind
from support.ordinary_user import OrdinaryUser

from vmctl.instances import instance
from vmctl.stacks import record

pytestmark = pytest.mark.timeout(600)

STACK = """
services:
  once:
    image: tiny
    command: [sh, -c, "echo prepared"]
  db:
    image: tiny
    command: [sh, -c, "mkdir /srv/d; echo records >/srv/d/index.html; exec httpd -f -p 7000 -h /srv/d"]
    ready: {tcp: 7000}
    depends_on: {once: completed}
  web:
    image: tiny
    command: [sh, -c, "wget -qO- http://db:7000/; echo asked; exec sleep 3600"]
    depends_on: {db: ready}
    environment: {A: "1"}
"""


@pytest.fixture
def folder(own_root, tmp_path, monkeypatch):
    """A folder for files, which is the current one; what a test starts is removed."""
    place = tmp_path / "files"
    place.mkdir()
    monkeypatch.chdir(place)
    yield place
    vmctl("down", "--all")


def write(folder, text, name="shop.yaml"):
    (folder / name).write_text(text)
    return name


def rows(*words):
    return {row["name"]: row for row in json.loads(ok("ps", "--format", "json", *words))}


def ids():
    return {name: instance.load(name).id for name in instance.names()}


def test_a_stack_comes_up_in_order_changes_and_goes(folder):
    path = write(folder, STACK)
    assert ok("up", path).split() == ["shop-once", "shop-db", "shop-web"]
    assert {name: row["status"] for name, row in rows("shop").items()} == {
        "shop-once": "exited",
        "shop-db": "running",
        "shop-web": "running",
    }
    wait_for(lambda: "records\nasked" in ok("logs", "shop-web"))
    assert "shop-once | prepared\n" in ok("logs", path)
    before = ids()
    ok("up", path, "db")
    assert {name: ids()[name] for name in ("shop-db", "shop-web")} == {
        name: before[name] for name in ("shop-db", "shop-web")
    }
    write(folder, STACK.replace('A: "1"', 'A: "2"'))
    dry = ok("up", path, "--dry-run")
    assert "shop-web: replaced: env" in dry
    assert ids() == before
    result = vmctl("up", path)
    assert "shop-web: replaced: env" in result.err
    assert "shop-db is unchanged" in result.err
    after = ids()
    assert after["shop-db"] == before["shop-db"]
    assert after["shop-web"] != before["shop-web"]
    ok("stop", "shop")
    assert {row["status"] for row in rows("shop").values()} == {"exited"}
    ok("start", path)
    assert rows("shop")["shop-db"]["status"] == "running"
    ok("down", "shop")
    assert instance.names() == []
    assert record.names() == []
    assert ok("down", path) == ""


def test_scale_and_orphans(folder):
    path = write(folder, "services: {web: {image: tiny, command: sleep 3600}, old: {image: tiny, command: sleep 3600}}")
    ok("up", path)
    ok("scale", "shop", "web=3")
    assert sorted(rows("shop")) == ["shop-old", "shop-web", "shop-web-2", "shop-web-3"]
    write(folder, "services: {web: {image: tiny, command: sleep 3600}}")
    result = vmctl("up", path)
    assert "shop-old: the file has no such service any more" in result.err
    assert sorted(rows("shop")) == ["shop-old", "shop-web"]
    ok("up", path, "--remove-orphans")
    assert sorted(rows("shop")) == ["shop-web"]


FAILING = """
services:
  bad: {image: tiny, command: [sh, -c, "echo the reason; exit 3"]}
  good: {image: tiny, command: sleep 3600}
  web: {image: tiny, command: sleep 3600, depends_on: {bad: completed}}
"""


def test_a_service_that_fails_is_named_with_its_last_lines(folder):
    path = write(folder, FAILING)
    err = vmctl("up", path).err
    assert "vmctl: shop-bad ended with 3, and others wait until it ends with 0" in err
    assert "shop-bad | the reason" in err
    assert "shop-web: not started" in err
    assert instance.names() == []
    assert record.names() == []
    assert vmctl("up", path, "--keep").code == 125
    assert {name: row["status"] for name, row in rows("shop").items()} == {"shop-bad": "exited", "shop-good": "running"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{a: {image: tiny, depends_on: [b]}, b: {image: tiny, depends_on: [a]}}", "wait for each other: "),
        ("{a: {image: tiny, volumes: ['./none:/x']}}", "shop.yaml:1: service a: volumes[0]: "),
        ("{a: {image: none}}", "there is no image none"),
        ("{a: {image: tiny, imgae: x}}", "shop.yaml:1: service a: imgae: the key is unknown"),
    ],
)
def test_mistakes_are_found_before_anything_starts(folder, text, expected):
    path = write(folder, f"services: {text}")
    assert expected in refused("up", path)
    assert instance.names() == []
    assert record.names() == []


def test_the_name_of_another_instance_is_not_taken(folder):
    ok("run", "-d", "--name", "shop-web", "tiny", "--", "sleep", "3600")
    path = write(folder, "services: {web: {image: tiny}}")
    assert "the name shop-web is taken by another instance" in refused("up", path)
    ok("down", path)
    assert rows()["shop-web"]["status"] == "running"


def test_services_that_wait_for_nothing_start_at_the_same_time_as_a_chain(folder):
    """So ten services take as long as their longest chain: its first one ends only when the other six run."""
    chain = "".join(
        f"  c{n}: {{<<: *it, command: touch /v/c{n}, depends_on: {{c{n - 1}: completed}}}}\n" for n in (2, 3, 4)
    )
    others = "".join(f"  o{n}: {{<<: *it, command: [sh, -c, touch /v/o{n}; sleep 3600]}}\n" for n in range(6))
    first = "until [ $$(ls /v | grep -c o) = 6 ]; do sleep 0.05; done"
    services = f"services:\n  c1: {{<<: *it, command: [sh, -c, '{first}']}}\n{chain}{others}"
    path = write(folder, f"x-it: &it {{image: tiny, volumes: ['v:/v']}}\n{services}volumes: {{v: }}\n")
    assert len(ok("up", path).split()) == 10
    assert ok("exec", "shop-o0", "--", "ls", "/v").split() == ["c2", "c3", "c4", *(f"o{n}" for n in range(6))]
    ok("down", "-v", path)


@pytest.mark.alone
@pytest.mark.parametrize("there", [0, 1, 3])
def test_down_removes_what_a_killed_up_has_left(folder, there):
    services = "".join(f"  s{n}: {{image: tiny, command: sleep 3600, depends_on: [s{n - 1}]}}\n" for n in range(1, 6))
    path = write(folder, f"name: {PREFIX}\nservices:\n  s0: {{image: tiny, command: sleep 3600}}\n{services}")
    ok("network", "create", "other")  # so that the folders of the root are there, whose first use makes them
    before = host_state()
    process = subprocess.Popen([VMCTL, "up", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: record.names() and len(instance.names()) >= there)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ok("down", PREFIX)
    assert instance.names() == []
    assert record.names() == []
    assert left_behind(before) == {}


def test_the_stack_of_a_folder_needs_no_name(folder):
    write(
        folder,
        "name: mine\nservices: {web: {image: tiny, command: [sh, -c, 'echo hello; sleep 3600']}}",
        "compose.yaml",
    )
    write(folder, "services: {web: {environment: {A: b}}}", "compose.override.yaml")
    assert ok("up") == "mine-web\n"
    assert ok("exec", "web", "--", "sh", "-c", "echo $A") == "b\n"
    wait_for(lambda: "hello" in ok("compose", "logs", "web"))
    assert ok("compose", "ps", "-q") == "mine-web\n"
    assert ok("stop") == "mine-web\n"
    assert ok("compose", "-f", "compose.yaml", "up", "-d") == "mine-web\n"
    assert ok("down", "web") == "mine-web\n"
    assert ok("down") == ""


def test_services_are_named_in_every_verb_in_the_folder_and_from_outside(folder, tmp_path, monkeypatch):
    (folder / "web").mkdir()  # a folder with the name of a service is not a file of services
    write(folder, "services: {web: {image: tiny, command: sleep 3600, scale: 2}, db: {image: tiny}}", "compose.yaml")
    ok("run", "-d", "--name", "other", "tiny", "--", "sleep", "3600")
    assert sorted(ok("up", "web").split()) == ["files-web", "files-web-2"]
    write(folder, "content", "file")
    ok("cp", "file", "web:/srv")
    for words in (["exec", "web", "--"], ["shell", "web", "--"]):
        assert ok(*words, "cat", "/srv/file") == "content"
    assert [one["name"] for one in json.loads(ok("inspect", "web"))] == ["files-web", "files-web-2"]
    assert "A /srv/file" in ok("diff", "web")
    assert ok("update", "--pids", "77", "web").split() == ["files-web", "files-web-2"]
    assert len(ok("stats", "--no-stream", "web").splitlines()) == 3
    assert "sleep 3600" in ok("top", "web")
    assert "there is no instance none" in refused("exec", "none", "--", "true")
    monkeypatch.chdir(tmp_path)
    compose = ("compose", "-f", str(folder / "compose.yaml"))
    assert sorted(ok(*compose, "ps", "-q").split()) == ["files-web", "files-web-2"]
    assert ok(*compose, "exec", "-T", "web", "cat", "/srv/file") == "content"
    assert sorted(ok(*compose, "kill", "web").split()) == ["files-web", "files-web-2"]
    assert vmctl(*compose, "wait", "web").out.split() == ["137", "137"]
    assert sorted(ok(*compose, "down").split()) == ["files-web", "files-web-2"]
    assert ok("ps", "-q") == "other\n"


def test_a_workload_file_is_still_one(folder):
    path = write(folder, "image: tiny\ncommand: [sleep, '3600']\n")
    assert ok("up", path) == "shop\n"
    assert "it has no service web" in refused("up", path, "web")
    assert ok("down", path) == "shop\n"
    assert "required: SPEC" in refused("up")


def test_logs_of_a_stack_have_colours_on_a_terminal_only(folder):
    path = write(folder, "services: {a: {image: tiny, command: echo one}, bb: {image: tiny, command: echo two}}")
    ok("up", path)
    wait_for(lambda: sorted(ok("logs", "shop").splitlines()) == ["shop-a  | one", "shop-bb | two"])
    _, shown = Terminal("logs", "shop").end()
    assert "\x1b[36mshop-a  | \x1b[0mone" in shown
    assert "\x1b[33mshop-bb | \x1b[0mtwo" in shown


def test_settings_of_the_kernel_and_hosts(folder):
    text = "services: {a: {image: tiny, sysctls: {net.core.somaxconn: 512}, extra_hosts: ['out.test:192.0.2.7'], "
    path = write(folder, text + "command: [sh, -c, 'cat /proc/sys/net/core/somaxconn; grep out.test /etc/hosts']}}")
    ok("up", path)
    wait_for(lambda: ok("logs", "shop-a") == "512\n192.0.2.7\tout.test\n")
    assert os.path.exists(path)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("kernel.panic: 1", "kernel.panic belongs to the whole host"),
        ("net.x/../../../kernel.panic: 1", "expected a name such as net.core.somaxconn"),
        ("net..x: 1", "expected a name such as net.core.somaxconn"),
    ],
)
def test_settings_of_the_host_cannot_be_changed(folder, setting, expected):
    path = write(folder, f"services: {{a: {{image: tiny, sysctls: {{'{setting.partition(':')[0]}': 1}}}}}}")
    assert expected in refused("up", path)


def test_an_ordinary_user_has_stacks():
    with OrdinaryUser() as user:
        user.give_image()
        path = user.write("shop.yaml", STACK)
        assert user.ok("up", path).split() == ["shop-once", "shop-db", "shop-web"]
        wait_for(lambda: "records\nasked" in user.ok("logs", "shop-web"))
        user.write("shop.yaml", STACK.replace('A: "1"', 'A: "2"'))
        result = user.vmctl("up", path)
        assert "shop-web: replaced: env" in result.err
        assert "shop-db is unchanged" in result.err
        assert user.ok("scale", "shop", "web=2").split()[-2:] == ["shop-web", "shop-web-2"]
        user.ok("down", "shop")
        assert user.ok("ps", "-aq") == ""
        assert user.ok("network", "ls", "-q") == "bridge\n"


NETWORKS = """
services:
  edge:
    image: tiny
    container_name: my-edge
    command: sleep 3600
    networks: [front]
    depends_on: {app: ready}
  app:
    image: tiny
    command: [sh, -c, "echo app >/srv/index.html; exec httpd -f -p 8000 -h /srv"]
    ready: {tcp: 8000}
    networks: {front: {aliases: [app.lan], ipv4_address: 10.88.97.10}, back: }
  store:
    image: tiny
    command: [sh, -c, "echo store >/srv/index.html; exec httpd -f -p 8000 -h /srv"]
    ready: {tcp: 8000}
    networks: {back: {aliases: [records]}}
  alone: {image: tiny, command: sleep 3600, network_mode: none}
networks:
  front: {ipam: {config: [{subnet: 10.88.97.0/24}]}}
  back: {internal: true}
"""


def test_services_reach_only_those_of_their_networks(folder):
    path = write(folder, NETWORKS)
    ok("up", path)
    for name in ("app", "app.lan", "10.88.97.10"):
        assert ok("exec", "my-edge", "--", "wget", "-qO-", f"http://{name}:8000/") == "app\n"
    for name in ("store", "records"):
        assert ok("exec", "shop-app", "--", "wget", "-qO-", f"http://{name}:8000/") == "store\n"
    assert "bad address" in vmctl("exec", "my-edge", "--", "wget", "-qO-", "http://store:8000/").err
    address = instance.load("shop-store").state.address
    assert vmctl("exec", "my-edge", "--", "nc", "-w", "2", address, "8000").code != 0
    assert ok("exec", "shop-alone", "--", "ls", "/sys/class/net") == "lo\n"
    here = {"env": {**os.environ, "COMPOSE_FILE": path}}
    ok("network", "connect", "front", "store", **here)
    assert ok("exec", "my-edge", "--", "wget", "-qO-", "http://store:8000/") == "store\n"
    ok("network", "disconnect", "front", "store", **here)
    assert "is not in the network shop_front" in refused("network", "disconnect", "front", "store", **here)
    ok("down", "shop")
    assert ok("network", "ls", "-q") == "bridge\n"


HEALTH = """
services:
  db:
    image: tiny
    command: [sh, -c, "sleep 1; touch /well; exec sleep 3600"]
    healthcheck: {test: [CMD, test, -e, /well], interval: 1s, start_period: 30s}
    env_file: it.env
    secrets: [word]
  web: {image: tiny, command: sleep 3600, depends_on: {db: {condition: service_healthy}}}
  sick:
    image: tiny
    profiles: [sick]
    command: sleep 3600
    healthcheck: {test: "echo not well; exit 1", interval: 1s, retries: 2}
  never: {image: tiny, profiles: [sick], command: sleep 3600, depends_on: {sick: {condition: service_healthy}}}
secrets: {word: {file: ./word}}
"""


def test_health_secrets_and_files_of_variables(folder):
    write(folder, "not a real secret", "word")
    write(folder, 'QUOTED="two words"\n', "it.env")
    path = write(folder, HEALTH)
    assert ok("up", path).split() == ["shop-db", "shop-web"]
    assert (
        ok("exec", "shop-db", "--", "sh", "-c", "echo $QUOTED; cat /run/secrets/word") == "two words\nnot a real secret"
    )
    write(folder, "QUOTED=other\n", "it.env")
    result = vmctl("up", path)
    assert "shop-db: replaced: content of env_file or secrets" in result.err
    assert "shop-web is unchanged" in result.err
    err = vmctl("up", path, "--profile", "sick").err
    assert "shop-sick is unhealthy: its check has failed" in err
    assert "not well" in err
    assert sorted(rows("shop")) == ["shop-db", "shop-web"]
