"""Requests to the user's service: servers with a known delay or a known number of answers, and failures."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import pytest
from support.commands import free_port
from support.probes import started

from bench import questions, schedule, summary
from bench.model import Result, Sample
from bench.probes import Request, service
from bench.report import words
from vmctl import backends
from vmctl.errors import DeadlineError, VmctlError
from vmctl.instances import instance
from vmctl.spec.workload import File, FileMode, HttpProbe, Port, Ready, Seconds, Workload

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root here")

MODES = sorted(backends.modes())
QUICK = [mode for mode in MODES if not backends.load(mode).features.own_kernel]
EACH_QUICK_MODE = pytest.mark.parametrize("mode", QUICK)
DELAY_S = 0.2
OK = "printf 'Content-Type: text/plain\\r\\n\\r\\nlate\\n'"


def served(script=OK, name="served"):
    """Return a web server whose page `/` is a file, and whose probe requests the output of a script."""
    port = free_port()  # a port of the host in mode host
    return Workload(
        name=name,
        image="tiny",
        command=("httpd", "-f", "-p", str(port), "-h", "/srv"),
        files=(
            File("/srv/index.html", "<p>same</p>"),
            File("/srv/cgi-bin/page", f"#!/bin/sh\n{script}\n", FileMode(0o755)),
        ),
        ports=(Port("127.0.0.1", 1, port),),
        ready=Ready(http=HttpProbe(port, "/cgi-bin/page")),
    )


def take(work, mode="container"):
    return service.observe(Request(service.prepare(work), work.name, mode))


def once(script):
    """Return a script that succeeds at its first run, for the probe, and fails afterwards."""
    return f"[ -e /seen ] || {{ : >/seen; {OK}; exit; }}\n{script}"


def page(work):
    """Return the workload with its probe on the file, which needs no script."""
    return work._replace(ready=Ready(http=HttpProbe(work.ready.http.port)))


@EACH_QUICK_MODE
def test_a_service_that_answers_after_200_ms(own_root, mode):
    """Never less than the delay, and at most 5 % more, compared with the script without it; with several tries."""
    late = f"if [ -e /late ]; then sleep {DELAY_S}; else sleep 0; fi; {OK}"
    with started(service.prepare(served(late)), mode) as start:
        inst = start.inst
        target = service.target_of(inst)
        at_once_s, late_s = [], []
        for _ in range(25):
            at_once_s += service.series(target, discarded=1, counted=3)
            flag(inst, "touch")
            late_s += service.series(target, discarded=1, counted=3)
            flag(inst, "rm")
            if median(late_s) <= 1.05 * DELAY_S + median(at_once_s):
                break
        else:
            pytest.fail(f"{DELAY_S} s more were seen as {median(late_s) - median(at_once_s)} s")
    assert min(late_s) >= DELAY_S


def flag(inst, command):
    """Switch the delay of the script on or off."""
    from support.commands import ok

    ok("exec", "--no-stdin", inst.name, "--", command, "/late")


@EACH_QUICK_MODE
def test_every_question_gets_an_answer(own_root, mode):
    seen = take(page(served()), mode)
    assert len(seen.series["service_s"]) == service.COUNTED
    assert all(0 < seconds < 1 for seconds in seen.series["service_s"])
    assert seen.values["service_per_s"] > 10
    shared = not backends.load(mode).features.own_network
    assert seen.texts["path"] == ("loopback of the host" if shared else "bridge and veth pair")
    assert instance.names() == []


def test_four_clients_are_served_at_once(own_root):
    """Each client waits only for its own answer: four clients get four times as many answers as one."""
    with started(service.prepare(served(f"sleep {DELAY_S}; {OK}")), "container") as start:
        inst = start.inst
        found = service.rate(service.target_of(inst))
    assert 1 / DELAY_S < found <= service.CLIENTS / DELAY_S


def test_slow_answers_are_fewer_and_the_first_does_not_count(own_root, monkeypatch):
    monkeypatch.setattr(service, "SERIES_S", 0.5)
    with started(service.prepare(served(f"sleep 0.1; {OK}")), "container") as start:
        inst = start.inst
        assert 1 <= len(service.series(service.target_of(inst))) <= 5
        monkeypatch.setattr(service, "SERIES_S", 0.0)
        assert len(service.series(service.target_of(inst))) == 1


def test_an_answer_of_many_parts_is_read_to_its_end(own_root):
    """Ten MiB with and without a length; the second answer ends when the server closes the connection."""
    head = "printf 'Content-Type: text/plain\\r\\n%s\\r\\n'"
    for length in ("Content-Length: 10485760\\r\\n", ""):
        script = f"{head.replace('%s', length)}; head -c 10485760 /dev/zero"
        with started(service.prepare(served(script)), "container") as start:
            inst = start.inst
            assert service.series(service.target_of(inst), discarded=0, counted=2)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "printf 'Status: 503 Busy\\r\\n\\r\\n'",
            "answered GET /cgi-bin/page with .*503.*, although it had been ready",
        ),
        ("printf 'Content-Length: 100\\r\\n\\r\\nshort'", r"with \d+ bytes, but announced \d+"),
        ("printf 'HTTP/1.1 200 OK\\r\\n'", r"with \d+ bytes that are not an HTTP answer"),
    ],
    ids=["status", "short", "headless"],
)
def test_an_answer_that_is_none(own_root, script, said):
    with pytest.raises(VmctlError, match=said):
        take(served(once(script)))
    assert instance.names() == []


@pytest.mark.parametrize(
    "script", ["sleep 280", f"{OK}; while :; do sleep 0.05; echo more; done"], ids=["mute", "endless"]
)
def test_an_answer_that_does_not_end(own_root, monkeypatch, script):
    monkeypatch.setattr(service, "ANSWER_S", 0.7)
    begin_s = time.monotonic()
    with pytest.raises(DeadlineError, match=r"was ready but did not answer GET /cgi-bin/page within 0.7 s"):
        take(served(once(script)))
    assert time.monotonic() - begin_s < 250
    assert instance.names() == []


def test_a_service_that_goes_away(own_root):
    port = free_port()
    answer = "HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n"
    command = ("sh", "-c", f"printf '{answer}' | nc -l -p {port}; sleep 1000")
    gone = Workload(name="gone", image="tiny", command=command, ready=Ready(http=HttpProbe(port)))
    with pytest.raises(VmctlError, match="gone closed the connection of a request: Connection refused"):
        take(gone)
    assert instance.names() == []


def test_a_service_that_never_gets_ready(own_root):
    deaf = served("printf 'Status: 404 None\\r\\n\\r\\n'", name="deaf")
    deaf = deaf._replace(ready=deaf.ready._replace(timeout_s=Seconds(0.5)))
    with pytest.raises(DeadlineError, match="deaf was not ready within"):
        take(deaf)
    assert instance.names() == []


def test_an_answer_without_a_length_has_none():
    assert service.length_of(b"HTTP/1.1 200 OK\r\nContent-Length: 5") is None
    assert service.length_of(b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\ncontent-length: 5\r\n") is None
    assert service.length_of(b"HTTP/1.1 200 OK\r\ncontent-length:\t5\r\nX: 1\r\n\r\n") == 44 + 5


def test_only_who_speaks_http_is_asked():
    work = served()
    others = (Ready(tcp=80), Ready(log="up"), None)
    for ready, there in ((work.ready, True), *((other, False) for other in others)):
        made = schedule.make(work._replace(ready=ready), ("container",), ("net",), 2, 1)
        asked = {question.key for _, question in questions.of(made)}
        assert ("net.service_s" in asked) == ({step.kind for step in made.steps} >= {"service"}) == there
        assert "net.latency_s" in asked


def test_several_at_once_find_their_way(own_root):
    """Each thread enters the instance's network separately, and leaves it."""
    here = os.readlink("/proc/self/ns/net")
    with started(service.prepare(page(served())), "container") as start, ThreadPoolExecutor(3) as pool:
        inst = start.inst
        target = service.target_of(inst)
        counts = list(pool.map(lambda _: len(service.series(target, 1, 20)), range(3)))
        assert counts == [20, 20, 20]
        assert set(pool.map(lambda _: os.readlink("/proc/thread-self/ns/net"), range(3))) == {here}


def test_a_guest_is_asked_through_its_tap(guest_root):
    mode = next(mode for mode in MODES if backends.load(mode).features.own_kernel)
    seen = take(page(served()), mode)
    assert seen.texts["path"] == "bridge and tap, virtio-net"
    assert seen.series["service_s"]
    assert seen.values["service_per_s"] > 0


def test_a_sentence_counts_requests_and_not_runs():
    made = schedule.make(served(), ("container",), ("net",), 2, 1)
    told = [{"kind": step.kind, "mode": step.mode, "round": step.round, "started": 0.0} for step in made.steps]
    samples = tuple(Sample(**one, series={"service_s": [0.001, 0.002, 0.003]}) for one in told)
    figures, ratios = summary.summarise(made, samples)
    done = Result(
        id="1", created=0.0, host={}, explained={}, plan=made, samples=samples, figures=figures, ratios=ratios
    )
    question = next(one for one in service.QUESTIONS if one.headline)
    said = words.sentences(done, question)[0]
    assert said.startswith("A container answers a request after 2.0 ms (median); 6 requests,")
