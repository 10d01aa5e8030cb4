"""Complete builds: cached, reproducible, at the same time, interrupted; a failed build leaves nothing behind."""

import json
import os
import re
import shutil
import signal
import tarfile
import time

import pytest
from support.commands import ok, refused, start, vmctl, wait_for
from support.host_state import host_state, left_behind
from support.images_made import held

from images.layer import lookup
from images.layer.tree import Attributes
from images.recipes import tarstream
from images.store import store
from images.store.image import DEFAULT_PATH
from images.store.staging import staging
from vmctl.errors import VmctlError
from vmctl.instances import instance

pytestmark = pytest.mark.usefixtures("own_store")


@pytest.fixture
def context(tmp_path):
    """A context, and a function that writes its Dockerfile and builds it."""

    def build(text, *words, run=vmctl, **options):
        (tmp_path / "context/Dockerfile").write_text(text)
        return run("image", "build", "-t", "built", *words, str(tmp_path / "context"), **options)

    (tmp_path / "context").mkdir()
    build.folder = tmp_path / "context"
    return build


def content(path, name="built"):
    with lookup.View(store.find(name).layers) as view:
        return b"".join(view.content(path)).decode()


def steps(said):
    """Return the text and the result of each step."""
    lines = re.findall(r"^\[(\d+)/\d+\] (.*?)(?:  (CACHED|nothing changed|[\d.]+ \w+))?$", said, re.MULTILINE)
    return [(text, how) for _, text, how in lines]


def cached(said):
    return [how == "CACHED" for text, how in steps(said) if text.split()[0] in ("RUN", "COPY", "ADD", "WORKDIR", "run")]


STEPS = 'FROM tiny\nWORKDIR /w\nRUN echo 1 >one; echo said\nCOPY a .\nRUN cat one a >two\nCMD ["cat", "two"]\n'


def test_a_second_build_runs_nothing(context):
    (context.folder / "a").write_text("A\n")
    first = context(STEPS, "--no-cache")
    assert (first.code, cached(first.err)) == (0, [False] * 4)
    assert "\nsaid\n" in first.err
    assert first.out == f"{store.find('built').digest}\n"
    second = context(STEPS)
    assert (second.out, cached(second.err)) == (first.out, [True] * 4)
    assert "\nsaid\n" not in second.err
    assert ok("run", "built") == "1\nA\n"


def test_what_a_step_depends_on_decides(context):
    (context.folder / "a").write_text("A\n")
    context(STEPS, run=ok)
    os.utime(context.folder / "a")  # a changed time is not a change: in a fresh clone all times differ
    assert cached(context(STEPS).err) == [True] * 4
    (context.folder / "a").write_text("B\n")
    assert cached(context(STEPS).err) == [True, True, False, False]
    assert ok("run", "built") == "1\nB\n"
    assert cached(context(STEPS.replace("echo 1", "echo 2")).err) == [True, False, True, False]  # the same file
    assert cached(context(STEPS.replace("RUN echo 1", "USER nobody\nUSER root\nRUN echo 1")).err)[1] is False
    assert cached(context(STEPS).err) == [True] * 4
    (context.folder / "a").chmod(0o600)
    assert cached(context(STEPS).err) == [True, True, False, False]


def test_arguments_count_once_they_are_declared(context):
    text = "FROM tiny\nRUN echo before\nARG X=1\nRUN echo $X >/x\n"
    context(text, run=ok)
    assert cached(context(text, "--build-arg", "X=2").err) == [True, False]
    assert content("/x") == "2\n"
    assert cached(context(text, "--build-arg", "HTTP_PROXY=http://127.0.0.1:1").err) == [True, True]
    assert "has no ARG Y" in context(text, "--build-arg", "Y=1").err
    environment = {**os.environ, "X": "from the environment"}
    context(text, "--build-arg", "X", run=ok, env=environment)
    assert content("/x") == "from the environment\n"


def test_labels_of_the_command_line_win(context):
    context("FROM tiny\nLABEL a=file b=file\n", "--label", "a=flag", "--label", "c", run=ok)
    assert store.document(store.find("built"))["config"]["Labels"] == {"a": "flag", "b": "file", "c": ""}


def forget_steps():
    for image in store.ls(hidden=True):
        if image.name.startswith("."):
            store.remove(image.name)


SECRETIVE = """FROM tiny
USER nobody
ENV TOKEN=x PATH=/nowhere:/bin
WORKDIR /etc
LABEL of=one
ENTRYPOINT ["/bin/false"]
VOLUME /v
STOPSIGNAL SIGQUIT
RUN true
"""
SEEN = "FROM tiny\nCOPY a /a\nRUN id -un >/seen; env | sort | grep -v HOSTNAME >>/seen; pwd >>/seen\n"


@pytest.mark.parametrize("words", [(), ("--no-cache",)], ids=["cached", "not-cached"])
@pytest.mark.parametrize(
    ("before", "then"),
    [(SECRETIVE, SEEN.replace("COPY a /a\n", "")), (SECRETIVE.replace("RUN true", "COPY a /a\nRUN true"), SEEN)],
    ids=["on-the-base", "on-the-same-files"],
)
def test_a_step_sees_only_the_settings_of_its_own_file(context, before, then, words):
    (context.folder / "a").write_text("A")
    forget_steps()
    alone = context(then, *words, run=ok)
    assert content("/seen").splitlines()[0] == "root"
    assert "TOKEN" not in content("/seen")
    forget_steps()
    context(before, run=ok)
    assert context(then, *words, run=ok) == alone


def test_a_step_sees_nothing_of_another_stage(context):
    (context.folder / "a").write_text("A")
    context(SEEN, run=ok)
    alone = content("/seen")
    forget_steps()
    one = SECRETIVE.replace("FROM tiny", "FROM tiny AS one").replace("RUN true", "COPY a /a\nRUN true")
    context(f"{one}{SEEN}COPY --from=one /a /b\n", run=ok)
    assert content("/seen") == alone


def test_a_base_without_path_has_the_default_one(context):
    text = "FROM scratch\nCOPY --from=tiny /bin/busybox /bin/sh\nENV PATH=/opt/bin:$PATH\nRUN echo $PATH >/path\n"
    context(text, run=ok)
    assert content("/path") == f"/opt/bin:{DEFAULT_PATH}\n"
    assert store.find("built").config.env == (f"PATH=/opt/bin:{DEFAULT_PATH}",)


def test_a_full_name_is_the_short_one(context):
    context("FROM docker.io/library/tiny\nCOPY --from=index.docker.io/library/tiny:latest /etc/passwd /p\n", run=ok)
    assert content("/p") == content("/etc/passwd")


@pytest.mark.parametrize("verb", ["build", "recipe", "import"])
def test_a_new_image_cannot_have_a_digest_in_its_name(context, tmp_path, verb):
    name = f"x@sha256:{'0' * 64}"
    (context.folder / "Dockerfile").write_text("FROM tiny\n")
    (tmp_path / "recipe.yaml").write_text(f"name: {name}\nfrom: tiny\n")
    words = {
        "build": ("build", "-t", name, str(context.folder)),
        "recipe": ("build", str(tmp_path / "recipe.yaml")),
        "import": ("import", str(context.folder), "--as-layer", "--name", name),
    }[verb]
    assert "contains a digest, so it cannot name a new image" in refused("image", *words)


def test_only_the_difference_is_stored(context):
    big = "head -c 1000000 /dev/zero | tr '\\0' x >/big"
    text = f"FROM tiny\nRUN {big}\nRUN echo small >/small\nRUN echo x >>/big\nRUN :\n"
    said = context(text, "--no-cache").err
    base = store.find("tiny").layers
    layers = store.find("built").layers[len(base) :]
    assert [layer.size_bytes // 1_000_000 for layer in layers] == [1, 0, 1]  # the last step changed nothing
    assert steps(said)[-1] == ("RUN :", "nothing changed")
    history = store.document(store.find("built"))["history"]
    assert [line.get("empty_layer", False) for line in history[-4:]] == [False, False, False, True]
    assert history[-2]["created_by"] == "RUN echo x >>/big"


def test_the_same_build_gives_the_same_digest_in_another_store(context, tmp_path, monkeypatch):
    (context.folder / "d").mkdir()
    (context.folder / "d/a").write_text("A")
    text = "FROM tiny\nCOPY d /d\nRUN mkdir /e && date >/dev/null && touch /e/f && hostname >/e/host && mv /d/a /d/b\n"
    first = context(text, "--no-cache", run=ok)
    shutil.copytree(store.path(), tmp_path / "other/lib/images", symlinks=True)
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "other"))
    os.utime(context.folder / "d/a")
    os.utime(context.folder / "d")
    previous = os.umask(0o077)
    try:
        assert context(text, "--no-cache", run=ok) == first
    finally:
        os.umask(previous)


def test_the_time_that_counts_is_the_bases_or_the_one_agreed_on(context, monkeypatch):
    (context.folder / "a").write_text("A")
    text = "FROM tiny\nCOPY a /a\nRUN echo $SOURCE_DATE_EPOCH >/b\n"
    for epoch in (None, "1700000000"):
        if epoch:
            monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        context(text, run=ok)
        image = store.find("built")
        if epoch is None:
            assert image.created == store.find("tiny").created
        else:
            assert (image.created, content("/b")) == ("2023-11-14T22:13:20Z", f"{epoch}\n")
        for path in ("/a", "/b"):
            mtime_ns = lookup.find(image.layers, path).attributes.mtime_ns
            assert store.timestamp(mtime_ns // 10**9) == image.created
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    assert "SOURCE_DATE_EPOCH: expected seconds" in context(text, run=refused)


@pytest.mark.alone
def test_a_failing_step_leaves_nothing_and_keeps_what_was_before(context):
    text = "FROM tiny\nRUN echo good >/good\nRUN for i in $(seq 30); do echo line $i; done; exit 7\nRUN never\n"
    before = host_state()
    said = context(text, run=refused_after_steps)
    assert "Dockerfile:3: step 3 of 4 failed: RUN for i in" in said
    assert "ended with code 7" in said
    assert said.count("line 30") == 2  # as it came, and at the end of the error
    assert said.count("line 5\n") == 1
    assert left_behind(before) == {}
    assert instance.names() == []
    assert os.listdir(store.path("stages")) == []
    assert cached(context(text).err) == [True, False]  # the failed one is tried again


def refused_after_steps(*words):
    """The command fails, and its error is the end of its output."""
    result = vmctl(*words)
    assert (result.code, result.out) == (125, ""), result
    assert "\nvmctl: " in result.err
    return result.err


SLEEPING = "FROM tiny\nRUN echo first >/first\nRUN echo sleeping; sleep 1000\n"


def sleeping(context):
    """Start a build and wait until its last step sleeps."""
    (context.folder / "Dockerfile").write_text(SLEEPING)
    process = start("image", "build", "-t", "slow", str(context.folder), start_new_session=True)
    said = b""
    while b"sleeping\n" not in said:
        said += os.read(process.stderr.fileno(), 4096)
    return process


@pytest.mark.alone
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing(context, signum):
    before = host_state()
    process = sleeping(context)
    assert len(instance.names()) == 1
    process.send_signal(signum)
    assert process.wait(120) == 128 + signum
    process.communicate()
    assert left_behind(before) == {}
    assert os.listdir(store.path("stages")) == []


@pytest.mark.alone
def test_a_killed_build_goes_with_the_next_one(context):
    before = host_state()
    process = sleeping(context)
    [name] = instance.names()
    pid = instance.load(name).state.pid
    process.kill()
    process.communicate()
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"))  # the container dies with its parent
    said = context(SLEEPING.replace("sleep 1000", "sleep 0"))
    assert (said.code, cached(said.err)) == (0, [True, False])
    wait_for(lambda: ok("image", "build", "-q", "-t", "built", str(context.folder)) and instance.names() == [])
    assert left_behind(before) == {}
    assert os.listdir(store.path("stages")) == []


def test_the_same_step_of_two_builds_runs_once(context):
    (context.folder / "Dockerfile").write_text("FROM tiny\nRUN sleep 1; head -c 8 /dev/urandom | xxd -p >/random\n")
    processes = [start("image", "build", "-t", f"twin{number}", str(context.folder)) for number in range(2)]
    results = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert sorted(how for _, err in results for how in cached(err.decode())) == [False, True]
    assert content("/random", "twin0") == content("/random", "twin1")


def test_builds_that_have_nothing_to_do_with_each_other(context):
    processes = []
    for number in range(3):
        path = context.folder / f"{number}.Dockerfile"
        path.write_text(f"FROM tiny\nRUN echo {number} >/n; sleep 0.3\nCOPY {number}.Dockerfile /f\nRUN cat /n\n")
        processes.append(start("image", "build", "-t", f"other{number}", "-f", str(path), str(context.folder)))
    assert [process.communicate() and process.returncode for process in processes] == [0, 0, 0]
    assert [content("/n", f"other{number}") for number in range(3)] == ["0\n", "1\n", "2\n"]


def test_the_name_goes_to_the_new_image(context):
    context("FROM tiny\nRUN echo old >/which\n", run=ok)
    ok("up", spec(context.folder, "image: built\ncommand: [sleep, '1000']\n"))
    try:
        context("FROM tiny\nRUN echo new >/which\n", run=ok)
        assert content("/which") == "new\n"
        assert ok("exec", "web", "--", "cat", "/which") == "old\n"
    finally:
        ok("down", "web")


def spec(folder, text):
    path = folder / "web.yaml"
    path.write_text(text)
    return str(path)


def test_cached_steps_are_not_listed_and_can_be_removed(context):
    context("FROM tiny\nRUN echo kept >/kept\n", run=ok)
    assert all(not image["name"].startswith(".") for image in json.loads(ok("image", "ls", "--format", "json")))
    ok("image", "rm", "built")
    assert cached(context("FROM tiny\nRUN echo kept >/kept\n").err) == [True]
    for image in store.ls(hidden=True):
        if image.name.startswith(".build/"):
            store.remove(image.name)
    assert content("/kept") == "kept\n"  # an image needs none of them
    assert cached(context("FROM tiny\nRUN echo kept >/kept\n").err) == [False]


@pytest.mark.alone
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("COPY ../x /x", "the source ../x leads out of the context"),
        ("COPY d/../../x /x", "leads out of the context"),
        ("COPY to-etc /x", "a symbolic link to /etc/passwd leads out of the context"),
        ("COPY up /x", "up leads out of the context"),
        ("COPY up-folder/passwd /x", "leads out of the context"),
        ("COPY round /x", "nothing in the context"),
        ("COPY nowhere /x", "nothing in the context"),
        ("COPY *.none /x", "nothing in the context"),
        ("COPY /etc/passwd /x", "nothing in the context"),
        ("COPY [ /x", "is not a valid pattern"),
        ("COPY a d /x", "several sources go into a folder"),
        ("COPY a /etc/passwd/", "/etc/passwd is a file in the image"),
        ("COPY d /etc/passwd", "/etc/passwd is a file in the image"),
        ("COPY a /x/a\nCOPY a /x/a/b", "/x/a is a file in the image"),
        ("RUN mkdir -p /x/a\nCOPY a d/ /x/", "/x/a is a folder in the image and cannot become a file"),
        ("COPY --from=0 / /", "there is no image 0"),
        ("COPY .wh.a /x/", "such a name means a deletion"),
        ("COPY --chown=nobody:none a /x", "the image's /etc/group has no none"),
        ("COPY --chown=who a /x", "the image's /etc/passwd has no who"),
        ("COPY --from=other a /x", "there is no image other"),
        ("COPY $NOTHING /x", "the source is empty"),
        ("ADD evil.tar /x/", "an entry leads out of it"),
        ("ADD broken.tar.gz /x/", "is a damaged archive"),
        ('RUN ["/no/such"]', "the command /no/such is not in the image"),
        ('SHELL ["/bin/bash", "-c"]\nRUN a', "the command /bin/bash is not in the image"),
        ("USER who\nRUN a", "who"),
        ("USER $U", "the user is empty"),
        ("EXPOSE web", "expected a port such as"),
        ('ENV A="${B:?is needed}"', "B: is needed"),
    ],
)
def test_refused_steps_leave_nothing(context, text, message):
    folder = context.folder
    for name in ("a", ".wh.a"):
        (folder / name).write_text(name)
    (folder / "d").mkdir()
    links = {"to-etc": "/etc/passwd", "up": "../x", "up-folder": "../../../../../etc", "round": "round"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    with tarfile.open(folder / "evil.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("ok/../../x"))
    with tarfile.open(folder / "broken.tar.gz", "w:gz") as archive:
        archive.add(__file__, "big")
        archive.add("/bin/sh", "bigger")
    whole = (folder / "broken.tar.gz").read_bytes()
    (folder / "broken.tar.gz").write_bytes(whole[: len(whole) // 2])
    before, images = host_state(), [image.name for image in store.ls()]
    said = context(f"FROM tiny\n{text}\n", run=refused_after_steps)
    assert message in said
    assert re.search(r"Dockerfile:\d+: ", said)
    assert "Traceback" not in said
    assert left_behind(before) == {}
    assert [image.name for image in store.ls()] == images


@pytest.mark.parametrize(
    ("text", "words", "message", "hint"),
    [
        ("FROM nowhere\n", (), "Dockerfile:1: there is no image nowhere", "vmctl image ls"),
        ("FROM debian\n", (), "Dockerfile:1: there is no image debian", "vmctl image build debian"),
        ("FROM $NONE\n", (), "$NONE is empty", "--build-arg"),
        ("FROM scratch\nRUN a\n", (), "RUN needs a program, but the image is empty", "COPY"),
        ("FROM tiny AS a\n", ("--target", "b"), "has no stage b", "stages: a"),
        ("FROM tiny\n", ("-t", "Upper/Case"), "Upper/Case", ""),
        ("FROM tiny\n", ("--set", "a=b"), "is a Dockerfile", "--build-arg"),
        ("FROM tiny\n", ("--build-arg", "NO_SUCH_VARIABLE"), "--build-arg NO_SUCH_VARIABLE: it has no value", ""),
        ("FROM tiny\nEXPOSE 80 # web\n", (), "expected a port such as", "# begins a comment only at the beginning"),
        ("FROM tiny\nFRUM x\n", (), "Dockerfile:2: there is no instruction FRUM", "FROM"),
    ],
)
def test_refused_builds(context, text, words, message, hint):
    said = context(text, *words)
    assert (said.code, said.out) == (125, "")
    assert message in said.err
    assert hint in said.err


def test_a_base_for_other_machines_is_refused(context):
    with staging() as stage:
        document = {**store.document(store.find("tiny")), "architecture": "s390x"}
        store.add(stage, "foreign", [held(stage, layer) for layer in store.find("tiny").layers], document)
    (context.folder / "a").touch()
    said = context("FROM foreign\nCOPY a /\n")
    assert (said.code, said.out) == (125, "")
    assert "Dockerfile:1: the image foreign is for s390x, but images are built for" in said.err


def test_a_huge_context_costs_nothing_that_is_not_copied(context):
    with open(context.folder / "huge", "wb") as file:
        file.truncate(1 << 40)
    (context.folder / "many").mkdir()
    for number in range(3000):
        (context.folder / f"many/{number}").touch()
    (context.folder / "a").write_text("A")
    (context.folder / ".dockerignore").write_text("huge\nmany/1*\n")
    before_s = time.process_time()
    context("FROM tiny\nCOPY . /all/\n", run=ok)
    assert time.process_time() - before_s < 5
    with lookup.View(store.find("built").layers) as view:
        assert view.names("/all") == [b".dockerignore", b"Dockerfile", b"a", b"many"]
        assert len(view.names("/all/many")) == 1889


def test_names_of_any_kind(context):
    for name in (b"new\nline", b"\xff\xfe", "\u00e4".encode(), b"x" * 255, b" space "):
        with open(os.path.join(os.fsencode(context.folder), name), "w"):
            pass
    context("FROM tiny\nCOPY . /all/\n", run=ok)
    with lookup.View(store.find("built").layers) as view:
        assert view.names("/all") == sorted([b"Dockerfile", *os.listdir(os.fsencode(context.folder))][1:])


@pytest.mark.parametrize("there", [b"", b"four", b"sixsix"])
def test_a_file_that_changes_while_it_is_read_is_no_layer(there):
    node = lookup.Node(Attributes(0o100644), 5, 1)
    with pytest.raises(VmctlError, match="the file for /a changed while it was read"):
        list(tarstream.tar([tarstream.Entry("a", node, lambda: iter([there]))]))


def test_here_documents_run(context):
    context(
        "FROM tiny\nRUN <<EOF\necho $((6 * 7)) >/a\nEOF\nRUN <<EOF\n#!/bin/sh -e\necho script >/b\nEOF\n"
        "RUN cat <<EOF >/c\n$HOME\nEOF\nENV X=1\nCOPY <<e <<'f' /d/\n$X\ne\n$X\nf\n",
        run=ok,
    )
    assert [content(path) for path in ("/a", "/b", "/c", "/d/e", "/d/f")] == [
        "42\n",
        "script\n",
        "/root\n",
        "1\n",
        "$X\n",
    ]


def test_steps_for_later(context):
    context("FROM tiny\nONBUILD COPY a /a\nONBUILD RUN cat /a >/b\n", "-t", "later", run=ok)
    (context.folder / "a").write_text("A")
    said = context("FROM later\nRUN cat /b >/c\n").err
    assert [text for text, _ in steps(said)] == ["FROM later", "COPY a /a", "RUN cat /a >/b", "RUN cat /b >/c"]
    assert content("/c") == "A"
    assert "OnBuild" not in store.document(store.find("built"))["config"]


def test_a_stage_that_nobody_needs_is_not_built(context):
    text = "FROM tiny AS a\nRUN echo a >/a\nFROM tiny AS b\nRUN exit 1\nFROM a\nRUN echo c >/c\n"
    assert "RUN exit 1" not in context(text).err
    assert (content("/a"), content("/c")) == ("a\n", "c\n")
    context(text, "--target", "a", run=ok)
    assert content("/c") == ""


def test_a_step_without_network(context):
    context("FROM tiny\nRUN --network=none ls /sys/class/net >/none\nRUN ls /sys/class/net >/bridge\n", run=ok)
    assert (content("/none"), content("/bridge")) == ("lo\n", "eth0\nlo\n")


def test_quiet_says_only_the_digest(context):
    result = context("FROM tiny\nRUN echo loud\n", "-q", "--no-cache")
    assert (result.err, result.out) == ("", f"{store.find('built').digest}\n")


def test_a_recipe(context):
    (context.folder / "a").write_text("A\n")
    path = context.folder / "mine.yaml"
    path.write_text(
        "from: tiny\nenv: {X: 1}\nsteps:\n- env: {Y: \"$X'2'\"}\n- copy: {from: a, to: /srv/}\n"
        "- file: {path: /etc/mine, content: \"$X\\n\", mode: '0600', owner: '3:4'}\n- arg: {V: none}\n"
        "- run: echo $X $Y $V >/said\n- run: [touch, '/a b']\n- user: nobody\n- run: {command: id -un >/tmp/me}\n"
        "command: [cat, /said]\nexpose: [80]\nlabels: {a: b}\n"
    )
    said = vmctl("image", "build", "--build-arg", "V=v", str(path))
    assert said.code == 0, said
    assert ok("run", "mine") == "1 1'2' v\n"
    assert (content("/srv/a", "mine"), content("/etc/mine", "mine"), content("/tmp/me", "mine")) == (
        "A\n",
        "$X\n",
        "nobody\n",
    )
    attributes = lookup.find(store.find("mine").layers, "/etc/mine").attributes
    assert (attributes.mode & 0o7777, attributes.uid, attributes.gid) == (0o600, 3, 4)
    config = store.find("mine").config
    assert (config.user, config.exposed_ports, config.labels) == ("nobody", ("80/tcp",), {"a": "b"})
    assert cached(vmctl("image", "build", "--build-arg", "V=v", str(path)).err) == [True] * 3
    path.write_text("from: tiny\nsteps:\n- run: echo a\n- run: exit 3\n")
    failed = vmctl("image", "build", str(path))
    assert "mine.yaml: steps[1]: step 3 of 3 failed: run exit 3: ended with code 3" in failed.err
