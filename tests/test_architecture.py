"""The rules of the house, read from the source: who imports whom, one owner per door, a light fast path."""

import ast
import json
import os
import re
import subprocess
import sys
from functools import cache

import pytest
from support.tracked import ROOT, tracked

ROOMS = ("vmctl", "images", "vmm", "containers", "bench")
ALLOWED = {
    "vmctl": {"vmctl"},
    "images": {"images", "vmctl"},
    "vmm": {"vmm", "images", "vmctl"},
    "containers": {"containers", "images", "vmctl"},
    "bench": {"bench", "vmctl"},
    "vmctl/cli": {"vmctl", "vmctl/api", "vmctl/cli", "images", "bench"},  # a backend arrives by name, here too
    "vmctl/api": {"vmctl", "vmctl/api", "images"},
    "vmctl/testing": {"vmctl", "vmctl/api"},
}
# room -> the modules below it: the only modules of ours that it may import, except its own
BELOW = {
    "vmctl/linux": "vmctl.errors vmctl.light vmctl.named vmctl.trace",
    "vmctl/net": "vmctl.errors vmctl.ids vmctl.journal vmctl.light vmctl.linux vmctl.named vmctl.paths vmctl.records "
    "vmctl.spec vmctl.trace vmctl.which",
    "vmctl/logs": "",
    "vmctl/spec": "vmctl.errors vmctl.light vmctl.named vmctl.oldforms vmctl.records",
    "vmctl/stepping": "vmctl.console vmctl.linux vmctl.named vmctl.phases vmctl.steps vmctl.trace",
    "vmctl/snapshots": "vmctl.backend vmctl.backends vmctl.engine vmctl.errors vmctl.instances vmctl.journal "
    "vmctl.leases vmctl.light vmctl.linux vmctl.named vmctl.net vmctl.paths vmctl.problems vmctl.records vmctl.spec "
    "vmctl.stacks.workers",
    "vmctl/instances": "vmctl.errors vmctl.ids vmctl.journal vmctl.leases vmctl.light vmctl.linux vmctl.named "
    "vmctl.needs vmctl.net vmctl.paths vmctl.records vmctl.spec vmctl.trace vmctl.volumes.store",
    "images/store": "vmctl.errors vmctl.leases vmctl.light vmctl.linux vmctl.named vmctl.paths vmctl.spec",
    "vmctl/volumes": "vmctl.errors vmctl.leases vmctl.light vmctl.linux vmctl.named vmctl.paths vmctl.records "
    "vmctl.spec vmctl.trace",
    "images/layer": "images.store vmctl.errors vmctl.leases vmctl.linux vmctl.named vmctl.paths vmctl.spec "
    "vmctl.volumes vmctl.writable",
    "images/packages": "images.store vmctl.errors vmctl.linux vmctl.programs",
    "images/kernels": "images.layer images.packages images.store vmctl.errors vmctl.leases vmctl.linux "
    "vmctl.paths vmctl.programs",
    "images/disks": "images.layer images.store vmctl.errors vmctl.linux vmctl.programs vmctl.spec",
    "images/transfer": "images.disks images.layer images.store vmctl.errors vmctl.linux vmctl.programs vmctl.spec",
    "images/recipes": "images.layer images.packages images.store vmctl.errors vmctl.linux vmctl.programs vmctl.spec "
    "vmctl.stream vmctl.writable",
    "images/bundles": "images.kernels images.layer images.packages images.store images.transfer vmctl.errors "
    "vmctl.linux",
    "images/upkeep": "images.kernels images.layer images.packages images.recipes images.store images.transfer "
    "vmctl.errors vmctl.leases vmctl.linux vmctl.needs vmctl.paths vmctl.programs",
}
# modules that know instances: no library below the engine may import them, directly or indirectly
OF_INSTANCES = ("vmctl.instances.instance", "vmctl.engine", "vmctl.survey", "vmctl.backends", "vmctl.backend")
DOORS = {  # module -> the only files that may import it, at any depth
    "libvirt": {"vmm/connection.py"},
    "ctypes": {"vmctl/linux/syscalls.py", "vmctl/linux/lz4.py"},
    "_ctypes": {"vmctl/linux/madvise.py"},
    "subprocess": set(),
    "multiprocessing": set(),
    "asyncio": {"vmctl/aio.py"},  # which only a program imports that uses asyncio itself
}
# what takes longer to import than a container takes to start, or is the first step there
HEAVY = (
    "asyncio concurrent.futures dataclasses email http importlib.metadata inspect libvirt logging msgspec "
    "multiprocessing paramiko pathlib pycdlib subprocess tempfile unittest urllib.request yaml"
).split()
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60


def sources():
    for room in ROOMS:
        for folder, _, files in os.walk(os.path.join(ROOT, room)):
            for name in sorted(files):
                if name.endswith(".py"):
                    yield os.path.relpath(os.path.join(folder, name), ROOT)


FILES = sorted(sources())


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


@cache
def tree(path):
    return ast.parse(read(path), path)


def nodes(path, *kinds):
    return [node for node in ast.walk(tree(path)) if isinstance(node, kinds)]


@cache
def imports(path, *, top_level=False):
    """Return the full name of every module that a file imports, inside functions too unless `top_level`."""
    return list(_imports(path, top_level=top_level))


def _imports(path, *, top_level):
    found = nodes(path, ast.Import, ast.ImportFrom)
    if top_level:  # not those for type checkers either
        found = [node for node in tree(path).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    for node in found:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        assert node.level == 0, f"{path}:{node.lineno}: relative import"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module):
    for room in ("vmctl.cli", "vmctl.api"):
        if f"{module}.".startswith(f"{room}."):
            return room.replace(".", "/")
    return module.partition(".")[0]


def place_of(path):
    """Return the row of a file in the table; the names that programs import are at the top, what they do is below."""
    if path in ("vmctl/__init__.py", "vmctl/aio.py"):
        return "vmctl/api"
    rooms = ("vmctl/cli", "vmctl/api", "vmctl/testing")
    return next((room for room in rooms if path.startswith(f"{room}/")), path.split("/")[0])


def test_there_is_something_to_check():
    assert {path.split("/")[0] for path in FILES} == set(ROOMS)
    assert len(FILES) > 50


@pytest.mark.parametrize("path", FILES)
def test_imports_follow_the_table(path):
    here = place_of(path)
    used = {room_of(module) for module in imports(path)} & {*ROOMS, "vmctl/cli", "vmctl/api"}
    if path == "vmctl/__main__.py":
        assert used == {"vmctl/cli"}
    else:
        assert used <= ALLOWED[here]


@pytest.mark.parametrize("room", BELOW)
def test_a_room_knows_only_what_is_below_it(room):
    allowed = [room.replace("/", "."), *BELOW[room].split()]
    for path in FILES:
        if path.startswith(f"{room}/"):
            for module in imports(path):
                below = any(f"{module}.".startswith(f"{name}.") for name in allowed)
                assert below or room_of(module) not in ROOMS, f"{path}: {module}"


def test_every_room_has_its_row():
    rooms = {os.path.dirname(path) for path in FILES if path.startswith("images/") and path.count("/") > 1}
    rooms |= {
        f"vmctl/{name}" for name in ("instances", "linux", "logs", "net", "snapshots", "spec", "stepping", "volumes")
    }
    assert rooms == set(BELOW)


def module_of(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(path): path for path in FILES}


@cache
def arrows(path, *, top_level=False):
    """Return the modules of ours that a file imports; `top_level`: only when it is imported itself."""
    found = set()
    for module in imports(path, top_level=top_level):
        while module and module not in MODULES:
            module = module.rpartition(".")[0]
        found |= {module} - {"", module_of(path)}
    return found


def reached(start):
    """Return all modules of ours that a module imports, directly or indirectly."""
    found, waiting = set(), [start]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += arrows(MODULES[module])
    return found


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.startswith(("images.", "vmctl.linux.", "vmctl.net."))]
)
def test_no_library_below_the_engine_leads_to_instances(module):
    assert not reached(module) & set(OF_INSTANCES)


def test_imports_make_no_circle():
    """At the top level of modules: what is imported inside of a function comes later."""
    graph = {module: arrows(path, top_level=True) for module, path in MODULES.items()}
    while free := [module for module, needed in graph.items() if not needed & graph.keys()]:
        for module in free:
            del graph[module]
    assert graph == {}


def test_only_the_network_knows_its_addresses():
    for path in FILES:
        if not path.startswith("vmctl/net/"):
            assert not re.search(r"\b10\.77\b|\bvmctl0\b", read(path)), path


@pytest.mark.parametrize("door", DOORS)
def test_each_door_has_one_owner(door):
    users = {path for path in FILES for module in imports(path) if module == door or module.startswith(door + ".")}
    assert users == DOORS[door]


def test_only_the_command_line_speaks_and_exits():
    for path in FILES:
        if path.startswith("vmctl/cli/") or path == "vmctl/__main__.py":
            continue
        called = {ast.unparse(node.func): node.lineno for node in nodes(path, ast.Call)}
        for name in ("print", "input", "exit", "quit", "sys.exit", "sys.stdout.write", "sys.stderr.write"):
            assert name not in called, f"{path}:{called[name]} calls {name}"
        assert "SystemExit" not in {ast.unparse(node.exc) for node in nodes(path, ast.Raise) if node.exc}, path


def test_nobody_asks_for_a_modes_name():
    """Abilities are asked for (`features`), never names."""
    for path in FILES:
        for node in nodes(path, ast.Compare):
            sides = [node.left, *node.comparators]
            named = any(isinstance(side, ast.Constant) and side.value in ("vm", "container", "host") for side in sides)
            modal = any(re.search(r"\bmode\b", ast.unparse(side)) for side in sides)
            assert not (named and modal), f"{path}:{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", FILES)
def test_files_and_functions_can_be_seen_whole(path):
    assert len(read(path).splitlines()) <= MAX_FILE_LINES
    for node in nodes(path, ast.FunctionDef, ast.AsyncFunctionDef):
        assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, f"{path}:{node.lineno} {node.name}"


def test_no_shell_and_no_bare_except():
    for path in FILES:
        called = {ast.unparse(node.func) for node in nodes(path, ast.Call)}
        assert not called & {"os.system", "os.popen", "eval", "exec"}, path
        assert all(handler.type is not None for handler in nodes(path, ast.ExceptHandler)), path


FAST_PATH = """
import os, sys
from vmctl.cli import main
code = main(sys.argv[1:])
modules = sorted(sys.modules)
import json
print(json.dumps([code, modules]))
"""


def loaded_after(*words):
    """Return the exit code of a verb, run in a separate process, and all modules that are loaded after it."""
    done = subprocess.run([sys.executable, "-c", FAST_PATH, *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("--version",),
        ("ps", "-a"),
        ("run", "--mode", "container", "tiny", "--", "true"),
        ("run", "--mode", "host", "tiny", "--", "true"),
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_on_the_fast_path(own_root, words):
    code, modules = loaded_after(*words)
    assert code == 0
    assert [name for name in HEAVY if name in modules] == []


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--network", "none", "-e", "A=b", "-m", "64M", "--cpus", "1.5", "--pids", "64", "tiny", "--", "true"),
        ("run", "-p", "127.0.0.1::8000", "--network-alias", "web", "tiny", "--", "true"),
        ("ps",),
    ],
    ids=" ".join,
)
def test_usual_commands_need_no_argparse_and_no_regular_expression(own_root, words):
    """These five take 9 ms: see vmctl/light.py and vmctl/cli/usual.py."""
    code, modules = loaded_after(*words)
    assert code == 0
    assert [name for name in ("argparse", "enum", "json", "re", "signal") if name in modules] == []


def test_importing_vmctl_imports_nothing():
    """Also not what its names are: they are imported when they are used."""
    code = "import sys; before = set(sys.modules); import vmctl; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"vmctl", "__future__"}


def test_a_program_that_uses_the_api_imports_no_engine():
    """It is the program's process: it has no use for the engine, see vmctl/api/__init__.py."""
    code = "import sys, vmctl; vmctl.run, vmctl.compare, vmctl.NotReady; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    heavy = {*HEAVY, "vmctl.engine", "vmctl.spec.workloadfile", "containers", "vmm", "images"} - {"inspect"}
    assert [name for name in loaded if name in heavy] == []


def test_heavy_modules_are_noticed():
    """The check above would see one."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, yaml; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert "yaml" in done.stdout.split()


def test_no_path_of_a_developers_machine():
    personal = rb"/(?:home|Users)/(?!user\b)[a-z][\w.-]*/"
    if ROOT.count("/") > 1:  # a checkout in /srv would find that folder everywhere
        personal += rb"|(?<![\w/])" + re.escape(ROOT.encode()) + rb"\b"
    for name in tracked():
        with open(os.path.join(ROOT, name), "rb") as file:
            found = re.search(personal, file.read())
        assert found is None, f"{name}: {found[0]!r}"


def test_nothing_binary_or_large_is_tracked():
    for name in tracked():
        with open(os.path.join(ROOT, name), "rb") as file:
            content = file.read()
        assert b"\0" not in content, name
        assert len(content) < 300_000, name  # a reference result with every sample has 260 KB


@pytest.mark.parametrize("room", ROOMS)
def test_packages_are_marked_as_typed(room):
    assert f"{room}/py.typed" in tracked()
