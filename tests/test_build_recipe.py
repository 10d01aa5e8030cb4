"""Recipes and .dockerignore files: correct ones, and the errors for wrong ones."""

import json
import re
import shutil
import stat
from re import _parser  # type: ignore[attr-defined]

import jsonschema
import pytest
from support.commands import ok

from images.layer.lookup import Node
from images.layer.tree import Attributes
from images.recipes import buildinput, files, ignore, recipe, sources
from images.recipes.steps import Cmd, Copy, Env, Expose, Inline, Packages, Run, Shell, User, Workdir
from images.store import shipped
from vmctl.errors import SpecError
from vmctl.spec import yamlfile

EVERYTHING = """
name: web
from:
  packages:
    suite: bookworm
    include: [python3]
    variant: minbase
    components: [main, contrib]
    mirrors: ["deb http://mirror.invalid/debian bookworm main"]
    documentation: true
    exclude: [/usr/share/x/*]
    files: [{path: /etc/a, content: b}]
env: {A: 1, B: true, C: "$A 'c'"}
steps:
  - run: echo a
  - run: [echo, a b]
  - run: {command: echo c, network: none}
  - copy: {from: a, to: /b}
  - copy: {from: [a, b], to: /c/, image: tiny, owner: "1:2", mode: "0644", extract: true}
  - file: {path: /etc/x, content: "y $A", mode: "0600", owner: "5"}
  - env: {D: no}
  - arg: {V: "1", W: null}
  - workdir: /w
  - user: nobody
  - shell: [/bin/sh, -ec]
entrypoint: [a]
command: b c
workdir: /
user: "0:0"
expose: [80, 53/udp]
volumes: [/data]
labels: {x: y, n: 2}
stop_signal: SIGINT
network: host
"""


@pytest.fixture
def load(tmp_path):
    def load(text, changes=()):
        path = tmp_path / "web.yaml"
        path.write_text(text)
        return recipe.load(str(path), changes)

    return load


def actions(plan):
    return [step.action for step in plan.stages[0].steps]


def test_every_key(load, tmp_path):
    plan = load(EVERYTHING)
    base = Packages(
        "bookworm",
        ("python3",),
        "minbase",
        ("main", "contrib"),
        ("deb http://mirror.invalid/debian bookworm main",),
        True,
        ("/usr/share/x/*",),
        (Inline("/etc/a", "b"),),
    )
    assert (plan.name, plan.quotes, plan.stages[0].base) == ("web", False, base)
    found = actions(plan)
    assert found[:7] == [
        Env((("A", "1"), ("B", "true"), ("C", "$A 'c'"))),
        Run("echo a", "host"),
        Run(("echo", "a b"), "host"),
        Run("echo c", "none"),
        Copy(("a",), "/b"),
        Copy(("a", "b"), "/c/", "tiny", "1:2", "0644", True),
        Copy((), "/etc/x", owner="5", mode="0600", inline=(Inline("x", "y $A", expand=False),)),
    ]
    assert {Env((("D", "no"),)), Workdir("/w"), User("nobody"), Shell(("/bin/sh", "-ec")), Cmd("b c")} <= set(found)
    assert Expose(("80", "53/udp")) in found
    assert plan.stages[0].steps[3].where == f"{tmp_path}/web.yaml: steps[2]"


def test_every_key_is_in_the_test_above():
    keys = recipe.schema()["$defs"]
    assert set(keys["Recipe"]["properties"]) == set(_parsed(EVERYTHING))
    steps = {key for step in _parsed(EVERYTHING)["steps"] for key in step}
    assert set(keys["Step"]["properties"]) == steps
    assert set(keys["Packages"]["properties"]) == set(_parsed(EVERYTHING)["from"]["packages"])


def _parsed(text):
    return yamlfile.value(text)


def test_the_file_names_the_image_where_the_recipe_does_not(load):
    assert load("from: tiny").name == "web"


@pytest.mark.parametrize(
    ("lines", "message", "hint"),
    [
        ("stpes: []", "the key stpes is unknown", "did you mean steps?"),
        ("steps: [{rnu: a}]", "the key steps[0].rnu is unknown", "did you mean run?"),
        ("steps: [{run: a, user: b}]", "the key steps[0]: expected one of run, copy, file", ""),
        ("steps: [{}]", "the key steps[0]: expected one of run, copy, file, env, arg, workdir, user, shell, got", ""),
        ("steps: [run]", "the key steps[0]: expected a mapping, got a text", ""),
        ("steps: {run: a}", "the key steps: expected a list, got a mapping", "- run:"),
        ("steps: [{run: 5}]", "the key steps[0].run: expected", ""),
        ("steps: [{run: [sleep, 5]}]", "the key steps[0].run[1]: expected a text, got a whole number", ""),
        ("steps: [{run: {comand: a}}]", "the key steps[0].run.comand is unknown", "did you mean command?"),
        ("steps: [{run: {command: a, network: lan}}]", "steps[0].run.network: expected bridge, none, host", ""),
        ("steps: [{copy: {from: a}}]", "the key steps[0].copy.to is missing", ""),
        ("steps: [{copy: {from: a, to: /b, mode: 644}}]", "steps[0].copy.mode: expected a text", 'in quotes: "0644"'),
        ("steps: [{copy: {from: a, to: /b, mode: rwx}}]", "steps[0].copy.mode: expected a mode such as 0644", ""),
        ("steps: [{file: {path: etc/x}}]", "steps[0].file.path: expected the absolute path of a file", ""),
        ("steps: [{file: {path: /etc/../x}}]", "steps[0].file.path: expected the absolute path of a file", ""),
        ("steps: [{env: {A B: 1}}]", "'A B' cannot be the name of a variable", ""),
        ("env: [A]", "the key env: expected a mapping, got a list", ""),
        ("user: 1000", "the key user: expected a text, got a whole number", 'in quotes: "1000:1000"'),
        ("network: lan", "the key network: expected bridge, none, host; got 'lan'", ""),
        ("name: Web", "the key name: ", ""),
    ],
)
def test_wrong_recipes(load, lines, message, hint):
    with pytest.raises(SpecError) as caught:
        load(f"from: tiny\n{lines}\n")
    assert message in str(caught.value)
    assert "web.yaml: " in str(caught.value)
    assert "`" not in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: []", "the key from is missing"),
        ("from: 5", "the key from: expected"),
        ("from: {package: {suite: x}}", "the key from.package is unknown"),
        ("from: {packages: {include: [a]}}", "the key from.packages.suite is missing"),
        ("from: {packages: {suite: x, variant: tiny}}", "from.packages.variant: expected essential, apt"),
        ("from: {packages: {suite: x, files: [{path: x}]}}", "from.packages.files[0].path: expected the absolute"),
        ("- a", "does not contain a mapping"),
        ("a: [", "is not YAML"),
        ("from: " + "[" * 1000, "nested more than 50 levels deep, too deep for a recipe"),
    ],
)
def test_wrong_bases(load, text, message):
    with pytest.raises(SpecError) as caught:
        load(text)
    assert message in str(caught.value)


def test_keys_set_on_the_command_line(load):
    text = "from: {packages: {suite: bookworm}}\nsteps: []"
    plan = load(text, (("from.packages.suite", "trixie"), ("expose", "[80]"), ("labels.a", "b")))
    assert plan.stages[0].base.suite == "trixie"
    assert Expose(("80",)) in actions(plan)
    for changes, message in (
        ((("from.packages.siute", "x"),), "the key from.packages.siute is unknown"),
        ((("from.packages.suite.x", "y"),), "--set from.packages.suite.x: suite is not a mapping"),
        ((("steps", "[a"),), "is not YAML"),
    ):
        with pytest.raises(SpecError) as caught:
            load(text, changes)
        assert message in str(caught.value)


def test_schema_and_program_agree(load):
    schema = recipe.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(ok("spec", "schema", "recipe")) == schema
    accepted = jsonschema.Draft202012Validator(schema).is_valid
    assert accepted(_parsed(EVERYTHING))
    for lines in ("stpes: []", "steps: [run]", "network: lan", "env: [a]"):
        assert not accepted(_parsed(f"from: tiny\n{lines}"))


@pytest.mark.parametrize("name", shipped.names())
def test_shipped_recipes_are_right(name):
    plan = recipe.load(shipped.path(name))
    assert plan.name == name
    assert jsonschema.Draft202012Validator(recipe.schema()).is_valid(yamlfile.read_mapping(shipped.path(name)))


def test_what_to_build(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert buildinput.find("python").build_file.path == shipped.path("python")
    (tmp_path / "web").mkdir()
    (tmp_path / "web/Dockerfile").write_text("FROM tiny\n")
    (tmp_path / "web/other").write_text("FROM scratch\n")
    (tmp_path / "python").mkdir()
    shutil.copy(tmp_path / "web/Dockerfile", tmp_path / "python")
    assert buildinput.find("web")[1:] == ("web", "web")
    assert buildinput.find("web/other").build_file.stages[0].base == "scratch"
    assert buildinput.find("web", "web/other").build_file.path == "web/other"
    assert buildinput.find("./python").name == "python"
    assert buildinput.find(".", "web/other").context == "."
    for given, message in (
        (("pyhton",), "there is no recipe, Dockerfile or folder pyhton"),
        ((".",), "has no Dockerfile or Containerfile"),
        (("web/Dockerfile", "web/other"), "is not a folder"),
        (("web", "web/nowhere"), "cannot be read"),
        (("web", "", (("a", "b"),)), "is a Dockerfile"),
    ):
        with pytest.raises(SpecError, match=message):
            buildinput.find(*given)


@pytest.mark.parametrize(
    ("patterns", "left_out", "kept"),
    [
        ("a", ["a", "a/b"], ["b/a", "ab"]),
        ("/a/", ["a", "a/b"], ["b/a"]),
        ("*.o", ["x.o"], ["d/x.o", "x.os"]),
        ("**/*.o", ["x.o", "d/x.o", "d/e/x.o"], ["x.c"]),
        ("d/**", ["d/x", "d/e/x"], ["x"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["z", "a/zz"]),
        ("?.c", ["a.c"], ["ab.c", "/.c"]),
        ("[a-c]x\\*", ["ax*"], ["dx*", "axb"]),
        ("*\n!keep\n!d/keep", ["a", "d", "d/a"], ["keep", "d/keep", "keep/below"]),
        ("*\n!keep\nkeep/not", ["keep/not"], ["keep"]),
        ("# a\n\n  b  ", ["b"], ["# a", "a"]),
        (".", [], ["a"]),
        ("*a*b", ["ab", "xaxb", "abab"], ["ba", "a/b", "abc"]),
        ("*a*b*", ["ab", "xaybz", "ab/below"], ["x/ab", "ba"]),
        ("a**b", ["ab", "a/b", "ax/y/b"], ["axb", "a/xb"]),
        ("a***b", ["ab", "axb", "ax/yb"], ["c/ab", "xab"]),
        ("**a**/b/**", ["a/b/c", "xx/a/b/c", "ax/b/c"], ["b/c", "a/b"]),
        ("**/x/**/y", ["x/y", "x/x/y", "a/x/b/x/c/y"], ["y/x", "x", "a/xy"]),
        ("a[!x]b", ["a!b", "axb"], ["ayb", "a/b"]),
    ],
)
def test_ignored_files(patterns, left_out, kept):
    ignored = ignore.parse(patterns)
    assert [path for path in left_out if not ignored(path)] == []
    assert [path for path in kept if ignored(path)] == []


def choices(parsed, inside=False):
    """Yield (in an atomic group, this group's repeats that can give something back) for each group of an expression."""
    count = 0
    for kind, value in parsed:
        name = str(kind)
        if name == "ATOMIC_GROUP":
            yield from choices(value, True)
        elif name == "SUBPATTERN":
            inner = list(choices(value[3], inside))
            count += inner[-1][1]
            yield from inner[:-1]
        elif name == "BRANCH":
            for branch in value[1]:
                yield from choices(branch, inside)
        elif name in ("MAX_REPEAT", "MIN_REPEAT"):
            *below, own = choices(value[2], inside)
            yield from below
            count += 1 if own[1] == 0 else 1000  # a choice in a choice
    yield inside, count


def steps(parts, names):
    """Return how many folders and names a source of COPY looks at."""

    class Counted(files.Nothing):
        count = 0

        def node(self, path):
            self.count += 1
            return Node(Attributes(stat.S_IFDIR | 0o755, 0, 0, 0), 0, 1, 0, b"")

        def names(self, path):
            return names

    tree = Counted()
    sources.find(tree, "/".join(parts))
    return tree.count


def test_no_pattern_takes_exponential_time():
    hostile = [
        "*a" * 30 + "b",
        "**/a*/" * 10 + "b",
        "**/*a*a/" * 20 + "b",
        "*?" * 30 + "b",
        "*[ab]" * 30 + "c",
        "a**b" * 4,
    ]
    for pattern in hostile:
        groups = list(choices(_parser.parse(ignore.translate(pattern), re.DOTALL)))
        assert all(count <= (1 if inside else 0) for inside, count in groups), (pattern, groups)
        assert not ignore.parse(pattern)("a" * 4000 + "/" + "a/" * 1000 + "a")  # a choice in a choice would never end
    assert list(choices(_parser.parse("(?>[^/]*a[^/]*b)"))) == [(True, 2), (False, 0)]
    with pytest.raises(SpecError, match="is not a valid pattern"):
        ignore.parse("a**" * 20 + "b")
    names = [str(number) for number in range(5)]
    few, many = (steps(["*", ".."] * count + ["*"], names) for count in (2, 20))
    assert few < many <= 10 * few


def test_wrong_patterns(tmp_path):
    for text in ("a\n[b", "a\nb\\"):
        with pytest.raises(SpecError, match=r"dockerignore:2: .* is not a valid pattern"):
            ignore.parse(text)
    (tmp_path / ".dockerignore").mkdir()
    with pytest.raises(SpecError, match="cannot be read"):
        ignore.read(str(tmp_path))


def test_a_build_file_has_patterns_of_its_own(tmp_path):
    (tmp_path / ".dockerignore").write_text("a\n")
    (tmp_path / "other.dockerignore").write_text("b\n")
    assert ignore.read(str(tmp_path))("a")
    special = ignore.read(str(tmp_path), str(tmp_path / "other"))
    assert special("b")
    assert not special("a")
