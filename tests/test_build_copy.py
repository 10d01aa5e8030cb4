"""COPY and ADD: symbolic modes, --parents, --exclude and --unpack."""

import os
import stat
import subprocess
import tarfile

import pytest
from support.commands import ok, vmctl

from images.layer import lookup
from images.recipes.modes import Mode
from images.store import store

pytestmark = pytest.mark.usefixtures("own_store")

MODES = (
    "+x +w -w =r a+rx u=rwX,go=rX g=u o=g,g-w u+s g+s,u-x +t o+t =rwxst ug=rwxs a= u=,g=r,o=x +X a-x+X "
    "go-rwx,u+rw-x 0644 755"
)


@pytest.mark.parametrize("mode", MODES.split())
def test_modes_are_those_of_chmod(mode, tmp_path):
    begin = [0o640, 0o755, 0o400, 0o6711, 0o000]
    for at, old in enumerate(begin):
        (tmp_path / f"f{at}").touch()
        (tmp_path / f"d{at}").mkdir()
        os.chmod(tmp_path / f"f{at}", old)
        os.chmod(tmp_path / f"d{at}", old | 0o700)
    before = {name: os.lstat(tmp_path / name).st_mode for name in os.listdir(tmp_path)}
    # `-w` with a umask is an error of chmod(1) if it leaves a bit of others, after it has changed the mode
    subprocess.run(["sh", "-c", f"umask 022; chmod -- {mode} *"], cwd=tmp_path, capture_output=True, check=False)
    for name, old in before.items():
        if mode[0].isdigit() and name.startswith("d"):
            continue  # chmod(1) keeps the set-user-ID bit of a folder; COPY sets the mode that it was given
        expected = os.lstat(tmp_path / name).st_mode
        assert oct(Mode(mode)(old)) == oct(expected), (name, oct(old))


@pytest.mark.parametrize(
    "mode", ["rwx", "+", "u", "8", "a+rx,", "+q", "ug", "77777", "u=rwx go=rx", "+x" * 200, "07 55"]
)
def test_wrong_modes(mode):
    if mode == "+":  # as chmod(1): it changes nothing
        assert Mode(mode)(0o100644) == 0o100644
        return
    with pytest.raises(ValueError, match="expected a mode such as 0644"):
        Mode(mode)


@pytest.fixture
def context(tmp_path):
    """A context with files, and a function that builds an image of a Dockerfile's text."""
    folder = tmp_path / "context"
    for name in ("x/a.txt", "x/y/b.txt", "x/y/c.md", "x/y/z/d.txt", "home.txt", "home.py", "node/deep/node/e.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    os.chmod(folder / "x/y", 0o750)
    os.chmod(folder / "home.py", 0o744)

    def build(text, run=ok):
        (tmp_path / "Dockerfile").write_text("FROM scratch\n" + text)
        return run("image", "build", "-t", "built", "-f", str(tmp_path / "Dockerfile"), str(folder))

    build.folder = folder
    return build


def tree(of):
    """Return the paths of the image's files below a folder."""
    found = []
    with lookup.View(store.find("built").layers) as view:
        waiting = [of]
        while waiting:
            path = waiting.pop()
            for name in map(os.fsdecode, view.names(path)):
                node = view.find(f"{path}/{name}", follow=False)
                (waiting if stat.S_ISDIR(node.attributes.mode) else found).append(f"{path}/{name}")
    return sorted(path.removeprefix(f"{of}/") for path in found)


def mode_of(path):
    with lookup.View(store.find("built").layers) as view:
        return oct(stat.S_IMODE(view.find(path, follow=False).attributes.mode))


def test_parents(context):
    context(
        "COPY ./x/a.txt home.py /none/\n"
        "COPY --parents ./x/a.txt ./x/y/b.txt /all/\n"
        "COPY --parents ./x/./y/*.txt /pivot\n"
        "COPY --parents ./x/**/*.txt /deep/\n"
        "COPY --parents **/y /folders/\n"
        "COPY --parents x/y/../a.txt /dots/\n"
        "COPY --parents=false x/a.txt /off/\n"
        "COPY --parents . /whole/\n"
    )
    assert tree("/none") == ["a.txt", "home.py"]
    assert tree("/all") == ["x/a.txt", "x/y/b.txt"]
    assert tree("/pivot") == ["y/b.txt"]
    assert tree("/deep") == ["x/a.txt", "x/y/b.txt", "x/y/z/d.txt"]
    assert tree("/folders") == ["x/y/b.txt", "x/y/c.md", "x/y/z/d.txt"]
    assert tree("/dots") == ["x/a.txt"]
    assert tree("/off") == ["a.txt"]
    assert "node/deep/node/e.txt" in tree("/whole")
    assert [mode_of(path) for path in ("/all/x/y", "/pivot/y", "/folders/x/y")] == ["0o750"] * 3


def test_exclude(context):
    context(
        "ARG WHAT=*.txt\n"
        "COPY --exclude=$WHAT hom* /files/\n"
        "COPY --exclude=*.txt x /one/\n"
        "COPY --exclude=**/*.txt --exclude=*.py . /deep/\n"
        "COPY --exclude=y --exclude=!y/z x /kept/\n"
        "COPY --parents --exclude=x/y/*.txt x home.py /parents/\n"
        "ADD --exclude=node/deep . /add/\n"
        "COPY --chmod=u=rwX,go=rX --parents x home.py /modes/\n"
    )
    assert tree("/files") == ["home.py"]
    assert tree("/one") == ["y/b.txt", "y/c.md", "y/z/d.txt"]
    assert tree("/deep") == ["x/y/c.md"]
    assert tree("/kept") == ["a.txt", "y/z/d.txt"]
    assert tree("/parents") == ["home.py", "x/a.txt", "x/y/c.md", "x/y/z/d.txt"]
    assert tree("/add") == ["home.py", "home.txt", "x/a.txt", "x/y/b.txt", "x/y/c.md", "x/y/z/d.txt"]
    assert [mode_of(f"/modes/{path}") for path in ("x/y", "x/a.txt", "home.py")] == ["0o755", "0o644", "0o755"]


def test_unpack(context):
    with tarfile.open(context.folder / "a.tar.gz", "w:gz") as tar:
        tar.add(context.folder / "home.py", "inside/home.py")
    context("ADD a.tar.gz /unpacked/\nADD --unpack=false a.tar.gz /packed/\nADD --unpack a.tar.gz /also/\n")
    assert (tree("/unpacked"), tree("/packed"), tree("/also")) == (["inside/home.py"], ["a.tar.gz"], ["inside/home.py"])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("COPY --parents ../outside /d/", "leads out of the context"),
        ("COPY --parents x/./../home.py /d/", "leads out of x"),
        ("COPY --parents x/./y/../../home.py /d/", "leads out of x"),
        ("COPY --parents x/../../outside /d/", "leads out of the context"),
        ("COPY --parents out/secret /d/", "leads out of the context"),
        ("COPY --parents **/secret /d/", "nothing in the context"),
        ("COPY --parents round/round/round/none /d/", "nothing in the context"),
        ("COPY --parents x home.py /d", "/d must end with /"),
        ("COPY --parents=perhaps x /d/", "--parents: expected true or false"),
        ("COPY --exclude=[a x /d/", "is not a valid pattern"),
        ("COPY --chmod=rwx x /d/", "--chmod: expected a mode such as 0644"),
        ("ARG M=+q\nCOPY --chmod=$M x /d/", "--chmod: expected a mode such as 0644"),
        ("ADD --parents x /d/", "--parents is not supported; supported: --chown, --chmod, --link, --exclude"),
    ],
)
def test_hostile_and_wrong(context, tmp_path, line, reason):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("of the host")
    (context.folder / "out").symlink_to("../outside")
    (context.folder / "round").symlink_to(".")
    done = context(line + "\n", run=vmctl)
    assert (done.code, reason in done.err) == (125, True), done.err


def test_parents_on_links_of_the_image(context, tmp_path):
    """A folder that is kept can be a link in the image: it is followed inside of the image."""
    (context.folder / "tree").mkdir()
    (context.folder / "tree/x").symlink_to(f"../../../../..{tmp_path}/host")
    (tmp_path / "host").mkdir()
    context("COPY tree /t/\nCOPY --parents x/a.txt /t/\n")
    assert tree(f"{tmp_path}/host") == ["a.txt"]
    assert os.listdir(tmp_path / "host") == []
