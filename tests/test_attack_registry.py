"""A registry that wants more than to give an image: redirects, endless documents, layers of other places."""

import contextlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.archives import CONFIG, LAYER, MANIFEST, dump, sha256
from support.tars import tar_of

from images.store.image import architecture

pytestmark = pytest.mark.timeout(900)
TAR = tar_of(("a", {}, b"x"))
SETTINGS = {"architecture": architecture(), "os": "linux", "config": {}}
SETTINGS["rootfs"] = {"type": "layers", "diff_ids": [sha256(TAR)]}


class Hostile:
    """A registry whose answers are a function of the path: (status, headers, body) or an iterator of bytes."""

    def __init__(self, answer):
        registry = self
        self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                registry.asked.append(self.path)
                status, headers, body = answer(self.path) or (404, {}, b"")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if isinstance(body, bytes):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    for part in [body] if isinstance(body, bytes) else body:
                        self.wfile.write(part)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.name = f"localhost:{self.server.server_port}/x"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def image_answers(manifest, blobs):
    """Return the answers of a registry that has one image."""
    data = dump(manifest)
    kind = {"Content-Type": MANIFEST, "Docker-Content-Digest": sha256(data)}

    def answer(path):
        if path.rstrip("/") == "/v2":
            return 200, {}, b"{}"
        if "/manifests/" in path:
            return 200, kind, data
        return blobs.get(path.rpartition("/")[2])

    return answer


def manifest(*layers):
    config = {"mediaType": CONFIG, "digest": sha256(dump(SETTINGS)), "size": len(dump(SETTINGS))}
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": list(layers)}


def descriptor(data, **more):
    return {"mediaType": LAYER, "digest": sha256(data), "size": len(data), **more}


def blobs(**more):
    return {sha256(dump(SETTINGS)): (200, {}, dump(SETTINGS)), sha256(TAR): (200, {}, TAR), **more}


def pull(caller, registry):
    return caller.vmctl("image", "pull", "--tls-verify=false", registry.name, timeout_s=200)


def test_the_registry_works(guest_root, caller, who):
    with Hostile(image_answers(manifest(descriptor(TAR)), blobs())) as registry:
        assert pull(caller, registry).code == 0
        caller.vmctl("image", "rm", registry.name)


@pytest.mark.attack("redirects the download of a layer to a file of the host, and in circles", mode="any")
def test_redirects(caller, canary):
    for target in (f"file://{canary.path}", "gopher://127.0.0.1/", "/v2/x/blobs/" + sha256(TAR), "unix:///run/x"):
        answers = blobs(**{sha256(TAR): (307, {"Location": target}, b"")})
        with Hostile(image_answers(manifest(descriptor(TAR)), answers)) as registry:
            seen = pull(caller, registry)
            assert seen.code == 125, seen
            assert len(registry.asked) < 100
            canary.check(seen)
    with Hostile(lambda path: (200, {}, TAR)) as other:  # redirects are followed, so the others were attempts
        answers = blobs(**{sha256(TAR): (307, {"Location": f"http://{other.name}"}, b"")})
        with Hostile(image_answers(manifest(descriptor(TAR)), answers)) as registry:
            assert pull(caller, registry).code == 0
            assert other.asked
            caller.vmctl("image", "rm", registry.name)


@pytest.mark.attack(
    "names services of the host as the place of a layer (URLs of foreign layers), so that root asks them"
)
def test_foreign_layers(caller, canary):
    other = b"y" * 100
    for kind in (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        LAYER.replace("layer.", "layer.nondistributable."),
    ):
        layer = descriptor(other, urls=[f"http://127.0.0.1:{canary.port}/secret"])
        with Hostile(image_answers(manifest({**layer, "mediaType": kind}), blobs())) as registry:
            seen = pull(caller, registry)
            assert seen.code == 125, seen
            canary.check(seen)  # its socket was not connected to


def endless():
    while True:
        yield b"[" * 65536


@pytest.mark.attack("answers with documents and layers without end, or with other ones than it announced")
def test_wrong_sizes_and_digests(caller, tmp_path):
    whole = manifest(descriptor(TAR))
    other = tar_of(("a", {}, b"y"))
    cases = {
        "endless manifest": lambda path: (
            (200, {"Content-Type": MANIFEST}, endless()) if "manifests" in path else (200, {}, b"{}")
        ),
        "endless layer": image_answers(whole, blobs(**{sha256(TAR): (200, {}, endless())})),
        "endless config": image_answers(whole, blobs(**{sha256(dump(SETTINGS)): (200, {}, endless())})),
        "another layer": image_answers(whole, blobs(**{sha256(TAR): (200, {}, other)})),
        "another config": image_answers(whole, blobs(**{sha256(dump(SETTINGS)): (200, {}, b"{}")})),
        "huge manifest": image_answers({**whole, "annotations": {"a": "b" * (6 << 20)}}, blobs()),
        "many layers": image_answers(manifest(*[descriptor(TAR)] * 5000), blobs()),
        "itself": image_answers(
            {"schemaVersion": 2, "manifests": [{**descriptor(TAR), "mediaType": MANIFEST}]}, blobs()
        ),
        "digest that is a path": image_answers(
            manifest({**descriptor(TAR), "digest": f"sha256:{'../' * 12}{caller.folder.lstrip('/')}/made"}), blobs()
        ),
        "size of a petabyte": image_answers(manifest({**descriptor(TAR), "size": 1 << 50}), blobs()),
        "escape in an error": lambda path: (
            403,
            {},
            json.dumps({"errors": [{"code": "\x1b[2J", "message": "\x1b]0;x\x07"}]}).encode(),
        ),
    }
    before = caller.stored_bytes()
    for name, answer in cases.items():
        with Hostile(answer) as registry:
            seen = pull(caller, registry)
            assert seen.code in (124, 125), (name, seen)
            assert "internal error" not in seen.err, (name, seen)
            assert "\x1b" not in seen.err, (name, seen)
            assert "made" not in os.listdir(caller.folder)
            if name == "endless layer":
                assert "sends more than the layers" in seen.err
                assert caller.stored_bytes() < before + (1 << 30)
            if name == "another layer":  # one that differs is not asked for again
                assert len([path for path in registry.asked if sha256(TAR) in path]) == 1, registry.asked
