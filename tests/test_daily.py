"""Ten tasks of daily work with a page and its database, in each mode, as root and as an ordinary user."""

import json
import os
import pathlib
import signal
from contextlib import ExitStack, suppress

import pytest
from support import index
from support.attacks import UserCaller
from support.commands import VMCTL, Terminal, free_port, get, wait_for
from support.internet import FAR, OTHER, Internet, RootThere, UserThere
from support.networks import host_view

from vmctl.net import uplink

pytestmark = pytest.mark.timeout(1800)

INDEX = f"http://{index.NAME}:{index.PORT}/simple"
DOCKERFILE = """
FROM python
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
RUN pip install hello-lib
COPY serve.py /srv/
CMD ["python3", "/srv/serve.py"]
"""
SERVE = """
import http.server, os, urllib.request
import hello_lib
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            print("crashing", flush=True)
            os._exit(3)
        with urllib.request.urlopen("http://db:7000/record", timeout=60) as record, open("/src/word") as word:
            body = f"{hello_lib.WORD}, {word.read().strip()} {record.read().decode().strip()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8000), Page).serve_forever()
"""
STACK = f"""
services:
  web:
    build: {{context: ./web, args: {{PIP_INDEX_URL: "{INDEX}", PIP_TRUSTED_HOST: {index.NAME}}}}}
    depends_on: [db]
    ports: ["${{PORT}}:8000"]
    volumes: ["./src:/src"]
    restart: always
    mem_limit: 256m
    dns: {OTHER}
    dns_search: [corp.test]
    dns_opt: ["timeout:30"]
  db:
    image: tiny
    command: [sh, -c, "echo database begins; echo kept >/records/record; exec httpd -f -p 7000 -h /records"]
    volumes: ["records:/records"]
    extra_hosts: ["host.docker.internal:host-gateway", "out.test:192.0.2.7"]
    sysctls: {{net.core.somaxconn: 77}}
volumes: {{records: }}
"""


@pytest.fixture(scope="module")
def internet():
    with Internet() as internet:
        yield internet


@pytest.fixture(scope="module")
def asked(internet):
    """The paths that the package index was asked for."""
    with index.Server(internet.far, FAR, index.PORT) as server:
        yield server.asked


@pytest.fixture(scope="module")
def name_server(internet, tmp_path_factory):
    """A name server outside, which the host does not know, with one name."""
    record = tmp_path_factory.mktemp("names") / "pid"
    internet.far.run(  # it returns when it answers (dnsmasq(8), --keep-in-foreground)
        *("dnsmasq", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", f"--pid-file={record}", "--user=root"),
        *(
            f"--listen-address={OTHER}",
            "--bind-interfaces",
            "--local=/corp.test/",
            "--host-record=git.corp.test,192.0.2.9",
        ),
    )
    yield
    os.kill(int(record.read_text()), signal.SIGKILL)


@pytest.fixture(scope="module")
def caller(who, own_store, shipped, internet, tmp_path_factory):
    shipped.bring("python")
    with ExitStack() as stack:
        if who == "root":
            yield RootThere(str(tmp_path_factory.mktemp("caller")), internet)
            return
        user = stack.enter_context(UserThere(internet))
        user.delegate_cgroups()
        user.give_image("python")
        yield UserCaller(user)


class Work:
    """A folder with the files of a stack, and the stack, which is up."""

    web, db = "work-web", "work-db"

    def __init__(self, caller, mode, internet):
        self.caller, self.mode, self.internet = caller, mode, internet
        self.user = getattr(caller, "user", caller)  # who runs other programs
        self.folder, self.port = pathlib.Path(caller.folder, mode, "work"), free_port()
        self.write("compose.yaml", STACK)
        self.write(".env", f"PORT={self.port}\n")
        self.write("web/Dockerfile", DOCKERFILE)
        self.write("web/serve.py", SERVE)
        self.write("src/word", "first\n")

    def write(self, name, content):
        """Write a file of the caller."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        for one in (path, *path.parents):
            if one == pathlib.Path(self.caller.folder):
                break
            os.chown(one, self.caller.uid, self.caller.uid)

    def vmctl(self, *words, **options):
        return self.caller.vmctl(*words, folder=str(self.folder), **options)

    def ok(self, *words, **options):
        return self.caller.ok(*words, folder=str(self.folder), **options)

    def page(self):
        """Return the page that a browser on the host gets, as soon as there is one."""

        def ask():
            with suppress(OSError):
                status, body = self.internet.host.inside(lambda: get(self.port))
                return body if status == 200 else None

        return wait_for(ask)


@pytest.fixture(scope="module")
def work(caller, mode, internet, asked, name_server):
    work = Work(caller, mode, internet)
    work.view = host_view(pathlib.Path(caller.state))
    try:
        work.ok("up", "--mode", mode, timeout_s=900)
        yield work
    finally:
        work.vmctl("down", "-v", "work")


def test_the_host_is_reached_by_who_asks_for_it(work, internet):
    with internet.listen_on_host("127.0.0.1") as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        connect = f"import socket; socket.create_connection(('{uplink.GATEWAY}', {port}), 5)"
        assert work.vmctl("exec", "web", "python3", "-c", connect).code == 1
        with pytest.raises(BlockingIOError):
            server.accept()
        work.vmctl("exec", "db", "sh", "-c", f"echo | timeout 30 nc -w 5 host.docker.internal {port}")
        connection, (address, _) = server.accept()
        connection.close()
        assert address == "127.0.0.1"
    assert "192.0.2.7\tout.test\n" in work.ok("exec", "db", "cat", "/etc/hosts")
    assert work.ok("exec", "db", "cat", "/proc/sys/net/core/somaxconn") == "77\n"


def test_an_image_with_a_package_of_the_index(work, asked):
    assert f"/{index.WHEEL}" in asked
    assert work.page().startswith("hello from the index, ")


def test_the_page_reaches_the_database_by_name(work):
    assert work.page().endswith(" kept")


def test_a_service_asks_the_name_server_that_it_names(work, internet):
    look = "import socket; print(*(socket.getaddrinfo(name, 1)[0][4][0] for name in ('git', 'git.corp.test', 'db')))"
    db = work.caller.inspect(work.db)["address"]
    for _ in "again", "after a restart":
        assert work.ok("exec", "web", "python3", "-c", look) == f"192.0.2.9 192.0.2.9 {db}\n"
        assert not [name for name in internet.asked if "corp.test" in name]
        resolver = work.ok("exec", "web", "cat", "/etc/resolv.conf")
        assert resolver.endswith("\nsearch corp.test\noptions ndots:0 timeout:30\n")
        if work.mode == "container":  # a guest takes long to boot
            work.ok("restart", "-t", "0", work.web)


def test_source_files_are_edited_live(work):
    assert " first " in work.page()
    work.write("src/word", "second\n")
    assert " second " in work.page()
    work.ok("exec", "web", "--", "sh", "-c", "echo made inside >/src/note")
    assert (work.folder / "src/note").read_text() == "made inside\n"
    assert os.stat(work.folder / "src/note").st_uid == work.caller.uid


def test_files_go_in_and_out(work):
    work.write("in/some/file", "from outside\n")
    work.ok("cp", "in", f"{work.web}:/in")
    assert work.ok("exec", "web", "--", "cat", "/in/some/file") == "from outside\n"
    work.ok("cp", f"{work.web}:/srv/serve.py", "out.py")
    assert (work.folder / "out.py").read_text() == SERVE
    assert os.stat(work.folder / "out.py").st_uid == work.caller.uid


def test_a_limit_of_memory(work):
    too_much = work.vmctl("exec", "web", "--", "python3", "-c", "b'x' * (400 << 20)")
    assert too_much.code in (137, 1), too_much  # killed; a guest's kernel refuses what is more than all its memory
    assert "kept" in work.page()
    assert json.loads(work.ok("inspect", "web"))[0]["limits"]["asked"]["memory_bytes"] == 256 << 20


def test_logs_of_both_services(work):
    work.page()
    seen = wait_for(lambda: (found := work.vmctl("logs")) and "GET / " in found.err and found)
    lines = [*seen.out.splitlines(), *seen.err.splitlines()]
    assert any(line.startswith("work-db") and line.endswith("| database begins") for line in lines)
    assert any(line.startswith("work-web") and '"GET / HTTP/1.1" 200' in line for line in lines)


def test_a_crashed_service_is_started_again(work):
    with suppress(OSError):
        work.internet.host.inside(lambda: get(work.port, "/crash"))
    wait_for(lambda: work.caller.inspect(work.web)["restarts"] == 1)
    assert "kept" in work.page()
    assert "crashing" in work.ok("logs", "web")


def test_a_command_in_a_pipe(work):
    script = f"seq 200000 | {VMCTL} exec -i web -- sh -c 'sort -r; exit 7' | head -n 1; echo ${{PIPESTATUS[1]}}"
    done = work.user.run("bash", "-c", script, folder=str(work.folder))
    assert done.out == "99999\n7\n", done


def test_a_shell(work):
    terminal = Terminal("shell", work.web, user=work.user)
    terminal.type("stty size; echo who $(id -u); exit 5\n")
    code, output = terminal.end()
    assert code == 5, output
    assert "30 100" in output
    assert "who 0" in output


def test_nothing_is_left(work):
    work.ok("down", "-v")
    assert work.ok("ps", "-aq") == ""
    assert work.ok("volume", "ls", "-q") == ""
    assert work.ok("network", "ls", "-q") == "bridge\n"
    assert work.ok("image", "rm", "work-web")
    assert host_view(pathlib.Path(work.caller.state)) == work.view
