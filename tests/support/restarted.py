"""A host that was restarted: what is left of an instance then."""

import shutil

from vmctl import paths
from vmctl.instances import instance
from vmctl.linux import mountinfo, processes
from vmctl.linux.cgroups import Cgroup
from vmctl.net import names

OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


def restart_host(name="web"):
    """Leave what a restart of the host leaves: the state root, in which an earlier boot is recorded."""
    inst = instance.load(name)
    for entry in inst.journal.entries():
        if entry["kind"] == "process":
            processes.end(entry["pid"], entry["start"])
    names.clear_all()  # its processes
    Cgroup(inst.cgroup).remove()
    mountinfo.unmount_all(paths.state_root())
    mountinfo.unmount_all(paths.run_root())
    shutil.rmtree(paths.run_root())
    for record in ("state.jsonl", "journal"):
        path = inst.path(record)
        with open(path) as file:
            text = file.read()
        with open(path, "w") as file:
            file.write(text.replace(processes.boot_id(), OTHER_BOOT))
