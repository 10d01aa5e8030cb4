"""Root reads a folder in which somebody else exchanges folders and links meanwhile: a local user, or a workload."""

import subprocess

import pytest
from support.attack_table import callers, modes
from support.attacks import Cell
from support.commands import VMCTL
from support.exchange import exchanged_when_opened

pytestmark = pytest.mark.timeout(600)
FILES, DELAYS_S = 300, (0.0, 0.001, 0.005, 0.02) * 2


@pytest.fixture
def folder(tmp_path, canary):
    """A folder with the folder `data`, and with `link` to a folder of root that has files of the same names."""
    mine, secret = tmp_path / "context" / "data", tmp_path / "secrets"
    for folder, content in ((mine, "harmless"), (secret, canary.secret)):
        folder.mkdir(parents=True)
        for number in range(FILES):
            (folder / str(number)).write_text(content)
    secret.chmod(0o700)
    (tmp_path / "context" / "link").symlink_to(secret)
    return tmp_path / "context"


def made_while_exchanged(folder, caller, *words):
    """Run the command several times while `data` and `link` are exchanged; yield after each success."""
    for delay_s in DELAYS_S:
        with exchanged_when_opened(folder / "data", folder / "link", delay_s):
            result = caller.vmctl(*words)
        if result.code == 0:
            yield
    caller.vmctl("image", "rm", "-f", "race")


def content(name, tmp_path):
    """Return the bytes of an image."""
    archive = tmp_path / "out.tar"
    subprocess.run([VMCTL, "image", "export", name, "-o", archive], check=True, capture_output=True)
    found = archive.read_bytes()
    archive.unlink()
    return found


@pytest.mark.attack("exchanges a folder of the build context with a link to root's files while COPY reads it")
@callers("root")
def test_copy(guest_root, caller, folder, canary, tmp_path):
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY data /data\n")
    for _ in made_while_exchanged(folder, caller, "image", "build", "-q", "-t", "race", str(folder)):
        assert canary.secret.encode() not in content("race", tmp_path)


@pytest.mark.attack("exchanges a folder with a link to root's files while `image import` reads the folder above")
@callers("root")
def test_import_of_a_folder(guest_root, caller, folder, canary, tmp_path):
    for _ in made_while_exchanged(folder, caller, "image", "import", str(folder), "--name", "race"):
        assert canary.secret.encode() not in content("race", tmp_path)


EXCHANGER = r"""
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <unistd.h>
    int main(int argc, char **argv) {
        for (int i = 0; i < 6000; i++) {
            if (renameat2(AT_FDCWD, "/srv/d", AT_FDCWD, "/srv/l", RENAME_EXCHANGE)) { perror("renameat2"); return 1; }
            usleep(rand() % 8000);
        }
    }"""


@pytest.mark.attack(
    "exchanges a folder with a link to root's files, from inside, while `commit` or `diff` reads the changes"
)
@modes("container")
@callers("root")
def test_commit(guest_root, caller, mode, folder, canary, tmp_path):
    cell = Cell(caller, mode)
    program = cell.compiled(EXCHANGER)
    fill = f"mkdir /srv/d; for i in $(seq 0 {FILES - 1}); do echo harmless > /srv/d/$i; done"
    assert (
        cell.shell(f"{fill}; ln -s {tmp_path / 'secrets'} /srv/l; {program} > /dev/null 2>&1 < /dev/null &").code == 0
    )
    for _ in range(8):
        caller.vmctl("diff", cell.name)
        if caller.vmctl("commit", "--no-pause", cell.name, "race").code == 0:
            assert canary.secret.encode() not in content("race", tmp_path)
    cell.end()
    caller.vmctl("image", "rm", "-f", "race")
