"""Table: what a picture shows, as plain arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from bbmmopt.notebook import facts, heading, html, joined, rounded, table

if TYPE_CHECKING:
    import pandas

_SHOWN = 10  # rows in a notebook


class Table(Mapping[str, np.ndarray]):
    """Columns of one length, by name: the numbers behind a picture, to draw them elsewhere.

        table = acquisition_data("study.db")
        table["params.x"], table["value"], table.facts["held"]
        table.to_frame()  # a pandas DataFrame

    Parameters are columns "params.NAME", objectives and constraints "values.NAME" and
    "constraints.NAME", as `bbmmopt export` writes them.

    Args:
        columns: {name: values}, each of shape (n,).
        facts: What there is to say of the whole, such as what other parameters are held at.

    Raises:
        ValueError: If the columns differ in length, or one is not of one dimension.
    """

    def __init__(self, columns: Mapping[str, ArrayLike], **facts: Any) -> None:
        self._columns = {name: _column(name, values) for name, values in columns.items()}
        lengths = {name: len(values) for name, values in self._columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of a table must have one length; got {lengths}.")
        self.facts = facts

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self._columns.values()), ()))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._columns:
            raise KeyError(f"there is no column {name!r}; there are {', '.join(self._columns)}.")
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"Table({self.rows} rows of {', '.join(self._columns)})"

    def _repr_html_(self) -> str:
        rows = zip(
            *(map(rounded, column[:_SHOWN].tolist()) for column in self.values()), strict=True
        )
        more = self.rows - _SHOWN
        return joined(
            heading(f"Table of {self.rows} rows"),
            table(list(self), rows),
            html(f"and {more} more") if more > 0 else None,
            facts({name: rounded(fact) for name, fact in self.facts.items()}),
        )

    def to_frame(self) -> pandas.DataFrame:
        """The same as a pandas DataFrame, whose `attrs` are the facts; pandas must be installed.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_frame needs pandas: pip install pandas. The columns are plain arrays already: "
                "dict(table)."
            ) from error
        frame = pandas.DataFrame(self._columns)
        frame.attrs.update(self.facts)
        return frame


def columns_of(
    part: str, names: Iterable[str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """Dicts as columns "part.NAME", each of shape (n,).

    Integers where all rows have one; else numbers, NaN where there is none; else objects, None
    where there is none.

    Args:
        part: What the names begin with: "params", "values" …
        names: The columns wanted.
        rows: n dicts.
    """
    return {f"{part}.{name}": _typed([row.get(name) for row in rows]) for name in names}


def _typed(values: Sequence[Any]) -> np.ndarray:
    kinds = {type(value) for value in values}
    if kinds == {int}:
        return np.array(values)
    if kinds <= {int, float, type(None)}:
        return np.array([np.nan if value is None else value for value in values], dtype=float)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _column(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"column {name!r} must have one dimension; got shape {array.shape}.")
    return array
