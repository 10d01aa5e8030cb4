"""Every target."""

from fuzz import archives, commands, records, results, texts
from fuzz.check import TARGETS

__all__ = ["TARGETS", "archives", "commands", "records", "results", "texts"]
