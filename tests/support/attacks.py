"""What attack tests share: a caller, an instance that is attacked from inside, and what an escape would reach."""

import base64
import gzip
import io
import json
import os
import pathlib
import secrets
import socket
import subprocess
import tarfile
import tempfile
import textwrap

from support.archives import Layout, blob_name
from support.commands import VMCTL, Checked, start, wait_for
from support.tars import tar_of

from vmctl import paths
from vmctl.linux import filetree


def watcher(*own):
    """Return a script that copies each program that runs and is not one of `own`, and notes files of vmctl."""
    return f"""
    while :; do
        for p in /proc/[0-9]*; do
            case $(readlink $p/exe 2>/dev/null) in
            {" | ".join(("''", *own))}) ;;
            *) cp $p/exe /stolen 2>/dev/null && true >>$p/exe ;;
            esac
            for fd in $p/fd/*; do
                case $(readlink $fd 2>/dev/null) in /*vmctl*) echo $fd >>/found ;; esac
            done
        done
    done
"""


class Caller(Checked):
    """Runs vmctl as root."""

    name, uid = "root", 0

    def __init__(self, folder):
        self.folder = folder  # for files that this caller may read
        self.images = set()  # made for the attacks

    def end(self):
        """Remove the images that were made."""
        for name in self.images:
            self.vmctl("image", "rm", name)

    @property
    def state(self):
        """The state root."""
        return paths.state_root()

    def start(self, *words):
        """Start vmctl with pipes and return the process."""
        return start(*words)

    def stored_bytes(self):
        """Return what is allocated for all that vmctl keeps for this caller."""
        return filetree.allocated_bytes(self.state)

    def write(self, name, content):
        """Write a file for this caller and return its path."""
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        os.chown(path, self.uid, self.uid)
        return path

    def inspect(self, name):
        return json.loads(self.ok("inspect", name))[0]


class UserCaller(Caller):
    """Runs vmctl as an ordinary user, with image `tiny` and root's kernels in that user's store."""

    name = "user"

    def __init__(self, user):
        super().__init__(user.home)
        self.user, self.uid = user, user.uid
        user.give_image()
        user.give_kernel()

    def end(self):
        """Leave this user nothing but image `tiny`, the kernels and the caches."""
        self.user.end_processes()
        kept = {self.state: {"images", "layers", "cache"}, self.folder: {".local"}}
        left = [f"{folder}/{name}" for folder in kept for name in set(os.listdir(folder)) - kept[folder]]
        subprocess.run(["rm", "-rf", "--one-file-system", *left], check=True)
        for name in set(self.ok("image", "ls", "-q").split()) - {"tiny"}:
            self.ok("image", "rm", name)
        self.images.clear()

    @property
    def state(self):
        return self.user.state

    def vmctl(self, *words, **options):
        return self.user.vmctl(*words, **options)

    def start(self, *words):
        return self.user.start(*words)


def image(caller, name, *entries, without=(), config=None):
    """Give the caller an image: the files of `tiny` but those in `without`, and entries made by `support.tars`."""
    folder = pathlib.Path(caller.folder)
    if not (kept := folder / "tiny.tar").exists():
        with kept.open("wb") as file:
            subprocess.run([VMCTL, "image", "export", "tiny"], check=True, stdout=file)
    layer = _changed(_only_layer(kept), entries, without)
    settings = {"Env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"], "Cmd": ["/bin/sh"], **(config or {})}
    layout = Layout()
    path = layout.add(layout.image(layer, config={"config": settings}), "latest").archive(folder / f"{name}.tar")
    path.chmod(0o644)
    caller.ok("image", "import", str(path), "--name", name)
    caller.images.add(name)
    path.unlink()


def _only_layer(path):
    with tarfile.open(path) as archive:

        def blob(descriptor):
            return archive.extractfile(blob_name(descriptor["digest"])).read()

        index = json.load(archive.extractfile("index.json"))
        return blob(json.loads(blob(index["manifests"][0]))["layers"][0])


def _changed(layer, entries, without):
    """Return the tar of a layer without some paths, and with more entries."""
    kept = []
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for info in tar:
            if not any(f"{info.name.strip('./')}/".startswith(f"{path}/") for path in without):
                data = tar.extractfile(info).read() if info.isreg() else b""
                attributes = {key: getattr(info, key) for key in ("type", "mode", "linkname", "uid", "gid", "mtime")}
                kept.append((info.name, attributes, data))
    return tar_of(*kept, *entries)


class Cell:
    """A running instance: the attacker is inside, as root unless another user is given."""

    def __init__(self, caller, mode, **keys):
        self.caller, self.mode = caller, mode
        self.name = f"cell-{mode}-{caller.name}-{secrets.token_hex(3)}"
        keys = {"image": "tiny", "command": ["sleep", "100000"], "init": True, **keys}
        text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items())
        caller.ok("up", "--quiet", "--mode", mode, caller.write(f"{self.name}.yaml", text))
        wait_for(self.alive)  # an attempt that never ran would hold, too

    def exec(self, *words, user="0", **options):
        """Run a command inside and return its (code, out, err)."""
        return self.caller.vmctl("exec", "-u", user, self.name, "--", *words, **options)

    def shell(self, script, **options):
        """Run a script inside."""
        return self.exec("sh", "-c", textwrap.dedent(script), **options)

    def shell_at_once(self, *scripts):
        """Run scripts inside at the same time, each of which waits for what may never come; return the last result."""
        return self.shell("".join(f"({script}) &\n" for script in scripts) + "wait")

    def compiled(self, source):
        """Compile a C program without libraries, put it inside, and return its path there."""
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, "program")
            words = ["gcc", "-static", "-w", "-x", "c", "-o", program, "-"]
            subprocess.run(words, input=textwrap.dedent(source).lstrip(), text=True, check=True)
            subprocess.run(["strip", program], check=True)
            with open(program, "rb") as file:
                packed = base64.b64encode(gzip.compress(file.read())).decode()
        path = f"/tmp/program-{secrets.token_hex(4)}"
        put = self.shell(f"base64 -d | gzip -d > {path} && chmod 755 {path}", stdin=packed)
        assert put.code == 0, put
        return path

    def alive(self):
        """Return whether it runs and still answers."""
        return self.shell("echo alive").out == "alive\n"

    def end(self):
        self.caller.vmctl("rm", "-f", self.name)


class Canary:
    """Objects of the host that an escape would reach: a secret file, a process and a listening socket.

    They belong to the caller: an escape from what an ordinary user runs would have that user's rights.
    """

    def __init__(self, folder, uid=0):
        self.secret = f"canary-{secrets.token_hex(16)}"
        self.path = os.path.join(folder, f"secret-{secrets.token_hex(4)}")
        with open(os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(self.secret)
        os.chown(self.path, uid, uid)
        self.process = subprocess.Popen(["sleep", "100001"], env={"CANARY": self.secret}, user=uid)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.server.setblocking(False)

    def check(self, *outputs):
        """Fail if the secret was seen in an output, or the file, the process or the socket was reached."""
        for output in outputs:
            assert self.secret not in str(output), "the secret of the host was read"
        with open(self.path, encoding="utf-8") as file:
            assert file.read() == self.secret, "the file of the host was changed"
        assert self.process.poll() is None, "the process of the host was killed"
        try:
            self.server.accept()
        except BlockingIOError:
            return
        raise AssertionError("the socket of the host was reached")

    def end(self):
        self.process.kill()
        self.process.wait()
        self.server.close()
