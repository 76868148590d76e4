"""Lines of several studies in one picture, those of one label joined to a band."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from bbmmopt.plots.style import far_worse, line_look, plain
from bbmmopt.plots.table import Table

_AROUND = (25.0, 50.0, 75.0)  # percentiles: of the band, and the line in it


def draw_runs(
    ax: Axes,
    table: Table,
    x: np.ndarray,
    heights: np.ndarray,
    *,
    good_is_low: bool,
    finished: np.ndarray,
) -> tuple[bool, float]:
    """Draw what each study had reached, as steps: a line a label, in a band if it has repeats.

    Args:
        ax: Where to draw.
        table: Says which row is of which study and repeat: columns "study" and "repeat".
        x: Of each row, shape (n,); increasing within a study. NaN where it is not known yet.
        heights: What had been reached, shape (n,); NaN where nothing was.
        good_is_low: Whether small heights are good.
        finished: Whether the trial of a row has finished, shape (n,): lines end with the last one.

    Returns:
        Whether there are repeats, and how far the longest line goes.
    """
    any_repeats, furthest = False, 0.0
    drawn: list[np.ndarray] = []
    for i, label in enumerate(dict.fromkeys(table["study"].tolist())):
        mine = table["study"] == label
        runs = []
        for repeat in dict.fromkeys(table["repeat"][mine].tolist()):
            rows = np.flatnonzero(mine & (table["repeat"] == repeat))
            done = np.flatnonzero(finished[rows])
            rows = rows[: done[-1] + 1] if len(done) else rows[:0]
            runs.append((x[rows], heights[rows]))
        at, low, middle, high = together(runs)
        look = line_look(i)
        words = plain(label) + (f" ({len(runs)} runs)" if len(runs) > 1 else "")
        if not len(at):
            ax.plot([], [], label=f"{words}: nothing yet", **look)
            continue
        if len(runs) > 1:
            any_repeats = True
            ax.fill_between(
                at, low, high, step="post", color=look["color"], alpha=0.18, linewidth=0
            )
        ax.step(at, middle, where="post", label=words, zorder=3, **look)
        ax.plot(at[-1:], middle[-1:], marker="o", markersize=4, color=look["color"], zorder=3)
        drawn += [low, middle, high]
        furthest = max(furthest, float(at[-1]))
    if drawn:
        _limit(ax, drawn, good_is_low=good_is_low)
    return any_repeats, furthest


def together(
    runs: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lower quartile, median and upper quartile of several runs that go in steps.

    Args:
        runs: Where each stepped and to what height, both of shape (m,); NaN before the first.

    Returns:
        Where, and the three heights there, each of shape (m',): from where all runs have a height,
        as far as the shortest goes.
    """
    if any(not np.isfinite(heights).any() for _, heights in runs):
        none = np.empty(0)
        return none, none, none, none
    first = max(at[np.isfinite(heights)][0] for at, heights in runs)
    last = min(at[-1] for at, _ in runs)
    at = np.unique(np.concatenate([at for at, _ in runs]))
    at = at[(at >= first) & (at <= last)]
    steps = [heights[np.searchsorted(own, at, side="right") - 1] for own, heights in runs]
    low, middle, high = np.percentile(np.array(steps).reshape(len(runs), -1), _AROUND, axis=0)
    return at, low, middle, high


def _limit(ax: Axes, drawn: list[np.ndarray], *, good_is_low: bool) -> None:
    """Set the vertical limits so that a bad beginning of some run does not squeeze the rest."""
    everything = np.concatenate(drawn)
    if ax.get_yscale() == "log":
        kept = everything
    else:
        beyond = far_worse(everything, good_is_low=good_is_low)
        # How each line ends is always in sight.
        kept = np.concatenate([everything[~beyond], [line[-1] for line in drawn]])
    scale = np.log(kept) if ax.get_yscale() == "log" else kept
    low, high = float(scale.min()), float(scale.max())
    pad = 0.06 * ((high - low) or abs(low) or 1.0)
    limits = np.array([low - pad, high + pad])
    ax.set_ylim(*(np.exp(limits) if ax.get_yscale() == "log" else limits))
