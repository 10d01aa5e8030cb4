"""The paths of an instance's files; they are known before the files exist."""

from __future__ import annotations

import os

from vmctl import paths


class Home:
    """The folder, the run folder and the cgroup of an instance, computed from its name and id."""

    def __init__(self, name: str, identity: str) -> None:
        self.name = name
        self.id = identity  # 8 hex digits, for names whose length the kernel limits
        self.directory = os.path.join(paths.instances_root(), name)

    # All files of an instance. Some exist only in one mode.
    def path(self, *parts: str) -> str:
        """Return a path inside the instance directory."""
        return os.path.join(self.directory, *parts)

    @property
    def cgroup(self) -> str:
        """The name of the cgroup; it differs from that of an instance of the same name below another VMCTL_ROOT."""
        return f"{self.name}.{self.id}"

    @property
    def run_dir(self) -> str:
        """The folder for sockets and mount points; it is short, because a socket's path has 107 bytes (unix(7))."""
        return os.path.join(paths.run_root(), self.id)

    @property
    def stdout_log(self) -> str:
        """The workload's standard output."""
        return self.path("stdout.log")

    @property
    def stderr_log(self) -> str:
        """The workload's standard error."""
        return self.path("stderr.log")

    @property
    def console_log(self) -> str:
        """The output of a guest's kernel and init on the serial console."""
        return self.path("console.log")
