"""The network of RUN: `pip install` from an index, by a proxy, from the host's loopback; why a step had no network."""

from contextlib import ExitStack

import pytest
from support.index import NAME, PORT, PROXY_PORT, Server
from support.internet import FAR, NEAR, Internet, RootThere, UserThere

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("own_store")]

INTERNAL = "http://packages.internal/simple"  # a name that only the proxy knows
PROXY = f"http://user:passphrase@{NEAR}:{PROXY_PORT}"
PIP = "pip install --no-cache-dir --retries 0 --timeout 120 hello-lib"
INSTALL = f"{PIP} && python3 -c 'import hello_lib; print(hello_lib.WORD)' >/seen"
ARGS = "ARG PIP_INDEX_URL\nARG PIP_TRUSTED_HOST\n"
WORD = "hello from the index\n"


@pytest.fixture(scope="module")
def internet():
    with Internet() as internet:
        yield internet


@pytest.fixture(scope="module")
def caller(who, internet, own_store, shipped, tmp_path_factory):
    """Root, or an ordinary user, on the host of that internet, with the image `python`."""
    shipped.bring("python")
    if who == "root":
        yield RootThere(str(tmp_path_factory.mktemp("caller")), internet)
        return
    with UserThere(internet) as user:
        user.give_image()
        user.give_image("python")
        yield user


def build(caller, text, *words, **options):
    return caller.vmctl("image", "build", "-t", "built", *words, "-", stdin=text, **options)


def written(caller, text, *words, **options):
    """Build, and return what is in /seen."""
    result = build(caller, text, *words, **options)
    assert result.code == 0, result
    return caller.ok("run", "--network", "none", "built", "--", "cat", "/seen")


def index(url, host):
    return ("--build-arg", f"PIP_INDEX_URL={url}", "--build-arg", f"PIP_TRUSTED_HOST={host}")


def test_pip_installs_from_an_index_with_a_name(caller, internet):
    with Server(internet.far, FAR, PORT) as server:
        text = f"FROM python\n{ARGS}RUN {INSTALL}\n"
        assert written(caller, text, *index(f"http://{NAME}:{PORT}/simple", NAME)) == WORD
        assert server.asked


def test_a_proxy_that_the_build_is_told_is_asked_and_not_in_the_image(caller, internet):
    with Server(internet.far, NEAR, PROXY_PORT) as proxy:
        text = f"FROM tiny\nRUN timeout 60 wget -O /seen {INTERNAL}/hello-lib/\n"
        assert "href" in written(caller, text, "--build-arg", "http_proxy", env={"http_proxy": PROXY})
        assert proxy.asked == [f"{INTERNAL}/hello-lib/"]
        assert "passphrase" not in caller.ok("image", "inspect", "built") + caller.ok("image", "history", "built")


def test_pip_reads_the_hosts_configuration_if_it_is_given(caller, internet):
    path = caller.write(
        "pip.conf", f"[global]\nindex-url = {INTERNAL}\ntrusted-host = packages.internal\nproxy={PROXY}\n"
    )
    with Server(internet.far, NEAR, PROXY_PORT) as proxy:
        text = (
            f"FROM python\nRUN --mount=type=secret,id=pip,target=/etc/pip.conf {INSTALL}\nRUN ! test -s /etc/pip.conf\n"
        )
        assert written(caller, text, "--secret", f"id=pip,src={path}") == WORD
        assert proxy.asked[0].startswith(INTERNAL)


def test_a_service_on_the_hosts_loopback_needs_its_network(caller, internet):
    with Server(internet.host, "127.0.0.1", PORT) as server:
        text = f"FROM tiny\nRUN timeout 60 wget -O /seen http://127.0.0.1:{PORT}/simple/hello-lib/\n"
        failed = build(caller, text)
        assert failed.code == 125
        assert "hint: 127.0.0.1 is the step itself: `--network host` reaches this host's services" in failed.err
        assert not server.asked
        assert "href" in written(caller, text, "--network", "host")


FETCH = f"FROM tiny\nRUN timeout 60 wget -O /seen http://{NAME}:{PORT}/simple/hello-lib/\n"


@pytest.mark.parametrize(
    ("text", "words", "env", "hint"),
    [
        (FETCH, ("--network", "none"), {}, "the step has no network"),
        (FETCH.replace("RUN", "RUN --network=none"), (), {}, "the step has no network"),
        (FETCH.replace("example", "nowhere"), (), {"HTTPS_PROXY": PROXY}, "`--build-arg HTTPS_PROXY` passes it to RUN"),
        (FETCH, ("--build-arg", "http_proxy=http://127.1.2.3:9"), {}, "http_proxy is a proxy on this host's loopback"),
        ("FROM tiny\nRUN echo so; exit 3\n", ("--network", "none"), {}, ""),
    ],
    ids=["no-network", "no-network-of-the-step", "proxy-not-passed", "proxy-on-loopback", "something-else"],
)
def test_without_a_network_the_error_says_what_to_do(caller, text, words, env, hint):
    failed = build(caller, text, *words, env=env)
    assert failed.code == 125
    assert ("hint: " in failed.err) == bool(hint), failed.err
    assert hint in failed.err


def test_a_host_without_a_way_out_says_so(caller, internet):
    with ExitStack() as stack:
        internet.host.run("ip", "route", "del", "default")
        stack.callback(internet.host.run, "ip", "route", "add", "default", "via", NEAR)
        failed = build(caller, FETCH, "--no-cache")
    assert failed.code == 125
    assert "hint: this host has no default route, so the step reaches no other host" in failed.err
