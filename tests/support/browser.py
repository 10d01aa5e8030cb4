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
    """Return the program, None where it is not installed."""
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


@contextlib.contextmanager
def opened(folder, url, width=1280, height=720):
    """Open a page and yield `ask(method, **parameters)`: what the browser answers over its debugging pipe, a dict."""
    profile = os.path.join(folder, f"profile-{os.urandom(4).hex()}")
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    ends = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs_in, theirs_out)]  # clear of 3 and 4
    os.close(theirs_in)
    os.close(theirs_out)
    with (
        open(ours_out, "wb", buffering=0) as out,
        open(ours_in, "rb") as answers,
        subprocess.Popen(
            [chromium(), *SWITCHES, f"--user-data-dir={profile}", "--remote-debugging-pipe"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=lambda: [os.dup2(end, place) for place, end in enumerate(ends, 3)],
        ) as process,
    ):
        for end in ends:
            os.close(end)
        limit = threading.Timer(LIMIT_S, process.kill)  # then the pipe ends, and so does waiting for an answer
        limit.start()
        try:
            ask = functools.partial(_ask, out, answers, itertools.count(1), {})
            target = ask("Target.createTarget", url="about:blank")["targetId"]
            session = {"sessionId": ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
            ask = functools.partial(_ask, out, answers, itertools.count(100), session)
            ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
            ask("Page.enable")
            ask("Page.navigate", url=url)
            for line in _messages(answers):
                if line.get("method") == "Page.loadEventFired":
                    break
            yield ask
        finally:
            limit.cancel()
            process.kill()


def _ask(out, answers, numbers, session, method, **parameters):
    number = next(numbers)
    out.write(json.dumps({"id": number, "method": method, "params": parameters, **session}).encode() + b"\0")
    for one in _messages(answers):
        if one.get("id") == number:
            assert "result" in one, f"{method}: {one}"
            return one["result"]
    raise AssertionError(f"{method}: the browser ended")


def _messages(answers):
    """Yield what the browser says, message by message, until it ends."""
    said = bytearray()
    while byte := answers.read(1):
        if byte != b"\0":
            said += byte
            continue
        yield json.loads(said)
        said.clear()
