"""One stack in all combinations of modes: a database and a page that asks it by name, with records that survive."""

import pytest
from support.commands import free_port, get, ok, vmctl, wait_for

from vmctl.instances import instance

pytestmark = pytest.mark.timeout(1200)

PAGE = """
import http.server, os, socket
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            with socket.create_connection((os.environ["DB_HOST"], int(os.environ["DB_PORT"])), 5) as db:
                db.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))
                there = db.recv(1) in (b"N", b"S")
        except OSError:
            there = False
        body = f"{os.environ['GREETING']}: {'yes' if there else 'no'}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8000), Page).serve_forever()
"""
STACK = """
services:
  web:
    image: python
    depends_on: {{db: ready}}
    environment: {{DB_HOST: db, DB_PORT: 5432, GREETING: database, PYTHONUNBUFFERED: "1"}}
    ports: ["127.0.0.1:{port}:8000"]
    ready: {{tcp: 8000, timeout: 300s}}
    command:
      - python3
      - -c
      - |
        {page}
  db:
    image: postgres
    resources: {{memory: 512M}}
    expose: ["5432"]
    volumes: ["records:/var/lib/postgresql/15/main"]
    ready: {{tcp: 5432, timeout: 300s}}
volumes: {{records: }}
"""


@pytest.fixture
def stack(own_store, shipped, tmp_path):
    """The file of the stack and its port; the stack is removed with its volume."""
    shipped.bring("python")
    shipped.bring("postgres")
    port = free_port()
    path = tmp_path / "records.yaml"
    path.write_text(STACK.format(port=port, page=PAGE.strip().replace("\n", "\n        ")))
    yield str(path), port
    vmctl("down", "-v", str(path))


def modes():
    return {name: instance.load(name).state.mode for name in instance.names()}


def sql(text):
    """Ask the database. Its port is open a moment before it answers queries: "the database system is starting up"."""
    asking = ("exec", "records-db", "--", "psql", "-tAc")
    wait_for(lambda: "starting up" not in vmctl(*asking, "SELECT 1", timeout_s=300).err)
    return ok(*asking, text, timeout_s=300).strip()


def test_a_database_and_a_page_in_four_combinations_of_modes(stack):
    path, port = stack
    ok("up", path, timeout_s=600)
    assert modes() == {"records-db": "container", "records-web": "container"}
    assert get(port) == (200, "database: yes")
    sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
    for options, expected, said in (
        (["--mode-of", "db=vm"], ("vm", "container"), "records-db: replaced: mode container -> vm"),
        (["--mode-of", "db=vm", "--mode-of=web=vm"], ("vm", "vm"), "records-web: replaced: mode container -> vm"),
        (["--mode-of", "web=vm"], ("container", "vm"), "records-db: replaced: mode vm -> container"),
    ):
        result = vmctl("up", path, *options, timeout_s=900)
        assert result.code == 0, result
        assert said in result.err
        assert tuple(modes().values()) == expected
        assert wait_for(lambda: get(port) == (200, "database: yes"))
        assert sql("SELECT n FROM kept") == "7"
    ok("down", path)
    ok("up", path, "db", timeout_s=600)
    assert sql("SELECT n FROM kept") == "7"
    ok("down", "-v", path)
    ok("up", path, "db", timeout_s=600)
    assert sql("SELECT to_regclass('kept')") == ""
