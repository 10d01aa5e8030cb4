"""The workload file: every key, wrong values for each, and malicious files."""

import json
import os
import time

import jsonschema
import pytest
import yaml

from vmctl.errors import SpecError
from vmctl.spec import specfields, textfile, workloadfile, yamlfile
from vmctl.spec.workload import (
    Bytes,
    ContainerOptions,
    Device,
    EnvFile,
    File,
    FileMode,
    Health,
    HttpProbe,
    Logs,
    Port,
    Ready,
    Resources,
    Restart,
    Seconds,
    Secret,
    Signal,
    Tmpfs,
    Ulimit,
    VmOptions,
    Volume,
    Workload,
)

CONFIGS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "configs", "workloads")

EVERYTHING = """
name: web
image: tiny
command: [httpd, -f, -p, "8000", -h, /srv]
env: {GREETING: hello, NUMBER: 7, SWITCH: true, COUNTRY: no, TIME: 22:22, RATIO: 1.50}
workdir: /srv
user: "1000:1000"
files:
  - {path: /srv/index.html, content: "<h1>hello</h1>", mode: "0600"}
  - {path: /empty}
  - {path: /key, base64: AAE=}
ports: ["8080:8000", "0.0.0.0:53:5353/udp", "[::1]:80:80"]
volumes: ["./data:/data:ro", "/srv:/srv"]
resources: {cpus: 1.5, memory: 256M, pids: 128, disk: 1G}
logs: {size: 10M}
ready: {http: 8000/health, timeout: 1500ms}
restart: on-failure:3
network: bridge
init: true
read_only: true
entrypoint: [/init, --]
stop_signal: SIGRTMIN+3
tty: true
stdin_open: true
stop_timeout: 30s
labels: {team: web}
hostname: shop
tmpfs: ["/cache:size=64M,mode=755,noexec"]
shm_size: 32M
ulimits: ["nofile=1024:2048"]
sysctls: {net.core.somaxconn: 512}
extra_hosts: ["db.test:192.0.2.7"]
health: {exec: [test, -e, /ok], interval: 5s, timeout: 2s, retries: 4, start_period: 1m, start_interval: 500ms}
secrets: [{name: db, file: ./db.txt}, {name: token, env: TOKEN, mode: "0440"}]
devices: ["/dev/fuse", "/dev/a:/dev/b:r"]
env_file: [a.env, {path: /b.env, required: false, format: raw}]
vm: {boot: direct, kernel: host, cloud_init: extra.yaml}
container: {cap_add: [NET_ADMIN], cap_drop: [ALL], seccomp: unconfined}
"""


@pytest.fixture
def load(tmp_path):
    """Return a function: text of a workload file -> Workload."""

    def load(text, file="web.yaml", **options):
        path = tmp_path / file
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return workloadfile.load(str(path), **options)

    return load


def test_every_key(load, tmp_path):
    assert load(EVERYTHING) == Workload(
        name="web",
        image="tiny",
        command=("httpd", "-f", "-p", "8000", "-h", "/srv"),
        env={"GREETING": "hello", "NUMBER": "7", "SWITCH": "true", "COUNTRY": "no", "TIME": "22:22", "RATIO": "1.5"},
        workdir="/srv",
        user="1000:1000",
        files=(
            File("/srv/index.html", "<h1>hello</h1>", FileMode(0o600)),
            File("/empty", "", FileMode(0o644)),
            File("/key", base64="AAE="),
        ),
        ports=(Port("127.0.0.1", 8080, 8000), Port("0.0.0.0", 53, 5353, "udp"), Port("::1", 80, 80)),
        volumes=(Volume(f"{tmp_path}/./data", "/data", True), Volume("/srv", "/srv")),
        resources=Resources(1.5, Bytes(256 << 20), 128, Bytes(1 << 30)),
        logs=Logs(Bytes(10 << 20)),
        ready=Ready(http=HttpProbe(8000, "/health"), timeout_s=Seconds(1.5)),
        restart=Restart("on-failure", 3),
        network="bridge",
        init=True,
        read_only=True,
        entrypoint=("/init", "--"),
        stop_signal=Signal(37),
        tty=True,
        stdin_open=True,
        stop_timeout_s=Seconds(30),
        labels={"team": "web"},
        hostname="shop",
        tmpfs=(Tmpfs("/cache", Bytes(64 << 20), FileMode(0o755), True),),
        shm_size_bytes=Bytes(32 << 20),
        ulimits=(Ulimit("nofile", 1024, 2048),),
        sysctls={"net.core.somaxconn": "512"},
        extra_hosts=("db.test:192.0.2.7",),
        devices=(Device("/dev/fuse", "/dev/fuse", "rwm"), Device("/dev/a", "/dev/b", "r")),
        health=Health(
            exec=("test", "-e", "/ok"),
            interval_s=Seconds(5),
            timeout_s=Seconds(2),
            retries=4,
            start_period_s=Seconds(60),
            start_interval_s=Seconds(0.5),
        ),
        secrets=(Secret("db", f"{tmp_path}/./db.txt"), Secret("token", env="TOKEN", mode=FileMode(0o440))),
        env_file=(EnvFile(f"{tmp_path}/a.env"), EnvFile("/b.env", False, "raw")),
        vm=VmOptions("direct", "host", f"{tmp_path}/extra.yaml"),
        container=ContainerOptions(("NET_ADMIN",), ("ALL",), "unconfined"),
    )


def test_every_key_is_in_the_test_above(load):
    """A key that is added to workload.py must be added here too."""
    work, default = load(EVERYTHING), Workload("web", "tiny")
    same = {name for name in Workload._fields if getattr(work, name) == getattr(default, name)}
    assert same == {"name", "image", "network"}  # the other values of network have a separate test


def test_only_the_image_has_no_default(load):
    assert load("image: tiny", "my-app.yaml") == Workload("my-app", "tiny")


def test_a_name_given_wins(load):
    assert load(EVERYTHING, name="other").name == "other"


def test_json_round_trip(load):
    for text in (EVERYTHING, "image: tiny", "image: tiny\nready: {exec: [a, b]}", "image: tiny\nready: {tcp: 80}"):
        work = load(text)
        again = Workload.from_json(work.to_json())
        assert again == work
        assert again.digest() == work.digest()
        assert [type(part) for part in again] == [type(part) for part in work]


def test_digest_tells_workloads_apart(load):
    assert load("image: tiny").digest() != load("image: tiny\ninit: true").digest()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("network", "none", "none"),
        ("network", "host", "host"),
        ("restart", "no", Restart("no")),
        ("restart", "always", Restart("always")),
        ("restart", "on-failure", Restart("on-failure")),
        ("ready", "{http: 8000}", Ready(http=HttpProbe(8000, "/"))),
        ("ready", "{log: '^ready$', timeout: 2m}", Ready(log="^ready$", timeout_s=Seconds(120))),
        ("ready", "{exec: [test, -e, /x]}", Ready(exec=("test", "-e", "/x"))),
        ("resources", "{memory: 1.5GiB}", Resources(memory_bytes=Bytes(3 << 29))),
        ("resources", "{memory: 2097152}", Resources(memory_bytes=Bytes(2 << 20))),
        ("resources", "{memory: 4096K, cpus: 2}", Resources(2.0, Bytes(4 << 20))),
        ("ports", "[22:22]", (Port("127.0.0.1", 22, 22),)),  # a number of base 60 in YAML 1.1
        ("user", "22:22", "22:22"),
        ("user", "nobody", "nobody"),
    ],
)
def test_values(load, key, text, value):
    assert getattr(load(f"image: tiny\n{key}: {text}"), key) == value


WRONG = [
    # unknown keys: the path and the nearest known one
    ("comand: [a]", "the key comand is unknown", "command"),
    ("resources: {memroy: 1M}", r"the key resources\.memroy is unknown", "memory"),
    ("ready: {htpp: 8000/}", r"the key ready\.htpp is unknown", "http"),
    ("files: [{path: /a}, {path: /b, contnet: x}]", r"the key files\[1\]\.contnet is unknown", "content"),
    ("zzzzzz: 1", "the key zzzzzz is unknown", "known here: name, image, command"),
    # a missing one
    ("files: [{content: x}]", r"the key files\[0\]\.path is missing", ""),
    # wrong types
    ("command: sleep 5", "the key command: expected a list, got a text", "one word each"),
    ("command: [sleep, 5]", r"the key command\[1\]: expected a text, got a whole number", ""),
    ("command: [sleep, null]", r"the key command\[1\]: expected a text, got nothing", ""),
    ("env: [A=1]", "the key env: expected a mapping, got a list", ""),
    ("env: {A: null}", "the key env: expected .* got nothing", ""),
    ("env: {A: [1]}", "the key env: expected .* got a list", ""),
    ("env: {1: 1}", "a key of env: expected a text, got a whole number", "in quotes"),
    ("1: 1", "a key of the file: expected a text", "in quotes"),
    ("init: yes", "the key init: expected true or false, got a text", ""),
    ("user: 1000", "the key user: expected a text, got a whole number", '"1000:1000"'),
    ("resources: {cpus: two}", r"the key resources\.cpus: expected a number, got a text", ""),
    ("resources: {cpus: .nan}", r"the key resources\.cpus: expected a number, got a text", ""),
    ("resources: {pids: 1.5}", r"the key resources\.pids: expected a whole number, got a number", ""),
    ("resources: {memory: true}", r"the key resources\.memory: expected a text in quotes, got true or false", ""),
    ("files: [{path: /a, mode: 0644}]", r"the key files\[0\]\.mode: expected a text in quotes, got a number", ""),
    ("ready: {tcp: 80, timeout: 5}", r"the key ready\.timeout: expected a text in quotes, got a number", ""),
    ("resources:", "the key resources: expected a mapping, got nothing", ""),
    # texts with a special format
    ("resources: {memory: 5 apples}", r"the key resources\.memory: expected a size such as 256M", ""),
    ("resources: {memory: -1M}", r"the key resources\.memory: expected a size", ""),
    ("ready: {tcp: 80, timeout: 5 years}", r"the key ready\.timeout: expected a duration such as", ""),
    ("ready: {http: /health}", r"the key ready\.http: expected a port and a path such as", ""),
    ("ready: {http: 70000/}", r"the key ready\.http: expected a port", ""),
    ("ready: {log: '('}", r"the key ready\.log: '\(' is not a regular expression", ""),
    ("ready: {tcp: 70000}", r"the key ready\.tcp: expected a port, got 70000", ""),
    ("ports: ['99999:1']", r"the key ports\[0\]: expected a port such as", ""),
    ("ports: ['80:']", r"the key ports\[0\]: expected a port such as", ""),
    ("ports: ['300.1.1.1:80:1']", r"the key ports\[0\]: expected an IP address", ""),
    ("volumes: ['a:b']", r"the key volumes\[0\]: expected a volume such as", ""),
    ("volumes: ['da ta:/data']", r"volumes\[0\]: expected the name of a volume .* or \./da ta for the file", ""),
    ("volumes: [':/data']", r"volumes\[0\]: expected a volume such as", ""),
    ("volumes: ['./a:/b:rx']", r"the key volumes\[0\]: expected a volume such as", ""),
    ("volumes: ['~nobody-of-that-name/a:/b']", r"volumes\[0\]: expected .* there is no user nobody-of-that-name", ""),
    ("volumes: ['.hidden:/b']", r"volumes\[0\]: expected .* \./\.hidden for the file or folder", ""),
    ("health: {exec: [a], tcp: 3}", "the key health: expected one of exec, http, tcp, got exec, tcp", ""),
    ("health: {exec: []}", "the key health.exec: expected a program, got an empty list", ""),
    ("health: {interval: 0s}", "the key health.interval: expected 0.1s to 365 days, got 0s", ""),
    ("health: {retries: 0}", "the key health.retries: expected at least 1", ""),
    ("health: {disable: true, retries: 2}", "the key health: with disable: true", "`health: none` alone"),
    ("secrets: [{name: a}]", r"the key secrets\[0\]: expected one of file, env, got none", ""),
    ("secrets: [{name: a, env: A-B}]", r"the key secrets\[0\].env: 'A-B' cannot be the name", ""),
    ("secrets: [{name: a, env: A, mode: '0000'}]", r"the key secrets\[0\].mode: expected permission bits", ""),
    ("env_file: ['']", r"the key env_file\[0\]: expected a path, got ''", ""),
    ("restart: sometimes", "the key restart: expected no, always, unless-stopped, on-failure or on-failure:3", ""),
    ("restart: always:3", "the key restart: expected no, always", ""),
    ("files: [{path: /a, mode: rwx}]", r"the key files\[0\]\.mode: expected an octal mode", ""),
    # one of several
    ("network: bri/dge", "the key network: expected bridge, none, host or the name of a network, got 'bri/dge'", ""),
    ("vm: {boot: fast}", r"the key vm\.boot: expected auto, direct, system", ""),
    ("container: {seccomp: off}", r"the key container\.seccomp: expected default, unconfined", ""),
    # impossible values
    ("name: ../x", "the name '../x' cannot be used", "letters"),
    ("name: .hidden", "the name '.hidden' cannot be used", "beginning with"),
    (f"name: {'x' * 64}", "the name 'x+' cannot be used", "63"),
    ("command: []", "the key command: expected a program", "leave it out"),
    ("command: ['']", "the key command: expected a program", ""),
    ("env: {A B: 1}", "the key env: 'A B' cannot be the name of a variable", ""),
    ("workdir: srv", "the key workdir: expected an absolute path", ""),
    ("workdir: /a/../b", "the key workdir: expected an absolute path without", ""),
    ("files: [{path: ../../etc/passwd}]", r"the key files\[0\]\.path: expected an absolute path", ""),
    ("files: [{path: /srv/}]", r"the key files\[0\]\.path: expected a file", ""),
    ("files: [{path: /a, source: none}]", r"the source of files\[0\] .*none cannot be read: No such file", ""),
    ("files: [{path: /a, base64: 'a b!'}]", r"the key files\[0\]\.base64: expected base64", "base64 FILE"),
    ("files: [{path: /a, content: x, base64: eA==}]", r"files\[0\]: expected one of content, base64, source, got", ""),
    ("resources: {cpus: 0}", r"the key resources\.cpus: expected at least", ""),
    ("resources: {memory: 1K}", r"the key resources\.memory: expected at least", ""),
    (
        f"resources: {{pids: {'9' * 400}}}",
        "resources.pids: expected at most 4194304, got a number of more than 300 dig",
        "",
    ),
    ("resources: {pids: 0}", r"the key resources\.pids: expected at least 1", ""),
    ('command: ["a\\0b"]', "NUL character", ""),
    ('env: {A: "a\\0b"}', "NUL character", ""),
    # keys that exclude each other
    ("ready: {}", "the key ready: expected one of http, tcp, log, exec, got none", ""),
    ("ready: {timeout: 0s}", r"the key ready\.timeout: expected a time, got none", ""),
    ("ready: {tcp: 80, http: 80/}", "the key ready: expected one of .*, got http, tcp", ""),
    ("ready: {exec: []}", r"the key ready\.exec: expected a program", ""),
    ("network: none\nports: ['80:80']", "the key network: with none, ports", ""),
    ("network: none\nready: {tcp: 80}", "the key network: with none, ports and probes", ""),
    ("ports: ['80:80', '80:81']", "the key ports: 127.0.0.1:80/tcp is given twice", ""),
]


@pytest.mark.parametrize(("lines", "message", "hint"), WRONG, ids=[case[0][:40] for case in WRONG])
def test_wrong_values(load, lines, message, hint):
    with pytest.raises(SpecError, match=message) as caught:
        load(f"image: tiny\n{lines}\n")
    assert "web.yaml: " in str(caught.value)  # the file's name
    assert hint in caught.value.hint
    assert "`" not in str(caught.value)  # the validator's own words
    assert caught.value.exit_code == 125


@pytest.mark.parametrize(
    ("text", "message"), [("command: [a]", "the key image is missing"), ("image: 3", "got a whole")]
)
def test_image_is_needed(load, text, message):
    with pytest.raises(SpecError, match=message):
        load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [b", r"web\.yaml is not YAML: line 2, column"),
        ("image: tiny\nimage: other", "line 2, column 1: the key image is given twice"),
        ("image: tiny\nvm: {boot: auto, boot: direct}", "the key boot is given twice"),
        ("image: [*nowhere]", "undefined alias"),
        ("image: &a {b: *a}", "is not YAML: .*recursive"),
        ("env: !!map [a: b]", "is not YAML: .*expected a mapping"),
        ("image: !!python/object/apply:os.system [reboot]", "is not YAML: .*constructor for the tag"),
        ("image: tiny\n---\nimage: tiny", "is not YAML: .*another document"),
        ("? [a, b]\n: 1", "is not YAML: .*unhashable"),
        (b"\xff\xfe\x00\x01", "web.yaml"),
        (b"image: \x07", "is not YAML"),
        (b"image: caf\xe9", "is not YAML"),
        ("", "does not contain a mapping"),
        ("- image: tiny", "does not contain a mapping"),
        ("tiny", "does not contain a mapping"),
        ("image: " + "[" * 100_000, "nested more than 50 levels"),
        ("image: " + "[" * 2000 + "]" * 2000, "nested more than 50 levels"),
        ("x" * (textfile.MAX_BYTES + 1), "larger than 1.0 MiB"),
        ("image: tiny\ncommand: [" + "a," * 10_000 + "]", "more than 10000 values"),
    ],
    ids=lambda value: str(value[:30]),
)
def test_files_that_are_no_workload(load, text, message):
    with pytest.raises(SpecError, match=message):
        load(text)


def test_yaml_bomb_is_refused_at_once(load):
    """A billion laughs: 10 lines that expand to 10**11 values."""
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 11)]
    begin_s = time.process_time()
    with pytest.raises(SpecError, match="expands to more than 10000 values") as caught:
        load("\n".join(["image: tiny", *lines]))
    assert time.process_time() - begin_s < 5
    assert "aliases" in caught.value.hint


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SpecError, match=r"nowhere\.yaml cannot be read: No such file"):
        workloadfile.load(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        workloadfile.load(str(tmp_path))
    with pytest.raises(SpecError, match="larger than"):
        workloadfile.load("/dev/zero")


def test_volumes_are_found_beside_the_file(load, tmp_path):
    assert load("image: tiny\nvolumes: ['./data:/data']").volumes[0].source == f"{tmp_path}/./data"
    assert load("image: tiny\nvolumes: ['~/d:/d']").volumes[0].source == os.path.expanduser("~/d")


def test_volumes_by_name_and_without_one(load):
    found = load("image: tiny\nvolumes: ['data:/data:z,ro', '/cache', 'a.b-c:/x:nocopy']").volumes
    assert found == (Volume("data", "/data", True), Volume("", "/cache"), Volume("a.b-c", "/x", nocopy=True))
    assert [volume.is_path for volume in found] == [False, False, False]


def test_the_format_may_be_named(load):
    assert load("format: 1\nimage: tiny").image == "tiny"
    with pytest.raises(SpecError, match="written for a later vmctl: format 2, this one reads 1"):
        load("format: 2\nimage: tiny\nnew_key: 7")
    for odd in ("0", "x", "'1'", "1.0", "true", "[1]", "9999999999999999999999999"):
        with pytest.raises(SpecError, match="format"):
            load(f"format: {odd}\nimage: tiny")
    assert accepted({"format": 1, "image": "tiny"})
    assert not accepted({"format": 2, "image": "tiny"})


def test_schema_is_a_json_schema():
    schema = workloadfile.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


def accepted(document):
    return jsonschema.Draft202012Validator(workloadfile.schema()).is_valid(document)


@pytest.mark.parametrize("path", sorted(os.listdir(CONFIGS)))
def test_our_workloads_fit_program_and_schema(path):
    path = os.path.join(CONFIGS, path)
    assert workloadfile.load(path).image
    assert accepted(yamlfile.read_mapping(path))


def test_schema_and_program_agree(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(EVERYTHING)
    assert accepted(yamlfile.read_mapping(str(path)))
    for lines in ("comand: [a]", "command: a", "files: [{content: x}]", "vm: {boot: fast}", "init: 7"):
        assert not accepted(yaml.safe_load(f"image: tiny\n{lines}"))


@pytest.mark.parametrize(
    ("lines", "fits"),
    [
        ("resources: {memory: 268435456}", True),
        ("ready: {http: 8000}", True),
        ("ready: {http: [8000]}", False),
        ("resources: {memory: true}", False),
        ("ready: {http: 8000, timeout: 60}", False),
    ],
)
def test_schema_and_program_agree_on_numbers_in_place_of_texts(load, lines, fits):
    assert accepted(yaml.safe_load(f"image: tiny\n{lines}")) == fits
    if fits:
        load(f"image: tiny\n{lines}")
        return
    with pytest.raises(SpecError):
        load(f"image: tiny\n{lines}")


def test_schema_has_every_key():
    keys = workloadfile.schema()["$defs"]["Workload"]["properties"]
    assert list(keys) == [*(specfields.key_of(field) for field in Workload._fields), "format"]
