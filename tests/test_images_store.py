import hashlib
import json
import os
import threading

import pytest

from images import erofs, store
from images.image import ImageConfig, process
from vmctl import instance
from vmctl.errors import ConflictError, NotFoundError, SpecError, VmctlError
from vmctl.workload import Workload

CONFIG = ImageConfig(("/bin/sh",), ("-c", "true"), ("PATH=/bin", "A=image"), "/srv", "1000", "SIGQUIT")
CREATED = "2026-01-01T00:00:00Z"

pytestmark = pytest.mark.usefixtures("empty_root")


@pytest.fixture
def layer(tree):
    return erofs.build_layer(str(tree))


def test_what_was_added_is_found(layer):
    added = store.add("web", [layer], CONFIG, created=CREATED)
    assert store.find("web") == added
    assert store.ls() == [added]
    assert added.layers == (layer,)
    assert added.config == CONFIG
    assert added.created == CREATED


def test_the_store_is_a_valid_oci_layout(layer):
    store.add("web", [layer], CONFIG, created=CREATED)
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


def test_the_same_image_has_the_same_digest_under_any_name(layer):
    one = store.add("one", [layer], CONFIG, created=CREATED)
    assert store.add("two", [layer], CONFIG, created=CREATED).digest == one.digest
    store.remove("one")
    assert store.find("two").layers == (layer,)


def test_removal_leaves_no_file_of_the_image(layer):
    store.add("web", [layer], CONFIG, created=CREATED)
    store.remove("web")
    assert store.ls() == []
    assert os.listdir(store.path("layers")) == os.listdir(store.path("blobs/sha256")) == []


def test_an_image_that_is_replaced_leaves_its_layer_only_to_its_instances(layer, tree):
    old = store.add("web", [layer], CONFIG, created=CREATED)
    user = instance.create(Workload("user", "web"), "container")
    user.state.image_digest = old.digest
    user.save()
    with pytest.raises(ConflictError, match=r"web is used by user"):
        store.remove("web")
    (tree / "more").write_text("more")
    store.add("web", [erofs.build_layer(str(tree))], CONFIG, created=CREATED)
    assert os.path.exists(layer.path)

    user.remove_files()
    store.add("web", [layer], CONFIG, created=CREATED)
    assert [entry for entry in os.listdir(store.path("layers")) if entry != layer.hex + ".erofs"] == []


def test_an_unknown_name_is_refused_with_the_nearest_one(layer):
    store.add("nginx", [layer], CONFIG, created=CREATED)
    with pytest.raises(NotFoundError, match="there is no image ngnix") as caught:
        store.find("ngnix")
    assert "did you mean nginx?" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        store.find("tiny")
    assert "vmctl image build tiny" in caught.value.hint
    with pytest.raises(NotFoundError):
        store.remove("ngnix")


def test_an_image_without_its_layer_is_not_found(layer):
    store.add("web", [layer], CONFIG, created=CREATED)
    os.unlink(layer.path)
    with pytest.raises(NotFoundError, match="lacks its layer"):
        store.find("web")
    with pytest.raises(NotFoundError, match="is not in the store"):
        store.add("other", [layer], CONFIG, created=CREATED)
    assert [image.name for image in store.ls()] == ["web"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"manifests": 1}', '{"manifests": [{"annotations": {}}]}'])
def test_a_damaged_index_is_one_clear_error(layer, damage):
    store.add("web", [layer], CONFIG, created=CREATED)
    with open(store.path("index.json"), "w") as file:
        file.write(damage)
    with pytest.raises(VmctlError, match=r"index\.json is damaged"):
        store.find("web")


def test_a_damaged_blob_is_one_clear_error(layer):
    image = store.add("web", [layer], CONFIG, created=CREATED)
    with open(store.path("blobs", *image.digest.split(":")), "w") as file:
        file.write("not JSON")
    with pytest.raises(VmctlError, match=image.digest):
        store.find("web")


def test_images_added_at_once_are_all_there(layer):
    names = [f"image{number}" for number in range(8)]
    threads = [
        threading.Thread(target=store.add, args=(name, [layer], CONFIG), kwargs={"created": CREATED}) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [image.name for image in store.ls()] == names


def test_the_process_is_the_images_unless_the_workload_says_otherwise(layer):
    image = store.add("web", [layer], CONFIG, created=CREATED)
    default = process(image, Workload("w", "web"))
    assert default == (("/bin/sh", "-c", "true"), {"PATH": "/bin", "A": "image"}, "/srv", "1000")
    own = process(image, Workload("w", "web", command=("id",), env={"A": "mine"}, workdir="/tmp", user="0:0"))
    assert own == (("id",), {"PATH": "/bin", "A": "mine"}, "/tmp", "0:0")


def test_an_image_without_command_needs_one_in_the_workload(layer):
    image = store.add("web", [layer], ImageConfig(), created=CREATED)
    with pytest.raises(SpecError, match="names no command"):
        process(image, Workload("w", "web"))
    assert process(image, Workload("w", "web", command=("id",))).workdir == "/"
