"""A headless Chromium that opens a page: what it makes of it, and what it complains of."""

import contextlib
import fcntl
import functools
import itertools
import json
import os
import shutil
import subprocess
import threading

SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --disable-dev-shm-usage --enable-logging=stderr"
).split()
LIMIT_S = 120.0


def chromium():
    """Return the path of the program, or None if it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def browse(folder, url, *switches):
    """Open a page with these switches and return (what was written to stdout, what the browser logged)."""
    profile = os.path.join(folder, f"profile-{os.urandom(4).hex()}")
    done = subprocess.run(
        [chromium(), *SWITCHES, f"--user-data-dir={profile}", *switches, url],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LIMIT_S,
        check=True,
    )
    return done.stdout, done.stderr


class Browser:
    """A running browser, controlled through its debugging pipe; each page is opened in a separate context."""

    def __init__(self, folder):
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        ends = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs_in, theirs_out)]  # clear of 3 and 4
        os.close(theirs_in)
        os.close(theirs_out)
        self._process = subprocess.Popen(
            [chromium(), *SWITCHES, f"--user-data-dir={folder}", "--remote-debugging-pipe"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=lambda: [os.dup2(end, place) for place, end in enumerate(ends, 3)],
        )
        for end in ends:
            os.close(end)
        self._in, self._out = ours_in, ours_out
        self._numbers = itertools.count(1)
        self._said = bytearray()

    def close(self):
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    @contextlib.contextmanager
    def opened(self, url, width=1280, height=720):
        """Open a page and yield `ask(method, **parameters)`: what the browser answers, a dict."""
        limit = threading.Timer(LIMIT_S, self._process.kill)  # then the pipe ends, and so does waiting for an answer
        limit.start()
        try:
            context = self.ask("Target.createBrowserContext")["browserContextId"]
            target = self.ask("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
            session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            ask = functools.partial(self.ask, session=session)
            ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
            ask("Page.enable")
            ask("Page.navigate", url=url)
            self._next(lambda one: (one.get("method"), one.get("sessionId")) == ("Page.loadEventFired", session))
            yield ask
            self.ask("Target.disposeBrowserContext", browserContextId=context)
        finally:
            limit.cancel()

    def ask(self, method, *, session=None, **parameters):
        """Return the answer to a question, to the browser or to a page."""
        number = next(self._numbers)
        to = {"sessionId": session} if session else {}
        os.write(self._out, json.dumps({"id": number, "method": method, "params": parameters, **to}).encode() + b"\0")
        answer = self._next(lambda one: one.get("id") == number)
        assert "result" in answer, f"{method}: {answer}"
        return answer["result"]

    def _next(self, wanted):
        """Return the first message that is wanted."""
        while True:
            end = self._said.find(b"\0")
            if end < 0:
                data = os.read(self._in, 1 << 20)
                assert data, "the browser ended"
                self._said += data
                continue
            one = json.loads(self._said[:end])
            del self._said[: end + 1]
            if wanted(one):
                return one
