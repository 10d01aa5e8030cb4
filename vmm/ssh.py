"""Run another command in a running guest over SSH; both keys were made for the instance before it booted."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from vmctl.errors import DeadlineError, VmctlError
from vmctl.linux import terminal
from vmctl.linux.stdio import PASSED_ON, signals_to, write_all
from vmctl.net import connect
from vmm import keys
from vmm.attend import CHUNK_BYTES

if TYPE_CHECKING:
    from paramiko import Channel, Message, Transport

PORT = 22
USER = "root"  # logs in outside the image's root; the workload's user is part of the command line
TIMEOUT_S = 60.0  # systemd starts an sshd per connection, which takes 2 s in an emulated guest
CONNECT_TIMEOUT_S = 60.0  # in a booting system the network is up before sshd runs
NAMES = {number: signal.Signals(number).name.removeprefix("SIG") for number in (*PASSED_ON, signal.SIGKILL)}


class Guest(NamedTuple):
    """Address and keys of a guest."""

    name: str
    address: str
    port: int
    client_key: str  # path of the private key
    host_public: str  # public host key, which the guest's sshd must present


def execute(guest: Guest, words: str, *, tty: bool, stdin: bool) -> int:
    """Run a command on this process's standard streams and return its exit code. Raises VmctlError."""
    from paramiko import SSHException

    try:
        with _transport(guest) as transport:
            channel = transport.open_session(timeout=TIMEOUT_S)
            if tty:
                channel.get_pty(os.environ.get("TERM", "dumb"), *terminal.size(0))
            channel.exec_command(words)
            with signals_to(lambda number: _send_signal(channel, NAMES[signal.Signals(number)])):
                return _converse(channel, tty=tty, stdin=stdin)
    except SSHException as error:
        raise VmctlError(f"the SSH connection to the guest {guest.name} failed: {error}") from error


@contextmanager
def _transport(guest: Guest) -> Iterator[Transport]:
    """Yield an authenticated connection."""
    from paramiko import Ed25519Key, Transport

    with ExitStack() as stack:
        connection = stack.enter_context(_connect(guest))
        transport = Transport(connection)
        stack.callback(transport.close)
        transport.banner_timeout = transport.auth_timeout = TIMEOUT_S
        transport.get_security_options().key_types = ("ssh-ed25519",)
        _handle_exit_signal(transport)
        transport.start_client(timeout=TIMEOUT_S)
        if transport.get_remote_server_key().asbytes() != keys.blob(guest.host_public):
            raise VmctlError(f"the SSH server at {guest.address} is not the guest {guest.name}: its host key differs")
        transport.auth_publickey(USER, Ed25519Key.from_private_key_file(guest.client_key))
        yield transport


def _handle_exit_signal(transport: Transport) -> None:
    """Set the exit code 128+n if a signal ends the command: paramiko ignores `exit-signal` (RFC 4254, 6.10)."""
    from paramiko.common import MSG_CHANNEL_REQUEST

    def handle(channel: Channel, message: Message) -> None:
        start = message.packet.tell()
        if message.get_text() == "exit-signal":
            message.get_boolean()  # the flag for a reply, always false
            channel.exit_status = 128 + signal.Signals[f"SIG{message.get_text()}"]
            channel.status_event.set()
        else:
            message.packet.seek(start)
            channel._handle_request(message)  # type: ignore[attr-defined]

    table = transport._channel_handler_table  # type: ignore[attr-defined]
    transport._channel_handler_table = {**table, MSG_CHANNEL_REQUEST: handle}  # type: ignore[attr-defined]


def _connect(guest: Guest) -> socket.socket:
    """Return a TCP connection made inside the instances' network; waits until the guest's sshd is up."""
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        try:
            return connect.connect(guest.address, guest.port, timeout_s=max(1.0, deadline - time.monotonic()))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise DeadlineError(f"the guest {guest.name} refuses SSH connections") from None
            time.sleep(0.02)
        except OSError as error:
            raise VmctlError(f"the guest {guest.name} cannot be reached at {guest.address}: {error}") from error


def _converse(channel: Channel, *, tty: bool, stdin: bool) -> int:
    with ExitStack() as stack:
        if tty:
            stack.enter_context(terminal.raw(0))
            stack.enter_context(terminal.resized(lambda: channel.resize_pty(*terminal.size(0))))
        if stdin:
            _start_feeding(channel)
        else:
            channel.shutdown_write()
        _copy_output(channel)
    return channel.recv_exit_status()


def _start_feeding(channel: Channel) -> None:
    import threading

    def feed() -> None:
        with suppress(OSError):  # the command has ended, or our standard input is closed
            while content := os.read(0, CHUNK_BYTES):
                channel.sendall(content)
            channel.shutdown_write()

    threading.Thread(target=feed, name="stdin", daemon=True).start()


def _copy_output(channel: Channel) -> None:
    """Copy stdout and stderr of the command to ours until both have ended."""
    import threading

    streams: list[tuple[Callable[[int], bytes], int]] = [(channel.recv, 1), (channel.recv_stderr, 2)]
    threads = [threading.Thread(target=_copy, args=stream, daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _copy(receive: Callable[[int], bytes], target: int) -> None:
    with suppress(BrokenPipeError):
        while content := receive(CHUNK_BYTES):
            write_all(target, content)


def _send_signal(channel: Channel, name: str) -> None:
    """Send the channel request `signal`, for which paramiko has no method."""
    from paramiko import Message
    from paramiko.common import cMSG_CHANNEL_REQUEST

    message = Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("signal")
    message.add_boolean(False)
    message.add_string(name)
    transport = channel.get_transport()
    transport._send_user_message(message)  # type: ignore[attr-defined]
