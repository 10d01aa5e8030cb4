"""Known ways out of container runtimes: through what the runtime itself does at a start, with an image made for it."""

import contextlib
import hashlib
import os
import subprocess
import sys
import time

import pytest
from support.attack_table import modes
from support.attacks import Cell, image, watcher
from support.tars import fifo, folder, hard, link

import vmctl

pytestmark = pytest.mark.timeout(900)
FDS = range(3, 24)
UP = "/".join([".."] * 8)


def run(caller, mode, *words, **options):
    network = () if mode == "host" else ("--network", "none")
    return caller.vmctl("run", "--mode", mode, *network, *words, **options)


@pytest.mark.attack("works in a folder of the host through a descriptor that the runtime left open (CVE-2024-21626)")
def test_working_folder_through_a_descriptor(cell, caller, mode, canary):
    script = f"pwd; ls -l /proc/self/fd /proc/1/fd; cat {UP}{canary.path}"
    seen = []
    for options in userns(mode):  # with `host`, root inside may enter each folder of the host
        for fd in fds(mode):
            seen.append(run(caller, mode, *options, "-w", f"/proc/self/fd/{fd}", "tiny", "--", "sh", "-c", script))
    for number in fds(mode):
        folder = f"/proc/self/fd/{number}"
        seen.append(caller.vmctl("exec", "-u", "0", "-w", folder, cell.name, "--", "sh", "-c", script))
    canary.check(*seen)


def userns(mode):
    return ((), ("--userns", "host")) if mode == "container" else ((),)


def fds(mode):
    return FDS if mode == "container" else (3, 7)  # a guest takes seconds


@pytest.mark.attack("finds more descriptors than its three streams, in the workload, its init and in `exec`")
def test_descriptors(cell, caller, mode):
    # no pipe: a shell that makes one has two descriptors more for a moment; PID 1 of a guest is the guest's own
    listing = "ls /proc/1/fd; ls /proc/self/fd" if mode == "container" else "ls /proc/self/fd"
    for seen in (cell.shell(listing).out, run(caller, mode, "tiny", "--", "sh", "-c", listing).out):
        assert set(map(int, seen.split())) <= {0, 1, 2, 3}, seen  # 3: of ls itself


LINKS = {
    "proc to etc": (("proc",), [link("proc", "etc")]),
    "proc to a file of the kernel": (("proc",), [link("proc", "sys/kernel")]),
    "dev to proc": (("dev",), [link("dev", "proc/sys/kernel")]),
    "sys to proc": (("sys",), [link("sys", "/proc/sys")]),
    "null to core_pattern": (("dev",), [folder("dev"), link("dev/null", "/proc/sys/kernel/core_pattern")]),
    "pts to proc": (("dev",), [folder("dev"), link("dev/pts", "/proc"), link("dev/console", "/proc/sysrq-trigger")]),
    "shm out": (("dev",), [folder("dev"), link("dev/shm", "../../../../tmp")]),
}


@pytest.mark.attack(
    "lets the runtime mount over, mask or write a file of its choice by links in /dev, /proc and /sys "
    "(CVE-2025-31133, CVE-2025-52565, CVE-2025-52881)"
)
@modes("container", "vm", "host")
def test_links_in_the_places_of_the_runtime(caller, mode, canary):
    with open("/proc/sys/kernel/core_pattern", encoding="ascii") as file:
        before = file.read()
    mounts = host_mounts()
    console = "" if mode == "vm" else "/dev/console"  # that of a guest waits for input
    script = f"""
        echo '|/tmp/x' > /proc/sys/kernel/core_pattern; echo s > /proc/sysrq-trigger
        for f in /dev/null {console} /dev/shm/x /proc/kcore; do head -c 4 $f; done; cat {canary.path}"""
    chosen = [LINKS["null to core_pattern"], LINKS["proc to etc"]] if mode == "vm" else LINKS.values()
    for number, (without, entries) in enumerate(chosen):  # a guest takes seconds
        image(caller, f"links{number}", *entries, without=without)
        user = ("-u", "nobody") if mode == "host" else ()  # root in mode host is root of the host
        seen = run(caller, mode, *user, f"links{number}", "--", "sh", "-c", script)
        canary.check(seen)
        caller.vmctl("image", "rm", f"links{number}")
    with open("/proc/sys/kernel/core_pattern", encoding="ascii") as file:
        assert file.read() == before
    assert host_mounts() == mounts


def host_mounts():
    """Return what is mounted on the host's own kernel file systems."""
    with open("/proc/self/mountinfo", encoding="ascii", errors="replace") as file:
        points = {line.split(" ", 5)[4] for line in file}
    return {point for point in points if point.startswith(("/proc", "/dev", "/sys", "/etc"))}


@pytest.mark.attack("is given files, which links in the image lead to a file of the host")
def test_files_through_links(caller, mode, canary):
    up = link("out", f"{UP}{os.path.dirname(canary.path)}")
    magic = [link("root", "/proc/1/root"), link("cwd", "/proc/self/cwd"), hard("etc/again", "etc/passwd")]
    image(caller, "aimed", up, *magic, without=("root",))
    name = os.path.basename(canary.path)
    places = [f"/out/{name}", f"/root{canary.path}", f"/cwd/{UP}{canary.path}".replace("/../..", "/x")]
    chosen_ids = [(places, "")] if mode == "vm" else [([place], ids) for place in places for ids in ("auto", "host")]
    for number, (chosen, ids) in enumerate(chosen_ids):
        work = f"aimed-{mode}-{number}"
        files = "".join(f"  - {{path: {place}, content: overwritten}}\n" for place in chosen)
        text = f"image: aimed\ncommand: [cat, {places[0]}, {canary.path}]\nnetwork: none\nfiles:\n{files}"
        text += f"container: {{userns: {ids}}}\n" if ids else ""
        seen = caller.vmctl("up", "--mode", mode, caller.write(f"{work}.yaml", text))
        caller.vmctl("wait", "--timeout", "120", work)
        logs = caller.vmctl("logs", work)
        caller.vmctl("rm", "-f", work)
        canary.check(seen, logs)


@pytest.mark.attack(
    "keeps a start waiting for ever by a FIFO or a file of the kernel in the place of a file that it is given"
)
def test_files_that_are_none(caller, mode, canary):
    image(caller, "waiting", fifo("etc/app.conf"), link("adj", "/proc/self/oom_score_adj"))
    for number, place in enumerate(("/etc/app.conf", "/adj")):
        name = f"waiting-{mode}-{number}"
        text = f"image: waiting\ncommand: ['true']\nnetwork: none\nfiles: [{{path: {place}, content: '500'}}]\n"
        begin = time.monotonic()
        seen = caller.vmctl("up", "--mode", mode, caller.write(f"{name}.yaml", text), timeout_s=120)
        assert time.monotonic() - begin < 60
        caller.vmctl("rm", "-f", name)
        canary.check(seen)
        if number == 0:
            assert f"{place} in the image is not an ordinary file" in seen.err


@pytest.mark.attack("mounts a volume on a place that links in the image, or another container, lead to the host")
@modes("container")
def test_volumes_through_links(caller, mode, canary):
    image(caller, "linked", link("v", "/proc/1/root/proc/sys"), link("w", f"{UP}/etc"), link("x", "/proc/self/fd/0"))
    shared = os.path.join(caller.folder, "shared")
    with contextlib.suppress(FileExistsError):
        os.mkdir(shared)
    os.chown(shared, caller.uid, caller.uid)
    for name, to in (("link", "/proc/1/root"), ("up", f"{UP}{caller.folder}"), ("dev", "/dev")):
        with contextlib.suppress(FileExistsError):
            os.symlink(to, os.path.join(shared, name))
    mounts = host_mounts()
    for target in ("/v", "/w", "/x", "/s/link/etc", "/s/up", "/s/dev/null"):
        volumes = ("-v", f"{shared}:/s", "-v", f"{shared}:{target}")
        script = f"ls / /s; cat {canary.path} {target}{canary.path}"
        for options in userns(mode):
            canary.check(run(caller, mode, *options, *volumes, "linked", "--", "sh", "-c", script))
    assert host_mounts() == mounts


# the weakest containers that still hold: SECURITY.md names what root must not combine
WEAK = {
    ("container", "root"): ({}, {"userns": "host"}, {"cap_add": ["SYS_PTRACE"]}),
    ("container", "user"): ({}, {"userns": "host", "cap_add": ["SYS_PTRACE"]}),
}


@pytest.mark.attack(
    "reads or overwrites the interpreter that `exec` of the caller is, by its /proc/PID/exe (CVE-2019-5736)"
)
def test_interpreter_of_the_caller(caller, mode, who):
    with open(sys.executable, "rb") as file:
        known = hashlib.file_digest(file, "md5").hexdigest()
    for container in WEAK.get((mode, who), ({},)):
        watching = Cell(caller, mode, command=["sh", "-c", watcher("/bin/*")], init=False, container=container)
        try:
            steal_from(watching, known)
        finally:
            watching.end()
    with open(sys.executable, "rb") as file:
        assert hashlib.file_digest(file, "md5").hexdigest() == known


def steal_from(watching, known):
    script = "for n in 1 2; do printf '#!/proc/self/exe\\n' >/s$n; chmod 755 /s$n; done; ln -s /proc/self/exe /link"
    watching.shell(script)
    times = 3 if watching.mode == "container" else 1  # the program that watches is slow in a guest, and slows it
    for command in ("/s1", "/s2", "/link", "/proc/self/exe"):
        for _ in range(times):
            seen = watching.exec(command, "-c", "print('python of the host')")
            assert "python of the host" not in seen.out
    for _ in range(3 * times + 1):
        assert watching.exec("true").code == 0
    assert known not in watching.shell("md5sum /stolen").out
    if watching.mode == "container":
        assert watching.shell("ls /stolen /found").out == ""


PLANTED = "import os\nos.write(2, b'imported from the image')\n"
FINDS = ("true", "/etc/passwd", "/no/such", "-u nobody true", "-u no-such true", "-w /new true", "--read-only true")


@pytest.mark.attack(
    "brings Python modules in the places of the host's, for the process that starts it (CVE-2019-14271)"
)
@modes("container", "vm", "host")
def test_modules_of_the_image(caller, mode, canary):
    root = os.path.dirname(os.path.dirname(os.path.abspath(vmctl.__file__)))
    places = (os.path.dirname(os.__file__), root, os.path.join(root, "vmctl"), os.path.join(root, "vmctl/linux"))
    names = [*sorted(sys.stdlib_module_names), "commands", "errors", "trace"]
    entries = [
        (f"{place.lstrip('/')}/{name}.py", {"mode": 0o644}, PLANTED.encode()) for place in places for name in names
    ]
    image(caller, "planted", *entries)
    for words in FINDS[: 1 if mode == "vm" else None]:
        *options, command = words.split()
        seen = [run(caller, mode, *options, "planted", "--", command)]
        seen.append(caller.vmctl("--trace", "-", "run", "--mode", mode, *options, "planted", "--", command))
        assert "imported from the image" not in str(seen)
        canary.check(*seen)
    assert no_import() == "ModuleNotFoundError: No module named 'wave'"


def no_import():
    """Return the error of an import in a process that has entered a root."""
    program = "from containers import imagepath\nimagepath.import_nothing()\nimport wave"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return done.stderr.splitlines()[-1]
