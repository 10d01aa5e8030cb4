"""A headless Chromium that opens a page: what it makes of it, and what it complains of."""

import os
import shutil
import subprocess

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
