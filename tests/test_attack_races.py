"""A local attacker owns the folder that root reads, and exchanges a folder in it with a link while root reads it."""

import subprocess

import pytest
from support.attack_table import callers
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
