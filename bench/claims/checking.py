"""Check a claim: parse its words, compute the same from its figures, and compare within what rounding leaves open."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import prod
from operator import truediv
from typing import NamedTuple

from bench.claims import figures
from bench.claims.figures import FIGURE, NUMBER, Figure, Range, computed, worded
from vmctl.errors import SpecError

RIGHT, WRONG = "right", "wrong"
CHARACTERS_MAX = 300
FORMS = (
    "0.82 -> 0.6 s is 26.8 % less",
    "0.82 -> 0.6 s is 1.37 times faster",
    "223 -> 178 MiB is a reduction of 20 %",
    "9 of 12.5 GiB is 72 %",
    "131 MB is 44 times 3 MB",
    "70 + 34 + 40 ms = 144 ms",
    "1.74 ms is under 2 ms",
)
HINT = f"what is understood: {'; '.join(FORMS)}"

_LESS = ("less", "fewer", "lower", "smaller", "shorter", "cheaper", "reduction", "decrease", "saving", "drop")
_MORE = ("more", "higher", "larger", "greater", "bigger", "longer", "increase", "growth", "overhead")
_WORDS = {**dict.fromkeys(_LESS, "less"), **dict.fromkeys(_MORE, "more")}
_WORDS |= {"faster": "faster", "speedup": "faster", "slower": "slower", "slowdown": "slower"}
_BELOW, _ABOVE = ("under", "below", "less than", "within", "at most"), ("over", "above", "more than", "at least")
_WORD = "|".join(_WORDS)
_ABOUT = r"(?P<about>about |almost |nearly |roughly |~)?"
_AMOUNT = rf"{_ABOUT}(?P<amount>{NUMBER})(?P<how> ?%| ?times| ?x|-fold)"
_CHANGE = re.compile(
    rf"(?:from )?(?P<before>{FIGURE}) ?(?:->|to) ?(?P<after>{FIGURE})(?: ?[:=]| is| means)? (?:an? )?"
    rf"(?:(?P<noun>{_WORD}) (?:of|by) )?{_AMOUNT}(?: (?P<word>{_WORD}))?"
)
_SHARE = re.compile(rf"(?P<part>{FIGURE}) of (?P<whole>{FIGURE}) is {_ABOUT}(?P<amount>{NUMBER}) ?%")
_TIMES = re.compile(rf"(?P<part>{FIGURE}) is {_ABOUT}(?P<amount>{NUMBER})(?: ?times|x|-fold) (?P<whole>{FIGURE})")
_BOUND = re.compile(rf"(?P<value>{FIGURE}) is (?P<than>{'|'.join((*_BELOW, *_ABOVE))}) (?P<limit>{FIGURE})")
_TERM = re.compile(rf"({FIGURE})(?: ?([-+*x/]) )?")
_SUM = re.compile(rf"(?P<left>{FIGURE}(?: ?[-+*x/] {FIGURE}){{1,20}}) ?(?:=|is) (?P<right>{FIGURE})")


class Answer(NamedTuple):
    """What the figures of a claim give."""

    claim: str
    verdict: str  # RIGHT | WRONG
    gives: str  # what the figures give, in words
    needs: str  # what the words would need, or under which condition they are right


def check(claim: str) -> Answer:
    """Return whether the words of a claim fit its figures. Raises SpecError if it is not understood."""
    if len(claim) > CHARACTERS_MAX:
        raise SpecError(f"a claim has at most {CHARACTERS_MAX} characters, not {len(claim)}", hint=HINT)
    text = re.sub(r"\s+", " ", claim).strip().rstrip(".").lower()
    for mark, plain in (("\u2192", "->"), ("\u00d7", "x"), ("\u2212", "-"), ("\u2013", "-")):
        text = text.replace(mark, plain)
    text = re.sub(r"(?<=\d) ?percent\b", " %", text)
    for pattern, rule in ((_CHANGE, _change), (_SHARE, _share), (_TIMES, _multiple), (_BOUND, _bound), (_SUM, _sum)):
        if match := pattern.fullmatch(text):
            try:
                return Answer(claim, *rule(match))
            except ZeroDivisionError:
                raise SpecError(
                    f"the claim {claim!r} divides by 0", hint="a change from or to 0 has no ratio"
                ) from None
    raise SpecError(f"the claim {claim!r} is not understood", hint=HINT)


def _pair(first: str, second: str) -> tuple[Figure, Figure]:
    one, other = map(figures.figure, figures.shared_unit((first, second)))
    if one.kind != other.kind:
        raise SpecError(f"{first.strip()} and {second.strip()} have units that do not compare", hint=HINT)
    return one, other


def _amount(match: re.Match[str]) -> Figure:
    return figures.figure(match["amount"], rounded=True, about=bool(match["about"]))


def _judged(rule: Callable[..., float], said: Figure, *parts: Figure) -> bool:
    return computed(rule, *parts).meets(said.range)


def _rounding(rule: Callable[..., float], said: Figure, *parts: Figure) -> str:
    """Return that a right claim is so by rounding only, "" if the printed figures give it."""
    value = rule(*(one.value for one in parts))
    return "" if Range(value, value).meets(said.range) else "only because the figures are rounded"


class _Reading(NamedTuple):
    """One meaning of the words of a change."""

    says: str  # "" for the words of the claim
    rule: Callable[[float, float], float]  # (before, after) -> the amount
    after: Callable[[float, float], float]  # (before, amount) -> what `after` has to be


_DOWN = _Reading("less", lambda a, b: 100 * (a - b) / a, lambda a, p: a * (1 - p / 100))
_UP = _Reading("more", lambda a, b: 100 * (b - a) / a, lambda a, p: a * (1 + p / 100))
_QUICKER = _Reading("more speed", lambda a, b: 100 * (a - b) / b, lambda a, p: a / (1 + p / 100))
_SLOWER = _Reading("less speed", lambda a, b: 100 * (b - a) / b, lambda a, p: a / (1 - p / 100))
_FALL = _Reading("", lambda a, b: a / b, lambda a, n: a / n)
_RISE = _Reading("", lambda a, b: b / a, lambda a, n: a * n)


def _readings(word: str, how: str, *, rate: bool) -> tuple[_Reading, ...]:
    """Return what the words can mean; `faster` is less time, or more speed."""
    if rate:  # more of a rate is faster
        word = {"faster": "more", "slower": "less"}.get(word, word)
    if how == " times":
        return (_FALL,) if word in ("less", "faster") else (_RISE,)
    return {"less": (_DOWN,), "more": (_UP,), "faster": (_DOWN, _QUICKER), "slower": (_UP, _SLOWER)}[word]


def _change(match: re.Match[str]) -> tuple[str, str, str]:
    word = match["noun"] or match["word"]
    if word is None or (match["noun"] and match["word"]):
        raise SpecError(f"{match[0]!r} has no word such as `less`, `more`, `faster`, or two of them", hint=HINT)
    before, after = _pair(match["before"], match["after"])
    said, how = _amount(match), " %" if "%" in match["how"] else " times"
    readings = _readings(_WORDS[word], how, rate=before.kind.endswith("/s"))
    right = [one for one in readings if _judged(one.rule, said, before, after)]
    gives, amount = _gives(before, after), f"{said.value:g}{how}"
    if right:
        notes = [f"only as {amount} {right[0].says}"] if len(readings) > 1 else []
        notes += filter(None, [_rounding(right[0].rule, said, before, after)])
        return RIGHT, gives, "; ".join(notes)
    needs = [_need(one, f"{amount} {one.says or word}", before, said, after) for one in readings]
    return WRONG, gives, "; ".join([*needs, *_mistaken(before, after, said, amount)])


def _gives(before: Figure, after: Figure) -> str:
    change = 100 * (after.value - before.value) / before.value
    share = f"{abs(change):.3g} % {'less' if change < 0 else 'more'}"
    larger, smaller = max(before.value, after.value), min(before.value, after.value)
    text = f"{share}, a factor of {larger / smaller:.3g}"
    if before.kind == "s" and change < 0:
        text += f" ({100 * (before.value / after.value - 1):.3g} % more speed)"
    return text


def _need(one: _Reading, amount: str, before: Figure, said: Figure, after: Figure) -> str:
    """Return what one meaning of the words would need in the place of the second figure."""
    try:
        needed = one.after(before.value, said.value)
    except ZeroDivisionError:
        needed = -1.0
    if needed < 0:
        return f"{amount} is not possible"
    return f"{amount} would need {worded(needed, after.kind)} instead of {after}"


def _mistaken(before: Figure, after: Figure, said: Figure, amount: str) -> Iterator[str]:
    """Yield what a percentage is that is not the change."""
    if "%" in amount and _judged(lambda a, b: 100 * b / a, said, before, after):
        yield f"{amount} is what is left, not the change"
    if "%" in amount and _judged(lambda a, b: 100 * (a - b) / b, said, before, after):
        yield f"{amount} is the change divided by the second figure, not by the first"


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole


def _share(match: re.Match[str]) -> tuple[str, str, str]:
    part, whole = _pair(match["part"], match["whole"])
    said = _amount(match)
    gives = f"{100 * part.value / whole.value:.4g} %"
    if _judged(_percent, said, part, whole):
        return RIGHT, gives, _rounding(_percent, said, part, whole)
    return WRONG, gives, f"{said.value:g} % would need {worded(whole.value * said.value / 100, part.kind)}"


def _multiple(match: re.Match[str]) -> tuple[str, str, str]:
    part, whole = _pair(match["part"], match["whole"])
    said = _amount(match)
    gives = f"{part.value / whole.value:.3g} times"
    if _judged(truediv, said, part, whole):
        return RIGHT, gives, _rounding(truediv, said, part, whole)
    return WRONG, gives, f"{said.value:g} times would need {worded(whole.value * said.value, part.kind)}"


def _bound(match: re.Match[str]) -> tuple[str, str, str]:
    value, limit = _pair(match["value"], match["limit"])
    below = match["than"] in _BELOW
    fits = value.value <= limit.value if below else value.value >= limit.value
    if match["than"] in ("under", "below", "less than", "over", "above", "more than") and value.value == limit.value:
        fits = False
    relation = "=" if value.value == limit.value else "<" if value.value < limit.value else ">"
    gives = f"{match['value']} {relation} {match['limit']}"
    return RIGHT if fits else WRONG, gives, "" if fits else f"it would need a figure {match['than']} {match['limit']}"


def _sum(match: re.Match[str]) -> tuple[str, str, str]:
    """Check sums, or products and quotients; `+` and `x` are not mixed, as their order is not agreed on in texts."""
    terms = _TERM.findall(match["left"])
    signs = [sign for _, sign in terms[:-1]]
    adding = set(signs) <= {"+", "-"}
    if not adding and set(signs) & {"+", "-"}:
        raise SpecError(f"{match[0]!r} has sums and products", hint="check them one after the other")
    texts = [text for text, _ in terms]
    if adding:
        *texts, right = figures.shared_unit((*texts, match["right"]))
        parts, said = [*map(figures.figure, texts)], figures.figure(right, rounded=True)
        if len({one.kind for one in (*parts, said)}) > 1:
            raise SpecError(f"{match[0]!r} adds figures with units that do not compare", hint=HINT)
    else:
        parts, said = [*map(figures.figure, texts)], figures.figure(match["right"], rounded=True)
    if len(parts) > 8:  # each one doubles the ends that are computed
        raise SpecError(f"{match[0]!r} has more than 8 figures", hint="check a part of them")

    def rule(first: float, *others: float) -> float:
        if adding:
            return first + sum(-one if sign == "-" else one for sign, one in zip(signs, others, strict=True))
        return first * prod(1 / one if sign == "/" else one for sign, one in zip(signs, others, strict=True))

    value = rule(*(one.value for one in parts))
    gives = worded(value, said.kind) if said.kind != "1" else f"{value:.6g}"
    if _judged(rule, said, *parts):
        return RIGHT, gives, _rounding(rule, said, *parts)
    return WRONG, gives, f"it differs by {worded(abs(value - said.value), said.kind)} from what is printed"
