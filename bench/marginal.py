"""The cost of one more instance: whether the slope of a host's memory or disk is a measurement, or noise.

Other programs change the memory of the host, too. More instances cannot take less than fewer, so a slope that is not
clearly above 0 shows what the others did.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench import statistics
from bench.formatting import quantity
from bench.statistics import Points

RISING_MIN = 0.5  # Kendall's tau: of four pairs of points at least three rise
OWN_SHARE_MIN = 0.1  # of what the instance's own processes use


def moved(values: Sequence[float], unit: str) -> str:
    """Return why the median of changes of a whole host is not what an instance did, "" if it is.

    What the instances did is there in every round. What other programs did comes and goes, with either sign.
    """
    middle, scatter = statistics.median(values), statistics.TO_SIGMA * statistics.deviation(values)
    if middle > scatter:
        return ""
    text = f"the median is {quantity(middle, unit)} with a scatter of {quantity(scatter, unit)}"
    return f"not measurable here: {text}, so other programs moved it"


def refused(ladders: Sequence[Points], unit: str, own: float | None) -> str:
    """Return why the slope of these ladders is not the cost of one more instance, "" if it is.

    `own` is what the processes of one instance use, in the same unit, None if that is unknown.
    """
    if max(map(len, ladders)) < 3:  # none, one, two
        return "only one instance could run, and the first one pays for what all share"
    value = statistics.slope(ladders)
    if value is None:
        return ""
    if value <= 0 or statistics.tau(ladders) < RISING_MIN:
        text = f"the slope is {quantity(value, unit)}, and the points do not rise together"
        return f"not measurable here: {text}, so other programs moved it"
    if own is not None and value < OWN_SHARE_MIN * own:
        text = f"the slope is {quantity(value, unit)}, but the processes of one instance use {quantity(own, unit)}"
        return f"not measurable here: {text}"
    return ""
