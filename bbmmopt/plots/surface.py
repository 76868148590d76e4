"""Curves and surfaces over a slice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from bbmmopt.plots.axis import Axis
from bbmmopt.plots.regions import borders
from bbmmopt.plots.slices import Slice
from bbmmopt.plots.style import BANDS, BLACK, BLUE, height, letters, tidy, upright

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
    ax: Axes,
    where: Slice,
    values: np.ndarray,
    limits: Range,
    *,
    cmap: str,
    label: str,
) -> ScalarMappable:
    """Fill the axes with colours for values (my, mx), and put a colour bar beside them.

    Contours between numbers; cells where a parameter has few values, as there is nothing between.
    The label says where colours end that values go beyond.

    Args:
        ax: Where to draw.
        where: The slice shown there.
        values: What to draw.
        limits: The values that colours tell apart.
        cmap: Name of the colours.
        label: What the values are.
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
        _draw_edges(ax, where)
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
        look = {"colors": BLACK, "linewidths": 0.4, "linestyles": "solid", "alpha": 0.25}
        ax.contour(*grid, levels=levels, **look)
    where.x.dress(ax, "x")
    where.y.dress(ax, "y")
    bar = ax.figure.colorbar(drawn, ax=ax, extend=limits.extend, pad=0.02, aspect=28)
    if limits.extend in ("min", "both"):
        label += f"\n(one colour below {ends[0]:.3g})"
    if limits.extend in ("max", "both"):
        label += f"\n(one colour above {ends[1]:.3g})"
    bar.set_label(upright(ax, label), fontsize=letters(ax))
    bar.ax.tick_params(labelsize=letters(ax))
    bar.outline.set_visible(False)  # type: ignore[operator]
    ticks = np.array(
        MaxNLocator(max(3, min(8, int(height(ax) / 25)))).tick_values(limits.low, limits.high)
    )
    bar.set_ticks(ticks[(ends[0] <= ticks) & (ticks <= ends[1])].tolist())
    return drawn


def _draw_edges(ax: Axes, where: Slice) -> None:
    """White lines between cells; not where a parameter is not active, as one point is all there."""
    assert where.y is not None
    rows = where.rows.reshape(*where.shape, -1)
    upright, level = (np.any(np.diff(rows, axis=axis) != 0, axis=-1) for axis in (1, 0))
    edges = borders(where, upright & where.x.cells, level & where.y.cells)
    lines = LineCollection(edges, colors="white", linewidths=0.8)
    ax.add_collection(lines, autolim=False)


def draw_bands(
    ax: Axes,
    axis: Axis,
    middle: np.ndarray,
    inner: tuple[np.ndarray, np.ndarray],
    outer: tuple[np.ndarray, np.ndarray],
    *,
    scale: float = 1.0,
) -> None:
    """Draw the median (m,) within its 68 and 95 % bands; whiskers over categories.

    Args:
        ax: Where to draw.
        axis: What runs along the horizontal axis.
        middle: The median.
        inner, outer: Ends of the bands, the lower one first.
        scale: Of lines and dots; in a small picture whiskers are wider for it.
    """
    x = axis.values
    for (lower, upper), colour, width, label in (
        (outer, BANDS[0], 0.18, "95 % band"),
        (inner, BANDS[1], 0.36, "68 % band"),
    ):
        if axis.categorical:
            bars = {"width": width / scale, "color": colour, "label": label}
            ax.bar(x, upper - lower, bottom=lower, **bars)
        else:
            ax.fill_between(x, lower, upper, color=colour, linewidth=0, label=label)
    if axis.categorical:
        ax.grid(False, axis="x")
        ends = x - 0.25 / scale, x + 0.25 / scale
        ax.hlines(middle, *ends, color=BLUE, linewidth=2 * scale, label="median")
    else:
        dots = {"marker": "o", "markersize": 3 * scale} if axis.cells else {}
        ax.plot(x, middle, color=BLUE, linewidth=1.8 * scale, label="median", **dots)


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
    ax.set_ylabel(upright(ax, label))
