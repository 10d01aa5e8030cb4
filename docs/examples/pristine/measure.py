"""What a pristine database costs a test: a clone, a new database, a template database, `docker run`. `make pristine`.

Each way does the same for a test: get a database with the accounts, make a transfer, read the sums, throw it away. The
ways take turns, so that all of them see the same machine. `docker run` is measured if a docker answers; it starts an
image that has the accounts already. The result is a table in Markdown.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager

from conftest import ACCOUNTS, POSTGRES, Postgres, accounts_of_postgres, psql

import vmctl

TRANSFER = (
    "UPDATE account SET balance = balance - 1 WHERE id = 1",
    "UPDATE account SET balance = balance + 1 WHERE id = 2",
    "INSERT INTO transfer VALUES (1, 1, 2, 1)",
    "SELECT count(*), sum(balance), min(balance), max(balance), (SELECT count(*) FROM transfer) FROM account",
)


class Ways:
    """Functions that do what a test does, one per way; what they share is started before, and ends with the stack."""

    def __init__(self, stack, folder, accounts):
        self.stack, self.folder = stack, folder
        self.rows = accounts_of_postgres(accounts)
        self.expected = f"{accounts}|{100 * accounts}|99|101|1"

    def start(self, mode):
        """Return an instance with the accounts."""
        path = os.path.join(self.folder, "pristine.yaml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"image": "postgres", **POSTGRES, "vm": {"warm": "auto"}}, file)
        instance = self.stack.enter_context(vmctl.up(path, mode=mode, name=f"pristine-{os.urandom(3).hex()}"))
        Postgres(instance).run(*self.rows)
        return instance

    def clone(self, mode):
        """A clone per test, as with the plugin."""
        instance = self.start(mode)
        if mode != "vm":
            instance.stop()
        snapshot = self.stack.enter_context(instance.snapshot())

        def test():
            with snapshot.clone() as clone:
                assert Postgres(clone).run(*TRANSFER) == self.expected

        return test

    def databases(self):
        """One server; per test a new database, or a copy of a template database."""
        server = Postgres(self.start("container"))
        server.run("CREATE DATABASE golden")
        server.run(*self.rows, database="golden")

        def new():
            server.run("CREATE DATABASE test")
            server.run(*self.rows, database="test")
            transfer()

        def copy():
            server.run("CREATE DATABASE test TEMPLATE golden")
            transfer()

        def transfer():
            assert server.run(*TRANSFER, database="test") == self.expected
            server.run("DROP DATABASE test")

        return new, copy

    def docker(self):
        """A container of docker per test, of an image with the same layers."""
        golden = self.start("container")
        golden.stop()
        archive, name = os.path.join(self.folder, "golden.tar"), f"pristine-{os.getpid()}"
        with removed_image(name):
            subprocess.run([*VMCTL, "commit", golden.name, name], check=True, stdout=subprocess.DEVNULL)
            subprocess.run([*VMCTL, "image", "export", name, "--format", "docker", "-o", archive], check=True)
        subprocess.run(["docker", "load", "-i", archive], check=True, stdout=subprocess.DEVNULL)
        os.unlink(archive)
        self.stack.callback(subprocess.run, ["docker", "rmi", "-f", name], stdout=subprocess.DEVNULL)

        def test():
            run = ["docker", "run", "-d", "--network", "none", "--memory", "512m", name]
            container = subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
            try:
                wait_for_log(container)
                command = ["docker", "exec", "-u", "postgres", container, *psql(TRANSFER)]
                assert (
                    subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == self.expected
                )
            finally:
                subprocess.run(["docker", "rm", "-f", "-v", container], check=True, stdout=subprocess.DEVNULL)

        return test


VMCTL = [sys.executable, "-m", "vmctl"]


@contextmanager
def removed_image(name):
    try:
        yield
    finally:
        subprocess.run([*VMCTL, "image", "rm", name], stdout=subprocess.DEVNULL)


def wait_for_log(container):
    with subprocess.Popen(
        ["docker", "logs", "-f", container], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as log:
        for line in log.stdout:
            if "ready to accept connections" in line:
                break
        log.kill()


def has_docker():
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="tests of each way (default: 100)")
    parser.add_argument("--vm-rounds", type=int, default=0, help="tests with clones of a guest (default: 0)")
    parser.add_argument("--accounts", type=int, default=ACCOUNTS, help=f"rows of the database (default: {ACCOUNTS})")
    args = parser.parse_args()
    with ExitStack() as stack:
        ways = Ways(stack, stack.enter_context(tempfile.TemporaryDirectory()), args.accounts)
        new, copy = ways.databases()
        tests = {"a clone of a container": ways.clone("container")}
        if args.vm_rounds:
            tests["a clone of a guest"] = ways.clone("vm")
        tests |= {"create and drop a database": new, "a template database": copy}
        if has_docker():
            tests["`docker run`"] = ways.docker()
        taken_s = {name: [] for name in tests}
        for number in range(args.rounds):
            for name, test in tests.items():
                if name == "a clone of a guest" and number >= args.vm_rounds:
                    continue
                begun_s = time.monotonic()
                test()
                taken_s[name].append(time.monotonic() - begun_s)
    show(taken_s)


def show(taken_s):
    print("| each test has | n | median | 10 % to 90 % | 1,000 tests, one after the other |")
    print("|---|---|---|---|---|")
    for name, values in taken_s.items():
        median = statistics.median(values)
        tenths = statistics.quantiles(values, n=10) if len(values) > 1 else values
        cells = (name, len(values), f"{median * 1000:.0f} ms", f"{tenths[0] * 1000:.0f} to {tenths[-1] * 1000:.0f} ms")
        print("|", " | ".join(map(str, (*cells, f"{median * 1000:.0f} s"))), "|")


if __name__ == "__main__":
    main()
