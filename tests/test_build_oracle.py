"""The same Dockerfiles built by buildah: the same trees and settings come of them."""

import json
import os
import tarfile

import pytest
from support import trees
from support.commands import ok
from support.others import Buildah
from support.overlays import mounted

from images.store import store

pytestmark = pytest.mark.usefixtures("own_store")

FILES = """FROM tiny
COPY a /file/new
COPY a /srv
COPY a /folder/new/
COPY sub /tree/new
COPY sub/ /srv/
COPY . /all/
COPY *.txt /globs/
COPY s?b /globs/sub
COPY [b]* a sub /several/
COPY toplink /links/
COPY dirlink /links/folder
COPY ["with space", "/to this/"]
COPY --chown=1000:2000 sub /owned/numbers/tree/
COPY --chown=1000 a /owned/uid
COPY --chown=nobody a /owned/name
COPY --chown=nobody:root a /owned/group
COPY --chmod=640 sub /moded/tree/
COPY --chmod=4711 a /moded/file
COPY kept /kept
WORKDIR /work
WORKDIR x/y
COPY a .
COPY b.txt ./z/
COPY c.txt relative
USER nobody
WORKDIR /nobodys/own
ADD t.tar.gz /gz/
ADD t.tar.xz /xz
ADD t.tar.bz2 /bz2/deep/
ADD t.tar /tar/
ADD no.tar a /none/
COPY t.tar.gz /copied/
"""

RUNS = """FROM tiny
RUN mkdir -p /real/bin && ln -s /real /absolute && ln -s real/bin /relative && ln -s ../real /real/round
COPY a /absolute/
COPY a /absolute/b
COPY sub /relative/
COPY a /real/round/round/c
COPY usrlike/ /
ARG GIVEN=default
ARG KEPT=default
ARG NONE
ENV A=1 B=$GIVEN-${NONE:-none}
RUN echo "$A $B $GIVEN $KEPT" >/said
RUN ["sh", "-c", "echo $HOME >/home; id -u >>/home"]
RUN mkdir -p /d/e /empty && echo 1 >/d/e/f && echo 2 >/d/g && ln /d/g /d/h
RUN rm -r /d/e /etc/shells && rm -rf /srv && mkdir /srv && echo 3 >/srv/n && chmod 700 /empty
RUN rm -rf /d && mkdir /d && chown 3:4 /d
USER nobody
RUN id -u >/tmp/me; pwd >>/tmp/me
WORKDIR /tmp
RUN pwd >/tmp/where
"""

STAGES = """ARG BASE=tiny
FROM $BASE AS one
RUN mkdir /out && echo hi >/out/x && chown 5:6 /out/x && chmod 750 /out && ln -s x /out/link && mkfifo /out/fifo
FROM scratch
COPY --from=one /out /result
COPY --from=0 /out/x /single
COPY --from=one /out/link /followed
COPY --from=tiny /bin/busybox /busybox
COPY sub /
"""

SETTINGS = """FROM tiny
ENV A=1 B="two words" C='$A' D=$A E=esc\\ aped F="\\$A"
ENV OLD old  form
LABEL x=y "a b"="c d" multi="l1 \\
l2"
EXPOSE 80 53/udp
VOLUME /v1 /v2
VOLUME ["/v 3"]
USER nobody:root
STOPSIGNAL SIGINT
WORKDIR /a
WORKDIR b/../c
HEALTHCHECK --interval=5s --timeout=3s --retries=2 CMD wget x
ENTRYPOINT exec top -b
CMD ["echo $HOME"]
"""

CASES = {"files": FILES, "runs": RUNS, "stages": STAGES, "settings": SETTINGS}
KEYS = "Entrypoint Cmd Env WorkingDir User ExposedPorts Volumes Labels StopSignal Healthcheck".split()


@pytest.fixture(scope="module")
def buildah(own_store, tmp_path_factory):
    buildah = Buildah(tmp_path_factory.mktemp("buildah") / "storage")
    archive = str(tmp_path_factory.mktemp("tiny") / "tiny.tar")
    ok("image", "export", "tiny", "-o", archive)
    buildah("pull", "--quiet", f"oci-archive:{archive}")
    return buildah


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """A folder with files of all kinds to copy."""
    root = tmp_path_factory.mktemp("context")
    for name in ("sub/deep", "usrlike/real/bin", "usrlike/usr/bin", "ignored", "kept/not"):
        (root / name).mkdir(parents=True)
    for name in ("a", "b.txt", "c.txt", "with space", "no.tar", "sub/f", "sub/deep/g", "sub/.hidden", "kept/not/x"):
        (root / name).write_text(name)
    for name in ("usrlike/real/bin/tool", "usrlike/usr/bin/tool", "ignored/x", "ignored/but", "kept/y", "sub/no.o"):
        (root / name).write_text(name)
    (root / "a").chmod(0o751)
    (root / "sub/deep").chmod(0o700)
    os.chown(root / "sub/f", 1000, 1000)
    for target, link in (("f", "sub/link"), ("nowhere", "sub/dangling"), ("a", "toplink"), ("sub", "dirlink")):
        (root / link).symlink_to(target)
    (root / ".dockerignore").write_text("**/*.o\nignored/*\n!ignored/but\nkept/not\n# comment\nDockerfile*\n")
    for name, form in (("t.tar", "w"), ("t.tar.gz", "w:gz"), ("t.tar.xz", "w:xz"), ("t.tar.bz2", "w:bz2")):
        with tarfile.open(root / name, form) as archive:
            archive.add(root / "sub", "s")
            for path, kind in (("owned", tarfile.REGTYPE), ("deep/er/x", tarfile.REGTYPE), ("hard", tarfile.LNKTYPE)):
                entry = tarfile.TarInfo(path)
                entry.uid, entry.gid, entry.mode, entry.type, entry.linkname = 5, 6, 0o4755, kind, "owned"
                archive.addfile(entry)
    return root


@pytest.mark.parametrize("name", CASES)
def test_the_same_comes_of_it(buildah, context, name):
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(CASES[name])
    arguments = ["--build-arg", "GIVEN=other", "-t", "compared", context]
    ok("image", "build", "-q", *map(str, arguments))
    buildah("bud", "--pull-never", "--format", "docker", "--quiet", *arguments)
    image = store.find("compared")
    container = buildah("from", "--pull-never", "compared")
    with mounted(image) as ours:
        assert differences(without_times(ours), without_times(buildah("mount", container))) == {}
    assert settings(store.document(image)["config"]) == settings(
        json.loads(buildah("inspect", "--type", "image", "compared"))["Docker"]["config"]
    )


def without_times(root):
    """Return path -> facts but for time, number of links (vfs keeps none across layers) and what buildah mounts on.

    Nor the root: of an image from nothing it has mode 0555 there, 0755 here and with Docker.
    """
    left_out = (".", "dev", "proc", "sys", "etc/hosts", "etc/resolv.conf", "run", "run/.containerenv")
    found = {path: facts[:4] + facts[5:-1] for path, facts in trees.of(root).items()}
    return {path: facts for path, facts in found.items() if path not in left_out}


def differences(ours, theirs):
    return {
        path: (ours.get(path), theirs.get(path))
        for path in sorted(ours.keys() | theirs.keys())
        if ours.get(path) != theirs.get(path)
    }


def settings(config):
    """Return a configuration for comparison; buildah adds a label, and PATH, which is a default in vmctl."""
    found = {key: config.get(key) or None for key in KEYS}
    found["Env"] = [line for line in found["Env"] or [] if not line.startswith("PATH=")]
    found["Labels"] = {key: text for key, text in (found["Labels"] or {}).items() if key != "io.buildah.version"}
    return found
