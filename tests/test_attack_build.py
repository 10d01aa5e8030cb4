"""A build file that wants more than an image: services and files of the host, secrets of other steps."""

import contextlib
import os
import subprocess
import sys

import pytest
from support.as_nobody import as_nobody
from support.attack_table import modes
from support.commands import VMCTL, start, wait_for
from support.tars import tar_of, traversals

pytestmark = pytest.mark.timeout(900)
IN_CONTAINERS = modes("container")


@pytest.fixture(scope="module")
def guest_root(own_store):
    """A VMCTL_ROOT with a store that goes with it: builds leave steps in it."""
    return own_store


def build(caller, text, *words, context=None, **options):
    context = context or os.path.join(caller.folder, "context")
    with contextlib.suppress(FileExistsError):
        os.mkdir(context)
        os.chown(context, caller.uid, caller.uid)
    return caller.vmctl("image", "build", "-t", "hostile", *words, "-f", "-", context, stdin=text, **options)


@pytest.mark.attack("makes the caller ask services of the host for it, by ADD of a URL")
@IN_CONTAINERS
def test_services_by_url(caller, mode, canary):
    port = canary.port
    for place in (
        f"127.0.0.1:{port}",
        f"localhost:{port}",
        f"127.1:{port}",
        f"[::ffff:127.0.0.1]:{port}",
        f"0.0.0.0:{port}",
    ):
        seen = build(caller, f"FROM scratch\nADD http://{place}/secret /x\n")
        assert seen.code == 125, seen
        canary.check(seen)
    for url in (
        f"file://{canary.path}",
        f"ftp://127.0.0.1:{port}/x",
        f"http:/{canary.path}",
        f"HTTP://127.0.0.1:{port}/",
    ):
        seen = build(caller, f"FROM scratch\nARG U={url}\nADD $U /x\n")
        assert seen.code == 125, seen
        canary.check(seen)


@pytest.mark.attack("leaves the folder that ADD unpacks an archive into, by .., absolute names and links")
@IN_CONTAINERS
def test_archive_that_leaves_its_folder(caller, mode, canary):
    """An archive may be of somebody else than the build file: of the image it gets the folder only."""
    context = os.path.join(caller.folder, "context")
    os.makedirs(context, exist_ok=True)
    placed = 0
    for victim in ("/etc/victim", canary.path):
        for name, entries in traversals(victim).items():
            with open(os.path.join(context, "bad.tar"), "wb") as file:
                file.write(tar_of(*entries))
            text = "FROM tiny\nCOPY <<E /etc/victim\nwhole\nE\nADD bad.tar /data/\n"
            seen = build(caller, text, context=context)
            canary.check(seen)
            if seen.code == 0:
                victim_inside = caller.vmctl("run", "--network", "none", "hostile", "--", "cat", "/etc/victim")
                assert victim_inside.out == "whole\n", (name, victim_inside)
                canary.check()  # a user's layers are unpacked on the host
                placed += 1
            else:
                assert "step 3 of 3 failed: ADD bad.tar /data/: bad.tar: " in seen.err, (name, seen)
    assert placed


REDIRECTS = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302)
        self.send_header("Location", {"/own": "http://198.51.100.1:8000/", "/loop": "http://127.0.0.1:8000/"}[self.path])
        self.end_headers()
http.server.HTTPServer(("198.51.100.2", 8000), Handler).serve_forever()
"""
ASKED = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked", flush=True)
        self.send_response(404)
        self.end_headers()
http.server.HTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


@pytest.mark.attack("makes the caller ask services of the host for it, by a redirect of a URL", mode="any", who="root")
def test_services_by_redirect(guest_root, tmp_path):
    """In a network namespace in the host's place, with a second one in the internet's."""
    host, outside = f"vt-h{os.getpid()}", f"vt-o{os.getpid()}"
    commands = (
        f"ip netns add {host}; ip netns add {outside}; ip -n {host} link add va type veth peer name vb netns {outside};"
        f" ip -n {host} address add 198.51.100.1/24 dev va; ip -n {outside} address add 198.51.100.2/24 dev vb;"
        f" for n in '{host} link set lo' '{host} link set va' '{outside} link set vb'; do ip -n $n up; done"
    )
    servers = []
    try:
        subprocess.run(["sh", "-ec", commands], check=True)
        for name, program in ((host, ASKED), (outside, REDIRECTS)):
            words = ["ip", "netns", "exec", name, sys.executable, "-c", program]
            servers.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        inside = ["ip", "netns", "exec", host, VMCTL, "image", "build", "-t", "hostile"]

        def built(url, *words):
            text = f"FROM scratch\nADD {url} /x\n"
            return subprocess.run(
                [*inside, *words, "-"], input=text, capture_output=True, text=True, check=False
            ).stderr

        wait_for(lambda: "404" in built("http://198.51.100.2:8000/own", "--network", "host"))  # the attempt is real
        assert servers[0].stdout.readline() == b"asked\n"
        for path in ("own", "loop"):
            assert "which a build may not ask" in built(f"http://198.51.100.2:8000/{path}")
        servers[0].kill()
        assert servers[0].stdout.read() == b""
    finally:
        for server in servers:
            server.kill()
            server.wait()
        for name in (host, outside):
            subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.mark.attack(
    "reads files of the host by `RUN --mount=type=bind`: through links and .. in the context or an image"
)
@IN_CONTAINERS
def test_files_by_bind(caller, mode, canary):
    context = os.path.join(caller.folder, "linked")
    os.mkdir(context)
    os.symlink(canary.path, os.path.join(context, "file"))
    os.symlink(os.path.dirname(canary.path), os.path.join(context, "folder"))
    os.chown(context, caller.uid, caller.uid)
    name = os.path.basename(canary.path)
    sources = (
        "file",
        "folder",
        f"folder/{name}",
        "..",
        "../..",
        canary.path,
        f"../../../../../../..{canary.path}",
        ".",
    )
    for source in sources:
        text = f"FROM tiny\nRUN --mount=source={source},target=/x find -L /x | head -50; cat /x /x/{name} /x/file\n"
        canary.check(build(caller, text, context=context))
    links = f"FROM tiny AS a\nRUN ln -s {canary.path} /f; ln -s /proc/self/root /r; ln -s ../../../.. /u\nFROM tiny\n"
    for source in ("f", "r", "u", f"u{canary.path}", f"r{canary.path}"):
        text = f"{links}RUN --mount=from=a,source={source},target=/x cat /x /x{canary.path}\n"
        canary.check(build(caller, text))


@pytest.mark.attack("leaves links in a cache that later builds mount, and in their paths for the next mount")
@IN_CONTAINERS
def test_links_in_a_cache(caller, mode, canary):
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        before = sorted(line.split()[4] for line in file if "/proc" in line or "/etc" in line)
    shared = "--mount=type=cache,id=trap,target=/c"
    up = "/".join([".."] * 12)
    links = f"ln -sfn /proc/1/root /c/magic; ln -sfn {up} /c/up; ln -sfn {canary.path} /c/file; true"
    text = f"FROM tiny\nRUN {shared} {links}\n"
    assert build(caller, text, "--no-cache").code == 0
    folder = os.path.dirname(canary.path)
    for target in ("/c/magic/etc", f"/c/up{folder}", "/c/file", f"/c/magic{canary.path}"):
        for kind in ("type=tmpfs", "type=cache,id=other", "type=bind"):
            look = f"cat /c/file {target} /c/up{canary.path}; echo x >{target}"
            text = f"FROM tiny\nRUN {shared} --mount={kind},target={target} {look}\n"
            canary.check(build(caller, text, "--no-cache"))
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        assert sorted(line.split()[4] for line in file if "/proc" in line or "/etc" in line) == before


@pytest.mark.attack("as another user of the host, reads the secret of a step of a build", who="root")
def test_secret_of_a_step(guest_root, tmp_path):
    (tmp_path / "key").write_text("of-the-caller")
    words = ("image", "build", "-t", "hostile", "--secret", f"id=k,src={tmp_path}/key", "-")
    process = start(*words)
    try:
        process.stdin.write(b"FROM tiny\nRUN --mount=type=secret,id=k,mode=0444 echo begun; sleep 1000\n")
        process.stdin.close()
        wait_for(lambda: b"begun" in process.stderr.readline())

        def found():
            seen = []
            for folder, _, names in os.walk("/dev/shm"):
                for name in names:
                    with contextlib.suppress(OSError), open(os.path.join(folder, name), "rb") as file:
                        seen.append(file.read(100).decode(errors="replace"))
            return seen

        assert "of-the-caller" in found()  # root finds it: the attempt is a real one
        assert "of-the-caller" not in as_nobody(found)
    finally:
        process.terminate()
        process.wait()
