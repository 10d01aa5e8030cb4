"""The pytest plugin, by pytest's own plugin for tests of plugins: each test here runs pytest on a small project."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import pytest
from support.commands import VMCTL
from support.ordinary_user import OrdinaryUser
from support.tracked import ROOT

from vmctl.testing.description import described, of_markers
from vmctl.testing.outcomes import Outcomes, without_mode

pytest_plugins = ["pytester"]

PLUGINS = ("-p", "vmctl.testing.plugin", "-p", "no:cacheprovider")
EXAMPLE = os.path.join(ROOT, "docs/examples/pristine")

TWO = """
    import pytest

    def fill(instance):
        instance.write("/srv/count", b"1")
        with open("prepared", "a") as file:
            file.write("once\\n")

    pytestmark = pytest.mark.vmctl("tiny", command=["sleep", "inf"], network="none", prepare=fill)

    @pytest.mark.parametrize("number", range(4))
    def test_writes(vmctl_instance, number):
        assert vmctl_instance.read("/srv/count") == b"1"
        vmctl_instance.write("/srv/count", b"2")
        assert vmctl_instance.read("/srv/count") == b"2"
"""


@pytest.fixture
def project(pytester, own_root, monkeypatch):
    """Runs pytest with the plugin in a separate process, with a separate state root."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return Project(pytester, own_root)


@pytest.fixture
def guest_project(pytester, guest_root, monkeypatch):
    """The same, with a state root whose path is short enough for the sockets of a guest."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return Project(pytester, pathlib.Path(guest_root))


class Project:
    def __init__(self, pytester, root):
        self.pytester, self.root = pytester, root

    def run(self, source, *words, workers=0):
        if source:
            self.pytester.makepyfile(source)
        more = ("-p", "xdist.plugin", "-n", str(workers)) if workers else ()
        return self.pytester.runpytest_subprocess(*PLUGINS, *more, *words, timeout=120)

    def left(self):
        """The instances, snapshots and sessions in the state root."""
        found = []
        for name in ("instances", "snapshots", "testing"):
            folder = self.root / "lib" / name
            found += sorted(os.listdir(folder)) if folder.exists() else []
        return found


def properties(path):
    """The properties of each test in a junit file."""
    return [
        {one.get("name"): one.get("value") for one in case.iter("property")}
        for case in ElementTree.parse(path).iter("testcase")
    ]


def test_each_test_has_a_clone_that_nobody_has_written_to(project):
    done = project.run(TWO, "--junit-xml=out.xml")
    done.assert_outcomes(passed=4)
    assert (project.pytester.path / "prepared").read_text() == "once\n"
    found = properties(project.pytester.path / "out.xml")
    assert len({one["vmctl_instance"] for one in found}) == 4
    assert {one["vmctl_mode"] for one in found} == {"container"}
    assert all(0 < float(one["vmctl_start_s"]) < 60 for one in found)
    assert [("vmctl_snapshot_s" in one) for one in found] == [True, False, False, False]
    assert project.left() == []


def test_workers_share_one_snapshot_and_no_name_or_port(project):
    source = """
        from urllib.request import urlopen
        import pytest
        from vmctl.testing import golden

        def fill(instance):
            instance.write("/srv/index.html", b"hello")
            with open("prepared", "a") as file:
                file.write("once\\n")

        web = golden(
            "tiny", command=["httpd", "-f", "-p", "8000", "-h", "/srv"], ports=[8000], ready={"tcp": 8000},
            prepare=fill,
        )

        @pytest.mark.parametrize("number", range(4))
        def test_page(web, number, record_property):
            record_property("port", web.port(8000))
            assert urlopen(f"http://127.0.0.1:{web.port(8000)}/").read() == b"hello"
            web.write("/srv/index.html", str(number).encode())
            assert urlopen(f"http://127.0.0.1:{web.port(8000)}/").read() == str(number).encode()
    """
    done = project.run(source, "--junit-xml=out.xml", workers=2)
    done.assert_outcomes(passed=4)
    assert (project.pytester.path / "prepared").read_text() == "once\n"
    names = {one["vmctl_instance"] for one in properties(project.pytester.path / "out.xml")}
    assert {name.split("-")[2] for name in names} == {"gw0", "gw1"}
    assert len(names) == 4
    assert project.left() == []


FAILING = """
    import pytest

    @pytest.mark.vmctl("tiny", command=["sh", "-c", "echo started; exec sleep inf"], ready={"log": "started"})
    def test_fails(vmctl_instance):
        vmctl_instance.write("/srv/new", b"x")
        assert vmctl_instance.mode == "vm"
"""


def test_a_failed_test_reports_output_and_changed_files(project):
    done = project.run(FAILING)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*vmctl stdout of pytest-*", "started", "*vmctl diff of pytest-*", "A /srv/new"])
    assert "is kept" not in done.stdout.str()
    assert project.left() == []


def test_the_instance_of_a_failed_test_is_kept_if_asked_for(project):
    done = project.run(FAILING, "--vmctl-keep")
    done.stdout.fnmatch_lines(["*is kept: `vmctl shell pytest-*", "*vmctl: kept for failed tests*"])
    kept, _ = project.left()
    shown = subprocess.run([VMCTL, "exec", kept, "--", "cat", "/srv/new"], capture_output=True, text=True)
    assert shown.stdout == "x", shown
    subprocess.run([VMCTL, "rm", "-f", kept], check=True)
    assert project.left() == []  # the snapshot goes with its last clone


def test_what_cannot_be_fails_with_the_reason(project):
    source = """
        import pytest

        @pytest.mark.vmctl("missing-image")
        def test_image(vmctl_instance): ...

        @pytest.mark.vmctl("tiny", comand=["true"])
        def test_key(vmctl_instance): ...

        def test_marker(vmctl_instance): ...

        @pytest.mark.vmctl(mode="container")
        def test_no_image(vmctl_instance): ...

        def broken(instance):
            raise RuntimeError("no such table")

        @pytest.mark.vmctl("tiny", command=["sleep", "inf"], prepare=broken)
        class TestPrepare:
            def test_first(self, vmctl_instance): ...
            def test_second(self, vmctl_instance): ...
    """
    done = project.run(source)
    done.assert_outcomes(errors=6)
    shown = done.stdout.str()
    for text in (
        "no instance of missing-image in mode container: ",
        "there is no image missing-image",
        "`vmctl image pull missing-image` downloads it",
        "comand",
        "no marker describes the instance",
        "no image is named",
        "no such table",
        "could not be made for an earlier test: no such table",
    ):
        assert text in shown
    assert "During handling" not in shown
    assert project.left() == []


def test_an_unknown_mode_is_refused_at_once(project):
    done = project.run("def test_nothing(): ...", "--vmctl-mode=container,docker")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*--vmctl-mode: there is no mode docker; there are container, host, vm*"])


def test_modes_are_parameters_and_differences_are_listed(project):
    source = """
        import os
        import pytest

        pytestmark = pytest.mark.vmctl("tiny", command=["sleep", "inf"])

        def test_same(vmctl_instance): ...

        @pytest.mark.parametrize("number", [1, 2])
        def test_differs(vmctl_instance, number):
            host = os.readlink("/proc/self/ns/net")
            assert vmctl_instance.exec(["readlink", "/proc/self/ns/net"]).out.strip() != host

        def test_without_an_instance(): ...
    """
    done = project.run(source, "--vmctl-mode=container,host")
    done.assert_outcomes(passed=5, failed=2)
    done.stdout.fnmatch_lines(
        [
            "*vmctl: outcomes by mode*",
            "test_modes*::test_differs[[]1]: passed in container, failed in host",
            "test_modes*::test_differs[[]2]: passed in container, failed in host",
            "3 tests compared in container, host: 2 differ",
        ]
    )


def test_the_same_test_with_a_guest_and_its_console(guest_project):
    """The clone of a guest is ready although its own log is empty: it goes on where the guest was."""
    source = FAILING.replace('ready={"log"', 'network="none", ready={"log"').replace('== "vm"', '== "container"')
    done = guest_project.run(source, "--vmctl-mode=container,vm")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        ["*vmctl diff of pytest-*", "A /srv/new", "*::test_fails: passed in container, failed in vm"]
    )
    assert guest_project.left() == []


def test_what_a_test_leaves_behind_fails_the_session(project):
    source = """
        import pytest

        @pytest.mark.vmctl("tiny", command=["sleep", "inf"], network="none")
        def test_leaves(vmctl_instance):
            snapshot = vmctl_instance.snapshot("mine")
            snapshot.clone(name=vmctl_instance.name + "-more", keep=True)
    """
    done = project.run(source)
    done.assert_outcomes(passed=1)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(
        [
            "*left behind by tests*",
            "the instance pytest-*-more, removed now",
            "the snapshot mine, which a test has taken*",
        ]
    )
    assert project.left() == ["mine"]


def test_a_killed_session_is_swept_by_the_next_one(project):
    hanging = TWO.replace(
        "assert vmctl_instance.read", "print('here', flush=True); import time; time.sleep(600)\n        #"
    )
    project.pytester.makepyfile(test_hanging=hanging)
    command = [sys.executable, "-m", "pytest", *PLUGINS, "-s", "test_hanging.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=project.pytester.path) as process:
        while "here" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    deadline_s = time.monotonic() + 30
    while any("-main-" in name for name in project.left()) and time.monotonic() < deadline_s:
        time.sleep(0.05)  # the process that serves it removes the clone
    assert project.left() != []
    os.unlink(project.pytester.path / "test_hanging.py")
    project.run(TWO, "-k", "0").assert_outcomes(passed=1, deselected=3)
    assert project.left() == []


def test_without_an_instance_nothing_of_the_engine_is_imported(project):
    source = """
        import sys

        def test_modules():
            ours = {name for name in sys.modules if name.partition(".")[0] in ("vmctl", "vmm", "containers", "images")}
            assert ours == {"vmctl", "vmctl.testing", *(f"vmctl.testing.{name}" for name in (
                "description", "fixtures", "outcomes", "plugin", "state"))}
    """
    project.run(source).assert_outcomes(passed=1)
    assert not (project.root / "lib/testing").exists()


def test_pytest_finds_the_plugin_by_its_entry_point(pytester):
    done = pytester.runpytest_subprocess("--strict-markers", "--markers", timeout=60)
    done.stdout.fnmatch_lines(["@pytest.mark.vmctl(image, *"])


def test_the_example_with_sqlite(project):
    """Short, and with two workers; the tests with PostgreSQL need an image that is built first."""
    done = project.run("", f"--rootdir={EXAMPLE}", os.path.join(EXAMPLE, "test_sqlite.py"), workers=2)
    done.assert_outcomes(passed=7)
    assert project.left() == []


def test_an_ordinary_user_has_the_same(tmp_path):
    with OrdinaryUser() as user:
        user.give_image()
        user.write("test_two.py", "\n".join(line.removeprefix("    ") for line in TWO.splitlines()))
        done = user.run(sys.executable, "-m", "pytest", *PLUGINS, "-p", "no:vmctl", "test_two.py", timeout_s=120)
        assert "4 passed" in done.out, done
        assert os.listdir(os.path.join(user.state, "snapshots")) == []


def test_equal_descriptions_share_a_snapshot_and_others_do_not():
    def prepared(word):
        return lambda instance: instance.write("/word", word)

    one = described("tiny", env={"A": "1", "B": "2"}, prepare=prepared("x"))
    assert one.digest("vm") == described("tiny", env={"B": "2", "A": "1"}, prepare=prepared("x")).digest("vm")
    others = [
        one.digest("vm"),
        one.digest("container"),
        described("tiny", env={"A": "1"}, prepare=prepared("x")).digest("vm"),
        described("tiny", env={"A": "1", "B": "2"}, prepare=prepared("y")).digest("vm"),
        described("tiny", env={"A": "1", "B": "2"}).digest("vm"),
        described("tiny", env={"A": "1", "B": "2"}, prepare=prepared("x"), stop=True).digest("vm"),
    ]
    assert len(set(others)) == len(others)


def test_markers_are_merged_and_the_closest_one_counts():
    far = SimpleNamespace(args=("tiny",), kwargs={"mode": "container", "env": {"A": "1"}})
    near = SimpleNamespace(args=(), kwargs={"mode": "vm", "ports": [80]})
    found = of_markers([far, near])
    given = {"image": "tiny", "env": {"A": "1"}, "ports": ["80"], "vm": {"warm": "auto"}}
    assert (found.keys, found.mode) == (given, "vm")
    assert of_markers([]) is None


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"name": "web"}, "name: the plugin names instances"),
        ({"prepare": "fill"}, "prepare: expected a function"),
        ({"env": {"A": object()}}, "expected texts, numbers and lists"),
    ],
)
def test_a_description_that_cannot_be_is_refused(keys, reason):
    with pytest.raises(ValueError, match=reason):
        described("tiny", **keys)


def test_outcomes_of_parametrised_tests_are_compared_without_the_mode():
    assert without_mode("a.py::test[1-vm]", "vm") == "a.py::test[1]"
    assert without_mode("a.py::test[vm]", "vm") == "a.py::test"
    assert without_mode("a.py::test[vm-1]", "vm") == "a.py::test[vm-1]"
    assert list(Outcomes(["container", "vm"]).lines()) == ["0 tests compared in container, vm: none differ"]
