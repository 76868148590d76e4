"""Curves and surfaces over a slice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.ticker import MaxNLocator

from bbmmopt.plots.slices import Slice
from bbmmopt.plots.style import BLACK, BLUE, plain, tidy

_LEVELS = 24  # about so many colours in a surface
_LARGEST = 1e200  # matplotlib's contours take 1e250 for infinity


@dataclass(frozen=True)
class Range:
    """The values that a scale tells apart.

    Attributes:
        low, high: Its ends; low < high.
        extend: Where values go beyond: "neither", "min", "max" or "both", as in matplotlib.
    """

    low: float
    high: float
    extend: str

    @staticmethod
    def of(values: np.ndarray, *, low: float = -np.inf, high: float = np.inf) -> Range:
        """Of all values, but for those below `low` and above `high`."""
        least, most = float(values.min()), float(values.max())
        low, high = max(low, least), min(high, most)
        if not low < high:
            low, high = least, most
        ends = ("min" if least < low else "", "max" if high < most else "")
        extend = "both" if all(ends) else "".join(ends) or "neither"
        if not low < high:  # a constant
            pad = 1e-3 * max(1.0, abs(least))
            low, high = least - pad, most + pad
        return Range(low, high, extend)


def draw_surface(
    ax: Axes, where: Slice, values: np.ndarray, limits: Range, *, cmap: str, label: str
) -> ScalarMappable:
    """Fill the axes with colours for values (my, mx), and put a colour bar beside them.

    Contours between numbers; cells where a parameter has few values, as there is nothing between.
    The label says where colours end that values go beyond.
    """
    assert where.y is not None
    largest = max(abs(limits.low), abs(limits.high))
    if largest > _LARGEST:
        unit = 10.0 ** math.floor(math.log10(largest))
        values, label = values / unit, f"{label} / {unit:.0e}"
        limits = Range(limits.low / unit, limits.high / unit, limits.extend)
    ends = limits.low, limits.high
    if where.x.cells or where.y.cells:
        drawn = ax.pcolormesh(
            where.x.edges(),
            where.y.edges(),
            values,
            cmap=cmap,
            vmin=limits.low,
            vmax=limits.high,
            rasterized=True,
        )
        for side, axis in (("x", where.x), ("y", where.y)):
            if axis.cells:
                line = ax.axvline if side == "x" else ax.axhline
                for edge in axis.edges()[1:-1]:
                    line(edge, color="white", linewidth=0.8)
    else:
        levels = np.array(MaxNLocator(_LEVELS).tick_values(limits.low, limits.high))
        # Beyond a cut the first and the last colour go on; elsewhere the levels cover everything.
        low = levels >= limits.low if limits.extend in ("min", "both") else levels > -np.inf
        high = levels <= limits.high if limits.extend in ("max", "both") else levels < np.inf
        levels = levels[low & high]
        ends = float(levels[0]), float(levels[-1])
        grid = where.x.values, where.y.values, values
        drawn = ax.contourf(*grid, levels=levels, cmap=cmap, extend=limits.extend)
        drawn.set_edgecolor("face")  # or viewers of PDF and SVG show a seam between the colours
        ax.contour(*grid, levels=levels, colors=BLACK, linewidths=0.4, alpha=0.25)
    where.x.dress(ax, "x")
    where.y.dress(ax, "y")
    bar = ax.figure.colorbar(drawn, ax=ax, extend=limits.extend, pad=0.02, aspect=28)
    if limits.extend in ("min", "both"):
        label += f"\n(one colour below {ends[0]:.3g})"
    if limits.extend in ("max", "both"):
        label += f"\n(one colour above {ends[1]:.3g})"
    bar.set_label(plain(label))
    bar.outline.set_visible(False)  # type: ignore[operator]
    ticks = np.array(MaxNLocator(8).tick_values(limits.low, limits.high))
    bar.set_ticks(ticks[(ends[0] <= ticks) & (ticks <= ends[1])].tolist())
    return drawn


def draw_curve(
    ax: Axes, where: Slice, values: np.ndarray, *, bottom: float, label: str, colour: str = BLUE
) -> None:
    """Draw values (m,) over x: a line, with dots where x has few values; bars over categories.

    Args:
        ax: Where to draw.
        where: The slice, of one parameter.
        values: What to draw.
        bottom: Where bars start.
        label: Of the vertical axis.
        colour: Of the line.
    """
    tidy(ax)
    x = where.x.values
    if where.x.categorical:
        ax.bar(x, values - bottom, bottom=bottom, width=0.7, color=colour, alpha=0.55)
        ax.grid(False, axis="x")
    else:
        dots = {"marker": "o", "markersize": 4} if where.x.cells else {}
        ax.plot(x, values, color=colour, linewidth=1.8, **dots)
    where.x.dress(ax, "x")
    ax.set_ylabel(plain(label))
