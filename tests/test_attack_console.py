"""From a guest, against who is connected with its serial console, or reads it later."""

import os
import select
import signal
import stat
import threading
import time
from contextlib import contextmanager, suppress

import pytest
from support.attack_table import callers, modes
from support.attacks import Cell
from support.commands import Terminal, wait_for

from vmctl.instances import instance
from vmm import files

pytestmark = [pytest.mark.timeout(600), modes("vm"), callers("root")]
KEPT_BYTES = 128 << 10
BLOCK_BYTES = 1 << 16
# title, clipboard (OSC 52), alternate screen, bracketed paste, mouse, C1, invalid UTF-8, direction of text, keys that
# leave, questions whose answers would be keys; and a string without an end, which swallows the text that follows
HOSTILE = (
    r"\033]0;owned\007\033]52;c;cm0gLXJm\007\033[?1049h\033[?2004h\033[?1000h\2332J\377\302\2332J\342\200\256"
    r"\035\020\021\033[6n\033[c\033P$qm\033\\\033[8mhidden\033[201~\033Pend "
)
BAD = ("\x1b]", "\x1b[?", "\x1b[6n", "\x1b[8m", "\x1b[201~", "\x1bP", "\x9b", "\u202e", "\x07", "\x1d", "\x10")
BACK = ("\x18", "\x1b[?1049l", "\x1b[?2004l", "\x1b[?1000l")


@pytest.fixture(scope="module")
def guest(caller):
    """A guest of whose console little is kept."""
    cell = Cell(caller, "vm", network="none", logs={"size": KEPT_BYTES})
    cell.shell(f"printf '{HOSTILE}' >/hostile; stty -F /dev/ttyS0 raw -echo")
    yield cell
    cell.end()


@pytest.fixture
def mode():
    return "vm"


class Connected:
    """A command on a terminal, which ends with the test."""

    def __init__(self, *words):
        self.terminal = Terminal(*words)
        self.code = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.code is None:
            os.kill(self.terminal.pid, signal.SIGKILL)
            os.waitpid(self.terminal.pid, 0)
            os.close(self.terminal.fd)

    def ended(self):
        """Return whether it has ended, and take a little of its output: a terminal that is slower than the guest."""
        if self.code is not None:
            return True
        time.sleep(0.005)
        if select.select([self.terminal.fd], [], [], 0)[0]:
            with suppress(OSError):  # EIO: its last process has ended
                os.read(self.terminal.fd, 2048)
        pid, status = os.waitpid(self.terminal.pid, os.WNOHANG)
        if pid:
            os.close(self.terminal.fd)
            self.code = os.waitstatus_to_exitcode(status)
        return bool(pid)


def connect(guest):
    connected = Connected("console", guest.name)
    connected.terminal.read_until("; ctrl-] leaves")
    guest.shell("printf conn''ected >/dev/ttyS0")
    connected.terminal.read_until("connected")
    return connected


@pytest.mark.attack(
    "sends escape sequences and the keys that leave by its console to who is connected, or reads it later",
    mode="vm",
)
def test_hostile_bytes(guest):
    with connect(guest) as connected:
        for _ in range(3):  # it is closed and opened again
            guest.shell("cat /hostile >/dev/ttyS0")
        guest.shell("printf fin''al >/dev/ttyS0; cat /hostile >/dev/ttyS0; printf 'e''nd' >/dev/ttyS0")
        raw = connected.terminal.read_until("final")
        assert "\x1b]52;c;cm0gLXJm\x07" in raw  # the terminal is the guest's
        connected.terminal.read_until("\x1bPend end")
        connected.terminal.output = ""
        connected.terminal.type("\x1d")
        connected.code, left = connected.terminal.end()
    assert (connected.code, [back for back in BACK if back not in left]) == (0, [])
    for words in (("logs", "--boot", "--tail", "20"), ("logs", "--boot", "--timestamps")):
        _, seen = Terminal(*words, guest.name).end()
        assert "final" in seen
        assert [bad for bad in BAD if bad in seen] == []


@pytest.mark.attack(
    "answers in place of its caller: what it gets by its console are only the keys typed there", mode="vm"
)
def test_keys_only(guest):
    with connect(guest) as connected:
        guest.shell("(echo; exec head -c 9 </dev/ttyS0) >/got 2>/dev/null & until [ -s /got ]; do sleep 0.1; done")
        for keys in ("abc", "def", "\x1b[A"):
            guest.shell("cat /hostile >/dev/ttyS0")
            connected.terminal.type(keys)
        wait_for(lambda: guest.shell("cat /got").out == "\nabcdef\x1b[A")
        connected.terminal.type("\x1d")
        connected.code, _ = connected.terminal.end()
    assert connected.code == 0
    assert guest.shell("timeout 1 cat </dev/ttyS0").out == ""


@pytest.mark.attack(
    "floods its console for a terminal that is slower, so that nobody can leave, and memory or disk fill", mode="vm"
)
@pytest.mark.parametrize("words", [("console",), ("logs", "--boot", "-f"), ("logs", "--boot")], ids=" ".join)
def test_flood(guest, words):
    inst = instance.load(guest.name)
    with flood(f"{files.console(inst)}.out"), Connected(*words, guest.name) as connected:
        connected.terminal.read_until("hidden")
        kept = set()
        for _ in range(3):
            part = identity(inst.console_log)
            while identity(inst.console_log) in (None, part):  # until it is rotated
                connected.ended()
                kept.add(size_bytes(inst.console_log, inst.console_log + ".1"))
        if words != ("logs", "--boot"):
            connected.terminal.type("\x1d" if words[0] == "console" else "\x03")
        wait_for(connected.ended)
    assert connected.code == (130 if "-f" in words else 0)
    assert max(kept) <= KEPT_BYTES + 2 * BLOCK_BYTES  # of two parts each may be a block larger
    assert stat.S_IMODE(wait_for(lambda: found(inst.console_log)).st_mode) == 0o600
    assert memory_bytes(inst.state.supervisor_pid) < 40 << 20


@pytest.mark.attack(
    "takes nothing of what is typed at its console, so that the keys that leave are not seen", mode="vm"
)
def test_no_input_is_taken(guest):
    with connect(guest) as connected:
        guest.caller.ok("pause", guest.name)  # as one whose kernel looks at no interrupt
        try:
            connected.terminal.paste(b"x" * 200_000)  # more than pipe and serial port hold
            connected.terminal.type("\x1d")
            wait_for(connected.ended)
        finally:
            guest.caller.ok("unpause", guest.name)
    assert connected.code == 0
    assert guest.alive()


@contextmanager
def flood(fifo):
    """Write to what QEMU writes the console to, at once: an emulated guest is slow."""
    ended = threading.Event()
    data = HOSTILE.encode().decode("unicode_escape").encode("latin-1") * 20

    def write():
        with open(fifo, "wb", buffering=0) as file:
            while not ended.is_set():
                file.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def found(path):
    try:
        return os.stat(path)
    except FileNotFoundError:  # it is just rotated
        return None


def identity(path):
    return status.st_ino if (status := found(path)) else None


def size_bytes(*paths):
    return sum(status.st_size for status in map(found, paths) if status)


def memory_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
