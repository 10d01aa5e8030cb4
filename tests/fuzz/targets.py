"""Every target."""

from fuzz import archives, commands, daily, guests, handins, records, results, texts
from fuzz.check import TARGETS

__all__ = ["TARGETS", "archives", "commands", "daily", "guests", "handins", "records", "results", "texts"]
