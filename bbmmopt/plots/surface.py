"""Curves and surfaces over a slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.ticker import MaxNLocator

from bbmmopt.plots.slices import Slice
from bbmmopt.plots.style import BLACK, BLUE, plain, tidy

_LEVELS = 24  # about so many colours in a surface


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
    def of(values: np.ndarray, *, cut_low: float = 0.0, cut_high: float = 0.0) -> Range:
        """Of all values, less a share at either end: the tail there would take all the scale."""
        least, low, high, most = np.quantile(values, [0.0, cut_low, 1.0 - cut_high, 1.0])
        if not low < high:
            low, high = least, most
        ends = ("min" if least < low else "", "max" if high < most else "")
        extend = "both" if all(ends) else "".join(ends) or "neither"
        if not low < high:  # a constant
            pad = 1e-3 * max(1.0, abs(least))
            low, high = least - pad, most + pad
        return Range(float(low), float(high), extend)


def draw_surface(
    ax: Axes, where: Slice, values: np.ndarray, limits: Range, *, cmap: str, label: str
) -> ScalarMappable:
    """Fill the axes with colours for values (my, mx), and put a colour bar beside them.

    Contours between numbers; cells where a parameter has few values, as there is nothing between.
    """
    assert where.y is not None
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
        levels = MaxNLocator(_LEVELS).tick_values(limits.low, limits.high)
        # Beyond a cut the first and the last colour go on; elsewhere the levels cover everything.
        low = levels >= limits.low if limits.extend in ("min", "both") else levels > -np.inf
        high = levels <= limits.high if limits.extend in ("max", "both") else levels < np.inf
        levels = levels[low & high]
        grid = where.x.values, where.y.values, values
        drawn = ax.contourf(*grid, levels=levels, cmap=cmap, extend=limits.extend)
        drawn.set_edgecolor("face")  # or viewers of PDF and SVG show a seam between the colours
        ax.contour(*grid, levels=levels, colors=BLACK, linewidths=0.4, alpha=0.25)
    where.x.dress(ax, "x")
    where.y.dress(ax, "y")
    bar = ax.figure.colorbar(drawn, ax=ax, extend=limits.extend, pad=0.02, aspect=28)
    bar.set_label(plain(label))
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.locator = MaxNLocator(8)
    bar.update_ticks()
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
