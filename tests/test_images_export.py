"""Archives we write, as we read them again and as skopeo, umoci and docker's loader do."""

import json
import os
import subprocess
import tarfile

import pytest
from support import others, trees
from support.archives import Layout, docker_files, sha256
from support.commands import VMCTL, Terminal, ok, refused
from support.overlays import mounted
from support.tars import folder, tar_of

from images.layer import layers
from images.store import store
from images.store.image import ImageError
from images.transfer import importing

pytestmark = pytest.mark.usefixtures("empty_root")

ONE = tar_of(folder("etc"), ("etc/one", {}, b"one"))
TWO = tar_of(("etc/two", {}, b"two" * 30_000), ("etc/.wh.one", {}), form=tarfile.GNU_FORMAT)


@pytest.fixture
def web(tmp_path):
    """An image `web:1` in the store."""
    layout = Layout()
    layout.add(layout.image(ONE, TWO, ONE, annotations={"note": "kept"}), "web:1")
    return imported(layout.archive(tmp_path / "web.tar"))


def imported(path, **options):
    [image] = importing.import_path(str(path), importing.Options(**options), lambda _: None)
    return image


def exported(tmp_path, *words):
    path = tmp_path / "-".join(["exported", *words]).replace("/", "-")
    assert ok("image", "export", "web:1", "-o", str(path), *words) == ""
    return path


FORMS = [[], ["--format", "docker"], ["--compress", "gzip"], ["--format", "docker", "--compress", "gzip"]]


@pytest.mark.parametrize("words", FORMS, ids=" ".join)
def test_a_round_trip_changes_nothing(web, tmp_path, monkeypatch, words):
    path = exported(tmp_path, *words)
    config = store.raw_config(web)
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "other"))
    back = imported(path)
    assert (back.name, back.digest) == (web.name, web.digest)
    assert [layer.digest for layer in back.layers] == [layer.digest for layer in web.layers]
    assert store.raw_config(back) == config
    assert store.manifest(back)["annotations"] == {"note": "kept"}


@pytest.mark.parametrize("words", FORMS, ids=" ".join)
def test_the_same_image_gives_the_same_bytes(web, tmp_path, words):
    first = exported(tmp_path, *words).read_bytes()
    assert exported(tmp_path, *words).read_bytes() == first
    piped = subprocess.run([VMCTL, "image", "export", "web:1", *words], stdout=subprocess.PIPE, check=True).stdout
    assert piped == first


@pytest.mark.parametrize("words", FORMS, ids=" ".join)
def test_skopeo_reads_them(web, tmp_path, words):
    kind = "docker-archive" if "docker" in words else "oci-archive"
    path = exported(tmp_path, *words)
    raw = others.skopeo("inspect", "--raw", "--config", f"{kind}:{path}")
    assert raw.encode() == store.raw_config(web)
    if "docker" in words:
        assert json.loads(others.skopeo("list-tags", f"docker-archive:{path}"))["Tags"] == ["web:1"]
    others.skopeo("copy", f"{kind}:{path}", f"dir:{tmp_path}/copied")  # verifies every digest


@pytest.mark.parametrize("words", FORMS, ids=" ".join)
def test_umoci_unpacks_them_to_what_we_mount(web, tmp_path, words):
    with tarfile.open(exported(tmp_path, *words)) as tar:
        tar.extractall(tmp_path / "layout", filter="data")
    others.umoci("unpack", "--image", f"{tmp_path}/layout:1", tmp_path / "bundle")
    with mounted(web) as root:
        assert trees.of(root) == trees.of(tmp_path / "bundle/rootfs")


def test_dockers_archives_have_what_docker_load_looks_for(web, tmp_path):
    """In docker 20.10, image/tarexport/load.go: manifest.json, and the files that it names."""
    with tarfile.open(exported(tmp_path, "--format", "docker")) as tar:
        [listed] = json.load(tar.extractfile("manifest.json"))
        assert listed["RepoTags"] == ["web:1"]
        config = tar.extractfile(listed["Config"]).read()
        assert config == store.raw_config(web)
        diff_ids = [sha256(tar.extractfile(name).read()) for name in listed["Layers"]]
        assert diff_ids == json.loads(config)["rootfs"]["diff_ids"]
        assert "index.json" in tar.getnames()


def test_what_others_made_comes_out_as_it_went_in(tmp_path):
    """Tar archives of other programs keep their digests, with any format of headers."""
    others.umoci("init", "--layout", tmp_path / "layout")
    others.umoci("new", "--image", f"{tmp_path}/layout:1")
    others.umoci("unpack", "--image", f"{tmp_path}/layout:1", tmp_path / "bundle")
    others.fill_base(tmp_path / "bundle/rootfs")
    others.umoci("repack", "--image", f"{tmp_path}/layout:1", tmp_path / "bundle")
    image = imported(tmp_path / "layout", name="web:1")
    for layer in image.layers:
        with layers.open_tar(layer) as tar:
            assert sha256(tar.read()) == layer.digest
    others.skopeo("copy", f"oci-archive:{exported(tmp_path)}", f"oci:{tmp_path}/back:1")
    unpacked = []
    for layout in ("layout", "back"):
        others.umoci("unpack", "--image", f"{tmp_path}/{layout}:1", tmp_path / f"{layout}-unpacked")
        unpacked.append(trees.of(tmp_path / f"{layout}-unpacked/rootfs"))
    assert unpacked[0] == unpacked[1]


def test_an_image_named_by_its_file_alone_is_exported(tmp_path):
    (tmp_path / "saved").write_bytes(tar_of(*((name, {}, data) for name, data in docker_files((None, [ONE])).items())))
    imported(tmp_path / "saved", name="localhost:5000/a/web")
    archive = tmp_path / "out"
    ok("image", "export", "localhost:5000/a/web", "-o", str(archive), "--format", "docker")
    assert imported(archive).name == "localhost:5000/a/web"


# whole or not at all


def test_a_terminal_is_no_place_for_an_archive(web):
    terminal = Terminal("image", "export", "web:1")
    code, said = terminal.end()
    assert code == 125
    assert "refusing to write an archive to a terminal" in said
    assert "--output FILE" in said


def test_an_archive_that_cannot_be_finished_is_not_there(web, tmp_path):
    there = tmp_path / "there"
    there.write_text("before")
    os.chmod(web.layers[1].path, 0o600)
    with open(web.layers[1].path, "r+b") as file:
        content = file.read()
        file.seek(content.index(b"two" * 1000))
        file.write(b"owt")
    for words in FORMS:
        said = refused("image", "export", "web:1", "-o", str(there), *words)
        assert f"the layer {web.layers[1].digest} in the store does not match its digest" in said
    assert there.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["root", "there", "web.tar"]
    assert os.listdir(store.path("stages")) == []


def test_where_nothing_can_be_written_is_said(web, tmp_path):
    missing = tmp_path / "missing/file"
    assert f"{missing}" in refused("image", "export", "web:1", "-o", str(missing))
    assert "/dev/full could not be written: No space left" in refused("image", "export", "web:1", "-o", "/dev/full")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([VMCTL, "image", "export", "web:1"], stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (
        125,
        b"vmctl: standard output could not be written: No space left on device\n",
    )
    assert "there is no image nix" in refused("image", "export", "nix", "-o", str(tmp_path / "file"))
    assert not (tmp_path / "file").exists()


def test_a_reader_that_goes_away_ends_it_without_a_word(web):
    with subprocess.Popen(
        [VMCTL, "image", "export", "web:1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.read(10) == b"blobs/" + bytes(4)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
    assert os.listdir(store.path("stages")) == []


def test_damage_to_an_exported_archive_is_noticed_on_the_way_back(web, tmp_path):
    path = exported(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b"two" * 100)] ^= 1
    path.write_bytes(bytes(data))
    store.remove("web:1")
    with pytest.raises(ImageError, match="the layer is not"):
        imported(path)
