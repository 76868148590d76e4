"""Axis: one parameter along an edge of a picture, in the user's units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FixedLocator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
)

from bbmmopt.plots.style import (
    fit_letters,
    fitted,
    height,
    letters,
    plain,
    short,
    steep,
    width,
)
from bbmmopt.space import Integer, Real, Space
from bbmmopt.space.parameters import Parameter

_CELLS = 40  # integers of up to so many values are drawn as cells, one each
_TICKS = 12  # up to so many levels each get a tick
_LONGEST = 14  # characters of a choice that are written, turned, where there is not more room
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Axis:
    """A parameter along an edge of a picture.

    Attributes:
        name: Its name.
        column: Its column in the unit cube.
        parameter: The parameter.
        units: Where it is looked at, in [0, 1], increasing, shape (m,).
        values: The same in the picture, shape (m,): user's units; 0, 1, 2 … for choices.
        cells: Whether these are all values it has, each drawn as a cell.
    """

    name: str
    column: int
    parameter: Parameter
    units: np.ndarray
    values: np.ndarray
    cells: bool

    @property
    def log(self) -> bool:
        """Whether its scale is logarithmic."""
        return isinstance(self.parameter, Real | Integer) and self.parameter.log

    @property
    def labels(self) -> tuple[Any, ...] | None:
        """The choices, of a parameter that has choices."""
        return getattr(self.parameter, "labels", None)

    @property
    def categorical(self) -> bool:
        """Whether its values have no order."""
        return self.parameter.kind == "categorical"

    def edges(self) -> np.ndarray:
        """Where the cells around the values meet, shape (m + 1,)."""
        v = self.values
        if self.cells:
            half = 0.5 * (self.parameter.step if isinstance(self.parameter, Integer) else 1)
            return np.append(v - half, v[-1] + half)
        middles = np.sqrt(v[1:] * v[:-1]) if self.log else 0.5 * (v[1:] + v[:-1])
        return np.concatenate([v[:1], middles, v[-1:]])

    def values_at(self, units: np.ndarray) -> np.ndarray:
        """Where places in [0, 1] lie in the picture, shape (m,), of a parameter of numbers."""
        return np.array([float(self.parameter.from_unit(u)) for u in units])

    def coordinate(self, value: Any, number: int | None = None) -> float:
        """Where a value of the parameter lies.

        Trials of the same choice would hide each other: those with a number are spread sideways.
        """
        if self.labels is None:
            return float(value)
        lattice = self.parameter.lattice
        assert lattice is not None
        spread = 0.0 if number is None else 0.56 * ((number * _GOLDEN) % 1 - 0.5)
        return lattice.level(self.parameter.to_unit(value)) + spread

    def dress(self, ax: Axes, side: Literal["x", "y"]) -> None:
        """Give the picture's axis its scale, limits, ticks and label."""
        low, high = self.edges()[[0, -1]]
        # Limits first: a log scale must not meet the limits (0, 1) of empty axes.
        scale = "log" if self.log else "linear"
        ax.set(**{f"{side}scale": scale, f"{side}lim": (low, high)})
        room = width(ax) if side == "x" else height(ax)
        ax.set(**{f"{side}label": fitted(self.name, room, letters(ax))})
        fit_letters(ax)
        axis = ax.xaxis if side == "x" else ax.yaxis
        if self.labels is not None:
            every = math.ceil(len(self.labels) / (24 if side == "y" else _TICKS))
            each = room / (0.65 * letters(ax)) * every / len(self.labels)  # characters
            most, look = min(24, int(0.35 * width(ax) / (0.65 * letters(ax)))), {}
            if side == "x":
                most = min(24, max(int(each), _LONGEST))
                longest = max(len(short(label, most)) for label in self.labels)
                if longest > each:
                    angle = steep(0.65 * letters(ax) * each, letters(ax))
                    look = {"rotation": angle, "ha": "right", "rotation_mode": "anchor"}
            texts = [plain(short(label, max(3, most))) for label in self.labels]
            axis.set_ticks(np.arange(len(texts))[::every], texts[::every], **look)
            axis.set_tick_params(length=0, pad=8)
        elif self.cells and len(self.values) <= _TICKS:
            axis.set_major_locator(FixedLocator(self.values.tolist()))
            axis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
            axis.set_minor_locator(FixedLocator([]))
        elif self.log and high / low < 200:
            # Fewer than two powers of ten may be in sight: label 2 and 5 in between.
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
        elif isinstance(self.parameter, Integer) and not self.log:
            axis.set_major_locator(MaxNLocator("auto", integer=True))


def make_axis(space: Space, name: str, points: int, through: Sequence[Any] = ()) -> Axis:
    """The axis of a parameter.

    Args:
        space: The space it belongs to.
        name: Its name.
        points: How many values of a continuous parameter to look at.
        through: More of its values to look at.
    """
    parameter, column = space.parameters[name], space.names.index(name)
    lattice = parameter.lattice
    cells = lattice is not None and (lattice.size <= _CELLS or not isinstance(parameter, Integer))
    if lattice is not None and cells:
        units = lattice.positions()
    else:
        more = np.array([parameter.to_unit(value) for value in through])
        units = np.union1d(np.linspace(0, 1, points), more.clip(0, 1))
        units = units if lattice is None else np.unique(lattice.snap(units))
    if isinstance(parameter, Real | Integer):
        values = np.array([float(parameter.from_unit(u)) for u in units])
    else:
        values = np.arange(len(units), dtype=float)
    return Axis(name, column, parameter, units, values, cells)
