"""A start that is not ready in time: the error contains what the probe has seen. The end of a probe that succeeds."""

import http.server
import queue
import threading

import pytest
from support.commands import free_port, vmctl, wait_for

from vmctl import httpanswer, readiness
from vmctl.instances import instance
from vmctl.instances.instance import Instance, State
from vmctl.spec.workload import Workload


@pytest.mark.parametrize(
    ("command", "probe", "seen"),
    [
        ("sleep 1000", "tcp: {port}", "nothing listens on its port {port}"),
        ("mkdir -p /e && exec httpd -f -p {port} -h /e", "http: {port}/none", "port {port} answers with status 404"),
        (
            "while :; do echo no | nc -l -p {port}; done",
            "http: {port}/",
            "port {port} answers something else than HTTP",
        ),
        ("sleep 1000", "log: never", "its output does not match ready.log"),
        ("sleep 1000", "exec: [sh, -c, exit 3]", "the command of ready.exec ended with code 3"),
    ],
)
def test_what_the_probe_has_seen(own_root, tmp_path, command, probe, seen):
    port = free_port()
    path = tmp_path / "late.yaml"
    path.write_text(
        f"image: tiny\ncommand: [sh, -c, '{command.format(port=port)}']\n"
        f"ready: {{{probe.format(port=port)}, timeout: {6 if 'exec' in probe else 2}s}}\n"
    )
    result = vmctl("up", str(path))
    assert result.code == 124
    assert f"; {seen.format(port=port)}" in result.err
    assert instance.names() == []


def test_a_server_sees_an_orderly_end_of_the_probe(monkeypatch):
    """Its answer goes on after the first line, and is as long as it takes."""
    for name in ("REST_S", "QUIET_S"):
        monkeypatch.setattr(httpanswer, name, 100.0)
    ends, is_ready = queue.Queue(), threading.Event()

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            is_ready.wait(100)
            try:
                for _ in range(200):
                    self.wfile.write(b"line\n" * 200)
                ends.put("whole")
            except OSError as error:
                ends.put(repr(error))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        probe = readiness._HttpProbe(Instance("w", Workload("w", "tiny"), State(id="0" * 8)), server.server_port, "/")
        wait_for(probe.succeeds)
        is_ready.set()
        probe.close()
        assert ends.get(timeout=100) == "whole"
        server.shutdown()
