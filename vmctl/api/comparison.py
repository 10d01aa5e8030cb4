"""The same workload in several modes: what differs and what is the same, as a value that notebooks show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vmctl.comparing import page, rows
from vmctl.comparing.rows import Row


class Comparison:
    """What `vmctl.compare` has found; it iterates over the rows, those that differ first."""

    def __init__(self, modes: tuple[str, ...], facts: Sequence[Mapping[str, str]]) -> None:
        self.modes = modes
        self.rows = rows.rows(facts)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> dict[str, str | None]:
        """Return the value of a fact in each mode, such as `comparison["kernel"]["vm"]`. Raises KeyError."""
        for row in self.rows:
            if row.fact.name == name:
                return dict(zip(self.modes, row.values, strict=True))
        raise KeyError(name)

    @property
    def different(self) -> list[str]:
        """The names of the facts that differ."""
        return [row.fact.name for row in self.rows if not row.same]

    @property
    def same(self) -> list[str]:
        """The names of the facts that are the same in all modes."""
        return [row.fact.name for row in self.rows if row.same]

    def markdown(self) -> str:
        """Return the tables as Markdown."""
        return page.markdown(self.rows, self.modes)

    def html(self) -> str:
        """Return one page of HTML without anything from outside."""
        return page.html(self.rows, self.modes)

    def _repr_html_(self) -> str:
        """Return what a notebook shows (IPython, "Rich display"): the tables; texts of instances are escaped."""
        return page.fragment(self.rows, self.modes)

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def __repr__(self) -> str:
        return (
            f"<vmctl.Comparison of {', '.join(self.modes)}: {len(self.different)} facts differ, "
            f"{len(self.same)} are the same>"
        )
