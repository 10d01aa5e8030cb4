"""Stack files are read into one tree: YAML, variables, files of variables, overrides, extends, include, profiles."""

import os

import pytest
from support.stacks import loaded, service

from vmctl.errors import SpecError
from vmctl.stacks import dotenv, graph, reading, variables, yamltree
from vmctl.stacks.item import Origin
from vmctl.stacks.stack import Source


def wrong(text, *more, folder, **options):
    with pytest.raises(SpecError) as caught:
        loaded(folder, text, *more, **options)
    return caught.value


# YAML


def test_scalars_keep_their_texts(tmp_path):
    tree = yamltree.parse(b"a: 0440\nb: 22:22\nc: 1.10\nd: no\ne: ~\nf: '~'\ng: 5432", Origin("x", "/"))
    assert {key: item.value for key, item in tree.value.items()} == {
        "a": "0440", "b": "22:22", "c": "1.10", "d": "no", "e": None, "f": "~", "g": "5432",
    }  # fmt: skip
    assert tree.plain() == {"a": 440, "b": "22:22", "c": 1.1, "d": "no", "e": None, "f": "~", "g": 5432}


def test_anchors_and_merge_keys(tmp_path):
    text = """
x-a: &a {image: tiny, labels: {kind: a}, user: "1"}
x-b: &b {image: other, hostname: b}
services:
  one: {<<: *a, user: "2"}
  two: {<<: [*a, *b]}
  three: {<<: *b, <<: *a}
  four: *a
"""
    found = loaded(tmp_path, text).services
    assert [found[name].work.image for name in found] == ["tiny", "tiny", "other", "tiny"]
    assert [found[name].work.user for name in found] == ["2", "1", "1", "1"]
    assert found["two"].work.hostname == "b"
    assert found["one"].work.labels["kind"] == "a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("services:\n  web:\n    image: tiny\n    image: tiny\n", "shop.yaml:4: the key image is given twice"),
        ("services: {web: {<<: [1]}}\n", "`<<` takes a mapping"),
        ("services: &a {web: *a}\n", "an alias to a value that contains it"),
        ("services: {web: !wild x}\n", "the tag !wild is unknown"),
        ("services: {web: {image: [}}\n", "is not YAML: line 1"),
        ("- a\n", "does not contain a mapping"),
        ("services: {web: {? [a] : b}}\n", "a key has to be a text"),
        ("services: " + "[" * 60 + "]" * 60, "nested more than 50 levels"),
        ("services: {}\n", "has no services"),
        ("services:\n  web:\n", "service web: the service has no keys"),
        ("services: []\n", "services: expected a mapping, got a list"),
        ("services: {web: {image: tiny}}\nservice: 1\n", "service: the key is unknown"),
    ],
)
def test_what_is_not_a_stack(tmp_path, text, expected):
    error = wrong(text, folder=tmp_path)
    assert expected in str(error)
    assert str(error).startswith(f"{tmp_path}/shop.yaml")


def test_aliases_do_not_expand_without_end(tmp_path):
    bombs = ["a0: &a0 {k: x}\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))]
    bombs.append(
        "a: &a {" + ",".join(f"k{n}: x" for n in range(5000)) + "}\n" + "b: [" + ",".join(["{<<: *a}"] * 5000) + "]"
    )
    for bomb in bombs:
        assert "more than" in str(wrong(bomb, folder=tmp_path))


def test_what_a_file_is():
    assert yamltree.is_stack(b"services: {}")
    assert yamltree.is_stack(b"include: [a]\n")
    assert not yamltree.is_stack(b"image: tiny\n")
    assert not yamltree.is_stack(b"[services]")
    assert not yamltree.is_stack(b"services: [")


# variables

VALUES = {"A": "a", "EMPTY": "", "DOLLAR": "$A"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A-${A}", "a-a"),
        ("${A:-x}${B:-x}${EMPTY:-x}", "axx"),
        ("${A-x}${B-x}${EMPTY-x}", "ax"),
        ("${A:+x}${B:+x}${EMPTY:+x}", "x"),
        ("${A+x}${B+x}${EMPTY+x}", "xx"),
        ("${A:?e}${EMPTY?e}", "a"),
        ("$$A $$$$ $${A}", "$A $$ ${A}"),
        ("${B:-${C:-${A}}}", "a"),
        ("${B:-a}b}", "ab}"),
        ("${B:-$$5}", "$5"),
        ("${B:-}", ""),
        ("$DOLLAR", "$A"),
        ("${B:-x:-y}", "x:-y"),
        ("a b", "a b"),
    ],
)
def test_variables(text, expected):
    assert variables.expand(text, VALUES, lambda name: None) == expected


def test_variables_without_a_value_are_reported():
    unset = []
    assert variables.expand("$B ${C} ${D:-x} ${A:+$E}", VALUES, unset.append) == "  x "
    assert unset == ["B", "C", "E"]


@pytest.mark.parametrize(
    "text", ["$", "$5", "a $ b", "${", "${A", "${}", "${5}", "${A!}", "${A:x}", "${ A}", "${A:-${B}"]
)
def test_wrong_forms_of_variables(text):
    with pytest.raises(variables.FormError):
        variables.expand(text, VALUES, lambda name: None)


def test_required_variables(tmp_path):
    text = "services:\n  web:\n    image: tiny\n    environment:\n      T: ${TOKEN:?give a token}\n"
    error = wrong(text, folder=tmp_path)
    assert str(error).endswith(
        "shop.yaml:5: service web: environment.T: the variable TOKEN is empty or not set: give a token"
    )
    assert loaded(tmp_path, text, environ={"TOKEN": "x"}).services["web"].work.env == {"T": "x"}


def test_a_dollar_that_begins_no_variable_is_explained(tmp_path):
    error = wrong("services: {web: {image: tiny, command: echo $5}}", folder=tmp_path)
    assert "'$5' has not the form $NAME" in str(error)
    assert error.hint == "$$ is a dollar sign"


def test_keys_have_no_variables_and_values_get_no_second_round(tmp_path):
    found = service(tmp_path, "image: tiny\nenvironment: {A: $X}\nlabels: {$X: b}", environ={"X": "${Y}"})
    assert found.work.env == {"A": "${Y}"}
    assert found.work.labels["$X"] == "b"


def test_an_unset_variable_is_warned_about_once(tmp_path):
    stack = loaded(tmp_path, "services: {web: {image: tiny, environment: {A: $X}}, db: {image: tiny}}")
    assert [text.partition(": ")[2] for text in stack.warnings] == [
        "service web: environment.A: the variable X is not set: it becomes an empty text"
    ]


# files of variables

ENV = r"""
# a comment
COLOUR=blue
QUOTED="two words"
SINGLE='$NOT filled in'
EMPTY=
export SHOWN=yes   # a comment
  SPACE = x y
HASH=a#b
USES=${COLOUR}-$OUT-${NONE:-none}
LINES="a\nb \"c\" \$COLOUR"
MANY="one
two"
COLON: value
"""


def test_a_file_of_variables(tmp_path):
    assert dotenv.parse(ENV, "x", {"OUT": "out"}) == {
        "COLOUR": "blue", "QUOTED": "two words", "SINGLE": "$NOT filled in", "EMPTY": "", "SHOWN": "yes",
        "SPACE": "x y", "HASH": "a#b", "USES": "blue-out-none", "LINES": 'a\nb "c" $COLOUR', "MANY": "one\ntwo",
        "COLON": "value",
    }  # fmt: skip


def test_names_without_a_value_are_the_callers():
    assert dotenv.parse("A\nB\nC=1", "x", {"A": "a"}) == {"A": "a", "C": "1"}


@pytest.mark.parametrize(
    ("text", "line"),
    [("A=1\nB C\n", 2), ("=x", 1), ("A='x", 1), ('A="x', 1), ("A='x' y", 1), ("\n\n5=x", 3), ("A=${", 1)],
)
def test_wrong_files_of_variables(text, line):
    with pytest.raises(SpecError, match=rf"^x:{line}: "):
        dotenv.parse(text, "x", {})


def test_dot_env_is_behind_the_environment(tmp_path):
    (tmp_path / ".env").write_text("A=file\nB=file-$A\n")
    text = "services: {web: {image: tiny, environment: {A: $A, B: $B, C: '${C:-c}'}}}"
    assert loaded(tmp_path, text, environ={"A": "env"}).services["web"].work.env == {
        "A": "env",
        "B": "file-env",
        "C": "c",
    }
    (tmp_path / "other").write_text("A=other\nB=b\n")
    found = loaded(tmp_path, text, env_files=[str(tmp_path / "other")])
    assert found.services["web"].work.env == {"A": "other", "B": "b", "C": "c"}


# names


@pytest.mark.parametrize(
    ("file", "text", "environ", "given", "expected"),
    [
        ("shop.yaml", "", {}, "", "shop"),
        ("Shop.Two.yaml", "", {}, "", "shoptwo"),
        ("compose.yaml", "", {}, "", "folder"),
        ("compose.yaml", "name: n", {}, "", "n"),
        ("compose.yaml", "name: ${N:-d}", {}, "", "d"),
        ("compose.yaml", "name: n", {"COMPOSE_PROJECT_NAME": "e"}, "", "e"),
        ("compose.yaml", "name: n", {"COMPOSE_PROJECT_NAME": "e"}, "g", "g"),
    ],
)
def test_names(tmp_path, file, text, environ, given, expected):
    folder = tmp_path / "Folder"
    folder.mkdir()
    (folder / file).write_text(f"{text}\nservices: {{web: {{image: tiny, environment: {{T: '${{T:?t}}'}}}}}}\n")
    source = Source((str(folder / file),), name=given, environ=environ)
    assert reading.name_of(source) == expected  # although T is not set
    assert reading.read(source._replace(environ={**environ, "T": "t"})).name == expected


@pytest.mark.parametrize("name", ["-a", "A b", "a" * 50, "ä", "a/b", ".."])
def test_wrong_names(tmp_path, name):
    assert "cannot be used for a stack" in str(wrong("services: {web: {image: tiny}}", folder=tmp_path, name=name))


def test_the_usual_files_of_a_folder(tmp_path):
    for name in ("docker-compose.yml", "compose.override.yaml"):
        (tmp_path / name).write_text("")
    assert [os.path.basename(path) for path in reading.usual_files(tmp_path)] == [
        "docker-compose.yml",
        "compose.override.yaml",
    ]
    os.unlink(tmp_path / "docker-compose.yml")
    assert reading.usual_files(tmp_path) == ()


# several files

BASE = """
services:
  web:
    image: tiny
    command: [a, b]
    environment: {A: "1", B: "2"}
    labels: [x=1]
    ports: ["8080:80"]
    depends_on: [db]
    tmpfs: [/a]
  db: {image: tiny}
"""


def test_an_override_file_is_merged(tmp_path):
    over = """
services:
  web:
    command: c
    environment: [B=3, C=4]
    labels: {y: "2"}
    ports: ["8081:81"]
    depends_on: {db: {condition: service_completed_successfully}}
    tmpfs: /b
    user:
  more: {image: tiny}
"""
    stack = loaded(tmp_path, BASE, over)
    work = stack.services["web"].work
    assert list(stack.services) == ["web", "db", "more"]
    assert work.command == ("c",)
    assert work.env == {"A": "1", "B": "3", "C": "4"}
    assert (work.labels["x"], work.labels["y"]) == ("1", "2")
    assert [port.host_port for port in work.ports] == [8080, 8081]
    assert stack.services["web"].depends["db"].condition == "completed"
    assert [one.target for one in work.tmpfs] == ["/a", "/b"]


def test_reset_and_override(tmp_path):
    over = """
services:
  web:
    environment: !reset null
    labels: {x: !reset ""}
    ports: !override ["9090:90"]
    depends_on: !reset []
    tmpfs: !override [/c]
  db: !reset {}
"""
    stack = loaded(tmp_path, BASE, over)
    work = stack.services["web"].work
    assert list(stack.services) == ["web"]
    assert work.env == {}
    assert "x" not in work.labels
    assert [port.host_port for port in work.ports] == [9090]
    assert stack.services["web"].depends == {}
    assert [one.target for one in work.tmpfs] == ["/c"]


def test_extends(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base.yaml").write_text(
        "services:\n  base: {image: '${IMAGE:-tiny}', environment: {A: '1', B: '1'}, volumes: ['./data:/data']}\n"
        "  middle: {extends: base, environment: {B: '2'}}\n"
    )
    (tmp_path / "sub" / "data").mkdir()
    text = (
        "services: {web: {extends: {file: sub/base.yaml, service: middle}, environment: {C: '3'}}, "
        "db: {extends: {service: web}, user: '5'}}"
    )
    found = loaded(tmp_path, text).services
    assert found["web"].work.env == {"A": "1", "B": "2", "C": "3"}
    assert found["web"].work.volumes[0].source == str(tmp_path / "sub" / "data")
    assert (found["db"].work.image, found["db"].work.user) == ("tiny", "5")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{a: {extends: b}, b: {extends: a}}", "the service extends itself, through a and b"),
        ("{a: {extends: c}, b: {image: tiny}}", "there is no service c in"),
        ("{a: {extends: {service: b, file: none.yaml}}}", "none.yaml cannot be read"),
        ("{a: {extends: {file: x}}}", "the key service is missing"),
        ("{a: {extends: {service: b, fiel: x}}, b: {image: tiny}}", "extends.fiel: the key is unknown"),
    ],
)
def test_wrong_extends(tmp_path, text, expected):
    assert expected in str(wrong(f"services: {text}", folder=tmp_path))


def test_include(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".env").write_text("WHO=sub\nMODE=sub\n")
    (tmp_path / "sub" / "db.yaml").write_text(
        "services: {db: {image: tiny, environment: {W: $WHO, M: $MODE}, volumes: ['./d:/d', 'data:/data']}}\n"
        "volumes: {data: }\n"
    )
    (tmp_path / "sub" / "d").mkdir()
    text = "include: [sub/db.yaml]\nservices: {web: {image: tiny, depends_on: [db]}}"
    stack = loaded(tmp_path, text, environ={"MODE": "env"})
    assert stack.services["db"].work.env == {"W": "sub", "M": "env"}
    assert stack.services["db"].work.volumes[0].source == str(tmp_path / "sub" / "d")
    assert list(stack.volumes) == ["shop_data"]
    assert "web" in stack.services


def test_wrong_includes(tmp_path):
    (tmp_path / "a.yaml").write_text("include: [b.yaml]\nservices: {a: {image: tiny}}")
    (tmp_path / "b.yaml").write_text("include: [a.yaml]\nservices: {b: {image: tiny}}")
    (tmp_path / "c.yaml").write_text("services: {web: {image: other}}")
    web = "\nservices: {web: {image: tiny}}"
    assert "includes itself" in str(wrong("include: [a.yaml]" + web, folder=tmp_path))
    assert "services: web is here, and also in" in str(wrong("include: [c.yaml]" + web, folder=tmp_path))
    assert "it includes no file" in str(wrong("include: [{env_file: x}]" + web, folder=tmp_path))


# which services

PROFILES = """
services:
  web: {image: tiny, depends_on: [db]}
  db: {image: tiny}
  tool: {image: tiny, profiles: [tools, all], depends_on: [db]}
  lost: {image: tiny, profiles: [lost], depends_on: [tool]}
"""


@pytest.mark.parametrize(
    ("profiles", "names", "expected"),
    [
        ((), (), "web db"),
        (("tools",), (), "web db tool"),
        (("*",), (), "web db tool lost"),
        ((), ("tool",), "db tool"),
        ((), ("web",), "web db"),
        ((), ("db",), "db"),
        ((), ("lost", "tool"), "db tool lost"),
    ],
)
def test_profiles(tmp_path, profiles, names, expected):
    stack = loaded(tmp_path, PROFILES, profiles=profiles)
    assert " ".join(graph.selected(stack, names)) == expected


def test_profiles_of_the_environment(tmp_path):
    stack = loaded(tmp_path, PROFILES, environ={"COMPOSE_PROFILES": "x, tools"})
    assert "tool" in graph.selected(stack)


def test_a_service_of_another_profile_is_named(tmp_path):
    stack = loaded(tmp_path, PROFILES, profiles=["lost"])
    with pytest.raises(SpecError, match=r"service lost: depends_on.*: tool is not started: it is in the profile tools"):
        graph.selected(stack)
    with pytest.raises(SpecError, match="has no service dbb"):
        graph.selected(stack, ["dbb"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{a: {image: t, depends_on: [b]}, b: {image: t, depends_on: [c]}, c: {image: t, depends_on: [b]}}",
            "b -> c -> b",
        ),
        ("{a: {image: t, depends_on: [a]}}", "a -> a"),
        ("{a: {image: t, depends_on: [bb]}, b: {image: t}}", "there is no service bb"),
        ("{a: {image: t, depends_on: {b: {condition: done}}}, b: {image: t}}", "the condition 'done' is unknown"),
    ],
)
def test_wrong_dependencies(tmp_path, text, expected):
    assert expected in str(wrong(f"services: {text}", folder=tmp_path))


def test_the_order_of_services():
    assert graph.in_order({"web": ["db", "cache"], "db": ["disk"], "cache": [], "disk": []}) == [
        "cache",
        "disk",
        "db",
        "web",
    ]
