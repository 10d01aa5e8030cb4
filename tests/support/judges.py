"""Programs of other projects that check the files that we make."""

import fcntl
import json
import os
import sys

from images.packages import deb
from vmctl.programs import run

_CACHE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), ".cache")


def cloud_init(*arguments):
    """Return (code, output) of Debian's cloud-init, which is unpacked and not installed: installed, it would take the
    host for a cloud's at the next boot. `cloud_init("schema", "--config-file", FILE)` judges user-data.
    """
    package = unpacked("cloud-init")
    environment = {**os.environ, "PYTHONPATH": os.path.join(package, "usr/lib/python3/dist-packages")}
    program = [sys.executable, os.path.join(package, "usr/bin/cloud-init"), *arguments]
    code, output, errors = run(program, env=environment, check=False)
    return code, output + errors


def cpio_list(archive):
    """Return the lines of `cpio -tv` for an archive."""
    with open(archive, "rb") as file:
        return run(["cpio", "-itv", "--quiet", "--numeric-uid-gid"], stdin=file.read())[1].splitlines()


def cpio_read(archive, name):
    """Return the text of one file in an archive."""
    with open(archive, "rb") as file:
        return run(["cpio", "-i", "--quiet", "--to-stdout", name], stdin=file.read())[1]


def unpacked(package):
    """Return the folder with the content of a Debian package, fetched once."""
    folder = os.path.join(_CACHE, package)
    os.makedirs(_CACHE, exist_ok=True)
    with open(os.path.join(_CACHE, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(folder):
            os.makedirs(folder + ".new", exist_ok=True)
            deb.fetch(package, folder + ".new")
            os.rename(folder + ".new", folder)
    return folder


def merged_user_data(*files):
    """Return what cloud-init makes of each file of user-data: parts, merged config, boothooks as it would run them."""
    package = unpacked("cloud-init")
    environment = {**os.environ, "PYTHONPATH": os.path.join(package, "usr/lib/python3/dist-packages")}
    return json.loads(run([sys.executable, "-c", _MERGE, *map(str, files)], env=environment)[1])


_MERGE = """
import json, logging, sys
logging.disable(logging.CRITICAL)
from cloudinit import handlers, helpers, user_data, util
from cloudinit.handlers.cloud_config import CloudConfigPartHandler
from cloudinit.handlers.boot_hook import BootHookPartHandler
paths = helpers.Paths({"cloud_dir": "/nonexistent", "run_dir": "/nonexistent"})
HEADERS = ("Merge-Type", "X-Merge-Type")

def look(path):
    config = CloudConfigPartHandler(paths)
    found = {"parts": [], "boothooks": []}
    util.write_file = lambda name, content, *_, **__: found["boothooks"].append(content)
    with open(path, "rb") as file:
        message = user_data.UserDataProcessor(paths).process(file.read())
    for part in message.walk():
        if user_data.is_skippable(part):
            continue
        kind, payload = part.get_content_type(), util.fully_decoded_payload(part)
        name = part.get_filename()
        found["parts"].append({"type": kind, "content": payload, "merging": [part.get(name) for name in HEADERS]})
        if kind == "text/cloud-config":
            config.handle_part(None, kind, name, payload, None, part)
        elif kind == "text/cloud-boothook":
            hook = BootHookPartHandler.__new__(BootHookPartHandler)
            hook.boothook_dir = "/nonexistent"
            hook._write_part(payload, name)
    found["config"] = config.cloud_buf
    return found

print(json.dumps([look(path) for path in sys.argv[1:]], default=repr))
"""
