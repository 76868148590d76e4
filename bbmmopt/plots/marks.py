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
) -> str:
    """Mark trials: those off the slice fainter, as they are only projected onto it.

    Args:
        ax: Where to draw.
        where: The slice shown there.
        kinds: {kind: trials}.
        height: On a curve, how high to put a trial; left out, all stand on the lower edge.

    Returns:
        What could not be marked, in words; "" if nothing.
    """
    hidden = 0
    for kind, trials in kinds.items():
        shown = [trial for trial in trials if where.shows(trial.params)]
        hidden += len(trials) - len(shown)
        on = [where.contains(trial.params) for trial in shown]
        for faint in (True, False):
            part = [trial for trial, is_on in zip(shown, on, strict=True) if is_on != faint]
            if not part:
                continue
            label = f"{kind}, off this slice" if faint else kind
            if where.y is not None:
                scatter(ax, kind, *where.place(part), label, faint=faint)
            elif height is not None:
                heights = np.array([height(trial) for trial in part])
                scatter(ax, kind, where.place(part)[0], heights, label, faint=faint)
            else:
                scatter(
                    ax,
                    kind,
                    where.place(part)[0],
                    np.full(len(part), _EDGE),
                    label,
                    faint=faint,
                    transform=ax.get_xaxis_transform(),
                    clip_on=False,
                )
    if not hidden:
        return ""
    names = " or ".join(axis.name for axis in where.axes)
    return f"not shown: {hidden} trial{'s' * (hidden > 1)} without {names}"
