"""Run the installed console script with pipes or on a pseudo-terminal."""

import fcntl
import http.client
import json
import os
import pty
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from typing import NamedTuple

VMCTL = os.path.join(os.path.dirname(sys.executable), "vmctl")
TIMEOUT_S = 150.0


class Result(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


def vmctl(*words, stdin="", timeout_s=TIMEOUT_S, **options):
    """Run the command to its end with pipes as its streams."""
    done = subprocess.run(
        [VMCTL, *words], input=stdin, capture_output=True, text=True, errors="replace", timeout=timeout_s, **options
    )
    return Result(done.returncode, done.stdout, done.stderr)


class Checked:
    """What is expected of commands, for each kind of caller."""

    def vmctl(self, *words, **options):
        """Run the command to its end with pipes as its streams."""
        return vmctl(*words, **options)

    def ok(self, *words, **options):
        """Run the command, which must succeed, and return its standard output."""
        result = self.vmctl(*words, **options)
        assert result.code == 0, result
        return result.out

    def refused(self, *words, code=125, **options):
        """Run the command, which must fail with an error as documented, and return its standard error."""
        result = self.vmctl(*words, **options)
        assert result.code == code, result
        assert result.out == "", result
        assert result.err.startswith("vmctl: "), result
        assert "Traceback" not in result.err, result
        assert "internal error" not in result.err, result
        return result.err


ok, refused = Checked().ok, Checked().refused


def start(*words, **options):
    """Start the command with pipes and return the process."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([VMCTL, *words], **{**pipes, **options})


def inspect(name):
    """Return the document of `vmctl inspect` about one instance."""
    return json.loads(ok("inspect", name))[0]


def wait_for(condition, timeout_s=TIMEOUT_S):
    """Return the first true value of `condition`."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return result


def passes_signals_on(pid):
    """Wait until an attached command passes signals on; those before that end the command itself.

    The first output of its workload may be older than its handlers.
    """

    def handles():
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            (caught,) = (int(line.split()[1], 16) for line in file if line.startswith("SigCgt:"))
        return caught >> (signal.SIGALRM - 1) & 1

    wait_for(handles)


class Terminal:
    """The command, or another program, on a pseudo-terminal of 100 columns and 30 lines; as root or as a user."""

    def __init__(self, *words, env=None, program=VMCTL, user=None):
        words, options = user.command(program, *words) if user else ([program, *words], {"env": os.environ})
        env = {**options["env"], "TERM": "xterm", **(env or {})}
        self.fd, theirs = pty.openpty()
        self.resize(30, 100)
        self.pid = os.fork()
        if self.pid == 0:
            os.login_tty(theirs)
            for fd in options.get("pass_fds", ()):
                os.set_inheritable(fd, True)
            os.execvpe(words[0], words, env)
        os.close(theirs)
        self.output = ""

    def resize(self, lines, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text):
        os.write(self.fd, text.encode())

    def paste(self, data):
        """Type bytes of any number while output is read."""
        while data:
            readable, writable, _ = select.select([self.fd], [self.fd], [], TIMEOUT_S)
            if readable:
                self.output += os.read(self.fd, 65536).decode(errors="replace")
            if writable:
                data = data[os.write(self.fd, data[:1024]) :]

    def wait_for(self, text, timeout_s=TIMEOUT_S):
        """Read until `text` appears after what was read before; return the output up to here."""
        self.output = ""
        return self.read_until(text, timeout_s)

    def read_until(self, text, timeout_s=TIMEOUT_S):
        """Read until `text` appears, or to the end; return all output so far."""
        deadline = time.monotonic() + timeout_s
        while text is None or text not in self.output:
            assert time.monotonic() < deadline, self.output
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:  # EIO: the other side is closed
                    data = b""
                if not data:
                    assert text is None, f"{text!r} never came: {self.output!r}"
                    break
                self.output += data.decode(errors="replace")
        return self.output

    def end(self):
        """Read to the end and return (exit code, all output)."""
        self.read_until(None)
        _, status = wait_for(lambda: (ended := os.waitpid(self.pid, os.WNOHANG))[0] and ended)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status), self.output


def free_port():
    """Return a port of 127.0.0.1 that nobody has now and that the kernel gives to nobody (ip(7), local_port_range)."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def get(port, path="/", address="127.0.0.1"):
    """Return (status, body) of a GET through a published port."""
    connection = http.client.HTTPConnection(address, port, timeout=120)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
