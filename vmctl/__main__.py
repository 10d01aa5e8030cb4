"""`python -m vmctl`."""

from vmctl.cli import entry

entry()
