"""The verbs of daily use: the tar of `cp`, templates, filters, egress rules, records, callers of `attach`."""

import contextlib
import io
import os
import select
import shutil
import socket
from functools import partial

from fuzz import place
from fuzz.archives import BLOCK, TAR_WORDS, TARS, _with_checksums
from fuzz.check import target
from fuzz.records import WORDS
from vmctl import records
from vmctl.attach import frames, hub, size
from vmctl.cli import filters, template
from vmctl.copying.place import Target, receive, renamed
from vmctl.errors import VmctlError
from vmctl.keeping import health
from vmctl.net import catalog
from vmctl.spec import egress
from vmctl.spec.workload import Health
from vmctl.stacks import record


@target(
    "copied-tar", *TARS[:2], TARS[0] + bytes(BLOCK), words=(*TAR_WORDS, "../", "./", "/"), allowed=(OSError,), cost=15
)
def copied_tar(data):
    """Everything is written below the folder, without setuid bits and devices."""
    top = os.path.dirname(place.file("copy/canary", b"canary"))
    inside = os.path.join(top, "inside")
    os.makedirs(inside)
    try:
        for tar in (True, False):
            stream = io.BytesIO(_with_checksums(data))
            with contextlib.suppress(VmctlError, OSError):
                wanted = Target(inside, "x", contents=True, tar=tar)
                receive(stream.read, wanted, lambda path: os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        assert sorted(os.listdir(top)) == ["canary", "inside"]
        for folder, folders, names in os.walk(inside):
            for name in (*folders, *names):
                mode = os.lstat(os.path.join(folder, name)).st_mode
                assert mode & 0o170000 in (0o100000, 0o040000, 0o120000)
                assert mode & 0o170000 == 0o120000 or not mode & 0o6000
    finally:
        shutil.rmtree(inside)
    renamed(io.BytesIO(_with_checksums(data)).read, lambda part: None, "x")


ROW = {"name": "web", "exit_code": None, "labels": {"a": "b"}, "ports": [{"host": 1}, {"host": 2}], "created": 1.5}
TEMPLATES = (
    "table {{.Name}}\\t{{.ExitCode}}",
    "{{range $i, $p := .Ports}}{{$i}}={{.Host}} {{else}}none{{end}}{{- .Labels.a -}}",
    '{{if eq .Name "web"}}{{json .}}{{else if not .Name}}x{{end}}{{with .Labels}}{{index . "a" | upper}}{{end}}',
    '{{printf "%s %d %v" .Name 5 .Labels}}{{len .Ports}}{{join .Ports ","}}{{$.Name}}',
)


@target("template", *TEMPLATES, words=("{{", "}}", "range", "end", "else", "$x", ":=", "|", "printf", "%9999d", "`"))
def templates(data):
    found = template.parse(data.decode(errors="replace"))
    found.title()
    found.render(ROW, lambda name, value: str(value))


@target("egress", "203.0.113.0/24:80-90/tcp", "example.org:443", ":53/udp", "all", words=("/", ":", "-", "/udp", "*."))
def egress_rules(data):
    text = data.decode(errors="surrogateescape")
    list(egress.wrong(text))
    list(egress.wrong([text]))
    with contextlib.suppress(ValueError):
        egress.parse(text)


@target("filter", "label=a=b", "name=web", words=("=", "label", "\n"))
def filtered(data):
    for _, value in filters.parse([data.decode(errors="surrogateescape")], ("name", "label")):
        filters.has_label({"a": "b"}, value)


NETWORK = '{"format": 1, "subnet": "10.78.1.0/24", "bridge": 5, "internal": false, "mtu": 1500, "labels": {"a": "b"}}\n'
STACK = (
    '{"format": 1, "files": ["/x/compose.yaml"], "networks": ["a"], "volumes": ["b"], "depends": {"a": ["b"]}, '
    '"inputs": {"a": "b"}}\n'
)


@target("network-record", NETWORK, words=("subnet", "bridge", "10.78.1.0/33", "999999999", *WORDS), cost=4)
def network_record(data):
    place.file("lib/networks/it.json", data)
    with contextlib.suppress(records.UnreadableError):
        catalog.find("it")
    catalog.containing("10.78.1.5")


@target("stack-record", STACK, words=("depends", "inputs", "files", *WORDS), cost=3)
def stack_record(data):
    place.file("lib/stacks/it/stack.json", data)
    with contextlib.suppress(records.UnreadableError):
        found = record.load("it")
        assert all(isinstance(name, str) for part in found.depends.values() for name in part)


@target(
    "health-of-image",
    '{"Test": ["CMD", "true"], "Interval": 1000000000, "Timeout": 0, "Retries": 3, "StartPeriod": 5}',
    '{"Test": ["CMD-SHELL", "exit 1"]}',
    words=("NONE", "CMD-SHELL", "StartInterval", *WORDS),
)
def health_of_image(data):
    try:
        image = records.parse(data, "it")
    except records.UnreadableError:
        return
    check, _ = health.resolved(Health(), image if isinstance(image, dict) else {})
    assert all(0 <= number < 1 << 40 for number in health.times(check))


CALLS = (
    frames.frame(0, frames.INPUT, b"ls\n") + frames.frame(0, frames.RESIZE, frames.numbers(30, 100)),
    frames.frame(0, frames.SIGNAL, frames.numbers(2)) + frames.frame(0, frames.CREDIT, frames.numbers(0, 9)),
    frames.frame(0, frames.INPUT_END) + frames.frame(0, frames.PING) + frames.frame(0, frames.DETACH),
)


@target("callers", *CALLS, b"".join(CALLS), cost=4)
def callers(data):
    """What a caller of `attach` sends to a supervisor, which must not end by it."""
    (ours, theirs), poller = socket.socketpair(), select.poll()
    read, write = os.pipe()
    master, slave = os.openpty()
    try:
        there = hub.Hub(poller, -1, write, (), resize=partial(size.set_size, master), send=lambda number: None)
        there.adopt(ours.detach())
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            theirs.sendall(data[:60_000])
        for _ in range(9):
            there.handle(dict(poller.poll(0)))
        there.finish(0)
    finally:
        theirs.close()
        for fd in (read, write, master, slave):
            os.close(fd)
