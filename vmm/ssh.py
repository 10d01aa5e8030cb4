"""Run another command in a running guest over SSH; both keys were made for the instance before it booted.

For guests whose init is the image's: they have no agent (vmm/agent.py). What ends a command there ends it here too.
"""

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
from vmctl.linux.stdio import NO_READER, PASSED_ON, signals_to, write_all
from vmctl.net import connect
from vmm import keys, watch
from vmm.attend import CHUNK_BYTES

if TYPE_CHECKING:
    from paramiko import Channel, Message, Transport

PORT = 22
USER = "root"  # logs in outside the image's root; the workload's user is part of the command line
TIMEOUT_S = 60.0  # systemd starts an sshd per connection, which takes 2 s in an emulated guest
CONNECT_TIMEOUT_S = 60.0  # in a booting system the network is up before sshd runs
LOOK_S = 0.5  # between two looks whether the guest still runs: nothing closes a connection to a guest that is gone
KILL_S = 2.0  # for the guest to report the end after SIGKILL
NAMES = {number: signal.Signals(number).name.removeprefix("SIG") for number in (*PASSED_ON, signal.SIGKILL)}


class Guest(NamedTuple):
    """Address and keys of a guest."""

    name: str
    address: str
    port: int
    client_key: str  # path of the private key
    host_public: str  # public host key, which the guest's sshd must present
    runs: Callable[[], bool]  # whether it still runs


class _LeaveError(Exception):
    """The caller does not wait for the guest any longer."""


def execute(guest: Guest, words: str, *, tty: bool, stdin: bool, first: bytes = b"") -> int:
    """Run a command on this process's standard streams and return its exit code.

    `first` is sent before the standard input. Raises VmctlError, and OSError if output could not be written.
    """
    from paramiko import SSHException

    try:
        with _transport(guest) as transport:
            channel = transport.open_session(timeout=TIMEOUT_S)
            if tty:
                channel.get_pty(os.environ.get("TERM", "dumb"), *terminal.size(0))
            channel.exec_command(words)
            with signals_to(_Sender(channel)):
                channel.sendall(first)
                return _converse(guest, channel, tty=tty, stdin=stdin)
    except _LeaveError:
        return 128 + signal.SIGKILL
    except (SSHException, EOFError) as error:
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


class _Sender:
    """Passes signals on to the command. After SIGKILL the guest has a moment; then SIGALRM brings another one."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._killed = channel, False

    def __call__(self, number: int) -> None:
        if number == signal.SIGKILL:
            if self._killed:
                raise _LeaveError
            self._killed = True
            signal.setitimer(signal.ITIMER_REAL, KILL_S)
        _send_signal(self._channel, NAMES[signal.Signals(number)])


def _converse(guest: Guest, channel: Channel, *, tty: bool, stdin: bool) -> int:
    with ExitStack() as stack:
        if tty:
            stack.enter_context(terminal.raw(0))
            stack.enter_context(terminal.resized(lambda: channel.resize_pty(*terminal.size(0))))
        if stdin:
            _start_feeding(channel)
        else:
            channel.shutdown_write()
        copies = [_Copy(channel, channel.recv, 1), _Copy(channel, channel.recv_stderr, 2)]
        _wait(guest, lambda: not any(copy.thread.is_alive() for copy in copies) and channel.status_event.is_set())
    errors = [copy.error for copy in copies if copy.error is not None]
    for error in errors:
        if not isinstance(error, OSError) or error.errno not in NO_READER:
            raise error
    return 128 + signal.SIGPIPE if errors else channel.recv_exit_status()


def _wait(guest: Guest, ended: Callable[[], bool]) -> None:
    """Wait for the end of a command. Raises StateError if the guest has gone."""
    looked = time.monotonic()
    while not ended():
        time.sleep(0.005)
        if time.monotonic() - looked > LOOK_S:
            looked = time.monotonic()
            if not guest.runs():
                raise watch.command_lost(guest.name)


def _start_feeding(channel: Channel) -> None:
    import threading

    def feed() -> None:
        with suppress(OSError):  # the command has ended, or our standard input is closed
            while content := os.read(0, CHUNK_BYTES):
                channel.sendall(content)
            channel.shutdown_write()

    threading.Thread(target=feed, name="stdin", daemon=True).start()


class _Copy:
    """A thread that copies one output of the command to a descriptor of ours; its error is for the main thread."""

    def __init__(self, channel: Channel, receive: Callable[[int], bytes], target: int) -> None:
        import threading

        self.error: Exception | None = None
        self._channel, self._receive, self._target = channel, receive, target
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while content := self._receive(CHUNK_BYTES):
                write_all(self._target, content)
        except OSError as error:
            self.error = OSError(error.errno, f"the output could not be written: {error.strerror}")
        except Exception as error:
            self.error = error
        if self.error is not None:
            self._channel.close()  # the command gets SIGPIPE
            self._channel.status_event.set()


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
