"""The phrase check of `make lint`: what it finds in each kind of file, and what it leaves alone."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[1] / ".ci" / "phrases.py"


@pytest.fixture
def check(tmp_path):
    """Return a function that writes a file into a new repository and returns what the check reports of it."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)

    def report(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        done = subprocess.run([sys.executable, CHECK, name], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == bool(done.stdout), done.stderr
        return done.stdout.splitlines()

    return report


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.py", 'def f():\n    """Return it, None where it is not known."""\n', "a.py:2: 'None where'"),
        (
            "a.py",
            'def f():\n    """Return it.\n\n    Raises OSError\n    where it fails.\n    """\n',
            "a.py:4: 'OSError where'",
        ),
        ("a.py", "x = 1  # what the file says\n", "a.py:1: 'says'"),
        ("a.py", "x = 1\n\n# a line, and what\n# stands below\n", "a.py:4: 'stands'"),
        ("a.py", 'raise OSError(f"{path} is no archive")\n', "a.py:1: 'is no archive'"),
        ("a.py", 'parser.add_argument("--network", help="of RUN steps")\n', "a.py:1: 'of'"),
        ("tests/test_a.py", '"""What it says."""\n', "tests/test_a.py:1: 'says'"),
        ("a.md", "# Title\n\n```\nsay it\n```\n\nWhere it is full, it\nfails, lest it breaks.\n", "a.md:8: 'lest'"),
        ("a.md", "One kernel, whatever the mode.\n", "a.md:1: 'whatever'"),
        ("a.yaml", "a: 1\n# a folder of its\n# own\n", "a.yaml:2: 'of its own'"),
        ("run", "#!/bin/sh\necho said  # it tells\n", "run:2: 'tells'"),
        ("a.c", "/* Empty\n * where it is full */\n", "a.c:1: 'Empty where'"),
        ("a.c", "int a;\n/* there is\n * none */ int b; // beside a\n", "a.c:3: 'beside'"),
        ("a.j2", "<p class='stands'>{{ said }}</p>\n<p>It stands.</p>\n", "a.j2:2: 'stands'"),
    ],
)
def test_phrases(check, name, text, found):
    assert found in [line.rpartition(": ")[0] for line in check(name, text)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", '"""Where the files are: a folder where we write is `said`."""\n'),
        ("a.py", 'where = told["said"]  # the place where it is\n'),
        ("a.py", "# there is\n# no longer a stand-in; RFC 9112 says so; it is no longer there\n"),
        ("a.py", 'parser.add_argument("--network", help="network of RUN steps")\n'),
        ("tests/test_a.py", 'run("say what stands beside it")\n'),
        ("a.md", "Inline `what it says` and\n\n    ```\n    $ it says\n    ```\n"),
        ("a.c", 'char *a = "it says";\n'),
        ("run", "#!/bin/sh\nsay it\n"),
        ("a.txt", "it says\n"),
    ],
)
def test_no_phrases(check, name, text):
    assert check(name, text) == []
