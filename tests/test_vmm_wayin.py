"""The warning that nobody can come into a guest: by what the guest reports, and by what answers on its port."""

import socket
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from vmm import wayin


@pytest.fixture
def server(monkeypatch):
    """A socket that listens on the host's loopback, in place of a guest."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(wayin, "PORT", listening.getsockname()[1])
        yield listening


def warning(marks=(), address="127.0.0.1"):
    return wayin.warning(SimpleNamespace(name="web", state=SimpleNamespace(address=address)), list(marks))


def test_an_sshd_that_answers_is_a_way_in(server):
    def answer():
        with server.accept()[0] as connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    with ThreadPoolExecutor() as pool:
        pool.submit(answer)
        assert warning() == ""


def test_what_the_guest_reports_is_said_and_can_do_nothing_to_a_terminal(server):
    text = warning(["init", "locked there is no sshd in it\x1b[2J" + "x" * 1000, "cloud-init {}"])
    assert text.startswith("nobody can come into the guest web with `exec` or `shell`: there is no sshd in it")
    assert "\x1b" not in text
    assert len(text) < 500


def test_silence_and_refusal_are_said(server, monkeypatch):
    monkeypatch.setattr(wayin, "ANSWER_S", 0.2)
    assert "a packet filter in the guest must let it in" in warning()
    server.close()
    assert "Connection refused" in warning()


def test_a_guest_without_a_network_has_no_way_in_and_this_is_known(server):
    assert warning(["locked by nobody"], address=None) == ""
