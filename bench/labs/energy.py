"""The energy that processors have drawn, by their own counters (Linux: Documentation/power/powercap/powercap.rst)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

FOLDER = "/sys/class/powercap"
_PACKAGE = re.compile(r"intel-rapl:[0-9]+", re.ASCII)  # AMD's processors have the same name; parts of one are below it
_COUNTER, _RANGE = "energy_uj", "max_energy_range_uj"


class Counters:
    """The counters of all processor packages below a folder."""

    def __init__(self, folder: str = FOLDER) -> None:
        """Find them. Raises OSError if no counter exists, or if this user may not read it."""
        names = sorted(filter(_PACKAGE.fullmatch, os.listdir(folder)))
        if not names:
            raise FileNotFoundError(f"no counter in {folder}")
        self._zones = [os.path.join(folder, name) for name in names]
        self.read_uj()

    def read_uj(self) -> Mapping[str, int]:
        """Return the microjoules that each counter shows. Raises OSError."""
        return {zone: _number(zone, _COUNTER) for zone in self._zones}

    def joules_since(self, before: Mapping[str, int]) -> float:
        """Return the joules of all packages since `before`; a counter begins anew after its range, once at most."""
        now, total_uj = self.read_uj(), 0
        for zone, value in now.items():
            passed = value - before[zone]
            total_uj += passed if passed >= 0 else passed + _number(zone, _RANGE)
        return total_uj / 1e6


def _number(zone: str, name: str) -> int:
    with open(os.path.join(zone, name), encoding="ascii") as file:
        return int(file.read(32))
