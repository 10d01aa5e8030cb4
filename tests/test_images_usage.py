"""What images, instances, kernels and caches take of the disk, and the removal of what nobody needs."""

import json
import os
import subprocess
import sys
import time

import pytest
from support.commands import Terminal, ok, refused, start, vmctl, wait_for
from support.images_made import CONFIG, put

from images.kernels import initrd, kernel, moduledisk
from images.layer import layers
from images.store import store
from images.store.staging import staging
from images.transfer import downloads
from images.upkeep import totals
from vmctl import paths
from vmctl.instances import instance
from vmctl.linux import filetree, processes
from vmctl.spec.units import format_age
from vmctl.spec.workload import Workload

DF_KEYS = ["kind", "total", "active", "size_bytes", "shared_bytes", "reclaimable_bytes", "unique_bytes"]
LS_KEYS = [
    *("name", "tag", "id", "digest", "kind", "architecture", "layers", "size_bytes", "shared_bytes", "unique_bytes"),
    *("created", "instances"),
]


@pytest.fixture
def trees(empty_root, tmp_path):
    """Three folders with 300, 200 and 100 KiB."""
    made = []
    for number, size in enumerate((300, 200, 100)):
        made.append(tmp_path / f"tree{number}")
        made[-1].mkdir()
        (made[-1] / f"file{number}").write_bytes(os.urandom(size << 10))
    return made


@pytest.fixture
def two(trees):
    """Two images that share their lower layer."""
    return put("one", trees[0], trees[1]), put("two:1", trees[0], trees[2])


@pytest.fixture
def user(two, trees, tmp_path):
    """An instance of `one` that has ended, and one of `two:1`: made here, since these images hold no program."""
    made = []
    for name, image in zip(("ended", "other"), two, strict=True):
        work = tmp_path / f"{name}.json"
        work.write_text("x")
        inst = instance.create(Workload(name, image.name), "container")
        inst.state.image_digest = image.digest
        inst.state.status = "exited"
        inst.save()
        store.lease(image.name, inst)
        made.append(inst)
    return made


def blocks(*files):
    return sum(os.stat(file).st_blocks * 512 for file in set(files))


def du(folder):
    """Return the output of du(1) for files only."""
    files = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]
    return blocks(*files)


def rows(*words):
    return json.loads(ok(*words, "--format", "json"))


def of_kind(kind):
    return next(row for row in rows("df") if row["kind"] == kind)


def names():
    return ok("image", "ls", "-q").split()


# Listing


def test_ls(two):
    listed = rows("image", "ls")
    assert [list(row) for row in listed] == [LS_KEYS] * 2
    assert [(row["name"], row["tag"], row["kind"], row["layers"]) for row in listed] == [
        ("one", "latest", "layers", 2),
        ("two:1", "1", "layers", 2),
    ]
    assert [row["digest"] for row in listed] == [image.digest for image in two]
    assert listed[0]["created"] == "2026-01-01T00:00:00Z"
    lines = [line.split() for line in ok("image", "ls").splitlines()]
    assert lines[0] == ["NAME", "TAG", "ID", "KIND", "SIZE", "CREATED"]
    assert [line[:4] for line in lines[1:]] == [
        ["one", "latest", two[0].digest[7:19], "layers"],
        ["two", "1", two[1].digest[7:19], "layers"],
    ]
    assert lines[1][-1] == "ago"
    assert two[0].digest in ok("image", "ls", "--digests")
    assert names() == ["one", "two:1"]


def test_hidden_images_are_listed_when_asked_for(two, trees):
    put(".build/" + "a" * 64, trees[2])
    assert names() == ["one", "two:1"]
    assert ok("image", "ls", "-aq").split() == [".build/" + "a" * 64, "one", "two:1"]
    assert len(rows("image", "ls")) == 2
    assert [row["tag"] for row in rows("image", "ls", "-a")] == ["", "latest", "1"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("one", ["one"]),
        ("two", ["two:1"]),
        ("two:1", ["two:1"]),
        ("one:latest", ["one"]),
        ("*o*", ["one", "two:1"]),
        ("t?o", ["two:1"]),
        ("two:2", []),
        ("o", []),
    ],
)
def test_ls_of_some(two, pattern, found):
    assert ok("image", "ls", "-q", pattern).split() == found
    assert [row["name"] for row in rows("image", "ls", pattern)] == found


@pytest.mark.parametrize(
    ("name", "tag"),
    [("host:5000/path/web", "latest"), ("host:5000/web:2", "2"), ("web@sha256:" + "0" * 64, ""), ("web", "latest")],
)
def test_tags_of_names(trees, name, tag):
    put(name, trees[0])
    assert [(row["name"], row["tag"]) for row in rows("image", "ls")] == [(name, tag)]


def test_ages_are_said_in_the_largest_unit_of_which_there_are_two():
    day = 86400
    spans = (0.4, 1, 119, 120, 7199, 7200, 2 * day - 1, 13 * day, 14 * day, 59 * day, 60 * day, 729 * day, 730 * day)
    assert [format_age(span) for span in spans] == [
        *("0 seconds", "1 second", "119 seconds", "2 minutes", "119 minutes", "2 hours", "47 hours", "13 days"),
        *("2 weeks", "8 weeks", "2 months", "24 months", "2 years"),
    ]


@pytest.mark.parametrize(
    ("created", "said"),
    [("", "-"), ("nonsense", "-"), ("2020-01-01T00:00:00.123456789Z", " years ago"), ("9999-01-01T00:00:00Z", "0 s")],
)
def test_times_that_other_tools_write(trees, created, said):
    put("web", trees[0], created=created)
    assert said in ok("image", "ls").splitlines()[1]
    assert rows("image", "ls")[0]["created"] == created


def test_inspect(two):
    one, other = json.loads(ok("image", "inspect", "one", two[1].digest[7:15]))
    assert (one["name"], other["name"]) == ("one", "two:1")
    assert one["config"]["config"]["Cmd"] == list(CONFIG.cmd)
    assert one["config"] == store.document(two[0])
    assert [layer["diff_id"] for layer in one["layers"]] == [layer.digest for layer in two[0].layers]
    assert [layer["shared_with"] for layer in one["layers"]] == [["two:1"], []]
    assert [layer["allocated_bytes"] for layer in one["layers"]] == [blocks(layer.path) for layer in two[0].layers]
    assert one["config_digest"] == store.manifest(two[0])["config"]["digest"]
    assert (one["instances"], one["names"], one["disk"], one["annotations"]) == ([], ["one"], None, {})
    assert "there is no image on" in refused("image", "inspect", "on")


def test_history(trees):
    with staging() as stage:
        made = [layers.from_folder(stage, str(tree)) for tree in trees]
        lines = [
            {"created": "2026-01-01T00:00:00Z", "created_by": "ADD  rootfs\t/" + "x" * 100},
            {"created": "2026-01-02T00:00:00Z", "created_by": "CMD", "empty_layer": True},
            {"created": "2026-01-03T00:00:00Z", "created_by": "RUN", "comment": "why", "author": "who"},
        ]
        store.add(stage, "told", made, store.config_document(made, CONFIG, "2026-01-04T00:00:00Z", lines))
    told = rows("image", "history", "told")
    assert [line["created_by"][:3] for line in told] == ["", "RUN", "CMD", "ADD"]
    assert [line["diff_id"] for line in told] == [made[2].digest, made[1].digest, None, made[0].digest]
    assert [line["size_bytes"] > 0 for line in told] == [True, True, False, True]
    assert (told[1]["comment"], told[1]["author"], told[0]["created"]) == ("why", "who", "2026-01-04T00:00:00Z")
    assert "x" * 100 not in ok("image", "history", "told")
    assert "ADD rootfs /" + "x" * 100 in ok("image", "history", "told", "--no-trunc")
    assert "there is no image" in refused("image", "history", "nothing")


# Figures


def test_each_file_is_counted_once(two):
    images = of_kind("images")
    assert list(images) == DF_KEYS
    files = [store.files(image) for image in two]
    assert images["size_bytes"] == blocks(*files[0], *files[1]) == du(store.path("layers")) + du(store.path("blobs"))
    assert images["shared_bytes"] == blocks(*(files[0] & files[1])) > 300 << 10
    assert images["unique_bytes"] == blocks(*(files[0] ^ files[1]))
    assert (images["total"], images["active"], images["reclaimable_bytes"]) == (2, 0, images["size_bytes"])
    one, other = rows("image", "ls")
    assert one["size_bytes"] == blocks(*files[0]) == one["shared_bytes"] + one["unique_bytes"]
    assert one["shared_bytes"] == other["shared_bytes"] == images["shared_bytes"]


def test_a_second_name_is_not_a_second_image(two):
    before = of_kind("images")
    store.tag(two[0], "alias")
    assert of_kind("images") == before
    assert len(rows("image", "ls")) == 3
    assert json.loads(ok("image", "inspect", "one"))[0]["names"] == ["alias", "one"]


def test_what_instances_use_is_not_reclaimable(two, user):
    images, instances = of_kind("images"), of_kind("instances")
    assert (images["total"], images["active"], images["reclaimable_bytes"]) == (2, 2, 0)
    assert (instances["total"], instances["active"]) == (2, 0)
    assert instances["size_bytes"] == instances["reclaimable_bytes"] > 0
    ok("rm", "other")
    only = store.files(two[1]) - store.files(two[0])
    assert of_kind("images")["reclaimable_bytes"] == blocks(*only)
    document = rows("df", "-v")
    assert [row["instances"] for row in document["images"]] == [["ended"], []]
    assert [(row["name"], row["image"], row["status"]) for row in document["instances"]] == [
        ("ended", "one", "exited"),
    ]
    assert list(document["totals"][0]) == DF_KEYS
    assert json.loads(ok("df", "-v", "--format", "jsonl")) == document
    assert ok("df", "-v").count("ended") == 2


def test_caches_are_told_apart(two, trees):
    put(".build/" + "a" * 64, trees[0])  # costs its two blobs only: the layer is one's, too
    put(".build/" + "b" * 64, trees[1], trees[2])
    cache = of_kind("cache")
    assert cache["total"] == 2
    assert cache["size_bytes"] == cache["reclaimable_bytes"] < 60 << 10
    assert of_kind("images")["total"] == 2
    with open(store.path("layers", "0" * 64 + ".erofs"), "wb") as file:
        file.write(bytes(100 << 10))
    assert of_kind("cache")["reclaimable_bytes"] == cache["size_bytes"] + (100 << 10)


def test_nothing_at_all(empty_root):
    assert [row["kind"] for row in rows("df")] == ["images", "instances", "volumes", "snapshots", "kernels", "cache"]
    assert all(value == 0 for row in rows("df") for key, value in row.items() if key != "kind")
    assert rows("df", "-v")["images"] == []
    assert ok("df").split()[:6] == ["KIND", "TOTAL", "ACTIVE", "SIZE", "SHARED", "RECLAIMABLE"]
    for words in (("image", "prune"), ("prune",), ("prune", "-a")):  # nothing to ask about
        result = vmctl(*words)
        assert (result.code, result.out, result.err) == (0, "KIND  NAME  SIZE\n", "freed 0 B\n")
        assert rows(*words) == []


# Removal


def test_rm_tries_each(two, user):
    ok("rm", "other")
    result = vmctl("image", "rm", "no-such", "two:1", "one")
    assert (result.code, result.out) == (125, "two:1\n")
    assert "there is no image no-such" in result.err
    assert "the image one is used by ended" in result.err
    assert names() == ["one"]


def test_rm_by_force_takes_the_name_and_leaves_what_is_in_use(two, user):
    assert ok("image", "rm", "-f", "one") == "one\n"
    assert names() == ["two:1"]
    assert store.find(two[0].digest).layers == two[0].layers
    assert ok("image", "ls", "-aq").split() == [two[0].digest, "two:1"]
    ok("image", "prune", "-f")
    assert os.path.exists(two[0].layers[1].path)
    ok("rm", "ended")
    assert [(row["kind"], row["name"]) for row in rows("image", "prune", "-f")] == [("image", two[0].digest)]
    assert not os.path.exists(two[0].layers[1].path)
    assert os.path.exists(two[1].layers[1].path)


def test_rm_by_a_digest(two):
    store.tag(two[0], "alias")
    said = refused("image", "rm", two[0].digest[7:19])
    assert "has several names: " in said
    assert ok("image", "rm", two[1].digest[:20]) == two[1].digest[:20] + "\n"
    assert names() == ["alias", "one"]
    assert "there is no image" in refused("image", "rm", two[0].digest[7:12])  # too short to be meant as one


def test_a_damaged_image_can_be_removed(two):
    os.unlink(two[0].layers[1].path)
    assert "lacks" in refused("image", "inspect", "one")
    ok("image", "rm", "one")
    with open(store.path("blobs", *two[1].digest.split(":")), "w") as file:
        file.write("{")
    assert "hint: `vmctl image rm two:1` removes it" in refused("image", "ls")
    ok("image", "rm", "two:1")
    assert names() == []
    ok("image", "prune", "-f")  # what the damaged manifest has named
    assert du(store.path("layers")) + du(store.path("blobs")) == 0


def test_prune_removes_what_nobody_refers_to(two, trees, own_kernel):
    stray = store.path("layers", "0" * 64 + ".erofs")
    with open(stray, "wb") as file:
        file.write(bytes(50 << 10))
    put(".build/" + "a" * 64, trees[0])
    put(".build/" + "b" * 64, trees[2], trees[1], trees[0])  # the layers are other images', so it may stay
    (trees[2] / "more").write_bytes(bytes(7 << 10))
    put(".build/" + "c" * 64, trees[0], trees[2])
    killed_while_staging()
    before = filetree.allocated_bytes(paths.state_root())
    removed = rows("image", "prune", "-f")
    assert {(row["kind"], row["name"]) for row in removed} == {
        ("build step", ".build/" + "c" * 64),
        ("file", stray),
        *own_kernel[0],
    }
    assert sum(row["size_bytes"] for row in removed) <= before - filetree.allocated_bytes(paths.state_root())
    assert os.listdir(store.path("stages")) == []
    assert [image.name for image in store.ls(hidden=True)] == [
        ".build/" + "a" * 64,
        ".build/" + "b" * 64,
        "one",
        "two:1",
    ]
    assert [(row["kind"], row["name"]) for row in rows("image", "prune", "-f")] == [("modules", own_kernel[1])]
    assert rows("image", "prune", "-f") == []
    everything = {(row["kind"], row["name"]) for row in rows("image", "prune", "-af")}
    assert everything == {
        *(("build step", ".build/" + letter * 64) for letter in "ab"),
        *(("image", name) for name in ("one", "two:1")),
    }
    assert du(store.path("layers")) + du(store.path("blobs")) == 0


@pytest.fixture
def own_kernel(empty_root, tmp_path):
    """A Debian kernel that a newer one has replaced, and an initrd of which an input has gone: as prune names them."""
    for release in ("6.1.0-1-amd64", "6.1.0-2-amd64"):
        modules = os.path.join(kernel.folder(release), "lib/modules", release)
        os.makedirs(modules)
        os.makedirs(os.path.join(kernel.folder(release), "boot"))
        for path in (
            os.path.join(kernel.folder(release), kernel.IMAGE + release),
            os.path.join(modules, "modules.dep"),
        ):
            with open(path, "w") as file:
                file.write("x")
        open(os.path.join(modules, "modules.builtin"), "w").close()
    os.symlink("6.1.0-2-amd64", store.path("kernels", "debian"))
    os.makedirs(store.path("packages", "busybox-static", "bin"))
    for path in (store.path("packages", "busybox-static", "bin", "busybox"), str(tmp_path / "init")):
        with open(path, "w") as file:
            file.write("x")
    open(os.path.join(kernel.find("debian").modules, "modules.dep"), "w").close()
    made = initrd.build(kernel.find("debian"), [(str(tmp_path / "init"), "init", 0o755)], [])
    os.unlink(tmp_path / "init")
    moduledisk.build(kernel.find("debian"))
    replaced = moduledisk.build(kernel.find("6.1.0-1-amd64"))  # stale once prune has removed its kernel
    return {("kernel", "6.1.0-1-amd64"), ("initrd", made), ("initrd", made + ".inputs")}, replaced


def killed_while_staging():
    script = """
import os
from images.store.staging import staging
with staging() as stage:
    open(stage.path("x"), "w").write("x")
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert len(os.listdir(store.path("stages"))) == 1


def test_prune_all_keeps_what_instances_were_started_from(two, user):
    ok("rm", "other")
    assert [(row["kind"], row["name"]) for row in rows("image", "prune", "-af")] == [("image", "two:1")]
    assert names() == ["one"]


def test_prune_keeps_the_image_of_an_instance_that_is_being_started(two, tmp_path):
    inst = instance.create(Workload("starting", "two:1"), "container")  # it has not looked for its image yet
    with inst.locked():
        assert [row["name"] for row in rows("prune", "-af")] == ["one"]
        assert "is used by starting" in refused("image", "rm", "two:1")
    assert names() == ["two:1"]


def test_prune_of_everything_begins_with_the_instances_that_have_ended(two, user):
    user[1].state.status = "running"
    user[1].state.pid = os.getpid()
    user[1].state.pid_start = processes.start_time(os.getpid())
    user[1].save()
    assert [(row["kind"], row["name"]) for row in rows("prune", "-af")] == [("instance", "ended"), ("image", "one")]
    assert ok("ps", "-aq") == "other\n"
    assert names() == ["two:1"]


def test_prune_without_a_terminal_wants_to_be_told(two, user):
    for words in (("image", "prune", "-a"), ("prune",)):
        ok("rm", "other") if "other" in instance.names() else None
        assert "no terminal to ask for confirmation" in refused(*words)
    assert names() == ["one", "two:1"]
    assert ok("ps", "-aq") == "ended\n"


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("n", 1, ["one", "two:1"]), ("", 1, ["one", "two:1"]), ("y", 0, [])]
)
def test_prune_asks_on_a_terminal(two, answer, code, left):
    terminal = Terminal("image", "prune", "-a")
    terminal.read_until("remove these? [y/N] ")
    assert "image one (" in terminal.output
    terminal.type(f"{answer}\n")
    assert terminal.end()[0] == code
    assert names() == left


def test_a_download_under_way_is_left_alone(two):
    folder = store.path("downloads", "a" * 64)
    os.makedirs(folder)
    with open(os.path.join(folder, "blob"), "wb") as file:
        file.write(bytes(9999))
    with downloads.folder_locked(folder):
        assert rows("image", "prune", "-f") == []
    assert [(row["kind"], row["name"]) for row in rows("image", "prune", "-f")] == [("download", folder)]
    assert not os.path.exists(folder)


def test_images_that_are_being_made_survive_any_prune(trees):
    """Twelve images are made while prune -a runs all the time: each is whole, or gone."""
    stop = time.monotonic() + 4
    pruning = start("--debug", "image", "prune", "-af")
    for number in range(12):
        put(f"made{number}", *trees)
        if pruning.poll() is not None:
            assert pruning.returncode == 0, pruning.stderr.read()
            pruning = start("--debug", "image", "prune", "-af")
        assert time.monotonic() < stop + 240
    assert pruning.wait(120) == 0, pruning.stderr.read()
    for image in store.ls():
        assert all(os.path.exists(file) for file in store.files(image))
    wait_for(lambda: not os.listdir(store.path("stages")))
    assert totals.totals()[0].total == len({image.digest for image in store.ls()})  # of twelve names for the same
