"""What a hostile guest sends to the commands that run in it: frames of its agent (vmctl/attach/frames.py)."""

import os
import select
import socket
from contextlib import suppress
from types import SimpleNamespace

from fuzz import place
from fuzz.check import target
from vmctl.attach import frames, session
from vmctl.errors import VmctlError
from vmm import agent, broker

FRAMES = (
    frames.frame(0, frames.HELLO, bytes(frames.NONCE_BYTES)),
    frames.frame(1, frames.STARTED),
    frames.frame(1, frames.OUTPUT, b"text\n" * 9),
    frames.frame(1, frames.ERROR_OUTPUT, b"\xff"),
    frames.frame(1, frames.INPUT_CREDIT, frames.numbers(1 << 18)),
    frames.frame(1, frames.EXIT, frames.numbers(7, 3)),
    frames.frame(1, frames.FAILURE, b"nit is not there\na hint"),
    frames.frame(1, frames.PONG) + frames.frame(1, frames.INPUT_GONE),
)
GUEST = agent.Guest("web", "", lambda: False, lambda place: None)
SEEDS = (b"".join(FRAMES[:6]), b"".join(FRAMES), FRAMES[0] + FRAMES[6], FRAMES[0] * 3)


@target("agent-answers", *SEEDS, cost=2)
def answers(data):
    """The side of `vmctl exec`."""
    ours, theirs = socket.socketpair()
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        theirs.sendall(data)
        theirs.close()
        ours.setblocking(False)
        command = agent.Session(GUEST, ours, SimpleNamespace(fd=-1), "if")
        command._outputs = {kind: session.Output(null) for kind in command._outputs}
        with suppress(VmctlError):  # at the latest at the end of the bytes
            while not command._gone:
                command._receive()
        assert command._code in (None, *range(256))
        assert 0 <= command._unread <= command._passed_on <= command._sent
    finally:
        ours.close()
        theirs.close()
        os.close(null)


@target("agent-frames", *SEEDS, cost=4)
def passed_on(data):
    """The side of the recorder, which must neither end nor grow."""
    path = os.path.join(os.path.dirname(place.file("agent/x", b"")), "socket")
    with suppress(FileNotFoundError):
        os.unlink(path)
    poller, (ours, theirs), command = select.poll(), socket.socketpair(), socket.socket(socket.AF_UNIX)
    recorder = broker.Broker(poller, broker.listen(path), "/nowhere")
    recorder._agent = broker._Peer(ours.detach(), 0)
    poller.register(recorder._agent.fd, select.POLLIN)
    try:
        command.connect(path)
        theirs.sendall(data)
        for _ in range(4):
            for fd, events in poller.poll(0):
                recorder.handle(fd, events)
            waiting = [peer.waiting for peer in (*recorder._clients.values(), recorder._agent) if peer]
            assert sum(map(len, waiting)) < 4 * broker._CLIENT_BYTES
    finally:
        for peer in (*recorder._clients.values(), *filter(None, [recorder._agent])):
            os.close(peer.fd)
        for opened in (theirs, command, recorder._listener):
            opened.close()
