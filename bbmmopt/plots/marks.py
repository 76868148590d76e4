"""The marks of trials on a slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from bbmmopt.plots.slices import Slice
from bbmmopt.plots.style import scatter
from bbmmopt.trial import Trial, TrialState

_KINDS = {
    TrialState.COMPLETE: "observed",
    TrialState.FAILED: "failed",
    TrialState.RUNNING: "pending",
    TrialState.WAITING: "pending",
}
_EDGE = 0.035  # height of marks that have no value, as a fraction of the axes


def by_kind(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Trials under what they are marked as."""
    kinds: dict[str, list[Trial]] = {"observed": [], "failed": [], "pending": []}
    for trial in trials:
        if trial.state in _KINDS:
            kinds[_KINDS[trial.state]].append(trial)
    return kinds


def draw_marks(
    ax: Axes,
    where: Slice,
    kinds: Mapping[str, Sequence[Trial]],
    height: Callable[[Trial], float] | None = None,
) -> list[Trial]:
    """Mark trials: those off the slice fainter, as they are only projected onto it.

    Args:
        ax: Where to draw.
        where: The slice shown there.
        kinds: {kind: trials}.
        height: On a curve, how high to put a trial, if that is in view; left out, all stand on
            the lower edge.

    Returns:
        Those that have no place in the picture.
    """
    hidden: list[Trial] = []
    low, high = ax.get_ylim()
    for kind, trials in kinds.items():
        shown = [
            trial
            for trial in trials
            if where.shows(trial.params) and (height is None or low <= height(trial) <= high)
        ]
        hidden += [trial for trial in trials if trial not in shown]
        for faint in (True, False):
            part = [trial for trial in shown if where.contains(trial.params) != faint]
            if not part:
                continue
            coordinates = where.place(part)
            options = {}
            if where.y is None and height is not None:
                coordinates.append(np.array([height(trial) for trial in part]))
            elif where.y is None:
                coordinates.append(np.full(len(part), _EDGE))
                options["transform"] = ax.get_xaxis_transform()
            scatter(ax, kind, coordinates, kind, faint=faint, **options)
    return hidden


def hidden_note(where: Slice, hidden: Sequence[Trial]) -> str:
    """How many trials are not shown, and why; "" if all are."""
    missing = [[a.name for a in where.axes if a.name not in t.params] for t in hidden]
    names = [axis.name for axis in where.axes if any(axis.name in names for names in missing)]
    without = sum(map(bool, missing))
    parts = [f"{without} without {' or '.join(names)}"] * bool(without)
    parts += [f"{len(hidden) - without} out of view"] * (len(hidden) > without)
    return f"not shown: {', '.join(parts)}" if parts else ""
