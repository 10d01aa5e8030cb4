"""Every way in has the same rules: a flag of `run` and `exec`, a key of a workload file, an image."""

import json
import os
import re

import pytest
from support.commands import vmctl

from images.recipes import settings
from vmctl.cli import output
from vmctl.errors import SpecError
from vmctl.spec import flags, rules, units, workloadfile
from vmctl.spec.workload import Resources, Volume, Workload

A_PORT = "expected a port such as 8080:8000, 8000-8010:8000-8010, 80 (a free port of the host) or 0.0.0.0:53:53/udp"
# flags of `run`, the same in a workload file, and the error of both after the name of the flag or the key
WRONG = [
    (["--cpus", "0"], "resources: {cpus: 0}", "expected at least 0.01, got 0"),
    (["--cpus=-1"], "resources: {cpus: -1}", "expected at least 0.01, got -1"),
    (["--cpus", "9000"], "resources: {cpus: 9000}", "expected at most 8192, got 9000"),
    (["--cpus", "1e400"], None, "expected at most 8192, got a number of more than 300 digits"),
    (["--cpus", "nan"], None, "expected a number such as 1.5, not 'nan'"),
    (["--cpus", "inf"], None, "expected a number such as 1.5, not 'inf'"),
    (["--cpus", "0x2"], None, "expected a number such as 1.5, not '0x2'"),
    (["--pids", "0"], "resources: {pids: 0}", "expected at least 1, got 0"),
    (["--pids=-1"], "resources: {pids: -1}", "expected at least 1, got -1"),
    (["--pids", "4194305"], "resources: {pids: 4194305}", "expected at most 4194304, got 4194305"),
    (["--pids", "1.5"], None, "expected a whole number, not '1.5'"),
    (["-m", "0"], "resources: {memory: 0}", "expected at least 1M, got 0"),
    (["-m", "1K"], "resources: {memory: 1K}", "expected at least 1M, got 1K"),
    (["-m", "many"], "resources: {memory: many}", "expected a size such as 256M or 1.5GiB, not 'many'"),
    (["-m=-1"], "resources: {memory: '-1'}", "expected a size such as 256M or 1.5GiB, not '-1'"),
    (["--disk", "1k"], "resources: {disk: 1k}", "expected at least 1M, got 1K"),
    (["-w", "rel"], "workdir: rel", "expected an absolute path without .., got 'rel'"),
    (["-w", ""], "workdir: ''", "expected an absolute path without .., got ''"),
    (["-w", "/a/../etc"], "workdir: /a/../etc", "expected an absolute path without .., got '/a/../etc'"),
    (["-e", "A-B=1"], "env: {A-B: 1}", "'A-B' cannot be the name of a variable"),
    (["-e", "=1"], "env: {'': 1}", "'' cannot be the name of a variable"),
    (["-l", "=1"], "labels: {'': x}", "expected a name, got ''"),
    (["-p", "80:"], "ports: ['80:']", f"{A_PORT}, not '80:'"),
    (["-p", "1:0"], "ports: ['1:0']", f"{A_PORT}, not '1:0'"),
    (["-p", "1:1", "-p", "1:2"], "ports: ['1:1', '1:2']", "127.0.0.1:1/tcp is given twice"),
    (["-p", "0.0.0.0:1:1", "-p", "1:2"], "ports: ['0.0.0.0:1:1', '1:2']", "the port 1/tcp is given twice"),
    (["-v", "a/b:/data"], "volumes: ['a/b:/data']", "expected the name of a volume before the first colon, or ./a/b"),
    (["-v", "a:/b:nocopy,x"], "volumes: ['a:/b:nocopy,x']", "expected a volume such as"),
    (["-v", "./a:/b:nocopy"], "volumes: ['./a:/b:nocopy']", "expected a volume such as"),
    (["-v", ".:/"], "volumes: ['.:/']", "a volume cannot be the whole root of the instance, /"),
    (["-v", ".://."], "volumes: ['.://.']", "a volume cannot be the whole root of the instance, /"),
    (["-v", ".:/proc"], "volumes: ['.:/proc']", "/proc is a place of the kernel, which vmctl sets up"),
    (["-v", ".:/./sys/"], "volumes: ['.:/./sys/']", "/./sys/ is a place of the kernel, which vmctl sets up"),
    (["-v", ".:/dev"], "volumes: ['.:/dev']", "/dev is a place of the kernel, which vmctl sets up"),
    (["-v", ".:/dev/null"], "volumes: ['.:/dev/null']", "/dev/null is a place of the kernel, which vmctl sets up"),
    (["-v", ".:/t", "-v", "..:/t/"], "volumes: ['.:/t', '..:/t/']", "the place /t is given twice"),
    (
        ["-v", ".:/a/../etc"],
        "volumes: ['.:/a/../etc']",
        "the target of a volume has to be an absolute path",
    ),
]
KEYS = {
    "--cpus": "resources.cpus",
    "--pids": "resources.pids",
    "-m": "resources.memory",
    "--disk": "resources.disk",
    "-w": "workdir",
    "-e": "env",
    "-p": "ports",
    "-l": "labels",
    "-v": "volumes",
}
LONG = {"-m": "--memory", "-w": "--workdir", "-e": "--env", "-p": "--publish", "-v": "--volume", "-l": "--label"}


@pytest.mark.parametrize(("words", "lines", "expected"), WRONG, ids=[" ".join(case[0]) for case in WRONG])
def test_a_flag_has_the_error_of_the_key(tmp_path, words, lines, expected):
    """The image does not exist: the error of the flag or the key comes first."""
    flag = words[0].partition("=")[0]
    refused = vmctl("run", *words, "no-such-image", "--", "true")
    assert refused.code == 125
    assert refused.err.startswith(f"vmctl: {LONG.get(flag, flag)}: {expected}"), refused.err
    if lines is not None:
        (tmp_path / "web.yaml").write_text(f"image: no-such-image\n{lines}\n")
        with pytest.raises(SpecError) as caught:
            workloadfile.load(str(tmp_path / "web.yaml"))
        said = re.sub(r"\[\d+\]", "", str(caught.value).partition(": ")[2])
        assert said.startswith(f"the key {KEYS[flag]}: {expected}"), said


@pytest.mark.parametrize(("flag", "value"), [("-w", "rel"), ("-e", "A B=1"), ("-u", "4294967295")])
def test_exec_has_the_same_rules(flag, value):
    """They are checked before the instance is looked for, which does not exist."""
    as_run, as_exec = vmctl("run", flag, value, "no-image"), vmctl("exec", flag, value, "no-instance", "--", "true")
    assert (as_exec.code, as_exec.err) == (as_run.code, as_run.err)
    assert as_run.code == 125
    assert "no-i" not in as_run.err


def test_flags_give_the_same_workload_as_a_file(tmp_path):
    """The values too, not only the errors."""
    document = {"name": "a", "image": "tiny", "resources": {"cpus": "1.5", "memory": "64m", "pids": "7", "disk": "1g"}}
    document |= {"ports": ["8080:80/udp"], "volumes": ["/srv:/data:ro"], "env": {"A": "1"}, "command": ["a", "b"]}
    document |= {"workdir": "/x", "user": "1:2", "network": "bridge", "init": True, "read_only": True}
    given = flags.workload(document | {"container": {"userns": "host"}}, {})
    (tmp_path / "w.yaml").write_text(
        json.dumps(document | {"resources": {"cpus": 1.5, "memory": "64M", "pids": 7, "disk": "1G"}})[:-1]
        + ', "container": {"userns": "host"}}'
    )
    assert given == workloadfile.load(str(tmp_path / "w.yaml"))
    assert [type(part) for part in given] == [type(part) for part in workloadfile.load(str(tmp_path / "w.yaml"))]
    assert given.digest() == workloadfile.load(str(tmp_path / "w.yaml")).digest()


def test_a_number_that_is_none_is_refused_by_the_rules_too():
    """Whoever makes a workload with Python has no parser before the rules."""
    with pytest.raises(SpecError, match="cpus: expected a number, got nan"):
        rules.check(Workload("a", "tiny", resources=Resources(cpus=float("nan"))))
    with pytest.raises(SpecError, match="NUL"):
        rules.check(Workload("a", "tiny", volumes=(Volume("/a\0", "/b"),)))


@pytest.mark.parametrize("unit", ["m", "M", "mb", "MB", "mib", "MiB", "Mi", " M"])
def test_sizes_are_written_as_docker_users_write_them(unit):
    """docker(1): `-m 64m` is 64 MiB, MB too (units.RAMInBytes of docker/go-units)."""
    assert units.parse_size(f"64{unit}") == 64 << 20


def test_sizes():
    sizes = {"512k": 512 << 10, "1g": 1 << 30, "2t": 2 << 40, "100": 100, "100b": 100, "100B": 100, "1.5g": 3 << 29}
    assert {text: units.parse_size(text) for text in sizes} == sizes
    for text in ("64i", "m", "64mm", "64kbb", "-1m", "1e3", "64 m b", "٣m"):
        with pytest.raises(ValueError, match="a size such as"):
            units.parse_size(text)
    for size in (0, 1, 1000, 1024, 1536, 1 << 20, 3 << 29, 1 << 62):
        assert units.parse_size(units.exact_size(size)) == size


def test_variables_of_the_caller(monkeypatch):
    monkeypatch.setenv("SET", "x")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    assert flags.variables(["SET", "EMPTY", "UNSET", "A=b=c", "B="]) == {"SET": "x", "EMPTY": "", "A": "b=c", "B": ""}
    assert os.environ["SET"] == "x"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("VOLUME /proc", "/proc is a place of the kernel"),
        ("VOLUME /a/../..", "has to be an absolute path without .."),
        ('VOLUME ["/data", "data"]', "has to be an absolute path without .., not 'data'"),
        ("USER 2147483648", "numbers from 0 to 2147483647"),
        ("EXPOSE 99999", "expected a port such as 80"),
        ("ENV =1", "expected NAME=VALUE"),
        ("HEALTHCHECK --retries=-1 CMD true", "--retries: expected a whole number, not '-1'"),
        ("HEALTHCHECK --interval=nan CMD true", "--interval: expected a duration"),
    ],
)
def test_instructions_have_the_rules_too(change, expected):
    """Those of `commit --change` are those of a Dockerfile."""
    with pytest.raises(SpecError, match=re.escape(expected)):
        settings.change({}, change)


@pytest.mark.parametrize("words", [("stop", "-t"), ("down", "-t"), ("wait", "--timeout")])
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e3", "soon"])
def test_times_of_verbs(words, value):
    """A time that is none would be waited for without end, or not at all."""
    seen = vmctl(*words, value, "no-instance")
    assert (seen.code, "a duration such as" in seen.err or "expected one argument" in seen.err) == (125, True)


def test_times_with_and_without_a_unit():
    assert [output.seconds(text) for text in ("10", "0", "1.5", "2m", "500ms")] == [10, 0, 1.5, 120, 0.5]
