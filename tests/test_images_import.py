"""Images made by umoci, buildah and skopeo, and archives made by hand, as they come out of the store."""

import gzip
import json
import lzma
import os
import shutil

import pytest
import zstandard
from support import others, trees
from support.archives import CONTAINERD_NAME, PACKERS, Layout, docker_files, dump, sha256
from support.overlays import mounted
from support.tars import folder, tar_of

from images.layer import lookup
from images.store import store
from images.store.image import ImageError, architecture
from images.transfer import importing
from vmctl.errors import NotFoundError, SpecError

pytestmark = pytest.mark.usefixtures("empty_root")

ONE = tar_of(folder("etc"), ("etc/one", {}, b"one"))
TWO = tar_of(("etc/two", {}, b"two" * 30_000), ("etc/.wh.one", {}))
FOREIGN = "arm64" if architecture() != "arm64" else "amd64"


def take(path, *options, **named):
    """Import a file and return the images."""
    return importing.import_path(str(path), importing.Options(*options, **named), lambda _: None)


def names(images):
    return [image.name for image in images]


def content(image, path):
    with lookup.View(image.layers) as view:
        return b"".join(view.content(path)) if view.find(path) else None


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """OCI layouts of the same image, in two layers: by umoci, and by buildah."""
    there = tmp_path_factory.mktemp("made")
    layout, bundle = there / "umoci", there / "bundle"
    others.umoci("init", "--layout", layout)
    others.umoci("new", "--image", f"{layout}:1")
    for change in (others.fill_base, others.change_base):
        others.umoci("unpack", "--image", f"{layout}:1", bundle)
        change(bundle / "rootfs")
        others.umoci("repack", "--image", f"{layout}:1", bundle)
        shutil.rmtree(bundle)
    others.umoci("config", "--image", f"{layout}:1", "--config.cmd", "/bin/sh", "--config.env", "A=b")
    buildah = others.Buildah(there / "storage")
    buildah.commit("scratch", others.fill_base, "localhost/base", "--cmd", "/bin/sh", "--env", "A=b")
    buildah.commit("localhost/base", others.change_base, "localhost/changed")
    buildah("push", "--quiet", "localhost/changed", f"oci:{there}/buildah:1")
    return there


# what others make of the same image


@pytest.mark.parametrize("maker", ["umoci", "buildah"])
def test_an_image_is_what_umoci_unpacks(made, tmp_path, maker):
    others.umoci("unpack", "--image", f"{made}/{maker}:1", tmp_path / "bundle")
    [image] = take(made / maker)
    assert len(image.layers) == 2
    assert (image.config.cmd, image.config.env) == (("/bin/sh",), ("A=b",))
    with mounted(image) as root:
        assert trees.of(root) == trees.of(tmp_path / "bundle/rootfs")


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive", "zstd", "dir-layout"])
def test_every_form_holds_the_same_image(made, tmp_path, kind):
    [first] = take(made / "buildah", name="first")
    target = tmp_path / "other"
    if kind == "zstd":
        others.skopeo("copy", "--dest-compress-format", "zstd", f"oci:{made}/buildah:1", f"oci:{target}:x/other:2")
    elif kind == "dir-layout":
        others.skopeo(
            "copy", "--dest-oci-accept-uncompressed-layers", f"oci:{made}/buildah:1", f"oci:{target}:x/other:2"
        )
    else:
        others.skopeo("copy", f"oci:{made}/buildah:1", f"{kind}:{target}:x/other:2")
    [second] = take(target)
    assert second.name == "x/other:2"
    assert [layer.digest for layer in second.layers] == [layer.digest for layer in first.layers]
    assert {layer.path for layer in second.layers} == {layer.path for layer in first.layers}
    assert second.config == first.config


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, lzma.compress])
def test_an_archive_may_be_compressed_as_a_whole(tmp_path, pack):
    layout = Layout()
    [image] = take(layout.add(layout.image(ONE, TWO), "web:1").archive(tmp_path / "file", pack))
    assert image.name == "web:1"
    assert [layer.digest for layer in image.layers] == [sha256(ONE), sha256(TWO)]


@pytest.mark.parametrize("packing", ["", "+gzip", "+zstd"])
def test_layers_may_be_packed_or_not(tmp_path, packing):
    layout = Layout()
    [image] = take(layout.add(layout.image(ONE, TWO, packing=packing)).archive(tmp_path / "web.tar"))
    assert content(image, b"/etc/two") == b"two" * 30_000
    assert content(image, b"/etc/one") is None


def test_the_configuration_is_kept_byte_by_byte(tmp_path):
    """So docker's name for the image, the digest of these bytes, stays what it was."""
    layout = Layout()
    layout.add(layout.image(ONE, config={"unknown": {"kept": [1.5, None]}}))
    [image] = take(layout.folder(tmp_path / "web"))
    assert json.loads(store.raw_config(image))["unknown"] == {"kept": [1.5, None]}
    assert any(data == store.raw_config(image) for data in layout.files.values())


# several images, several platforms


def test_all_images_of_an_archive_come_and_share_their_layers(tmp_path):
    layout = Layout()
    layout.add(layout.image(ONE), "one:1").add(layout.image(ONE, TWO), "two:1").add(layout.image(ONE), "again:1")
    images = take(layout.archive(tmp_path / "all.tar"))
    assert sorted(names(images)) == ["again:1", "one:1", "two:1"] == names(store.ls())
    assert len({layer.path for image in images for layer in image.layers}) == 2


def test_dockers_older_archives_are_read(tmp_path):
    files = docker_files((["docker.io/library/one:latest", "me/one:2"], [ONE]), (None, [ONE, TWO]))
    (tmp_path / "saved.tar").write_bytes(tar_of(*((name, {}, data) for name, data in files.items())))
    images = take(tmp_path / "saved.tar")
    assert names(images) == ["one", "me/one:2", "saved"]
    assert content(images[2], b"/etc/two")


def test_dockers_newer_archives_are_read(tmp_path):
    """They are OCI layouts with the additional files that older versions of docker need."""
    layout = Layout()
    descriptor = layout.image(ONE, packing="")
    annotations = {CONTAINERD_NAME: "docker.io/library/web:1", "org.opencontainers.image.ref.name": "1"}
    layout.add({**descriptor, "annotations": annotations})
    config = json.loads(layout.files["blobs/sha256/" + descriptor["digest"][7:]])["config"]["digest"]
    saved = {
        "Config": "blobs/sha256/" + config[7:],
        "RepoTags": ["web:1"],
        "Layers": ["blobs/sha256/" + sha256(ONE)[7:]],
    }
    layout.files["manifest.json"] = dump([saved])
    layout.files["repositories"] = dump({"web": {"1": "x"}})
    assert names(take(layout.archive(tmp_path / "saved.tar"))) == ["web:1"]
    # and as the older versions would read it
    (tmp_path / "older.tar").write_bytes(
        tar_of(*((name, {}, data) for name, data in layout.files.items() if name != "oci-layout"))
    )
    assert names(take(tmp_path / "older.tar")) == ["web:1"]


def multi_arch(tmp_path):
    """An archive with an index for this host and another one, as `docker buildx` makes it, with its attestations."""
    layout = Layout()
    mine = {**layout.image(ONE), "platform": {"os": "linux", "architecture": architecture()}}
    foreign = {**layout.image(TWO, arch=FOREIGN), "platform": {"os": "linux", "architecture": FOREIGN, "variant": "v8"}}
    attestation = {**layout.image(ONE, TWO), "platform": {"os": "unknown", "architecture": "unknown"}}
    return layout.add(layout.nested(foreign, attestation, mine), "web:1").archive(tmp_path / "multi.tar")


def test_of_several_platforms_this_hosts_is_taken(tmp_path):
    [image] = take(multi_arch(tmp_path))
    assert image.architecture == architecture()
    assert [layer.digest for layer in image.layers] == [sha256(ONE)]


@pytest.mark.parametrize("words", [FOREIGN, f"linux/{FOREIGN}", f"linux/{FOREIGN}/v8"])
def test_another_platform_can_be_asked_for(tmp_path, words):
    [image] = take(multi_arch(tmp_path), platform=words)
    assert image.architecture == FOREIGN


@pytest.mark.parametrize("words", ["s390x", "windows/amd64", f"linux/{FOREIGN}/v9"])
def test_a_platform_that_is_not_there_is_refused_with_those_that_are(tmp_path, words):
    with pytest.raises(
        ImageError, match=f"has no image for .*; available: linux/{architecture()}, linux/{FOREIGN}/v8"
    ) as info:
        take(multi_arch(tmp_path), platform=words)
    assert "--platform" in info.value.hint
    with pytest.raises(SpecError, match="is not a valid platform"):
        take(multi_arch(tmp_path), platform="a/b/c/d")


def test_a_single_image_of_another_architecture_is_stored_but_not_where_this_hosts_was_asked_for(tmp_path):
    layout = Layout()
    path = layout.add(layout.image(ONE, arch=FOREIGN)).archive(tmp_path / "web.tar")
    with pytest.raises(ImageError, match=f"is for {FOREIGN}"):
        take(path, platform=architecture())
    assert take(path)[0].architecture == FOREIGN


# names


def test_a_name_given_wins_and_is_for_one_image_only(tmp_path):
    layout = Layout()
    layout.add(layout.image(ONE), "web:1")
    assert names(take(layout.archive(tmp_path / "a.tar"), name="docker.io/library/other:latest")) == ["other"]
    with pytest.raises(SpecError, match="is not the name of an image"):
        take(tmp_path / "a.tar", name="Not A Name")
    layout.add(layout.image(TWO), "web:2")
    with pytest.raises(SpecError, match="has 2 images: web:1, web:2"):
        take(layout.archive(tmp_path / "b.tar"), name="other")
    assert names(store.ls()) == ["other"]


def test_a_word_alone_is_a_tag_and_no_name_is_the_files(tmp_path):
    layout = Layout()
    layout.add(layout.image(ONE), "1.2").add(layout.image(TWO))
    assert names(take(layout.archive(tmp_path / "Web.tar"))) == ["web:1.2", "web"]


def test_images_that_cannot_be_told_apart_are_refused(tmp_path):
    layout = Layout()
    layout.add(layout.image(ONE), "web:1").add(layout.image(TWO), "web:1")
    with pytest.raises(ImageError, match="has 2 images with the name web:1"):
        take(layout.archive(tmp_path / "a.tar"))


# file systems


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress, lzma.compress])
def test_a_tarball_of_a_file_system_is_one_layer(tmp_path, pack):
    tar = tar_of(folder("./"), folder("./etc"), ("./etc/one", {}, b"one"), folder("usr"))
    (tmp_path / "rootfs.tar.gz").write_bytes(pack(tar))
    os.utime(tmp_path / "rootfs.tar.gz", (1_600_000_000, 1_600_000_000))
    [image] = take(tmp_path / "rootfs.tar.gz")
    assert (image.name, image.created, image.config.cmd) == ("rootfs", "2020-09-13T12:26:40Z", ())
    assert [layer.digest for layer in image.layers] == [sha256(tar)]
    assert take(tmp_path / "rootfs.tar.gz", platform=FOREIGN)[0].architecture == FOREIGN


def test_a_tarball_that_looks_like_an_archive_can_be_taken_as_a_file_system(tmp_path):
    (tmp_path / "app.tar").write_bytes(tar_of(("manifest.json", {}, b"{}"), ("app", {}, b"app")))
    with pytest.raises(ImageError, match=r"manifest\.json"):
        take(tmp_path / "app.tar")
    assert content(take(tmp_path / "app.tar", as_layer=True)[0], b"/app") == b"app"


def test_a_folder_of_a_file_system_is_one_layer(tmp_path, tree):
    [image] = take(tree)
    assert image.name == "tree"
    with mounted(image) as root:
        assert trees.of(root) == trees.of(tree)


def test_a_pipe_is_read_as_a_file_is(tmp_path):
    layout = Layout()
    path = layout.add(layout.image(ONE), "web:1").archive(tmp_path / "a.tar", gzip.compress)
    reading, writing = os.pipe()
    os.write(writing, path.read_bytes())
    os.close(writing)
    assert names(take(f"/dev/fd/{reading}")) == ["web:1"]
    os.close(reading)


def test_what_is_no_image_is_refused(tmp_path):
    for number, data in enumerate([b"", b"x", b"x" * 100_000, bytes(100_000), gzip.compress(b"text"), b"\x1f\x8b\x08"]):
        (tmp_path / str(number)).write_bytes(data)
        with pytest.raises(ImageError, match=r"not a tar archive|cannot be decompressed"):
            take(tmp_path / str(number))
    with pytest.raises(NotFoundError, match="there is no file"):
        take(tmp_path / "missing")
    with pytest.raises(ImageError, match="neither a file nor a folder"):
        take("/dev/null")
    assert store.ls() == []


# each byte once


def test_a_known_layer_is_not_read_again(tmp_path):
    layout = Layout()
    first = layout.add(layout.image(ONE, TWO), "web:1").folder(tmp_path / "first")
    take(first)
    for name, data in layout.files.items():
        if not data.startswith(b"{"):
            (first / name).unlink()  # reading one would now fail
    assert names(take(first, name="again")) == ["again"]


def test_progress_is_told_in_bytes(tmp_path):
    layout = Layout()
    layout.add(layout.image(ONE, TWO), "web:1")
    told = []
    importing.import_path(str(layout.archive(tmp_path / "a.tar")), importing.Options(), told.append)
    size_bytes = len(PACKERS["+gzip"](TWO))
    assert told[-1] == f"layer 2 of 2: {size_bytes} B of {size_bytes} B"
