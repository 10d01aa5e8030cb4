"""One cycle: a start, some verbs, and an end, each of which may be killed at any moment."""

import os
import re
import signal
import statistics
import sys
import time
from contextlib import suppress
from typing import NamedTuple

from soak import left
from vmctl import cli

TIMEOUT_S = 300.0
COMMANDS = (
    "[sleep, '1000']",
    "[sh, -c, 'echo begun; exit 3']",
    "[sh, -c, 'trap \"exit 4\" TERM; echo begun; while :; do sleep 0.05; done']",
    "[sh, -c, 'trap : TERM INT; for i in 1 2 3; do setsid sleep 1000 & done; echo begun; while :; do sleep 1; done']",
    "[sh, -c, 'yes | head -c 300000; mkdir -p /a/b/c; echo x > /a/b/c/d; sleep 1000']",
    "[nowhere]",
)
# of a workload file that may go on after its end, that looks at itself, and that is given files
KEYS = (
    "restart: always",
    "restart: on-failure:2",
    "health: {exec: ['true'], interval: 50ms}",
    "volumes: ['NAME:/data', '/kept']",
    "tty: true",
    "stdin_open: true",
    "secrets: [{name: word, file: FILE}]",
    "init: true",
)
VERBS = (
    ("exec", "NAME", "--", "sh", "-c", "echo x > /made; sleep 0.05"),
    ("stop", "-t", "0.2", "NAME"),
    ("kill", "-s", "TERM", "NAME"),
    ("kill", "NAME"),
    ("wait", "--timeout", "0.1", "NAME"),
    ("ps", "-a"),
    ("inspect", "NAME"),
    ("logs", "NAME"),
    ("diff", "NAME"),
    ("df",),
    ("pause", "NAME"),
    ("unpause", "NAME"),
    ("restart", "-t", "0.1", "NAME"),
    ("start", "NAME"),
    ("cp", "NAME:/etc", "FOLDER"),
    ("cp", "FILE", "NAME:/etc/"),
    ("update", "-m", "96M", "--pids", "32", "NAME"),
    ("stats", "--no-stream"),
    ("top", "NAME"),
    ("prune", "-f"),
    ("snapshot", "NAME", "NAME-kept"),
    ("clone", "NAME-kept", "--name", "NAME-a"),
    ("clone", "NAME", "--name", "NAME-b"),
    ("rename", "NAME", "NAME-too"),
    ("rm", "NAME"),
    ("rm", "-f", "NAME"),
    ("down", "-t", "0.1", "NAME"),
)


class Done(NamedTuple):
    """A command that has ended: its words, its wait status as an exit code, and what was done to it."""

    words: tuple
    code: int  # negative: the signal
    killed_after_s: float | None


class Cycle:
    """One cycle; `log` has everything that was done, for the report of a failure."""

    def __init__(self, root, mode, number, chance, durations, port):
        self.root, self.mode, self.chance, self.durations, self.port = root, mode, chance, durations, port
        self.name = f"{left.PREFIX}{number}"
        self.log = []

    def run(self):
        """Run it; return what is wrong afterwards, none if all is well."""
        self._start()
        for _ in range(self.chance.randrange(4)):
            if self.chance.random() < 0.25:
                self._hit()
            else:
                self._maybe_killed(*self._named(self.chance.choice(VERBS)))
        if self.chance.random() < 0.5:
            self._maybe_killed(*self._named(self.chance.choice(VERBS[-3:])), chance=0.8)
        last = [
            ("down", "-t", "0", self.name),
            *(("down", "-t", "0", f"{self.name}-{name}") for name in ("too", "a", "b")),
            ("snapshot", "prune", "-f"),
            ("volume", "prune", "-a", "-f"),
        ]
        codes = [self._command(words).code for words in last]
        wrong = [f"{' '.join(words)} ended with {code}" for words, code in zip(last, codes, strict=True) if code]
        return wrong + left.left(self.root)

    def _start(self):
        if self.chance.random() < 0.3:
            words = ("run", "--mode", self.mode, "--name", self.name, "tiny", "--")
            words += self.chance.choice([("true",), ("sleep", "0.1"), ("sh", "-c", "sleep 1000 & exit 2")])
        else:
            words = ("up", "--mode", self.mode, self._file())
        self._maybe_killed(*words, chance=0.6)

    def _file(self):
        path = os.path.join(self.root, f"{self.name}.yaml")
        command = self.chance.choice(COMMANDS)
        text = f"name: {self.name}\nimage: tiny\ncommand: {command}\n"
        network = self.chance.choice(("bridge", "bridge", "none", "host") if self.mode == "container" else (None,))
        if network:
            text += f"network: {network}\n"
        if network != "none" and self.chance.random() < 0.4:
            text += f"ports: ['{self.port}:8000']\n"
        if "begun" in command and self.chance.random() < 0.5:
            text += "ready: {log: begun, timeout: 60s}\n"
        if self.chance.random() < 0.3:
            text += "resources: {memory: 128M, pids: 64}\n"
        for key in self.chance.sample(KEYS, self.chance.choice((0, 0, 1, 2))):
            text += " ".join(self._named([key])) + "\n"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def _named(self, words):
        """Return the words with the name of the instance, a file and a folder in it, each of this cycle only."""
        file, folder = (os.path.join(self.root, f"{self.name}{end}") for end in (".yaml", ".copy"))
        values = {"NAME": self.name, "FILE": file, "FOLDER": folder}
        return [re.sub("NAME|FILE|FOLDER", lambda found: values[found[0]], word) for word in words]

    def _maybe_killed(self, *words, chance=0.5):
        """Run a command; with this probability kill it at a moment of its usual duration, or just after."""
        usual_s = statistics.median(self.durations.get((self.mode, words[0]), [0.1]))
        killed = self.chance.random() < chance
        moment = self.chance.random() ** 1.5 * 1.2  # more often early, where most objects are made
        self._command(words, moment * usual_s if killed else None)

    def _command(self, words, kill_after_s=None):
        begin_s = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _be_command(words, os.path.join(self.root, "output"))
        code = _end(pid, kill_after_s)
        if kill_after_s is None:
            seen = self.durations.setdefault((self.mode, words[0]), [])
            seen.append(time.monotonic() - begin_s)
            del seen[:-20]
        self.log.append(Done(tuple(words), code, kill_after_s))
        return self.log[-1]

    def _hit(self):
        """Kill one process of vmctl or of the workload, such as a supervisor, a forwarder or QEMU."""
        if found := left.processes(self.root):
            pid, command = self.chance.choice(sorted(found))
            if "vmctl-holder" not in command:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.log.append(Done(("SIGKILL", command), 0, None))


def _be_command(words, output):
    """Become the command in this forked process, as its console script would."""
    try:
        os.setsid()
        null, out = os.open(os.devnull, os.O_RDWR), os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for fd, source in ((0, null), (1, out), (2, out)):
            os.dup2(source, fd)
        os.close(null)
        os.close(out)
        os.write(1, f"--- {' '.join(words)}\n".encode())
        sys.argv = ["vmctl", *words]
        cli.entry()
    except SystemExit as done:
        os._exit(done.code if isinstance(done.code, int) else 1)
    finally:
        os._exit(99)


def _end(pid, kill_after_s):
    """Wait for a command, kill it after so long, and return its exit code, or the negative signal."""
    deadline = time.monotonic() + (TIMEOUT_S if kill_after_s is None else kill_after_s)
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        time.sleep(0.0002 if kill_after_s is not None else 0.001)
