"""What attack tests share: a caller, an instance that is attacked from inside, and what an escape would reach."""

import json
import os
import secrets
import socket
import subprocess
import textwrap

from support import commands


class Caller:
    """Runs vmctl as root."""

    name = "root"

    def vmctl(self, *words, **options):
        return commands.vmctl(*words, **options)

    def ok(self, *words, **options):
        """Run the command, which must succeed, and return its standard output."""
        result = self.vmctl(*words, **options)
        assert result.code == 0, result
        return result.out

    def refused(self, *words, code=125, **options):
        """Run the command, which must fail with an error as documented, and return its standard error."""
        result = self.vmctl(*words, **options)
        assert result.code == code, result
        assert result.err.startswith("vmctl: "), result
        assert "Traceback" not in result.err, result
        assert "internal error" not in result.err, result
        return result.err

    def inspect(self, name):
        return json.loads(self.ok("inspect", name))[0]


class Cell:
    """A running instance: the attacker is inside, as root unless another user is given."""

    def __init__(self, caller, mode, folder, **keys):
        self.caller, self.mode = caller, mode
        self.name = f"cell-{mode}-{caller.name}-{secrets.token_hex(3)}"
        spec = folder / f"{self.name}.yaml"
        keys = {"image": "tiny", "command": ["sleep", "100000"], "init": True, **keys}
        spec.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items()))
        caller.ok("up", "--quiet", "--mode", mode, str(spec))

    def exec(self, *words, user="0", **options):
        """Run a command inside and return its (code, out, err)."""
        return self.caller.vmctl("exec", "-u", user, self.name, "--", *words, **options)

    def shell(self, script, **options):
        """Run a script inside."""
        return self.exec("sh", "-c", textwrap.dedent(script), **options)

    def alive(self):
        """Return whether it runs and still answers."""
        return self.shell("echo alive").out == "alive\n"

    def end(self):
        self.caller.vmctl("rm", "-f", self.name)


class Canary:
    """Objects of the host that an escape would reach: a secret file, a process and a listening socket."""

    def __init__(self, folder):
        self.secret = f"canary-{secrets.token_hex(16)}"
        self.path = os.path.join(folder, "secret")
        with open(os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(self.secret)
        self.process = subprocess.Popen(["sleep", "100001"], env={"CANARY": self.secret})
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
