"""An image that has a layer twice, one that has none, and one that has many."""

import io
import json
import os

import pytest
from support.commands import ok, refused, vmctl
from support.images_made import CREATED, add, held
from support.registries import registry
from support.tars import folder, tar_of

from images.layer import layers
from images.store import store
from images.store.image import OVERLAY_LAYERS_MAX, Image, ImageConfig, Layer, check_files
from images.store.staging import staging
from vmctl.errors import VmctlError
from vmctl.linux.filetree import allocated_bytes
from vmm.rootbus import layers_max

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def image(own_store, tmp_path):
    """A function that makes the image `twice` of layers: `base`, or a folder of {path: text}."""

    def make(*parts):
        tiny = store.find("tiny")
        with staging() as stage:
            made = []
            for number, part in enumerate(parts):
                if part == "base":
                    made += [held(stage, layer) for layer in tiny.layers]
                    continue
                folder = tmp_path / f"{number}"
                folder.mkdir()
                for path, text in part.items():
                    (folder / path).write_text(text)
                    os.utime(folder / path, (0, 0))
                os.utime(folder, (0, 0))
                made.append(layers.from_folder(stage, str(folder)))
            config = store.config_document(made, ImageConfig(cmd=("cat", "/x")), CREATED)
            return store.add(stage, "twice", made, config)

    return make


ONE, TWO = {"x": "one"}, {"x": "two"}


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("base", ONE, ONE), "one"),
        (("base", ONE, TWO, ONE), "one"),
        (("base", {}, ONE, {}), "one"),
        (("base", ONE, "base"), "one"),
        (("base", ONE, TWO, ONE, TWO), "two"),
    ],
)
def test_the_topmost_counts(image, parts, text):
    made = image(*parts)
    assert len(made.layers) == len(parts)
    assert len(made.stack) == len(set(map(str, parts)))
    for userns in ("auto", "host"):
        assert ok("run", "--network", "none", "--userns", userns, "twice") == text
    assert ok("run", "--mode", "host", "twice") == text
    assert "twice" in ok("image", "ls")
    ok("image", "history", "twice")
    ok("up", "--explain", "--dry-run", "--mode", "container", _file(made))


def test_in_a_guest(image):
    image("base", ONE, TWO, ONE)
    assert ok("run", "--mode", "vm", "--network", "none", "twice") == "one"


def test_whatever_counts_layers_counts_each_once(image, tmp_path):
    made = image("base", ONE, {}, ONE, {})
    digests = [layer.digest for layer in made.layers]
    files = {layer.path for layer in made.layers}
    assert json.loads(ok("image", "history", "--format", "json", "twice"))[0]
    seen = json.loads(ok("image", "inspect", "twice"))[0]
    assert [layer["diff_id"] for layer in seen["layers"]] == digests
    assert seen["size_bytes"] == sum(map(allocated_bytes, store.files(made)))
    assert len(files) == 3
    with registry(tmp_path / "registry") as address:
        ok("image", "push", "--tls-verify=false", "twice", f"{address}/twice")
        ok("image", "export", "--format", "docker", "-o", str(tmp_path / "twice.tar"), "twice")
        ok("image", "rm", "twice")
        assert [path for path in files if os.path.exists(path)] == [store.find("tiny").layers[0].path]
        ok("image", "import", "--name", "twice", str(tmp_path / "twice.tar"))
        assert [layer.digest for layer in store.find("twice").layers] == digests
        ok("image", "rm", "twice")
        ok("image", "pull", "--tls-verify=false", f"{address}/twice")
    pulled = store.find(f"{address}/twice")
    assert [layer.digest for layer in pulled.layers] == digests
    assert ok("run", "--network", "none", pulled.name) == "one"
    ok("image", "prune", "--force")
    ok("df")
    assert set(store.files(pulled)) >= files
    ok("image", "rm", pulled.name)
    assert store.unreferenced() == []


def test_520_layers_become_one(own_store, tmp_path):
    """The kernel stacks no more than 500 layers (overlayfs, OVL_MAX_STACK); the hint makes one of them."""
    tiny = store.find("tiny")
    with staging() as stage:
        made = [held(stage, layer) for layer in tiny.layers]
        for number in range(519):
            tar = tar_of(folder("many"), (f"many/{number % 260}", {}, b"%d" % number))
            made.append(layers.from_tar(stage, io.BytesIO(tar)))
        store.add(stage, "many", made, store.config_document(made, ImageConfig(cmd=("/bin/sh",)), CREATED))
    for mode in ("container", "host", "vm"):
        said = refused("run", "--mode", mode, "many", "--", "true")
        assert "the image many has 520 layers, and this mode can use" in said
        assert "COPY --from=many / /" in said
    text = "FROM scratch\nCOPY --from=many / /\n"
    ok("image", "build", "-q", "-t", "one", "-", stdin=text)
    assert ok("run", "--network", "none", "one", "--", "sh", "-c", "ls /many | wc -l; cat /many/258") == "260\n518"


def test_a_build_that_repeats_a_step(own_store, tmp_path):
    (tmp_path / "Dockerfile").write_text(
        "FROM tiny\nRUN echo v1 >/conf\nRUN echo v2 >/conf\nRUN echo v1 >/conf\nRUN cat /conf >/seen\n"
    )
    ok("image", "build", "-t", "repeated", str(tmp_path))
    assert ok("run", "--network", "none", "repeated", "--", "cat", "/seen") == "v1\n"


def test_an_empty_image_is_refused_in_every_mode(own_store, tmp_path):
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCMD ["/x"]\n')
    ok("image", "build", "-q", "-t", "nothing", str(tmp_path))
    for mode in ("container", "host", "vm"):
        assert "the image nothing is empty: it has no layer" in refused("run", "--mode", mode, "nothing")
    assert vmctl("image", "inspect", "nothing").code == 0


def _file(image):
    path = f"{store.path()}/../twice.yaml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"name: twice\nimage: {image.name}\n")
    return path


@pytest.mark.parametrize(("number", "most"), [(501, OVERLAY_LAYERS_MAX), (198, layers_max(1))])
def test_more_layers_than_a_mode_can_use_are_refused(number, most):
    layers = [Layer(f"sha256:{i}", f"/{i}.erofs", 0) for i in range(number)]
    check_files(Image("many", "", "", tuple(layers[:-1]), ImageConfig(), ""), most)
    check_files(Image("many", "", "", (*layers[:-1], layers[0]), ImageConfig(), ""), most)  # one is there twice
    with pytest.raises(VmctlError, match=f"has {number} layers, and this mode can use {most}"):
        check_files(Image("many", "", "", tuple(layers), ImageConfig(), ""), most)


@pytest.mark.parametrize("mode", ["container", "host"])
def test_layers_whose_options_do_not_fit_into_a_page(own_store, tmp_path, mode):
    tiny = store.find("tiny")
    for number in range(100):
        os.makedirs(tmp_path / f"{number}/many")
        (tmp_path / f"{number}/many/{number}").write_text("")
    add("many", tiny, *(tmp_path / str(number) for number in range(100)))
    assert ok("run", "--mode", mode, "many", "--", "sh", "-c", "ls /many | wc -l") == "100\n"
