"""Our NamedTuple behaves like that of `typing` in everything that the project uses."""

import copy
import pickle
from typing import NamedTuple as TypingsNamedTuple

import pytest

from vmctl.named import NamedTuple


class Ours(NamedTuple):
    """A tuple of ours."""

    a: int
    b: str = "x"
    c: tuple[int, ...] = ()

    @property
    def twice(self) -> int:
        return 2 * self.a


class Theirs(TypingsNamedTuple):
    a: int
    b: str = "x"
    c: tuple[int, ...] = ()


def test_it_is_made_and_read_like_that_of_typing():
    for values, named in (((1,), {}), ((1, "y"), {}), ((), {"a": 1, "c": (2,)}), ((1, "y", (3,)), {})):
        assert tuple(Ours(*values, **named)) == tuple(Theirs(*values, **named))
        assert Ours(*values, **named)._asdict() == Theirs(*values, **named)._asdict()
    assert Ours._fields == Theirs._fields
    assert Ours._field_defaults == Theirs._field_defaults
    assert repr(Ours(1)) == "Ours(a=1, b='x', c=())"
    assert Ours(1)._replace(b="z") == Ours(1, "z")
    assert Ours._make([1, "y", ()]) == Ours(1, "y")
    assert Ours(2).twice == 4


@pytest.mark.parametrize(
    "make",
    [
        lambda kind: kind(),
        lambda kind: kind(1, 2, 3, 4),
        lambda kind: kind(1, a=2),
        lambda kind: kind(1, d=2),
        lambda kind: kind(1)._replace(d=2),
    ],
)
def test_a_wrong_call_is_refused_by_both(make):
    for kind in (Ours, Theirs):
        with pytest.raises((TypeError, ValueError)):
            make(kind)


def test_its_attributes_cannot_be_set():
    for name in ("a", "new"):
        with pytest.raises(AttributeError):
            setattr(Ours(1), name, 2)


def test_it_can_be_copied_unpacked_and_hashed():
    value = Ours(1, "y")
    assert pickle.loads(pickle.dumps(value)) == value
    assert type(copy.deepcopy(value)) is Ours
    a, b, c = value
    assert (a, b, c) == (1, "y", ())
    assert {value: 1}[Ours(1, "y")] == 1
