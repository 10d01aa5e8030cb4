"""Every target."""

from fuzz import archives, records, results, texts
from fuzz.check import TARGETS

__all__ = ["TARGETS", "archives", "records", "results", "texts"]
