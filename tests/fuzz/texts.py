"""Files and words that users write: workloads, flags, recipes, Dockerfiles, names."""

import contextlib
import io
import json
import os

from fuzz import place
from fuzz.check import target
from images.recipes import accounts, dockerfile, expand, ignore, recipe, runmounts, settings
from images.recipes.mounting import Mounting
from images.recipes.state import State
from images.recipes.steps import Arg, Copy, Run
from images.recipes.variables import Variables
from images.store import platforms, reference
from vmctl import cli, records
from vmctl.cli import run as run_verb
from vmctl.errors import SpecError, VmctlError
from vmctl.spec import envfile, mountflag, units, workloadfile, yamlfile
from vmctl.spec import scalars as scalars_of
from vmctl.spec.rules import check_name
from vmctl.spec.workload import Workload
from vmctl.stacks import dotenv, graph, loading, variables
from vmctl.stacks.stack import Source
from vmm import seed, system, userdata

WORKLOAD = """
format: 1
name: web
image: tiny
command: [sh, -c, "echo hello"]
env: {GREETING: hello, N: 1, F: 1.5, T: true}
workdir: /srv
user: "1000:1000"
files:
  - {path: /srv/index.html, content: "<h1>hello</h1>", mode: "0644"}
ports: ["127.0.0.1:8080:8000", "53:53/udp", "[::1]:1:1"]
volumes: ["./data:/data:ro", "~/x:/y"]
resources: {cpus: 1.5, memory: 256M, pids: 64, disk: 1.5GiB}
ready: {http: 8000/health, timeout: 60s}
health: {exec: [a, b], interval: 1s, retries: 2, start_period: 1m}
secrets: [{name: a, file: ./a}, {name: b, env: B, mode: "0440"}]
env_file: [a.env, {path: b.env, required: false, format: raw}]
restart: on-failure:3
network: bridge
init: true
vm: {boot: auto, kernel: debian, cloud_init: user-data}
container: {cap_add: [NET_ADMIN], cap_drop: [ALL], seccomp: default, userns: auto}
"""
ENV_FILE = '# x\nA=1\nexport B = \'x\ny\' # c\nC="a\\n\\"q"\nD=p # c\nE\n'
READY = "image: tiny\nhealth: none\nready: {log: '^now (a|b)+$', timeout: 500ms}\nrestart: always\nnetwork: none\n"
YAML_WORDS = (
    *("!!timestamp 2001-01-01", "!!binary aGk=", "!!set {a, b}", "!!python/object:os.system x", "!!omap [a: b]"),
    *(
        "!!map",
        "!!seq",
        "!!str",
        "!!float",
        "!!int",
        "!!null",
        "!!bool",
        "&a",
        "*a",
        "<<: *a",
        "2001-01-01",
        "? ",
        "---\n",
        "...",
        "0o7",
        "0x",
    ),
    *("!", "!<tag:yaml.org,2002:map>", "%YAML 1.1\n", "|", ">", "[", "]", "{", "}", "~", "- ", ": ", ".inf", ".nan"),
)


@target("workload", WORKLOAD, READY, words=YAML_WORDS, cost=6)
def workload(data):
    _kept(workloadfile.load(place.file("web.yaml", data)))


@target("env-file", ENV_FILE)
def env_file(data):
    envfile.read(place.file("a.env", data))


@target("env-file-raw", "# x\nA=1\nB= 'x' # y\nC\n")
def env_file_raw(data):
    envfile.read(place.file("a.env", data), raw=True)


def _kept(work):
    """Fail if a workload that was accepted cannot be read again from the instance's folder."""
    try:
        again = Workload.from_json(work.to_json(), "it")
    except VmctlError as error:
        raise AssertionError(str(error)) from None
    assert again == work
    assert work.digest()


@target("yaml", WORKLOAD, "a: [1, {b: c}]", words=YAML_WORDS, cost=2)
def yaml(data):
    yamlfile.value(data.decode(errors="replace"))


FLAGS = (
    "--env\0A=b\0-m\000256M\0--cpus\0001.5\0--pids\00010\0-p\0008080:80\0-v\0./a:/b:ro\0-u\0001:1\0-w\0/x\0tiny\0--\0sh"
)


@target(
    "flags", FLAGS, words=("--memory\0", "--cpus\0", "--pids\0", "-p\0", "-v\0", "-e\0", "nan"), allowed=(SystemExit,)
)
def flags(data):
    """Words of `run`, separated by NUL."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        _, args = cli.parse("run", [os.fsdecode(word) for word in data.split(b"\0")])
    _kept(run_verb.workload(args))


@target("units", "256M", "1.5GiB", "500ms", "1.5h", "12B")
def numbers(data):
    text = data.decode(errors="replace")
    for parse in (units.parse_size, units.parse_duration):
        try:
            found = parse(text)
        except ValueError:
            continue
        assert 0 <= found < 1 << 63
        assert units.format_size(found)
        assert units.format_seconds(found)
        assert units.format_age(found)


PORTS = ("8080:80", "0.0.0.0:53:53/udp", "[::1]:80:80", "./data:/data:ro", "d:/x:nocopy,z", "8000/path", "on-failure:3")


@target("scalars", *PORTS, "~root/x:/y", "0644", "256M", "60s")
def scalars(data):
    for parse in scalars_of.PARSERS.values():
        try:
            parse(data.decode(errors="surrogateescape"))
        except ValueError:
            pass


MOUNT = "type=bind,source=./data,target=/data,readonly"


@target("mount-flag", MOUNT, "type=tmpfs,target=/t,tmpfs-size=1M", words=("volume", "dst=", "src=", "ro=", ",", "="))
def mount_flag(data):
    with contextlib.suppress(SpecError):
        found = mountflag.parse([data.decode(errors="surrogateescape")])
        assert len(found.volumes) + len(found.tmpfs) == 1


DOCKERFILE = r"""# escape=\
# a comment
ARG VERSION=1
FROM --platform=linux/amd64 tiny:${VERSION:-latest} AS build
ENV A=b C="d e" F=$A
ENV OLD form of it
RUN --network=none echo $A && \
    echo two
RUN ["sh", "-c", "true"]
RUN <<EOF
#!/bin/sh
echo x
EOF
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=$A --mount=target=. make
COPY --chown=1:1 --chmod=0644 a b /c/
COPY --from=build ["a b", "/c"]
COPY <<-"E1" <<E2 /d/
	text
E1
other $A
E2
ADD x.tar /x
ADD --checksum=$SUM https://example.org/$A.tar /y
WORKDIR rel
USER nobody:1
EXPOSE 80 53/udp 8000-8010
VOLUME ["/data"]
LABEL a=b "c d"=e
STOPSIGNAL SIGQUIT
SHELL ["/bin/sh", "-c"]
HEALTHCHECK --interval=5m --timeout=3s --retries=3 CMD curl localhost
ONBUILD RUN make
MAINTAINER me
ENTRYPOINT ["/x"]
CMD exec y
FROM scratch
FROM 0
HEALTHCHECK NONE
"""
DOCKER_WORDS = (
    "FROM ",
    "RUN ",
    "<<E\n",
    "<<-'E'",
    "${",
    "${A:-",
    "${A:?",
    "--from=",
    "--chmod=",
    "--mount=",
    "--checksum=",
    "https://",
    "--retries=",
    "=",
    '["',
)


@target("dockerfile", DOCKERFILE, words=DOCKER_WORDS, cost=3)
def docker(data):
    plan = dockerfile.load(place.file("Dockerfile", data))
    variables, state = Variables(plan.escape, quotes=True), State()
    for stage in plan.stages:
        for step in stage.steps:
            _apply(variables, state, step.action)
    json.dumps(state.document())


def _apply(variables, state, action):
    try:
        if isinstance(action, Arg):
            state.arguments.update({name: value or "" for name, value in action.defaults})
        elif isinstance(action, Run | Copy):
            variables.action(action, state.lookup)
        else:
            state.apply(variables.action(action, state.lookup))
    except ValueError:
        pass


@target(
    "run-mount",
    "type=cache,target=/a,id=x,sharing=locked,mode=0755,uid=1,gid=2,ro",
    "type=bind,from=base,source=a,target=b,rw=true",
    "type=tmpfs,target=/t,size=64m",
    "type=secret,id=x,required,target=/s",
    words=("type=", "dst=", "src=", ",", "=", "size=1e9", "uid=4294967295"),
    allowed=(ValueError,),
)
def run_mount(data):
    mount = runmounts.read(data.decode(errors="surrogateescape"))
    Mounting([mount], "/w", {"x": b""})


@target("onbuild", "RUN make\nCOPY a /b", "ENV A=b", words=DOCKER_WORDS, allowed=(ValueError,))
def onbuild(data):
    dockerfile.triggered(data.decode(errors="replace").split("\n"), "ONBUILD of tiny")


@target("change", 'CMD ["a"]', "ENV A=b C=$A", "EXPOSE 80", "HEALTHCHECK --interval=1.5s CMD x", words=DOCKER_WORDS)
def change(data):
    settings.change({"Env": ["A=b"], "WorkingDir": "/x"}, data.decode(errors="surrogateescape"))


@target("expand", "${A:-b}$C'$D'\"${E:+f}\"", "a\\$b", words=DOCKER_WORDS, allowed=(ValueError,))
def expanded(data):
    text = data.decode(errors="replace")
    expand.expand_keeping_quotes(text, {"A": "1"}.get)
    expand.expand(text, {"A": "1"}.get, "`")


RECIPE = """
name: web
from:
  packages: {suite: bookworm, include: [nginx], variant: minbase, components: [main], mirrors: [x],
    documentation: true, exclude: ["/usr/*"], files: [{path: /a, content: b}]}
steps:
  - run: make
  - run: {command: [a, b], network: none}
  - copy: {from: [a, b], to: /c, image: x, owner: "1:1", mode: "0644", extract: true}
  - file: {path: /x, content: y, mode: "0644", owner: root}
  - env: {A: 1}
  - arg: {B: null}
  - workdir: /x
  - user: nobody
  - shell: [sh, -c]
entrypoint: [a]
command: b
env: {A: 1.5}
expose: [80, 53/udp]
volumes: [/data]
labels: {a: true}
stop_signal: SIGQUIT
network: host
"""


@target("recipe", RECIPE, "from: tiny\n", words=YAML_WORDS, cost=6)
def recipes(data):
    plan = recipe.load(place.file("recipe.yaml", data))
    variables, state = Variables(plan.escape, quotes=False), State()
    for step in plan.stages[0].steps:
        _apply(variables, state, step.action)
    json.dumps(state.document())


@target("recipe-change", "from.packages.suite=trixie", "env.A=1", "steps=[{run: x}]", words=YAML_WORDS, cost=3)
def recipe_change(data):
    key, _, text = data.decode(errors="replace").partition("=")
    path = os.path.join(os.environ["VMCTL_ROOT"], "kept.yaml")
    if not os.path.exists(path):
        place.file("kept.yaml", RECIPE.encode())
    recipe.load(path, ((key, text),))


IGNORED = ("a", "a/b.c", "node_modules/x/y", ".git/config", "a[b", "\udcff")


@target(
    "dockerignore",
    "# x\n*.c\n!a/b.c\n**/y\n[a-c]?\\*\n/abs\n../x\n",
    words=("**", "[", "]", "!", "[^a]", "[z-a]"),
    cost=6,
)
def dockerignore(data):
    rules = ignore.read(os.path.dirname(place.file("context/.dockerignore", data)))
    for path in IGNORED:
        rules(path)


NAMES = ("web", "host:5000/team/web:1.2", "docker.io/library/x@sha256:" + "0" * 64, "[::1]:5/x", "localhost/x")


@target("reference", *NAMES, words=("@sha256:", ":", "/", ".tar.gz", "docker.io/", "__", "--"))
def references(data):
    text = data.decode(errors="replace")
    reference.from_file(text)
    reference.in_layout(text, "x.tar")
    found = reference.parse(text)
    assert reference.parse(found.familiar) == found


@target("platform", "linux/arm64/v8", "amd64")
def platform(data):
    str(platforms.parse(data.decode(errors="replace")))


@target("name", "web-1.x")
def name(data):
    check_name(data.decode(errors="surrogateescape"))


USER_DATA = "#cloud-config\nusers:\n  - name: x\nwrite_files: []\nruncmd:\n  - [a, b]\nbootcmd: []\n"


MESSAGE = (
    'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n\n'
    "--b\nContent-Type: text/cloud-config\n\n{a: b}\n--b--\n"
)


@target("user-data", USER_DATA, "#!/bin/sh\necho", "## template: jinja\n#cloud-config\na: b", MESSAGE, cost=5)
def user_data(data):
    system.user_data(seed.Identity("", "", ""), [], None, userdata.load(place.file("user-data", data))).encode()


class _Passwd:
    """An image whose files all have this content."""

    def __init__(self, data):
        self.data = data

    def content(self, _):
        yield self.data


@target("chown", "root:x:0:0::/root:/bin/sh\nweb:x:5:6:a:b:c\n\0web:web", "web:x:5:a\n\0005:5", allowed=(ValueError,))
def chown(data):
    table, _, text = data.rpartition(b"\0")
    accounts.owner(_Passwd(table), text.decode(errors="replace"))


@target(
    "json-record",
    '{"format": 1, "a": [1, 1.5, null, true, "\\ud800"]}',
    words=("NaN", "Infinity", "[" * 2000, '{"a":' * 999),
)
def json_record(data):
    records.checked_format(records.parse(data, "it"), "it")


STACK = """
name: ${NAME:-shop}
x-a: &a {restart: "no", labels: {k: v}}
services:
  web:
    <<: *a
    image: tiny
    command: sh -c "echo $$A"
    depends_on: {db: {condition: service_completed_successfully}}
    environment: {A: "1", B: }
    ports: ["127.0.0.1:8080:80/udp", {target: 80, published: "81"}]
    volumes: ["data:/data:ro", /anonymous, {type: tmpfs, target: /t, tmpfs: {size: 4096}}]
    healthcheck: {test: [CMD, x], interval: 1m30s, retries: 3}
    networks: {front: {aliases: [w], ipv4_address: 10.9.0.2}}
    deploy: {resources: {limits: {cpus: "0.5", memory: 64M}}, replicas: 2}
    ulimits: {nofile: {soft: 1, hard: 2}}
    logging: {driver: json-file, options: {max-size: 1m}}
    configs: [{source: app, target: /x, mode: 0440}]
  db: {extends: {service: base}, profiles: [x], env: {A: "1"}, mode: vm}
  base: {image: tiny, extra: }
volumes: {data: {external: true}}
networks: {front: {ipam: {config: [{subnet: 10.9.0.0/24}]}}}
configs: {app: {content: "${A:?x}"}}
""".replace(", extra: ", "")
STACK_WORDS = (
    *YAML_WORDS,
    "${",
    "}",
    ":-",
    ":?",
    ":+",
    "$$",
    "!reset",
    "!override",
    "extends: web",
    "include: [x]",
    "external: true",
)


@target("stack", STACK, words=STACK_WORDS, cost=12)
def stacks(data):
    path = place.file("stack.yaml", data)
    found = loading.load(Source((path,), environ={"A": "a"}))
    for one in graph.selected(found, found.services).values():
        for work in one.instances(2):
            _kept(work)


@target("variables", "${A:-${B:?x}}$$ $A", words=STACK_WORDS, allowed=(ValueError,))
def stack_variables(data):
    variables.expand(data.decode(errors="replace"), {"A": "a", "E": ""}, lambda name: None)


@target("dotenv", "export A=\"b\\n$C\" # d\nE='f'\nG\nH: i\n", words=('"', "'", "export ", "#", "${", "\\"))
def variable_file(data):
    dotenv.parse(data.decode(errors="replace"), "it", {"G": "g"})


@target(
    "stack-merge",
    STACK + "\0services: {web: {ports: !override [], environment: [C=1], volumes: ['data:/data']}}",
    words=STACK_WORDS,
    cost=14,
)
def stack_merge(data):
    files = [place.file(f"stack{number}.yaml", part) for number, part in enumerate(data.split(b"\0")[:3])]
    loading.load(Source(tuple(files), environ={"A": "a"}))
