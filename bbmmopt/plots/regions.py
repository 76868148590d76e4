"""Regions of a slice: what cannot be tried, and where constraints should hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patheffects import AbstractPathEffect, withStroke

from bbmmopt.plots.chance import Chance
from bbmmopt.plots.slices import Slice
from bbmmopt.plots.style import BLACK

FORBIDDEN = "cannot be tried"
DOUBTFUL = "feasible: chance < ½"
EVEN = "feasible: chance ½"

_GREY = {"facecolor": "0.88", "edgecolor": "0.62", "hatch": "////", "linewidth": 0.0, "zorder": 2.2}
_TINT = {"facecolor": "#F6E7F0", "linewidth": 0.0, "zorder": 0.4}
_FINER = 4  # steps of the outline of what may be tried for one of the grid


def draw_forbidden(ax: Axes, where: Slice) -> None:
    """Hatch what the constraints of the space rule out, by its own check."""
    if where.allowed is None or where.allowed.all():
        return
    if where.y is None:
        _spans(ax, where, ~where.allowed, FORBIDDEN, _GREY)
        return
    if where.x.cells or where.y.cells:
        x, y = where.x.edges(), where.y.edges()
        for low, high, row in zip(y[:-1], y[1:], ~where.allowed, strict=True):
            if row.any():
                ax.fill_between(_ends(x), low, high, where=np.repeat(row, 2), **_GREY)
    else:
        x, y, allowed = outline(where)
        drawn = ax.contourf(
            x,
            y,
            (~allowed).astype(float),
            [0.5, 1.5],
            colors=["0.88"],
            hatches=["////"],
            zorder=2.2,
        )
        drawn.set(edgecolor="0.62", linewidth=0.0)
    ax.fill_between([], [], label=FORBIDDEN, **_GREY)


def draw_chance(ax: Axes, where: Slice, chance: Chance) -> None:
    """Say where the model takes it for even that the constraints on outcomes hold.

    A line on a surface; on a curve, what is less likely is tinted.
    """
    doubtful = chance.margin < 0
    if where.y is None:
        if doubtful.any():
            _spans(ax, where, doubtful, DOUBTFUL, _TINT)
    elif doubtful.any() and not doubtful.all():
        draw_level(ax, where, chance.margin, 0.0, EVEN)


def draw_level(ax: Axes, where: Slice, values: np.ndarray, level: float, label: str) -> None:
    """A dashed line on a surface where values (my, mx) have a level; between cells, their edges."""
    assert where.y is not None
    halo: list[AbstractPathEffect] = [withStroke(linewidth=3.4, foreground="white", alpha=0.85)]
    look: dict[str, Any] = {"linewidths": 1.6, "linestyles": "--", "zorder": 2.1}
    if where.x.cells or where.y.cells:
        below = values < level
        edges = borders(where, below[:, 1:] != below[:, :-1], below[1:] != below[:-1])
        lines = LineCollection(edges, colors=BLACK, **look)
        ax.add_collection(lines, autolim=False)
    else:
        lines = ax.contour(where.x.values, where.y.values, values, [level], colors=[BLACK], **look)
    lines.set_path_effects(halo)
    ax.plot([], [], color=BLACK, linewidth=1.6, linestyle="--", path_effects=halo, label=label)


def outline(where: Slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which points of a finer grid may be tried: x (kx,), y (ky,) and bool (ky, kx).

    Looked at only around where the slice's own grid has both kinds.
    """
    assert where.y is not None and where.allowed is not None
    units = [_finely(axis.units) for axis in where.axes]
    coarse = where.allowed
    corners = [coarse[:-1, :-1], coarse[:-1, 1:], coarse[1:, :-1], coarse[1:, 1:]]
    mixed = np.any(corners, axis=0) & ~np.all(corners, axis=0)  # of the squares of the grid
    # Of each place of the finer grid, the square that it lies in, and the corner next to it.
    places = [np.arange(len(u)) / _FINER for u in reversed(units)]
    squares = np.ix_(*(np.minimum(p.astype(int), int(p[-1]) - 1) for p in places))
    corner = np.ix_(*(np.rint(p).astype(int) for p in places))
    allowed, unsure = coarse[corner], mixed[squares]
    grids = np.meshgrid(*units)
    allowed[unsure] = where.space.feasible(where.rows_at(*(grid[unsure] for grid in grids)))
    x, y = (axis.values_at(u) for axis, u in zip(where.axes, units, strict=True))
    return x, y, allowed


def _finely(units: np.ndarray) -> np.ndarray:
    """Units with more of them between each two."""
    k = len(units) - 1
    return np.interp(np.arange(_FINER * k + 1) / _FINER, np.arange(k + 1), units)


def _spans(ax: Axes, where: Slice, mask: np.ndarray, label: str, look: dict[str, Any]) -> None:
    """Fill the height of a curve's axes over some of its points."""
    box, over = ax.get_xaxis_transform(), np.repeat(mask, 2)
    ends = _ends(where.x.edges())
    ax.fill_between(ends, 0.0, 1.0, where=over, transform=box, label=label, **look)


def _ends(edges: np.ndarray) -> np.ndarray:
    """The two ends of each cell between edges (m + 1,), shape (2 m,)."""
    return np.repeat(edges, 2)[1:-1]


def borders(where: Slice, upright: np.ndarray, level: np.ndarray) -> list[np.ndarray]:
    """Edges between cells as lines, each (2, 2).

    Args:
        where: A slice of two parameters.
        upright: Between which neighbours in x there is one, bool (my, mx - 1).
        level: Between which neighbours in y, bool (my - 1, mx).
    """
    assert where.y is not None
    x, y = where.x.edges(), where.y.edges()
    found = [
        np.array([[x[j + 1], y[i]], [x[j + 1], y[k]]])
        for j, column in enumerate(upright.T)
        for i, k in _runs(column)
    ]
    found += [
        np.array([[x[j], y[i + 1]], [x[k], y[i + 1]]])
        for i, row in enumerate(level)
        for j, k in _runs(row)
    ]
    return found


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Begin and end of each stretch of a mask (m,)."""
    steps = np.flatnonzero(np.diff(mask.astype(int), prepend=0, append=0))
    return list(zip(steps[::2].tolist(), steps[1::2].tolist(), strict=True))
