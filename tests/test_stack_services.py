"""Services become workloads: each key in each form, what is refused or warned about, and clashes between services."""

import os

import pytest
from support.stacks import loaded, service

from vmctl.errors import SpecError
from vmctl.spec.workload import Joined
from vmctl.stacks import clashes, loading
from vmctl.stacks.keys import SERVICE


def wrong(folder, text, **options):
    with pytest.raises(SpecError) as caught:
        service(folder, text, **options)
    return caught.value


def value(work, path):
    for part in path.split("."):
        work = work[int(part)] if part.isdigit() else work[part] if isinstance(work, dict) else getattr(work, part)
    return str(work)


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("command: sh -c \"echo 'a b'\"", "command", "('sh', '-c', \"echo 'a b'\")"),
        ("command: [httpd, -p, 8000, true]", "command", "('httpd', '-p', '8000', 'true')"),
        ("entrypoint: sh -ec", "entrypoint", "('sh', '-ec')"),
        ("entrypoint: []", "entrypoint", "()"),
        ("environment: {A: 5432, B: true, C: 0440}", "env", "{'A': '5432', 'B': 'true', 'C': '0440'}"),
        ("environment: [A=1=2, B=, C, HERE]", "env", "{'A': '1=2', 'B': '', 'HERE': 'h'}"),
        ("environment: {A: , HERE: }", "env", "{'HERE': 'h'}"),
        ("env: {A: 1}", "env", "{'A': '1'}"),
        ("working_dir: /srv", "workdir", "/srv"),
        ("workdir: /srv", "workdir", "/srv"),
        ('user: "1000:1000"', "user", "1000:1000"),
        ("user: 1000", "user", "1000"),
        ("hostname: edge.example.test", "hostname", "edge.example.test"),
        ("init: true", "init", "True"),
        ("read_only: yes", "read_only", "True"),
        ("restart: no", "restart.policy", "no"),
        ("restart: on-failure:2", "restart.max_retries", "2"),
        ("deploy: {restart_policy: {condition: on-failure, max_attempts: 4}}", "restart.max_retries", "4"),
        ("restart: always\ndeploy: {restart_policy: {condition: none}}", "restart.policy", "always"),
        ("restart: unless-stopped", "restart.policy", "unless-stopped"),
        ("healthcheck: {test: [CMD, pg_isready], interval: 2s, timeout: 1m}", "health.exec", "('pg_isready',)"),
        ("healthcheck: {test: 'curl x', interval: 1m30s}", "health.exec", "('/bin/sh', '-c', 'curl x')"),
        ("healthcheck: {test: [CMD-SHELL, 'a b'], start_period: 1s}", "health.interval_s", "None"),
        ("healthcheck: {test: [NONE]}", "health.disable", "True"),
        ("healthcheck: {disable: true}", "health.disable", "True"),
        ("health: {tcp: 80}", "health.tcp", "80"),
        ("stop_signal: SIGINT", "stop_signal", "2"),
        ("stop_grace_period: 1m30s", "stop_timeout_s", "90.0"),
        ("stop_grace_period: 1.5s", "stop_timeout_s", "1.5"),
        ("shm_size: 32m", "shm_size_bytes", str(32 << 20)),
        ("mem_limit: 64m", "resources.memory_bytes", str(64 << 20)),
        ("mem_limit: 67108864", "resources.memory_bytes", str(64 << 20)),
        ("cpus: 0.5", "resources.cpus", "0.5"),
        ("cpu_quota: 50000", "resources.cpus", "0.5"),
        ("cpu_quota: 30000\ncpu_period: 20000", "resources.cpus", "1.5"),
        ("pids_limit: 50", "resources.pids", "50"),
        ("pids_limit: -1", "resources.pids", "None"),
        ('deploy: {resources: {limits: {cpus: "0.5", memory: 64M, pids: 50}}}', "resources.cpus", "0.5"),
        ("resources: {memory: 1G}", "resources.memory_bytes", str(1 << 30)),
        ("ulimits: {nproc: 200}", "ulimits.0.hard", "200"),
        ("ulimits: {nofile: {soft: 1000, hard: 2000}}", "ulimits.0.soft", "1000"),
        ('ulimits: ["nofile=10:20"]', "ulimits.0.hard", "20"),
        ("cap_add: [NET_ADMIN, CAP_SYS_TIME]", "container.cap_add", "('NET_ADMIN', 'SYS_TIME')"),
        ("cap_drop: [ALL]", "container.cap_drop", "('ALL',)"),
        ("security_opt: [seccomp:unconfined]", "container.seccomp", "unconfined"),
        ("labels: {a: b, n: 2}", "labels.n", "2"),
        ("labels: [a=b, c]", "labels.c", ""),
        ("logging: {driver: json-file, options: {max-size: 1m, max-file: '2'}}", "logs.size_bytes", str(2 << 20)),
        ("logging: {options: {max-size: 1k}}", "logs.size_bytes", str(128 << 10)),
        ("tmpfs: /run", "tmpfs.0.target", "/run"),
        ("tmpfs: ['/scratch:size=8m,mode=1777']", "tmpfs.0.size_bytes", str(8 << 20)),
        ("volumes: [{type: tmpfs, target: /t, tmpfs: {size: 4194304, mode: 01777}}]", "tmpfs.0.mode", str(0o1777)),
        ("ready: {http: 8000/}", "ready.http.port", "8000"),
        ("files: [{path: /x, content: y}]", "files.0.content", "y"),
        ("network_mode: none", "network", "none"),
        ("network_mode: host", "network", "host"),
        ("network: bridge", "network", "bridge"),
    ],
)  # fmt: skip
def test_each_key(tmp_path, text, path, expected):
    work = service(tmp_path, f"image: tiny\n{text}", environ={"HERE": "h"}).work
    assert value(work, path) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"8080:80"', "127.0.0.1:8080->80/tcp"),
        ("22:22", "127.0.0.1:22->22/tcp"),
        ('"0.0.0.0:8080:80"', "0.0.0.0:8080->80/tcp"),
        ('"127.0.0.1:9000:9000/udp"', "127.0.0.1:9000->9000/udp"),
        ('"[::1]:8080:80"', "[::1]:8080->80/tcp"),
        ('"8091-8092:8000-8001"', "127.0.0.1:8091->8000/tcp 127.0.0.1:8092->8001/tcp"),
        ("{target: 80, published: '8080', host_ip: 127.0.0.2, protocol: udp}", "127.0.0.2:8080->80/udp"),
        ("{target: 80, published: 8080, mode: host}", "127.0.0.1:8080->80/tcp"),
    ],
)
def test_ports(tmp_path, text, expected):
    work = service(tmp_path, f"image: tiny\nports: [{text}]").work
    assert " ".join(map(str, work.ports)) == expected


def test_volumes(tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index").write_text("")
    text = """
image: tiny
volumes:
  - ./page/index:/one:ro
  - {type: bind, source: page, target: /two, read_only: true}
  - data:/three:z
  - {type: volume, source: named, target: /four}
  - outside:/five:ro,Z
  - /six
"""
    top = "volumes: {data: , named: {name: wild-cache}, outside: {external: true}}\n"
    work = service(tmp_path, text, top=top).work
    assert [(one.source, one.target, one.read_only) for one in work.volumes] == [
        (f"{tmp_path}/page/index", "/one", True),
        (f"{tmp_path}/page", "/two", True),
        ("shop_data", "/three", False),
        ("wild-cache", "/four", False),
        ("outside", "/five", True),
        ("", "/six", False),
    ]


def test_secrets_and_configs(tmp_path):
    (tmp_path / "word").write_text("w")
    text = """
image: tiny
secrets: [word, {source: word, target: other, mode: 0440}, {source: var, target: /run/secrets/var}]
configs: [{source: app, target: /etc/app.conf, mode: 0440}, app]
"""
    top = "secrets: {word: {file: ./word}, var: {environment: V}}\nconfigs: {app: {content: 'level = ${L:-info}'}}\n"
    found = service(tmp_path, text, top=top, environ={"V": "v"})
    assert [(one.name, one.file, one.env, one.mode) for one in found.work.secrets] == [
        ("word", f"{tmp_path}/word", None, 0o400),
        ("other", f"{tmp_path}/word", None, 0o440),
        ("var", None, "V", 0o400),
    ]
    assert [(one.path, one.content, one.mode) for one in found.work.files] == [
        ("/etc/app.conf", "level = info", 0o440),
        ("/app", "level = info", 0o444),
    ]
    assert found.secret_env == ("V",)


def test_files_of_variables(tmp_path):
    (tmp_path / "a.env").write_text("")
    text = "image: tiny\nenv_file: [a.env, {path: b.env, required: false, format: raw}]"
    found = service(tmp_path, text)
    assert [(one.path, one.required, one.format) for one in found.work.env_file] == [
        (f"{tmp_path}/a.env", True, "quoted"),
        (f"{tmp_path}/b.env", False, "raw"),
    ]
    assert found.missing == ()


def test_networks(tmp_path):
    text = """
image: tiny
container_name: edge
networks:
  front: {aliases: [app.lan], ipv4_address: 10.88.7.10}
  back:
"""
    top = """
networks:
  front: {ipam: {config: [{subnet: 10.88.7.0/24, gateway: 10.88.7.1}]}}
  back: {internal: true}
  out: {external: true, name: lan}
"""
    body = "".join(f"    {line}\n" for line in text.splitlines())
    stack = loaded(tmp_path, f"services:\n  web:\n{body}{top}")
    found = stack.services["web"]
    assert found.work.name == "edge"
    assert found.work.joined() == (
        Joined("shop_front", ("app.lan", "web"), "10.88.7.10"),
        Joined("shop_back", ("web",)),
    )
    used = loading.used_networks(stack, {"web": found})
    assert {name: (one.subnet, one.gateway, one.internal) for name, one in used.items()} == {
        "shop_front": ("10.88.7.0/24", "10.88.7.1", False),
        "shop_back": ("", "", True),
    }
    assert stack.networks["lan"].external


def test_a_service_without_networks_is_in_that_of_the_stack(tmp_path):
    assert service(tmp_path, "image: tiny").work.joined() == (Joined("shop_default"),)


def test_builds(tmp_path):
    text = "build: {context: ./page, dockerfile: D, target: t, args: [WHO=x, HERE, NOT]}"
    found = service(tmp_path, text, environ={"HERE": "h"})
    assert found.work.image == "shop-web"
    assert (found.build.context, found.build.dockerfile, found.build.target) == (f"{tmp_path}/page", "D", "t")
    assert found.build.arguments == {"WHO": "x", "HERE": "h"}
    found = service(tmp_path, "build: ./page\nimage: wild/page:1")
    assert (found.work.image, found.build.context) == ("wild/page:1", f"{tmp_path}/page")


def test_scale(tmp_path):
    for text in ("scale: 3", "deploy: {replicas: 3}"):
        found = service(tmp_path, f"image: tiny\n{text}")
        assert [work.name for work in found.instances()] == ["shop-web", "shop-web-2", "shop-web-3"]


@pytest.mark.parametrize(
    ("text", "expected", "hint"),
    [
        ("imag: x", "6: service web: imag: the key is unknown", "did you mean image?"),
        ("privileged: true", "6: service web: privileged: instances are isolated", ""),
        ("devices: [x]", "devices[0]: expected a device such as /dev/fuse", ""),
        ("devices: [{source: /dev/fuse, target: /x}]", "devices[0]: expected a place below /dev, got '/x'", ""),
        ("gpus: all", "gpus: `devices` of the service names each device", ""),
        ("pid: host", "pid: processes of an instance", ""),
        ("healthcheck: {tset: x}", "healthcheck.tset: the key is unknown", "did you mean test?"),
        ("healthcheck: {test: [RUN, x]}", "healthcheck.test: expected", ""),
        ("healthcheck: {interval: 5}", "healthcheck.interval: expected a duration such as 10s", ""),
        ("healthcheck: {test: x, retries: 0}", "healthcheck.retries: expected at least 1", ""),
        ("mem_limit: lots", "6: service web: mem_limit: expected a size such as 256M", ""),
        ("deploy: {resources: {limits: {cpus: x}}}", "deploy.resources.limits.cpus: expected a number", ""),
        ("deploy: {resources: {reservations: {devices: [{}]}}}", "reservations.devices: `devices` of the service", ""),
        ("deploy: {placement: {constraints: [x]}}", "deploy.placement: a stack runs on one host", ""),
        ("deploy: {mode: global}", "deploy.mode: 'global' is for a swarm", ""),
        ("ports: ['80']\nports: []", "the key ports is given twice", ""),
        ("ports: [x]", "ports[0]: expected a port such as", ""),
        ("ports: ['1-2:1']", "ports[0]: 2 ports of the host for 1 of the service", ""),
        ("ports: ['70000:1']", "ports[0]: expected ports from 1 to 65535", ""),
        ("volumes: ['data:/data']", "volumes[0]: the volume data is not declared; ./data is", "volumes: {data: }"),
        ("volumes: ['.:data']", "volumes[0]: expected ./data:/data", ""),
        ("volumes: [{type: cluster, target: /x}]", "volumes[0].type: mounts of type cluster", ""),
        ("volumes: ['/a:/b:rshared']", "the option rshared is not available", ""),
        ("networks: [bakc]\n", "networks[0]: the network bakc is not declared", "did you mean back?"),
        ("networks: {back: {mac_address: x}}", "networks.back.mac_address: vmctl chooses", ""),
        ("network_mode: 'service:db'", "with container:db this is decided by db", ""),
        ("network_mode: 'vpn:db'", "network_mode: 'vpn:db' is not available", "service:NAME"),
        ("network_mode: none\nnetworks: [back]", "networks: network_mode is given too", ""),
        ("secrets: [wrod]", "secrets[0]: the secret wrod is not declared", "did you mean word?"),
        ("platform: linux/s390x", "platform: this host is linux/", ""),
        ("platform: windows", "platform: this host is linux/", ""),
        ("logging: {driver: syslog}", "logging.driver: logs are files of vmctl", ""),
        ("labels: {vmctl.stack: x}", "labels that begin with vmctl.", ""),
        ("init: maybe", "init: expected true or false, got 'maybe'", ""),
        ("build: {context: ., platforms: [x]}", "build.platforms: images are built for this host's", ""),
        ("command: 'a \"b'", "command: no closing quotation", ""),
        ("restart: sometimes", "restart: expected no, always", ""),
        ("ulimits: {nofile: {soft: 2, hard: 1}}", "ulimits.nofile: expected a soft limit", ""),
        ("ulimits: {wild: 2}", "ulimits.wild: expected a limit such as", ""),
        ("container_name: x\nscale: 2", "scale: instances with a container_name cannot be several", ""),
        ("security_opt: ['systempaths=unconfined']", "security_opt[0]:", ""),
        ("shm_size: 1", "shm_size: expected at least 4K", ""),
        ("ready: {htpp: 80}", "ready", "did you mean http?"),
        ("resources: {memory: 1}", "resources.memory: expected at least 1M", ""),
    ],
)  # fmt: skip
def test_errors_name_file_line_service_and_key(tmp_path, text, expected, hint):
    top = "networks: {back: }\nsecrets: {word: {file: x}}\n"
    text = f"image: tiny\nuser: '5'\nhostname: x\n{text}"
    error = wrong(tmp_path, text, top=top)
    assert str(error).startswith(f"{tmp_path}/shop.yaml:")
    assert expected in str(error)
    assert hint in error.hint


def test_a_service_needs_an_image(tmp_path):
    assert "service web: the key image is missing" in str(wrong(tmp_path, "command: x"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: '3'", "shop.yaml:1: version: it has no effect"),
        ("develop: {watch: []}", "service web: develop: it has no effect"),
        ("links: [db]", "service web: links: it has no effect: all services"),
        ("tty: true", "service web: tty: it has no effect"),
        ("deploy: {update_config: {parallelism: 2}}", "deploy.update_config: it has no effect"),
        ("deploy: {resources: {reservations: {memory: 16M}}}", "reservations.memory: it has no effect"),
    ],
)
def test_warnings(tmp_path, text, expected):
    top = text if text.startswith("version") else ""
    inner = "" if top else f", {text}"
    (warning,) = loaded(tmp_path, f"{top}\nservices: {{web: {{image: tiny{inner}}}}}").warnings
    assert expected in warning


def test_values_that_are_the_default_anyway_are_not_refused(tmp_path):
    assert service(tmp_path, "image: tiny\nprivileged: false\ndevices: []\nx-mine: {a: b}\ndns_search: []")


def test_every_refused_key_has_a_reason():
    for texts in (SERVICE.refused, SERVICE.idle):
        assert all(len(text) > 10 for text in texts.values())
    assert not SERVICE.known & {*SERVICE.refused, *SERVICE.idle}


# clashes


def clash(folder, text, scale=None):
    stack = loaded(folder, text)
    works = {name: one.instances(scale) for name, one in stack.services.items()}
    with pytest.raises(SpecError) as caught:
        clashes.check(stack.services, works, loading.used_networks(stack, stack.services))
    return str(caught.value)


SUBNET = "ipam: {config: [{subnet: 10.9.0.0/24}]}"
CLASHES = [
    (
        "{a: {image: t, ports: ['8080:1']}, b: {image: t, ports: ['8080:2']}}",
        "service b: ports: the port 127.0.0.1:8080/tcp is also published by the service a",
    ),
    (
        "{a: {image: t, ports: ['0.0.0.0:8080:1']}, b: {image: t, ports: ['8080:2']}}",
        "is also published by the service a",
    ),
    ("{a: {image: t, ports: ['8080:1'], scale: 2}}", "is also published by another instance of this service"),
    ("{a: {image: t, container_name: shop-b}, b: {image: t}}", "the name shop-b is that of the service a too"),
    (
        "{a: {image: t, container_name: x}, b: {image: t, container_name: x}}",
        "the name x is that of the service a too",
    ),
    (
        "{a: {image: t, networks: {n: {aliases: [b]}}}, b: {image: t, networks: [n]}}\nnetworks: {n: }",
        "the alias b is also a name of the service b",
    ),
    (
        "{a: {image: t, networks: {n: {aliases: [x]}}}, b: {image: t, networks: {n: {aliases: [x]}}}}\nnetworks: {n: }",
        "the alias x is also a name of the service a",
    ),
    (
        "{a: {image: t, networks: {n: {ipv4_address: 10.9.0.2}}}, b: {image: t, networks: {n: {ipv4_address: "
        f"10.9.0.2}}}}}}}}\nnetworks: {{n: {{{SUBNET}}}}}",
        "the address 10.9.0.2 is also that of shop-a",
    ),
    (
        f"{{a: {{image: t, networks: [n, m]}}}}\nnetworks: {{n: {{{SUBNET}}}, "
        "m: {ipam: {config: [{subnet: 10.9.0.0/16}]}}}",
        "the subnet 10.9.0.0/16 overlaps with 10.9.0.0/24",
    ),
    ("{a: {image: t, volumes: ['./none:/x']}}", "none does not exist"),
    ("{a: {image: t, env_file: none}}", "none does not exist"),
]


@pytest.mark.parametrize(("text", "expected"), CLASHES)
def test_clashes_are_found_before_anything_starts(tmp_path, text, expected):
    assert expected in clash(tmp_path, f"services: {text}")


@pytest.mark.parametrize(
    "text",
    [
        "{a: {image: t, ports: ['8080:1']}, b: {image: t, ports: ['8080:2/udp', '[::1]:8080:2']}}",
        "{a: {image: t, ports: ['127.0.0.1:8080:1']}, b: {image: t, ports: ['127.0.0.2:8080:2']}}",
        "{a: {image: t, networks: {n: {aliases: [b]}}}, b: {image: t}}\nnetworks: {n: }",
    ],
)
def test_what_does_not_clash(tmp_path, text):
    stack = loaded(tmp_path, f"services: {text}")
    works = {name: one.instances() for name, one in stack.services.items()}
    clashes.check(stack.services, works, loading.used_networks(stack, stack.services))


def test_an_address_must_be_in_its_subnet(tmp_path):
    top = "networks: {n: {ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.8.0.1}]}}}\n"
    assert "10.8.0.1 is not in 10.9.0.0/24" in str(wrong(tmp_path, "image: t\nnetworks: [n]", top=top))
    top = "networks: {n: {ipam: {config: [{subnet: 10.9.0.0/24}]}}}\n"
    error = wrong(tmp_path, "image: t\nnetworks: {n: {ipv4_address: 10.7.0.1}}", top=top)
    assert "10.7.0.1 is not in 10.9.0.0/24, the subnet of n" in str(error)
    assert "expected a subnet" in str(
        wrong(tmp_path, "image: t", top="networks: {n: {ipam: {config: [{subnet: x}]}}}\n")
    )
    assert os.path.sep in str(error)
