import os
import shutil
import signal
from tempfile import TemporaryDirectory, mkdtemp

import pytest
from support.attacks import Caller, Canary, Cell, UserCaller
from support.commands import vmctl
from support.images_made import Shipped, add
from support.ordinary_user import OrdinaryUser
from support.roots import separate_root

from images.store import store
from vmctl import paths
from vmctl.instances import instance
from vmctl.net import uplink

pytest_plugins = ["support.again", "support.attack_table", "support.meanwhile"]

_ROOT = paths.state_root()  # of the host, or of the session that runs the tests
SHARED = "VMCTL_TESTS_SHARED"  # the environment of the workers (pytest-xdist) is that of the process that starts them


def pytest_configure(config):
    """Reset ignored signals, so that programs started by tests handle Ctrl-C, also under nohup(1) or a shell's `&`."""
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(signum) == signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    if not hasattr(config, "workerinput"):
        os.environ[SHARED] = mkdtemp(prefix="vmctl-shared-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ[SHARED], ignore_errors=True))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call():
    """Remove the instances that a failed test has left in the root of its file, or the next ones would fail by them."""
    is_own = paths.state_root() != _ROOT
    before = set(instance.names()) if is_own else set()
    outcome = yield
    if outcome.excinfo and is_own and paths.state_root() != _ROOT:
        for name in set(instance.names()) - before:
            vmctl("rm", "-f", name)


# what an ordinary user's guests show has been shown by root's guests and by this user's containers
_REPEATED = {
    f"test_{name}.py"
    for name in (
        "terminal",
        "verbs",
        "daily",
        "attack_config",
        "attack_keeping",
        "run_flags",
        "logs_order",
        "removed_at_end",
    )
}


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, or one worker is still at them when the others have nothing to do."""
    for item in items:
        if item.path.name in _REPEATED and "[user-vm" in item.name:
            item.add_marker("long")
    items.sort(key=lambda item: -_time_limit_s(item.getparent(pytest.Module)))


def _time_limit_s(module):
    marker = module.get_closest_marker("timeout")
    return marker.args[0] if marker else 0


@pytest.fixture
def empty_root(tmp_path, monkeypatch):
    """A separate VMCTL_ROOT for one test, without images and instances."""
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "root"))
    yield tmp_path / "root"
    if uplink.exists():  # tests of places in a network leave the switch, and with it the process of the way out
        uplink.end()


@pytest.fixture
def own_root(tmp_path, monkeypatch):
    """A separate VMCTL_ROOT for one test, with the images that `make setup` has made."""
    images = paths.images_root()
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "root"))
    os.makedirs(paths.state_root())
    os.symlink(images, paths.images_root())
    return tmp_path / "root"


@pytest.fixture(scope="module")
def guest_root():
    """A separate VMCTL_ROOT for the tests of one file that start guests, with the images and caches of the host."""
    with separate_root("images", "cache") as root:
        yield root
        _end_instances()


@pytest.fixture(scope="module")
def own_store():
    """A separate VMCTL_ROOT for the tests of one file that make images: with `tiny`, the host's kernels and caches."""
    tiny = store.find("tiny")
    layers = [layer._replace(path=os.path.realpath(layer.path)) for layer in tiny.layers]
    kept = {name: os.path.realpath(store.path(name)) for name in ("kernels", "packages")}
    cache = paths.cache_root()
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="vmctl-") as root:
        patch.setenv("VMCTL_ROOT", root)
        os.makedirs(store.path())
        os.makedirs(cache, exist_ok=True)
        os.symlink(cache, paths.cache_root())
        for name, folder in kept.items():
            os.symlink(folder, store.path(name))
        add("tiny", tiny._replace(layers=layers))
        yield root
        _end_instances()


def _end_instances():
    """Remove what is left, or its processes would write into a folder that is being removed."""
    for name in instance.names():
        vmctl("rm", "-f", name)


@pytest.fixture(scope="session")
def shipped():
    """The images of the shipped recipes: `shipped.bring("debian")` puts one into the present store."""
    return Shipped(os.path.join(os.environ[SHARED], "shipped"))


@pytest.fixture
def tree(tmp_path):
    """A folder with one of each kind of file that a layer can have."""
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "empty").mkdir()
    (root / "bin").symlink_to("usr/bin")
    os.link(root / "etc/hosts", root / "hard-link")
    (root / "set-uid").write_bytes(b"x" * 5000)
    (root / "set-uid").chmod(0o4755)
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    os.setxattr(root / "set-uid", "user.note", b"\0\xff kept")
    for folder, folders, files in os.walk(root, topdown=False):
        for name in [*files, *folders]:
            os.utime(os.path.join(folder, name), (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    os.utime(root, (1_600_000_000, 1_600_000_000))
    return root


# For attack tests


@pytest.fixture(scope="module", params=["container", "vm", "host"])
def mode(request):
    """Each mode that isolates; `support.attack_table.modes` chooses others."""
    return request.param


@pytest.fixture(scope="module", params=["root", "user"])
def who(request):
    """Each kind of user who calls vmctl; `support.attack_table.callers` chooses one."""
    return request.param


@pytest.fixture(scope="session")
def ordinary_caller():
    """The ordinary user of the attack tests, whose store and caches are made once per worker."""
    with OrdinaryUser() as user:
        yield UserCaller(user)


@pytest.fixture(scope="module")
def caller(who, request, guest_root, tmp_path_factory):
    """A runner of vmctl as that user, in a state root that has nothing of the files before."""
    if who == "root":
        caller = Caller(str(tmp_path_factory.mktemp("caller")))
    else:
        caller = request.getfixturevalue("ordinary_caller")
    yield caller
    caller.end()


@pytest.fixture(scope="module")
def cell(caller, mode):
    """A running instance that all tests of the file share; do not break it."""
    cell = Cell(caller, mode)
    yield cell
    cell.end()


@pytest.fixture
def canary(request, tmp_path):
    """A secret file, a process and a socket of the host; the test ends with a look whether they were reached."""
    caller = request.getfixturevalue("caller") if "caller" in request.fixturenames else None
    canary = Canary(caller.folder if caller else str(tmp_path), caller.uid if caller else 0)
    yield canary
    canary.check()
    canary.end()
