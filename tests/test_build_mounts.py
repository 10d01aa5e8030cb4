"""`RUN --mount`, ADD of a URL, and a Dockerfile from standard input."""

import contextlib
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.commands import ok, refused, start, vmctl, wait_for
from support.ordinary_user import OrdinaryUser

from images.layer.lookup import View
from images.recipes import caches, runmounts
from images.recipes.steps import RunMount
from images.store import store
from images.upkeep import prune

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("own_store")]
SECRET = "only-for-this-step"


@pytest.fixture
def build(tmp_path):
    """A function that builds the image `built` from a Dockerfile; files of the context can be written before."""

    def run(text, *words, run=vmctl, **options):
        return run("image", "build", "-t", "built", *words, "-f", "-", str(tmp_path), stdin=text, **options)

    run.folder = tmp_path
    return run


def seen(*words):
    return ok("run", "--network", "none", "built", "--", *words)


LOCKED = RunMount("cache", "/c", id="x", sharing="locked", uid=5, gid=6, mode=0o700)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=cache,target=/c", RunMount("cache", "/c")),
        ("type=cache,dst=/c,id=x,sharing=locked,mode=0700,uid=5,gid=6", LOCKED),
        ("target=/src", RunMount("bind", "/src", read_only=True)),
        ("type=bind,from=base,src=/a,target=b,rw", RunMount("bind", "b", "/a", "base")),
        ("type=bind,source=a,target=/b,readonly=true,rw=false", RunMount("bind", "/b", "a", read_only=True)),
        ("type=tmpfs,target=/t,size=1m", RunMount("tmpfs", "/t", size_bytes=1 << 20)),
        ("type=secret,id=key", RunMount("secret", "/run/secrets/key", id="key", mode=0o400)),
        ("type=secret,target=/a/key,required", RunMount("secret", "/a/key", id="key", mode=0o400, required=True)),
    ],
)  # fmt: skip
def test_options(text, mount):
    assert runmounts.read(text) == mount


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=ssh", "use type=secret for a key"),
        ("type=volume,target=/a", "expected type=bind, cache, tmpfs, secret, got volume"),
        ("type=cache", "expected target=FOLDER"),
        ("type=cache,target=", "expected NAME=VALUE, got target="),
        ("type=cache,target=/a,dst=/b", "target is given twice"),
        ("type=cache,target=/a,sharing=all", "sharing is one of shared, private, locked, not all"),
        ("type=cache,target=/a,from=x", "a cache begins empty"),
        ("type=cache,target=/a,mode=9", "expected an octal mode"),
        ("type=cache,target=/a,uid=4294967295", "numbers from 0 to 2147483647"),
        ("type=secret,id=a,env=A", "read the file instead"),
        ("type=secret", "expected id=NAME, got none"),
        ("type=secret,id=../a", "expected id=NAME"),
        ("type=tmpfs,target=/a,size=big", "big"),
        ("type=bind,target=/a,ro,rw", "exclude each other"),
        ("type=bind,target=/a,from=$B", "from has no variables"),
        ("type=bind,target=/a,ro=maybe", "ro is one of"),
        ("target=/a,,", "expected NAME=VALUE, got nothing"),
    ],
)
def test_wrong_options(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        runmounts.read(text)


def test_what_is_mounted_is_not_in_the_layer(build):
    (build.folder / "src").mkdir()
    (build.folder / "src/a").write_text("from the context\n")
    (build.folder / "hidden").write_text("not to be seen\n")
    (build.folder / ".dockerignore").write_text("hidden\n")
    text = """\
        FROM tiny AS base
        RUN mkdir /made && echo "from the stage" >/made/b
        FROM tiny
        ARG WHERE=/mnt/src
        WORKDIR /work
        RUN --mount=target=$WHERE --mount=type=bind,from=base,source=made/b,target=b \\
            --mount=type=tmpfs,target=/mnt/memory,size=1m --mount=type=cache,target=/root/.cache/x <<END
        set -e
        cat /mnt/src/src/a /work/b >/seen
        echo nothing >/mnt/memory/left; echo kept >/root/.cache/x/file
        touch /mnt/src/new 2>/dev/null && exit 5
        ls -A /mnt/src >>/seen
        df /mnt/memory | grep -q 1024
        END
        RUN --mount=target=.,source=src,rw echo more >>a && cat a >>/seen"""
    said = build(text.replace("        ", ""))
    assert said.code == 0, said
    assert seen("cat", "/seen") == ("from the context\nfrom the stage\n.dockerignore\nsrc\nfrom the context\nmore\n")
    assert (build.folder / "src/a").read_text() == "from the context\n"
    with View(store.find("built").layers) as view:
        assert [path for path in ("/mnt", "/root/.cache", "/work/b", "/work/a") if view.find(path)] == []


def test_a_step_runs_again_only_if_its_files_differ(build):
    (build.folder / "a").write_text("1")
    (build.folder / "b").write_text("1")
    text = "FROM tiny\nRUN --mount=source=a,target=/a cp /a /copy\n"
    assert "CACHED" not in build(text).err
    (build.folder / "b").write_text("2")
    assert "CACHED" in build(text).err
    (build.folder / "a").write_text("2")
    assert "CACHED" not in build(text).err
    assert seen("cat", "/copy") == "2"


def test_a_cache_is_kept_between_builds_and_can_be_removed(build):
    look = "stat -c %u:%a /c; echo x >>/c/f; wc -l </c/f"
    text = f"FROM tiny\nRUN --mount=type=cache,id=c,target=/c,uid=7,mode=0750 {look}\n"
    assert "7:750\n1\n" in build(text, "--no-cache").err
    assert "7:750\n2\n" in build(text, "--no-cache").err
    other = text.replace("id=c", "id=d")
    assert "\n1\n" in build(other).err
    assert len(caches.folders()) >= 2
    ok("image", "prune", "--force")
    assert len(caches.folders()) >= 2
    listed = [item for item in prune.unused(everything=True) if item.kind == prune.CACHE]
    assert [item.name for item in listed] == caches.folders()
    assert [item.size_bytes > 0 for item in prune.remove(listed)] == [True] * len(listed)
    assert caches.folders() == []


def test_who_shares_a_cache(own_store):
    def place(stack, sharing):
        return stack.enter_context(caches.lent(RunMount("cache", "/c", id="s", sharing=sharing)))

    with contextlib.ExitStack() as one, contextlib.ExitStack() as two:
        assert place(one, "shared") == place(two, "shared")
        assert caches.remove(os.path.dirname(place(one, "shared"))) == 0
    with contextlib.ExitStack() as one, contextlib.ExitStack() as two:
        assert place(one, "private") != place(two, "private")
    with contextlib.ExitStack() as one, contextlib.ExitStack() as two:
        place(one, "locked")
        waits = threading.Thread(target=place, args=(two, "locked"), daemon=True)
        waits.start()
        waits.join(0.3)
        assert waits.is_alive()
        one.close()
        waits.join(60)
        assert not waits.is_alive()


def test_secrets(build, tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "key"
    file.write_text(SECRET)
    text = (
        "FROM tiny\nRUN --mount=type=secret,id=key --mount=type=secret,id=word,target=/w,uid=1000,mode=0440"
        " stat -c '%u:%a' /run/secrets/key /w; df /w | grep tmpfs >/dev/null && md5sum </run/secrets/key >/sum;"
        " test $(cat /w) = from-a-variable && echo right\n"
    )
    words = ("--secret", f"id=key,src={file}", "--secret", "id=word,env=WORD")
    said = build(text, *words, env={**os.environ, "WORD": "from-a-variable"})
    assert said.code == 0, said
    assert "0:400\n1000:440\nright\n" in said.err
    assert seen("sh", "-c", "ls /run/secrets /w 2>&1 | wc -l") == "2\n"  # two errors
    for folder, _, names in os.walk(store.path()):
        for name in names:
            with open(os.path.join(folder, name), "rb") as content:
                assert SECRET.encode() not in content.read(), name
    assert not [name for name in os.listdir("/dev/shm") if name.startswith("vmctl-secrets-")]
    assert build(text.replace(",id=key", ",id=key,required")).err.count("the secret key is required") == 1
    assert "right" not in build(text, "--no-cache").err  # a secret that is not required may be missing
    for wrong in ("key", "id=", "id=a,src=b,env=C", "id=a,mode=1"):
        assert "--secret: expected" in refused("image", "build", "--secret", wrong, "-t", "x", "-", stdin="FROM tiny\n")
    assert "cannot be read" in refused(
        "image", "build", "--secret", "id=a,src=/nope", "-t", "x", "-", stdin="FROM tiny\n"
    )


def test_a_killed_build_leaves_no_secret(build):
    process = start("image", "build", "-t", "built", "--secret", "id=HOME", "-", stdin=-1)
    process.stdin.write(b"FROM tiny\nRUN --mount=type=secret,id=HOME echo begun; sleep 1000\n")
    process.stdin.close()
    wait_for(lambda: "begun" in process.stderr.readline().decode())
    process.kill()
    process.wait()
    assert [name for name in os.listdir("/dev/shm") if name.startswith("vmctl-secrets-")]
    assert build("FROM tiny\nRUN --mount=type=secret,id=HOME true\n", "--secret", "id=HOME").code == 0
    assert not [name for name in os.listdir("/dev/shm") if name.startswith("vmctl-secrets-")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--mount=target=/proc/x", "/proc/x is a place of the kernel"),
        ("--mount=target=/", "cannot be the whole root"),
        ("--mount=type=tmpfs,target=/a --mount=type=cache,target=/a", "/a is given twice"),
        ("--mount=target=/a,source=nope", "nothing in the context"),
        ("--mount=target=/a,source=../..", "leads out of the context"),
        ("--mount=target=/a,from=nope", "there is no image nope"),
        ("--mount=type=ssh", "use type=secret"),
        ("--device=x", "the flag --device is not supported"),
    ],
)
def test_refused_mounts(build, flags, message):
    said = build(f"FROM tiny\nRUN {flags} true\n")
    assert said.code == 125
    assert message in said.err


def test_as_an_ordinary_user():
    with OrdinaryUser() as user:
        user.give_image()
        context = os.path.join(user.home, "context")
        user.run("mkdir", context)
        user.write("context/a", "of the user\n")
        text = (
            "FROM tiny\nRUN --mount=target=/src --mount=type=cache,target=/c --mount=type=secret,id=s"
            " --mount=type=tmpfs,target=/t cat /src/a /run/secrets/s; id -u; touch /c/x /t/x; ls /c >/seen\n"
        )
        words = ("image", "build", "-t", "built", "--secret", "id=s,env=WORD", "-f", "-", context)
        said = user.vmctl(*words, stdin=text, env={"WORD": SECRET})
        assert said.code == 0, said
        assert f"of the user\n{SECRET}0\n" in said.err
        assert user.ok("run", "--network", "none", "built", "--", "cat", "/seen") == "x\n"


# ADD of a URL


@pytest.fixture(scope="module")
def server():
    """A server on the loopback: `/file`, `/moved` to it, `/out` to a file of the host, `/short` ends too early."""

    class Handler(BaseHTTPRequestHandler):
        asked = 0

        def do_GET(self):
            Handler.asked += 1
            moved = {"/moved": "/file", "/out": "file:///etc/passwd", "/circle": "/circle"}.get(self.path)
            found = self.path.partition("?")[0] in ("/file", "/a%20b", "/short", "/")
            self.send_response(302 if moved else 200 if found else 404)
            if moved:
                self.send_header("Location", moved)
            self.send_header("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
            self.send_header("Content-Length", "8" if self.path == "/short" else "5" if found else "0")
            self.end_headers()
            if found:
                self.wfile.write(b"hello")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.url = f"http://127.0.0.1:{served.server_port}"
        served.handler = Handler
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield served
        served.shutdown()


HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def test_a_url_is_added(build, server):
    text = f"""FROM tiny
ARG U={server.url}
ADD $U/file $U/moved $U/a%20b /d/
ADD --checksum={HELLO} --chmod=755 --chown=7 $U/file /renamed
"""
    assert build(text, "--network", "host").code == 0
    found = seen("sh", "-c", "cat /d/*; echo; ls /d; stat -c '%a %u' /d/file /renamed")
    assert found == "hellohellohello\na b\nfile\nmoved\n600 0\n755 7\n"
    assert "CACHED" in build(text, "--network", "host").err


@pytest.mark.parametrize(
    ("source", "words", "message"),
    [
        ("URL/file", (), "which a build may not ask"),
        ("URL/file", ("--network", "none"), "which --network none forbids"),
        ("URL/nope", ("--network", "host"), "404"),
        ("URL/short", ("--network", "host"), "could not be downloaded"),
        ("URL/circle", ("--network", "host"), "is redirected more than 10 times"),
        ("URL/out", ("--network", "host"), "which is not http or https"),
        ("URL/", ("--network", "host"), "gives the file no name"),
        (f"--checksum=sha256:{'0' * 64} URL/file", ("--network", "host"), "its digest is sha256:2cf24"),
        ("--checksum=md5:1 URL/file", (), "expected sha256:"),
        ("--checksum=sha256:1 file", (), "expected sha256:"),
        ("ftp://example.org/a", (), "by http and https"),
        ("https://example.org/a.git#v1", (), "use RUN git clone"),
        ("http://127.0.0.1:1/a", ("--network", "host"), "cannot be reached"),
    ],
)
def test_a_url_that_cannot_be_added(build, server, source, words, message):
    said = build(f"FROM scratch\nADD {source.replace('URL', server.url)} /d/\n", *words)
    assert said.code == 125
    assert message in said.err


def test_a_proxy_is_asked(build, server):
    """A request to a proxy has the whole URL in its first line (RFC 9112, absolute-form), which this server refuses."""
    env = {**os.environ, "http_proxy": server.url, "no_proxy": ""}
    before = server.handler.asked
    said = build("FROM scratch\nADD http://example.invalid/file /d/\n", env=env)
    assert "does not give http://example.invalid/file: 404" in said.err
    assert server.handler.asked == before + 1


def test_from_standard_input(build):
    (build.folder / "a").write_text("of the folder\n")
    assert build("FROM tiny\nCOPY a /a\n").code == 0
    assert seen("cat", "/a") == "of the folder\n"
    assert ok("image", "build", "-q", "-t", "piped", "-", stdin="FROM tiny\nRUN echo x >/x\n").startswith("sha256:")
    assert "-:2: " in refused("image", "build", "-t", "piped", "-", stdin="FROM tiny\nNOPE x\n")
    assert "--tag NAME" in refused("image", "build", "-", stdin="FROM tiny\n")
    said = vmctl("image", "build", "-t", "piped", "-", stdin="FROM tiny\nCOPY a /\n")
    assert "nothing in the context, which is empty, is a\nhint: `vmctl image build -f - FOLDER`" in said.err


def test_a_recipe_has_mounts_too(build):
    path = build.folder / "r.yaml"
    path.write_text(
        "from: tiny\nsteps:\n- run: {command: cp /src/r.yaml /copy, mounts: ['target=/src', 'type=tmpfs,target=/t']}\n"
    )
    ok("image", "build", "-t", "built", str(path))
    assert "from: tiny" in seen("cat", "/copy")
    path.write_text("from: tiny\nsteps:\n- run: {command: x, mounts: ['type=ssh']}\n")
    assert "the key steps.run.mounts: " in refused("image", "build", "-t", "built", str(path))
