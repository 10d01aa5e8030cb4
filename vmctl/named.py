"""A `NamedTuple` like that of `typing`, but fast to import and to subclass.

The start path of `vmctl run` defines about thirty of them in every process. With `typing.NamedTuple` that takes 5 ms,
and importing `typing` takes as long. Type checkers see `typing.NamedTuple`.
"""

from __future__ import annotations

from _collections import _tuplegetter  # type: ignore[import-not-found]  # used by collections.namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:

    class _Fields(type):
        """Turns the annotations of a class into its fields."""

        def __new__(cls, name, bases, namespace):
            namespace["__slots__"] = ()
            fields = tuple(namespace.get("__annotations__", ()))
            if not fields and any(hasattr(base, "_fields") for base in bases):  # it has those of its base
                return type.__new__(cls, name, bases, namespace)
            namespace["_fields"] = fields
            namespace["_field_defaults"] = {field: namespace[field] for field in fields if field in namespace}
            for index, field in enumerate(fields):
                namespace[field] = _tuplegetter(index, field)
            return type.__new__(cls, name, bases, namespace)

    class NamedTuple(tuple, metaclass=_Fields):
        """A tuple whose items have names; the subclass's annotations are the fields, their values the defaults."""

        def __new__(cls, *values, **named):
            """Take values in the order of the fields or by name. Raises TypeError if one is missing or unknown."""
            if named or len(values) != len(cls._fields):
                rest = cls._fields[len(values) :]
                given = {**cls._field_defaults, **named}
                if len(values) > len(cls._fields) or not named.keys() <= set(rest) or not given.keys() >= set(rest):
                    raise TypeError(f"{cls.__name__} takes each of these once: {', '.join(cls._fields)}")
                values += tuple(given[field] for field in rest)
            return tuple.__new__(cls, values)

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

        def __getnewargs__(self):
            return tuple(self)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **changes):
            return type(self)(**{**self._asdict(), **changes})

        @classmethod
        def _make(cls, values):
            return cls(*values)
