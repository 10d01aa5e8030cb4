import hashlib
import json
import os
import threading

import pytest
from support.images_made import CONFIG, CREATED, put

from images.store import store
from images.store.image import ImageConfig, process
from vmctl.errors import ConflictError, NotFoundError, SpecError, VmctlError
from vmctl.instances import instance
from vmctl.spec.workload import Workload

pytestmark = pytest.mark.usefixtures("empty_root")


def test_what_was_added_is_found(tree):
    added = put("web", tree)
    assert store.find("web") == added
    assert store.ls() == [added]
    [layer] = added.layers
    assert layer.path == store.layer_path(layer.key)
    assert os.path.exists(layer.path)
    assert added.config == CONFIG
    assert added.created == CREATED


def test_the_store_is_a_valid_oci_layout(tree):
    [layer] = put("web", tree).layers
    assert read_json("oci-layout") == {"imageLayoutVersion": "1.0.0"}
    [descriptor] = read_json("index.json")["manifests"]
    manifest = json.loads(read_blob(descriptor))
    config = json.loads(read_blob(manifest["config"]))
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer.digest]}
    assert config["os"] == "linux"
    assert [item["digest"] for item in manifest["layers"]] == config["rootfs"]["diff_ids"]


def read_json(name):
    with open(store.path(name)) as file:
        return json.load(file)


def read_blob(descriptor):
    with open(store.path("blobs", *descriptor["digest"].split(":")), "rb") as file:
        data = file.read()
    assert "sha256:" + hashlib.sha256(data).hexdigest() == descriptor["digest"]
    assert len(data) == descriptor["size"]
    return data


def test_the_same_image_has_the_same_digest_under_any_name(tree):
    one = put("one", tree)
    assert put("two", tree).digest == one.digest
    store.remove("one")
    assert store.find("two").layers == one.layers


@pytest.mark.parametrize(
    "name", ["docker.io/library/web", "docker.io/web", "library/web", "index.docker.io/web:latest"]
)
def test_a_full_name_finds_and_removes_the_short_one(tree, name):
    image = put("web", tree)
    assert store.find(name) == image
    store.tag(image, "alias")
    store.remove(name)
    assert [one.name for one in store.ls()] == ["alias"]


def test_a_tag_beside_a_digest_does_not_count(tree):
    digest = f"sha256:{'1' * 64}"
    put(f"host:5000/web@{digest}", tree)
    assert store.find(f"host:5000/web:1@{digest}").name == f"host:5000/web@{digest}"


def test_removal_leaves_no_file_of_the_image(tree):
    put("web", tree)
    store.remove("web")
    assert store.ls() == []
    assert os.listdir(store.path("layers")) == os.listdir(store.path("blobs/sha256")) == []


def test_an_image_that_is_replaced_leaves_its_layer_only_to_its_instances(tree):
    old = put("web", tree)
    user = instance.create(Workload("user", "web"), "container")
    assert store.lease("web", user) == old
    with pytest.raises(ConflictError, match=r"web is used by user"):
        store.remove("web")
    (tree / "more").write_text("more")
    [new] = put("web", tree).layers
    assert store.find(old.digest).layers == old.layers

    user.remove_files()
    put("web", tree)
    assert {entry.partition(".")[0] for entry in os.listdir(store.path("layers"))} == {new.key}


def test_an_unknown_name_is_refused_with_the_nearest_one(tree):
    put("nginx", tree)
    with pytest.raises(NotFoundError, match="there is no image ngnix") as caught:
        store.find("ngnix")
    assert "did you mean nginx?" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        store.find("tiny")
    assert "vmctl image build tiny" in caught.value.hint
    with pytest.raises(NotFoundError):
        store.remove("ngnix")


def test_an_image_without_its_layer_is_not_found(tree):
    [layer] = put("web", tree).layers
    os.unlink(layer.path)
    with pytest.raises(NotFoundError, match=f"the image web lacks {layer.path}"):
        store.find("web")
    store.remove("web")
    assert store.ls() == []


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"manifests": 1}', '{"manifests": [{"annotations": {}}]}'])
def test_a_damaged_index_is_one_clear_error(tree, damage):
    put("web", tree)
    with open(store.path("index.json"), "w") as file:
        file.write(damage)
    with pytest.raises(VmctlError, match=r"index\.json is damaged"):
        store.find("web")


def test_a_damaged_blob_is_one_clear_error(tree):
    image = put("web", tree)
    with open(store.path("blobs", *image.digest.split(":")), "w") as file:
        file.write("not JSON")
    with pytest.raises(VmctlError, match=image.digest):
        store.find("web")
    store.remove("web")
    assert store.ls() == []
    assert [os.path.basename(os.path.dirname(file)) for file in store.unreferenced()] == ["sha256", "layers", "layers"]


@pytest.mark.parametrize(
    "content", ["{}", "[]", "null", "7", '{"config": {"digest": 7}, "layers": []}', '{"config": [], "layers": 7}']
)
@pytest.mark.parametrize("which", ["manifest", "config"])
def test_a_document_of_another_form_is_one_clear_error(tree, which, content):
    image = put("web", tree)
    digest = image.digest if which == "manifest" else store.manifest(image)["config"]["digest"]
    with open(store.path("blobs", *digest.split(":")), "w") as file:
        file.write(content)
    with pytest.raises(VmctlError, match="the image web is damaged: ") as failure:
        store.ls()
    assert failure.value.hint == "`vmctl image rm web` removes it"
    store.remove("web")
    assert store.ls() == []


def test_an_image_without_annotations_has_no_name(tree):
    image = put("web", tree)
    with open(store.path("index.json"), "w") as file:
        file.write(f'{{"manifests": [{{"digest": "{image.digest}", "annotations": null}}]}}')
    assert [found.name for found in store.ls(unnamed=True)] == [""]


def test_images_added_at_once_are_all_there(tree):
    names = [f"image{number}" for number in range(8)]
    threads = [threading.Thread(target=put, args=(name, tree)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [image.name for image in store.ls()] == names


def test_the_process_is_the_images_unless_the_workload_says_otherwise(tree):
    image = put("web", tree)
    default = process(image, Workload("w", "web"))
    assert default[:4] == (("/bin/sh", "-c", "true"), {"PATH": "/bin", "A": "image"}, "/srv", "1000")
    own = process(image, Workload("w", "web", command=("id",), env={"A": "mine"}, workdir="/tmp", user="0:0"))
    assert own[:4] == (("/bin/sh", "id"), {"PATH": "/bin", "A": "mine"}, "/tmp", "0:0")


def test_an_image_without_command_needs_one_in_the_workload(tree):
    image = put("web", tree, config=ImageConfig())
    with pytest.raises(SpecError, match="names no command"):
        process(image, Workload("w", "web"))
    assert process(image, Workload("w", "web", command=("id",))).workdir == "/"
