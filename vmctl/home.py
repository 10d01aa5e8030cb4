"""Where the files of one instance are: all names in one place, known before anything is made."""

from __future__ import annotations

import os

from vmctl import paths


class Home:
    """The folder of an instance, its run folder and its cgroup; each follows from its name and id. Makes nothing."""

    def __init__(self, name: str, identity: str) -> None:
        self.name = name
        self.id = identity  # 8 hex digits, for names that the kernel keeps short
        self.directory = os.path.join(paths.instances_root(), name)

    # The files, all of them. Some exist in one mode only.
    def path(self, *parts: str) -> str:
        """Return a path inside the instance directory."""
        return os.path.join(self.directory, *parts)

    @property
    def cgroup(self) -> str:
        """The name of its cgroup: differs from that of an instance of the same name below another VMCTL_ROOT."""
        return f"{self.name}.{self.id}"

    @property
    def run_dir(self) -> str:
        """The folder for sockets and mount points: short, since a socket's path has 107 bytes (unix(7))."""
        return os.path.join(paths.run_root(), self.id)

    @property
    def stdout_log(self) -> str:
        """What the workload wrote to its standard output."""
        return self.path("stdout.log")

    @property
    def stderr_log(self) -> str:
        """What the workload wrote to its standard error."""
        return self.path("stderr.log")

    @property
    def console_log(self) -> str:
        """What a guest's kernel and init wrote to the serial console."""
        return self.path("console.log")
