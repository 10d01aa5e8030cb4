"""Debian's docker-registry on the loopback, with and without TLS and passwords, and a proxy that cuts connections."""

import os
import select
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import bcrypt
import yaml
from support import judges
from support.commands import free_port

from vmctl.programs import run


@contextmanager
def registry(folder, *, tls=None, users=None):
    """Run a registry that keeps its images in `folder`, and lend HOST:PORT.

    `tls` is (certificate, key); `users` maps names to passwords.
    """
    os.makedirs(folder, exist_ok=True)
    port = free_port()
    settings = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{folder}/images"}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "of the test"},
    }
    if tls:
        settings["http"]["tls"] = {"certificate": tls[0], "key": tls[1]}
    if users:
        lines = [f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}\n" for name, word in users.items()]
        with open(f"{folder}/htpasswd", "w") as file:
            file.writelines(lines)
        settings["auth"] = {"htpasswd": {"realm": "test", "path": f"{folder}/htpasswd"}}
    with open(f"{folder}/config.yml", "w") as file:
        yaml.safe_dump(settings, file)
    program = os.path.join(judges.unpacked("docker-registry"), "usr/bin/docker-registry")
    with open(f"{folder}/log", "w") as log:
        process = subprocess.Popen([program, "serve", f"{folder}/config.yml"], stdout=log, stderr=log)
    try:
        _wait_for(port, process)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(port, process):
    deadline = time.monotonic() + 30
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        assert process.poll() is None, "the registry did not start"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def certificates(folder):
    """Make an authority and a certificate for localhost; return (certificate, key) and the authority's certificate."""
    os.makedirs(folder, exist_ok=True)
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    ca = ["-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.crt"]
    run([*make, "-subj", "/CN=An authority", "-addext", "keyUsage=keyCertSign", *ca])
    signed = ["-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key", "-addext", "subjectAltName=DNS:localhost"]
    own = ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", f"{folder}/own.key", "-out", f"{folder}/own.crt"]
    run([*make, "-subj", "/CN=localhost", *signed, *own])
    ssl.create_default_context(cafile=f"{folder}/ca.crt")
    return (f"{folder}/own.crt", f"{folder}/own.key"), f"{folder}/ca.crt"


class _Failing(BaseHTTPRequestHandler):
    """Answers 503 to the first requests for a manifest, then 404; or wants a token, which it gives to nobody."""

    def do_GET(self):
        server = self.server
        if server.token:
            self.send_response(401)
            realm = f"http://localhost:{server.server_port}/token"
            if not self.path.startswith("/token"):
                self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",service="x"')
        else:
            server.asked += self.path != "/v2/"
            self.send_response(200 if self.path == "/v2/" else 503 if server.asked <= server.times else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def failing_registry(times=0, *, token=False):
    """Run a registry that fails `times` times, or gives nobody a token, and lend HOST:PORT."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Failing) as server:
        server.times, server.token, server.asked = times, token, 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"localhost:{server.server_port}"
        server.shutdown()


class Proxy:
    """A proxy for a registry that can be set to fail in several ways."""

    def __init__(self, target):
        self.target = int(target.rpartition(":")[2])
        self.limit_bytes = None  # a connection that has brought more than this ends
        self.stop_after_bytes = None  # one that has brought this much brings no more, and does not end
        self.pause_s = 0.0  # between one part and the next
        self.passed_bytes = 0
        self.requests = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"localhost:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listening.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client):
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as server:
            brought = 0
            while True:
                stopped = self.stop_after_bytes is not None and brought >= self.stop_after_bytes
                for source in select.select([client] if stopped else [client, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client:
                        self.requests += [line for line in data.split(b"\r\n") if line.endswith(b"HTTP/1.1")]
                        server.sendall(data)
                        continue
                    brought += len(data)
                    self.passed_bytes += len(data)
                    client.sendall(data)
                    time.sleep(self.pause_s)
                    if self.limit_bytes is not None and brought > self.limit_bytes:
                        return
