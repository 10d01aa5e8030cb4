"""pull, push, login against Debian's docker-registry on the loopback."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
from contextlib import contextmanager

import pytest
from support import others
from support.archives import Layout, sha256
from support.commands import ok, refused, start, vmctl, wait_for
from support.images_made import put
from support.registries import Proxy, certificates, failing_registry, registry
from support.tars import folder, tar_of

from images.store import store
from images.store.image import ImageError, architecture
from images.transfer import downloads, importing, pulling
from images.transfer import registry as door
from images.transfer.registry import Access
from vmctl.errors import DeadlineError, NotFoundError, VmctlError
from vmctl.linux import syscalls

pytestmark = pytest.mark.usefixtures("empty_root")

PLAIN = Access(tls_verify=False)
SMALL = tar_of(folder("etc"), ("etc/one", {}, b"one" * 100))
LARGE = tar_of(("large", {}, random.Random(1).randbytes(3 << 20)))
FOREIGN = "arm64" if architecture() != "arm64" else "amd64"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A registry without TLS and passwords, with the image `web:1` of two layers."""
    there = tmp_path_factory.mktemp("plain")
    with registry(there / "registry") as address:
        layout = Layout()
        layout.add(layout.image(SMALL, LARGE), "1").folder(there / "web")
        send(f"oci:{there}/web:1", f"{address}/web:1")
        yield address


@pytest.fixture
def proxy(plain):
    proxy = Proxy(plain)
    yield proxy
    proxy.close()


def send(source, target, *words):
    others.skopeo("copy", "--dest-tls-verify=false", *words, source, f"docker://{target}")


def pull(name, **options):
    return pulling.pull(name, PLAIN, lambda _: None, **options)


def names():
    return [image.name for image in store.ls()]


def blobs_asked_for(proxy):
    return {
        line.split()[1].rpartition(b"/")[2].decode() for line in proxy.requests if b"GET" in line and b"/blobs/" in line
    }


# what comes


def test_an_image_comes_as_it_is_there_and_leaves_no_download_behind(plain):
    assert ok("image", "pull", "--tls-verify=false", f"{plain}/web:1") == f"{plain}/web:1\n"
    image = store.find(f"{plain}/web:1")
    assert [layer.digest for layer in image.layers] == [sha256(SMALL), sha256(LARGE)]
    assert sha256(store.raw_config(image)) == json.loads(raw(f"{plain}/web:1"))["config"]["digest"]
    assert downloads.sizes() == {}
    assert os.listdir(store.path("stages")) == []


def raw(name):
    return others.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")


@pytest.mark.parametrize(
    "words", [("--format", "v2s2"), ("--format", "oci", "--dest-compress-format", "zstd"), ("--dest-decompress",)]
)
def test_every_form_that_registries_have_is_the_same_image(plain, tmp_path, words):
    """Docker's manifests, zstd layers, layers that are not compressed."""
    layout = Layout()
    packing = "" if "decompress" in words[0] else "+gzip"
    layout.add(layout.image(SMALL, LARGE, packing=packing), "1").folder(tmp_path / "web")
    name = f"{plain}/form:{len(words)}{words[-1]}"
    send(f"oci:{tmp_path}/web:1", name, *(words if packing else ()))
    image = pull(name)
    assert [layer.digest for layer in image.layers] == [sha256(SMALL), sha256(LARGE)]
    assert sha256(store.raw_config(image)) == json.loads(raw(name))["config"]["digest"]


def test_of_several_platforms_one_is_taken(plain, tmp_path):
    layout = Layout()
    mine = {**layout.image(SMALL), "platform": {"os": "linux", "architecture": architecture()}}
    foreign = {**layout.image(LARGE, arch=FOREIGN), "platform": {"os": "linux", "architecture": FOREIGN}}
    layout.add(layout.nested(foreign, mine), "1").folder(tmp_path / "multi")
    send(f"oci:{tmp_path}/multi:1", f"{plain}/multi:1", "--all")
    assert pull(f"{plain}/multi:1").architecture == architecture()
    assert pull(f"{plain}/multi:1", platform=f"linux/{FOREIGN}").layers[0].digest == sha256(LARGE)
    with pytest.raises(
        ImageError, match=f"has no image for linux/s390x; available: linux/{architecture()}, linux/{FOREIGN}"
    ):
        pull(f"{plain}/multi:1", platform="s390x")
    digest = "sha256:" + hashlib.sha256(raw(f"{plain}/multi:1").encode()).hexdigest()
    assert pull(f"{plain}/multi@{digest}").name == f"{plain}/multi@{digest}"


def test_an_image_of_another_architecture_is_stored_with_a_word_and_not_run(plain, tmp_path):
    layout = Layout()
    layout.add(layout.image(SMALL, arch=FOREIGN), "1").folder(tmp_path / "foreign")
    send(f"oci:{tmp_path}/foreign:1", f"{plain}/foreign:1")
    done = vmctl("image", "pull", "--tls-verify=false", f"{plain}/foreign:1")
    assert done.code == 0
    assert f"is for {FOREIGN}: this host, {architecture()}, cannot run it" in done.err
    assert f"is for {FOREIGN}" in refused("run", "--mode", "container", f"{plain}/foreign:1", "--", "true")
    with pytest.raises(ImageError, match=f"is available only for {FOREIGN}"):
        pull(f"{plain}/foreign:1", platform=architecture())


# what is not fetched


def test_layers_of_the_store_are_not_downloaded(plain, proxy, tmp_path):
    layout = Layout()
    layout.add(layout.image(LARGE), "1")
    importing.import_path(str(layout.folder(tmp_path / "other")), importing.Options(), lambda _: None)
    image = pull(f"{proxy.address}/web:1")
    packed = [item["digest"] for item in json.loads(raw(f"{plain}/web:1"))["layers"]]
    assert packed[0] in blobs_asked_for(proxy)
    assert packed[1] not in blobs_asked_for(proxy)
    assert proxy.passed_bytes < 1 << 20
    assert [layer.digest for layer in image.layers] == [sha256(SMALL), sha256(LARGE)]


def test_a_second_pull_fetches_no_layer(plain, proxy):
    first = pull(f"{plain}/web:1")
    second = pull(f"{proxy.address}/web:1")
    assert second.digest == first.digest
    assert not blobs_asked_for(proxy) & {item["digest"] for item in json.loads(raw(f"{plain}/web:1"))["layers"]}


# what goes wrong


def test_a_connection_that_is_cut_is_taken_up_where_it_ended(plain, proxy):
    packed = [item["digest"] for item in json.loads(raw(f"{plain}/web:1"))["layers"]]
    proxy.limit_bytes = 1 << 20
    said = refused("image", "pull", "--tls-verify=false", f"{proxy.address}/web:1")
    assert f"{proxy.address} closed the connection during the transfer of web:1" in said
    assert "hint: try again: complete layers are kept" in said
    assert names() == []
    assert len(downloads.sizes()) == 1
    proxy.limit_bytes = None
    proxy.requests.clear()
    pull(f"{proxy.address}/web:1")
    assert packed[0] not in blobs_asked_for(proxy)
    assert packed[1] in blobs_asked_for(proxy)
    assert downloads.sizes() == {}


@pytest.mark.parametrize("failing", [3, 4])
def test_a_failure_that_passes_is_waited_for(failing, monkeypatch):
    """A server that answers 503 and then 404: which of both ends the pull shows how often it was asked."""
    monkeypatch.setattr(door, "_PAUSES_S", (0.01, 0.02, 0.03))
    with failing_registry(failing) as address:
        with pytest.raises(VmctlError) as info:
            pull(f"{address}/web:1")
        expected = "has no image web:1" if failing == 3 else r"reports a failure: HTTP status: 503 Service Unavailable"
        assert re.search(expected, str(info.value))


def test_a_token_server_that_refuses_wants_a_login_or_another_one(tmp_path):
    env = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    with failing_registry(token=True) as address:
        words = ("image", "pull", "--tls-verify=false", f"{address}/web:1")
        said = refused(*words, env=env)
        assert said == (
            f"vmctl: {address} refuses access to web:1 without a login\nhint: `vmctl image login {address}`\n"
        )
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {address: {"auth": "YTpi"}}}))
        said = refused(*words, "--authfile", str(tmp_path / "auth.json"), env=env)
        assert f"{address} rejected the user name or password" in said


def test_a_broken_configuration_of_skopeo_is_named(tmp_path, monkeypatch):
    path = tmp_path / ".config/containers/registries.conf"
    path.parent.mkdir(parents=True)
    path.write_text('unqualified = [ "a\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(VmctlError, match=rf"skopeo is not configured: .*{path}.*toml: line 1") as info:
        pull("localhost:1/web")
    assert info.value.hint == "correct the file, or remove it"


def test_what_an_interrupted_download_has_left_can_be_removed(proxy):
    proxy.limit_bytes = 1 << 20
    refused("image", "pull", "--tls-verify=false", f"{proxy.address}/web:1")
    assert sum(map(downloads.remove, downloads.sizes())) > 0
    assert downloads.sizes() == {}


def under_way():
    return any(downloads.Download(path).downloaded_bytes() > 500_000 for path in downloads.sizes())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_pull_leaves_nothing_in_the_way(plain, proxy, number):
    proxy.stop_after_bytes = 1 << 20
    process = start("image", "pull", "--tls-verify=false", f"{proxy.address}/web:1")
    wait_for(under_way)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    wait_for(lambda: skopeos_of(proxy) == [])
    if number != signal.SIGKILL:
        assert os.listdir(store.path("stages")) == []
    assert names() == []
    proxy.stop_after_bytes = None
    assert pull(f"{plain}/web:1")
    assert downloads.sizes() == {}
    assert os.listdir(store.path("stages")) == []
    proxy.close()


def skopeos_of(proxy):
    """Return the pids of programs that still speak to the proxy."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if proxy.address.encode() in file.read():
                    found.append(pid)
        except OSError:
            continue
    return found


def test_a_registry_that_falls_silent_is_given_up(proxy, monkeypatch):
    monkeypatch.setattr(pulling, "STALLED_S", 1.0)
    proxy.stop_after_bytes = 1 << 20
    with pytest.raises(DeadlineError, match="has sent nothing for 1 s"):
        pull(f"{proxy.address}/web:1")
    proxy.stop_after_bytes = 0
    monkeypatch.setattr(door, "ANSWER_S", 1.0)
    with pytest.raises(DeadlineError, match="does not answer in time"):
        pull(f"{proxy.address}/web:1")
    assert names() == []


def test_two_pulls_at_once_give_one_image(plain):
    processes = [start("image", "pull", "--tls-verify=false", f"{plain}/web:1") for _ in range(3)]
    for process in processes:
        assert process.communicate()[1] == b""
        assert process.returncode == 0
    assert names() == [f"{plain}/web:1"]
    assert downloads.sizes() == {}
    assert store.unreferenced() == []


@contextmanager
def registry_of_one_layer(folder):
    """Run a registry with the image `web:1`; lend its address, and digest and folder of the layer."""
    layout = Layout()
    layout.add(layout.image(SMALL), "1").folder(folder / "web")
    with registry(folder / "registry") as address:
        send(f"oci:{folder}/web:1", f"{address}/web:1")
        [layer] = json.loads(raw(f"{address}/web:1"))["layers"]
        name = layer["digest"][7:]
        yield address, name, folder / f"registry/images/docker/registry/v2/blobs/sha256/{name[:2]}/{name}"


def test_a_layer_that_the_registry_lost_is_named(tmp_path):
    with registry_of_one_layer(tmp_path) as (address, name, blob):
        shutil.rmtree(blob)
        with pytest.raises(
            ImageError, match=f"has the image web:1, but not all of its layers: blob sha256:{name[:12]}"
        ):
            pull(f"{address}/web:1")
    assert names() == []


def test_content_that_is_not_what_its_digest_says(tmp_path):
    with registry_of_one_layer(tmp_path) as (address, _, blob):
        kept = blob / "data"
        kept.write_bytes(kept.read_bytes()[:-9] + b"x" + kept.read_bytes()[-8:])
        with pytest.raises(ImageError, match=r"(?i)digest did not match|does not match"):
            pull(f"{address}/web:1")
    assert names() == []


@pytest.mark.parametrize(
    ("name", "words", "kind"),
    [
        ("nix:1", r"localhost:\d+ has no image nix:1", NotFoundError),
        ("web:9", r"localhost:\d+ has no image web:9", NotFoundError),
        ("web@sha256:" + "0" * 64, r"localhost:\d+ has no image web@sha256:0", NotFoundError),
    ],
)
def test_a_name_that_is_not_there(plain, name, words, kind):
    with pytest.raises(kind, match=words):
        pull(f"{plain}/{name}")


def test_a_registry_that_is_not_there(plain):
    with pytest.raises(VmctlError, match="localhost:1 refused the connection"):
        pull("localhost:1/web")
    with pytest.raises(
        VmctlError, match=r"host name registry\.invalid cannot be resolved|does not answer in time|no route to"
    ):
        pull("registry.invalid/web")
    with pytest.raises(VmctlError, match="does not support TLS") as info:
        pulling.pull(f"{plain}/web:1", Access(), lambda _: None)
    assert "--tls-verify=false" in info.value.hint


@pytest.mark.parametrize(
    ("settings", "words", "message"),
    [
        (
            {"HTTPS_PROXY": "http://127.0.0.1:1"},
            (),
            "the proxy for reg.example.org cannot be used: dial tcp 127.0.0.1:1",
        ),
        ({}, ("--authfile", "./nope.json"), "--authfile: there is no file ./nope.json"),
        ({"REGISTRY_AUTH_FILE": "BROKEN"}, (), "the file with passwords cannot be read: "),
        ({"HOME": "HELPER"}, (), "the program docker-credential-nope, which keeps passwords"),
    ],
)
def test_what_the_caller_has_set_is_named(tmp_path, settings, words, message):
    (tmp_path / "broken").write_text("{")
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text('{"credHelpers": {"reg.example.org": "nope"}}')
    known = {"BROKEN": str(tmp_path / "broken"), "HELPER": str(tmp_path)}
    env = {
        **os.environ,
        "HOME": str(tmp_path / "none"),
        **{name: known.get(text, text) for name, text in settings.items()},
    }
    for verb in ("pull", "push"):
        if verb == "push":
            (tmp_path / "x").mkdir()
            put("reg.example.org/web:1", tmp_path / "x")
        said = refused("image", verb, "reg.example.org/web:1", *words, env=env)
        assert message in said
        assert said.count("\n") <= 2


def test_a_login_that_is_dockers_is_named(tmp_path):
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text('{"auths": {"reg.example.org": {"auth": "YTpi"}}}')
    env = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    said = refused("image", "logout", "reg.example.org", env=env)
    assert "docker logout reg.example.org" in said


def test_without_skopeo_it_is_named(plain):
    said = refused("image", "pull", f"{plain}/web:1", env={**os.environ, "PATH": "/nonexistent"})
    assert "the program skopeo is not installed" in said
    assert "vmctl doctor" in said


def test_a_full_disk_ends_a_pull_and_leaves_no_download(plain, tmp_path, monkeypatch):
    (tmp_path / "small").mkdir()
    syscalls.mount("tmpfs", str(tmp_path / "small"), "tmpfs", 0, "size=1m")
    try:
        monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "small"))
        with pytest.raises(VmctlError, match=r"the disk is full|No space left"):
            pull(f"{plain}/web:1")
        assert names() == []
        assert downloads.sizes() == {}
    finally:
        syscalls.umount2(str(tmp_path / "small"))


# TLS and passwords


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A registry with TLS and a user, with the image `web:1`, and its authority's certificate."""
    there = tmp_path_factory.mktemp("guarded")
    own, authority = certificates(there / "certificates")
    with registry(there / "registry", tls=own, users={"bob": "secret word"}) as address:
        layout = Layout()
        layout.add(layout.image(SMALL), "1").folder(there / "web")
        send(f"oci:{there}/web:1", f"{address}/web:1", "--dest-creds", "bob:secret word")
        yield address, authority


def test_a_certificate_that_nobody_vouches_for_is_refused(guarded, tmp_path):
    address, authority = guarded
    said = refused("image", "pull", f"{address}/web:1")
    assert f"the certificate of {address} is not trusted: x509: certificate signed by unknown authority" in said
    assert f"/etc/containers/certs.d/{address}/ca.crt" in said
    assert "--tls-verify=false" in said
    trusting = {**os.environ, "SSL_CERT_FILE": authority}
    assert "refuses access" in refused("image", "pull", f"{address}/web:1", env=trusting)


def test_a_login_is_kept_until_the_logout(guarded, tmp_path):
    address, authority = guarded
    trusting = {**os.environ, "SSL_CERT_FILE": authority, "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
    said = refused("image", "pull", f"{address}/web:1", env=trusting)
    assert f"{address} refuses access to web:1" in said
    assert f"hint: `vmctl image login {address}`" in said
    login = ("image", "login", address, "-u", "bob", "--password-stdin")
    assert f"{address} rejected the user name or password" in refused(*login, stdin="wrong\n", env=trusting)
    done = vmctl(*login, stdin="secret word\n", env=trusting)
    assert (done.code, done.out, done.err) == (0, "", f"vmctl: logged in to {address}\n")
    assert ok("image", "pull", f"{address}/web:1", env=trusting) == f"{address}/web:1\n"
    ok("image", "logout", address, env=trusting)
    assert "refuses access" in refused("image", "pull", f"{address}/web:1", env=trusting)
    assert f"not logged in to {address}" in refused("image", "logout", address, env=trusting)


def test_a_file_of_passwords_can_be_named(guarded, tmp_path):
    address, _ = guarded
    words = ("--tls-verify=false", "--authfile", str(tmp_path / "auth.json"))
    vmctl("image", "login", address, "-u", "bob", "--password-stdin", *words, stdin="secret word")
    assert ok("image", "pull", f"{address}/web:1", *words)
    assert "refuses access" in refused("image", "pull", f"{address}/web:1", "--tls-verify=false")


def test_a_login_needs_a_name_and_a_word():
    assert "login has no terminal to ask for the password" in refused("image", "login", "localhost:1")
    assert "needs --user" in refused("image", "login", "localhost:1", "--password-stdin", stdin="x")


# what goes


def test_an_image_goes_and_comes_back_the_same(plain, monkeypatch, tmp_path):
    first = pull(f"{plain}/web:1")
    digest = ok("image", "push", "--tls-verify=false", f"{plain}/web:1", f"{plain}/sub/copy:2").strip()
    assert digest == "sha256:" + hashlib.sha256(raw(f"{plain}/sub/copy:2").encode()).hexdigest()
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "elsewhere"))
    back = pull(f"{plain}/sub/copy:2")
    assert store.raw_config(back) == store.raw_config(store.find(back.name))
    assert [layer.digest for layer in back.layers] == [layer.digest for layer in first.layers]
    assert back.digest == first.digest
    assert pull(f"{plain}/sub/copy@{digest}").digest == first.digest


def test_what_is_sent_is_compressed_and_others_unpack_it(plain, tmp_path):
    layout = Layout()
    layout.add(layout.image(tar_of(("zeros", {}, bytes(1 << 20))), packing=""), "zeros:1")
    importing.import_path(str(layout.archive(tmp_path / "zeros")), importing.Options(), lambda _: None)
    ok("image", "push", "--tls-verify=false", "zeros:1", f"{plain}/zeros")
    [layer] = json.loads(raw(f"{plain}/zeros:latest"))["layers"]
    assert layer["size"] < 10_000
    others.skopeo("copy", "--src-tls-verify=false", f"docker://{plain}/zeros", f"oci:{tmp_path}/back:1")
    others.umoci("unpack", "--image", f"{tmp_path}/back:1", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/zeros").stat().st_size == 1 << 20


def test_a_push_that_is_refused_is_explained(guarded, plain, tmp_path):
    address, _ = guarded
    pull(f"{plain}/web:1")
    said = refused("image", "push", "--tls-verify=false", f"{plain}/web:1", f"{address}/web:1")
    assert f"{address} refuses access to web:1" in said
    assert "there is no image nix" in refused("image", "push", "nix", f"{plain}/nix")
    assert "push to a tag" in refused("image", "push", f"{plain}/web:1", f"{plain}/web@sha256:{'0' * 64}")
    assert "refused the connection" in refused("image", "push", f"{plain}/web:1", "localhost:1/web")
    assert os.listdir(store.path("stages")) == []


def test_progress_is_told_in_bytes(proxy):
    told = []
    proxy.pause_s = 0.01
    pulling.pull(f"{proxy.address}/web:1", PLAIN, told.append)
    assert any(text.startswith("downloading web: ") and text.endswith(" of 3.0 MiB") for text in told), told
