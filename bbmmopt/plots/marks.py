"""The marks of trials on a slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from bbmmopt.early_stopping import forecast
from bbmmopt.plots.slices import Slice
from bbmmopt.plots.style import scatter
from bbmmopt.problem import Problem
from bbmmopt.study import StoredStudy
from bbmmopt.trial import Trial, TrialState

_KINDS = {
    TrialState.COMPLETE: "observed",
    TrialState.PRUNED: "stopped early",
    TrialState.FAILED: "failed",
    TrialState.RUNNING: "pending",
    TrialState.WAITING: "pending",
}
_ORDER = ("observed", "infeasible", "stopped early", "failed", "pending", "on the front", "best")
_EDGE = 0.035  # height of marks that have no value, as a fraction of the axes


def by_kind(
    problem: Problem, trials: Sequence[Trial], *, best: bool = False
) -> dict[str, list[Trial]]:
    """Trials under what they are marked as.

    Args:
        problem: Says which complete trials are feasible.
        trials: All trials.
        best: Whether the best, or the front of several objectives, gets a mark of its own.
    """
    first: list[Trial] = []
    label = "best"
    if best and len(problem.objectives) == 1:
        first = [t for t in [problem.best_of(trials)] if t is not None]
    elif best:
        first, label = problem.pareto_front_of(trials), "on the front"
    numbers = {trial.number for trial in first}
    kinds: dict[str, list[Trial]] = {kind: [] for kind in _ORDER}
    for trial in trials:
        kind = _KINDS[trial.state]
        if trial.number in numbers:
            kind = label
        elif trial.state == TrialState.COMPLETE and not problem.is_feasible(trial):
            kind = "infeasible"
        kinds[kind].append(trial)
    return {kind: found for kind, found in kinds.items() if found}


def forecasts(study: StoredStudy, trials: Sequence[Trial]) -> dict[int, float]:
    """What the model takes trials that were stopped early to have ended with, by number.

    As `Optimizer` does, for one objective without constraints: the others' ends are not known.
    """
    stopped = [t for t in trials if t.state == TrialState.PRUNED]
    problem = study.problem
    if not stopped or len(problem.objectives) > 1 or problem.constraints:
        return {}
    curves, former = study.curves, study.former
    finals = {
        t.number: t.value
        for t in trials
        if t.value is not None and t.number in curves and former.row(t.params) is not None
    }
    placed = [t.number for t in stopped if former.row(t.params) is not None]
    return {number: found.value for number, found in forecast(curves, finals, placed).items()}


def draw_marks(
    ax: Axes,
    where: Slice,
    kinds: Mapping[str, Sequence[Trial]],
    heights: Mapping[int, float] | None = None,
) -> list[Trial]:
    """Mark trials: those off the slice fainter, as they are only projected onto it.

    Args:
        ax: Where to draw.
        where: The slice shown there.
        kinds: {kind: trials}.
        heights: On a curve, how high to put a trial, by its number, if that is in view; those
            without stand on the lower edge.

    Returns:
        Those that have no place in the picture.
    """
    hidden: list[Trial] = []
    low, high = ax.get_ylim()
    heights = heights or {}
    for kind, trials in kinds.items():
        shown = [
            trial
            for trial in trials
            if where.shows(trial.params) and low <= heights.get(trial.number, low) <= high
        ]
        numbers = {trial.number for trial in shown}
        hidden += [trial for trial in trials if trial.number not in numbers]
        on = {trial.number: where.contains(trial.params) for trial in shown}
        high_up = {trial.number: trial.number in heights for trial in shown}
        for faint, valued in ((True, True), (True, False), (False, True), (False, False)):
            part = [t for t in shown if on[t.number] != faint and high_up[t.number] == valued]
            if not part:
                continue
            coordinates = where.place(part)
            options = {}
            if where.y is None and valued:
                coordinates.append(np.array([heights[trial.number] for trial in part]))
            elif where.y is None:
                coordinates.append(np.full(len(part), _EDGE))
                options["transform"] = ax.get_xaxis_transform()
            scatter(ax, kind, coordinates, kind, faint=faint, **options)
    return hidden


def hidden_note(where: Slice, hidden: Sequence[Trial]) -> list[str]:
    """How many trials are not shown, and why; nothing if all are."""
    points = [where.point(trial.params) for trial in hidden]
    missing = [[a.name for a in where.axes if a.name not in point] for point in points]
    names = [axis.name for axis in where.axes if any(axis.name in names for names in missing)]
    without = sum(map(bool, missing))
    parts = [f"{without} without {' or '.join(names)}"] * bool(without)
    parts += [f"{len(hidden) - without} out of view"] * (len(hidden) > without)
    return [f"not shown: {', '.join(parts)}"] * bool(parts)
