"""Parsing of Dockerfiles: correct and wrong instructions. For the resulting images see test_build_oracle."""

import pytest

from images.recipes import dockerfile, settings
from images.recipes.expand import expand
from images.recipes.lines import parse, words
from images.recipes.steps import (
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Inline,
    Label,
    Run,
    Shell,
    Stored,
    Volume,
)
from images.recipes.variables import Variables
from vmctl.errors import SpecError


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "Dockerfile"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return dockerfile.load(str(path))

    return load


def actions(plan, stage=0):
    return [step.action for step in plan.stages[stage].steps]


def test_comments_continuations_and_empty_lines(load):
    plan = load(
        "# syntax=docker/dockerfile:1\n# escape=\\\n\n  # a comment\nFROM tiny\n"
        "run echo a \\\n   # in between\n\n   b \\ \n&& c\\\\\nEnv A=b\n"
    )
    assert actions(plan) == [Run("echo a    b && c\\\\"), Env((("A", "b"),))]
    assert [step.where.rpartition(":")[2] for step in plan.stages[0].steps] == ["6", "11"]
    assert plan.stages[0].steps[0].text == "RUN echo a b && c\\\\"


def test_another_escape_character(load):
    plan = load("#escape = `\nFROM tiny\nRUN dir c:\\ `\n  d:\\\nENV A=`$B\n")
    assert actions(plan) == [Run("dir c:\\   d:\\"), Env((("A", "`$B"),))]
    assert plan.escape == "`"


def test_line_ends_of_windows_and_a_byte_order_mark(load):
    assert actions(load(b"\xef\xbb\xbfFROM tiny\r\nRUN a \\\r\n b\r\n")) == [Run("a  b")]


def test_here_documents(load):
    plan = load(
        "FROM tiny\nRUN <<EOF\necho $X\n# no comment\nEOF\nRUN cat <<A - <<-'B'\n1\nA\n\t2\n\tB\n"
        'RUN <<EOF\n#!/usr/bin/python3 -u\nprint()\nEOF\nCOPY a <<one <<"two" /to/\nfirst $X\none\nsecond $X\ntwo\n'
    )
    script, piped, python, copy = actions(plan)
    assert script == Run("echo $X\n# no comment\n")
    assert piped == Run("cat <<A - <<-'B'\n1\nA\n2\nB\n")
    assert python.command.startswith("cat >/dev/shm/EOF <<'EOF' && exec /usr/bin/python3 -u /dev/shm/EOF\n#!")
    assert copy == Copy(
        ("a",), "/to/", inline=(Inline("one", "first $X\n"), Inline("two", "second $X\n", expand=False))
    )


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ('RUN ["a", "b c"]', Run(("a", "b c"))),
        ("RUN ['a']", Run("['a']")),  # no JSON: a line for the shell
        ("RUN --network=none  echo", Run("echo", "none")),
        ('CMD ["a"]', Cmd(("a",))),
        ("CMD a b", Cmd("a b")),
        ("CMD", Cmd(())),
        ("ENTRYPOINT []", Entrypoint(())),
        ("ENV A b  c", Env((("A", "b  c"),))),
        ('ENV A="b c" D=e\\ f', Env((("A", '"b c"'), ("D", "e\\ f")))),
        ("LABEL \"a b\"='c' d=$E", Label((('"a b"', "'c'"), ("d", "$E")))),
        ("ARG A B=c", Arg((("A", None), ("B", "c")))),
        ("COPY a b/ c", Copy(("a", "b/"), "c")),
        ('COPY ["a b", "c"]', Copy(("a b",), "c")),
        ("COPY --from=x --chown=1:2 --chmod=0755 --link a b", Copy(("a",), "b", "x", "1:2", "0755")),
        ("ADD a b", Copy(("a",), "b", extract=True)),
        ("EXPOSE 80 53/udp", Expose(("80", "53/udp"))),
        ("VOLUME /a /b", Volume(("/a", "/b"))),
        ('VOLUME ["/a b"]', Volume(("/a b",))),
        ('SHELL ["/bin/ash", "-c"]', Shell(("/bin/ash", "-c"))),
        ("ONBUILD RUN x", Stored("OnBuild", "RUN x")),
        ("MAINTAINER some one", Stored("Maintainer", "some one")),
        ("HEALTHCHECK NONE", Stored("Healthcheck", {"Test": ["NONE"]})),
        (
            'HEALTHCHECK --interval=1m --timeout=5s --retries=3 CMD ["x"]',
            Stored("Healthcheck", {"Test": ["CMD", "x"], "Interval": 60 * 10**9, "Timeout": 5 * 10**9, "Retries": 3}),
        ),
    ],
)
def test_instructions(load, line, action):
    assert actions(load(f"FROM tiny\n{line}\n")) == [action]


def test_stages(load):
    plan = load("ARG V=1\nFROM tiny:$V AS One\nRUN a\nFROM one\nFROM --platform=linux/amd64 scratch as two\n")
    assert [(stage.name, stage.base) for stage in plan.stages] == [("one", "tiny:$V"), ("", "one"), ("two", "scratch")]
    assert plan.arguments == {"V": "1"}
    assert "--platform has no effect" in plan.warnings[0]
    assert load("FROM --platform=$BUILDPLATFORM tiny\nFROM --platform=${TARGETPLATFORM} tiny\n").warnings == ()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "no FROM", "FROM tiny"),
        ("RUN a\nFROM tiny", ":1: RUN before the first FROM", "only ARG may come before FROM"),
        ("FROM tiny\nCOPPY a b", ":2: there is no instruction COPPY", "did you mean COPY?"),
        ("FROM tiny\n\nQWERTY", ":3: there is no instruction QWERTY", "known: RUN, COPY"),
        ("FROM", ":1: FROM: expected IMAGE", ""),
        ("FROM a b", ":1: FROM: expected IMAGE or IMAGE AS NAME", ""),
        ("FROM a AS 1a", ":1: FROM: 1a cannot be the name of a stage", ""),
        ("FROM a AS b\nFROM a AS B", ":2: FROM: there are two stages b", ""),
        ("FROM tiny\nRUN", ":2: RUN: nothing follows", ""),
        ("FROM tiny\nRUN --mount=type=ssh a", ":2: RUN: --mount=type=ssh is not supported", ""),
        ("FROM tiny\nRUN --network=lan a", ":2: RUN: --network: expected default, none or host, got lan", ""),
        ("FROM tiny\nCOPY a", ":2: COPY: expected at least one source and a target", ""),
        ("FROM tiny\nCOPY --chmod=rwx a b", ":2: COPY: --chmod: expected a mode such as", ""),
        ("FROM tiny\nCOPY --from=a --from=b a b", ":2: COPY: the flag --from is given twice", ""),
        ("FROM tiny\nADD git@example.org:x /", ":2: ADD: ADD of a git repository is not supported", ""),
        ("FROM tiny\nADD --checksum=sha256:a https://x.test/x /", ":2: ADD: --checksum: expected sha256:", ""),
        ("FROM tiny\nCOPY ['one', '/x']", ":2: COPY: a list needs double quotes", ""),
        ("FROM tiny\nCOPY --from=$S /x /", ":2: COPY: --from has no variables: give the image a name", ""),
        ("FROM --platform=linux/s390x tiny", ":1: FROM: --platform: images are built for linux/", ""),
        ("FROM --platform=s390x tiny", ":1: FROM: --platform: images are built for linux/", ""),
        ('FROM tiny\nCOPY <<A <<" <<B" /d/\nA\n', ":2: COPY: the name of a here-document must be one word", ""),
        ("FROM tiny\nCOPY a <<E\nx\nE\n", ":2: COPY: the name of a here-document must be one word, and a source", ""),
        ("FROM tiny\nENV A", ":2: ENV: expected NAME=VALUE, got A", ""),
        ("FROM tiny\nENV A=b C", ":2: ENV: expected NAME=VALUE, got C", ""),
        ("FROM tiny\nARG a-b", ":2: ARG: 'a-b' cannot be the name of a variable", ""),
        ("FROM tiny\nARG A=1 # text", ":2: ARG: '#' cannot be the name", "# begins a comment only at the beginning"),
        ("FROM tiny\nUSER a b", ":2: USER: expected USER or USER:GROUP, got a b", ""),
        ("FROM tiny\nSHELL sh", ":2: SHELL: expected a list", ""),
        ("FROM tiny\nHEALTHCHECK curl x", ":2: HEALTHCHECK: expected CMD and a command, or NONE", ""),
        ("FROM tiny\nHEALTHCHECK --interval=soon CMD x", ":2: HEALTHCHECK: --interval: expected a duration", ""),
        ("FROM tiny\nONBUILD ONBUILD RUN a", ":2: ONBUILD: ONBUILD cannot be in ONBUILD", ""),
        ("FROM tiny\nRUN <<EOF\na\n", ":2: the text that ends with a line EOF never ends", ""),
        ("# escape=x\nFROM tiny", ":1: escape: expected", ""),
        (b"FROM tiny\nRUN \xff", ":2: not UTF-8", "Dockerfile"),
        (b"FROM tiny\n\0", ":2: a NUL character", ""),
        (b"#" * (1 << 21), "larger than 1.0 MiB", ""),
    ],
    ids=lambda value: str(value)[:40],
)
def test_mistakes_are_named_with_file_and_line(load, tmp_path, text, message, hint):
    with pytest.raises(SpecError) as caught:
        load(text)
    assert f"{tmp_path}/Dockerfile" in str(caught.value)
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        dockerfile.load(str(tmp_path / "nowhere"))


VARIABLES = {"A": "x y", "EMPTY": "", "N": "1"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A", "x y"),
        ("${A}b$N", "x yb1"),
        ("$Ab", ""),
        ("a$", "a$"),
        ("$$", ""),  # a name of the shell's, which has no value here
        ("'$A'", "$A"),
        ('"$A"', "x y"),
        ('"\\$A \\" \\n"', '$A " \\n'),
        ("\\$A", "$A"),
        ("a\\ b", "a b"),
        ("${NO:-d}${NO-e}", "de"),
        ("${EMPTY:-d}${EMPTY-e}", "d"),
        ("${A:+d}${EMPTY:+e}${EMPTY+f}", "df"),
        ("${NO:-${N}'$A'}", "1$A"),
        ("${N:?no}", "1"),
    ],
)
def test_variables_as_docker_has_them(text, value):
    assert expand(text, VARIABLES.get) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'a", "a quote is not closed"),
        ('"a$A', "a quote is not closed"),
        ("${A", "expected }"),
        ("${A:-b", "} is missing"),
        ("${A#b}", "expected }"),
        ("${}", "not followed by a name"),
        ("${NO:?is needed}", "NO: is needed"),
        ("${NO:-" * 5000, "more than 32 variables are in each other"),
    ],
)
def test_variables_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        expand(text, VARIABLES.get)


def test_words_keep_what_is_in_quotes_together():
    assert words('a \'b c\'  "d\\" e"f g\\ h') == ["a", "'b c'", '"d\\" e"f', "g\\ h"]


def test_one_instruction_changes_the_settings_of_an_image():
    before = {"Env": ["PATH=/bin"], "WorkingDir": "/a", "Labels": {"x": "1"}}
    assert settings.change(before, 'ENV PATH=$PATH:/x B="c d"')["Env"] == ["PATH=/bin:/x", "B=c d"]
    assert settings.change(before, "WORKDIR b")["WorkingDir"] == "/a/b"
    assert settings.change(before, "LABEL y=2")["Labels"] == {"x": "1", "y": "2"}
    assert settings.change(before, "CMD echo hi")["Cmd"] == ["/bin/sh", "-c", "echo hi"]
    assert settings.change(before, "EXPOSE 8000-8001/udp")["ExposedPorts"] == {"8000/udp": {}, "8001/udp": {}}
    assert before == {"Env": ["PATH=/bin"], "WorkingDir": "/a", "Labels": {"x": "1"}}
    for text, message in (
        ("RUN a", "does not change a configuration"),
        ("EXPOSE x", "expected a port"),
        ("CMD a\nCMD b", "does not change a configuration"),
    ):
        with pytest.raises(SpecError, match=message):
            settings.change(before, text)


def test_parse_says_where_a_text_came_from():
    with pytest.raises(SpecError, match=r"^there:1: the text"):
        parse("RUN <<X\n", "there")


def test_add_from_the_network_by_a_variable():
    """Such a source is known only when the variable has a value."""
    variables = Variables("\\", quotes=True)
    for text, message in (("ftp://x.test", "ADD takes files by http and https"), ("git@x.test:", "git repository")):
        with pytest.raises(ValueError, match=message):
            variables.action(Copy(("$U/x",), "/x", extract=True), {"U": text}.get)
