"""The front of the trials of a study, as observed: what plot_pareto draws without the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bbmmopt.pareto import hypervolume, infer_reference_point, pareto_front_of
from bbmmopt.plots.table import Table, columns_of
from bbmmopt.problem import Problem
from bbmmopt.space.checks import did_you_mean, listing
from bbmmopt.study import NoCompleteTrial
from bbmmopt.study.stored import StoredStudy
from bbmmopt.trial import TrialState

_LARGEST = 1e306


@dataclass(frozen=True)
class Front:
    """The trials, by the objectives that are drawn.

    Attributes:
        problem: With these objectives only.
        table: See `pareto_data`.
        Y: Values of the complete trials, larger is better, shape (n, k).
        others: How many trials ended without a value, by state.
    """

    problem: Problem
    table: Table
    Y: np.ndarray
    others: dict[str, int]

    @property
    def feasible(self) -> np.ndarray:
        """Which keep the constraints, shape (n,)."""
        return self.table["feasible"]

    @property
    def on_front(self) -> np.ndarray:
        """Which no other beats, shape (n,)."""
        return self.table["on_front"]

    @property
    def reference(self) -> np.ndarray | None:
        """The reference point, larger is better, shape (k,)."""
        point = self.table.facts["reference_point"]
        return None if point is None else np.array(self.problem.to_model(point))


def front_of(study: StoredStudy, objectives: Sequence[str] | None) -> Front:
    """The trials of a study, and which no other beats; see `pareto_data`."""
    problem = _chosen(study, objectives)
    trials = study.trials
    complete = [t for t in trials if t.state == TrialState.COMPLETE and t.values]
    if not complete:
        raise NoCompleteTrial(
            f"plot_pareto needs at least one complete trial; study {study.study!r} has "
            f"{len(trials)} others. Tell a result first."
        )
    Y = np.array([problem.to_model(t.values or {}) for t in complete])  # (n, k)
    for name, values in zip(problem.names, Y.T, strict=True):
        if np.abs(values).max() > _LARGEST:
            raise ValueError(
                f"values of {name!r} reach {np.abs(values).max():.3g}, beyond which distances are "
                f"no numbers any more. Give it in a larger unit."
            )
    feasible = np.array([problem.is_feasible(t) for t in complete])
    on_front = pareto_front_of(np.where(feasible[:, None], Y, np.nan))
    point, inferred, volume = problem.reference_point, problem.reference_point is None, 0.0
    if feasible.any():
        reference = problem.reference
        with np.errstate(over="ignore"):  # of values around 1e300 it is infinite
            if reference is None:
                reference = infer_reference_point(Y[feasible])
                point = {k: float(v) for k, v in problem.from_model(reference.tolist()).items()}
            volume = hypervolume(Y[feasible], reference)
    table = Table(
        {
            "trial": np.array([t.number for t in complete]),
            **columns_of("values", problem.names, [t.values or {} for t in complete]),
            **columns_of(
                "standard_errors", problem.names, [t.standard_errors or {} for t in complete]
            ),
            "feasible": feasible,
            "on_front": on_front,
        },
        objectives=problem.names,
        reference_point=point,
        inferred=inferred,
        hypervolume=volume,
    )
    states = (TrialState.FAILED, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING)
    counts = {str(state): sum(t.state == state for t in trials) for state in states}
    return Front(problem, table, Y, counts)


def _chosen(study: StoredStudy, objectives: Sequence[str] | None) -> Problem:
    """The problem with the objectives that are to be drawn, in this order."""
    problem = study.problem
    names = problem.names
    if len(names) < 2:
        raise ValueError(
            f"plot_pareto is for several objectives; study {study.study!r} has one, "
            f"{listing(names)}. See plot_history."
        )
    if objectives is None:
        if len(names) > 3:
            raise ValueError(
                f"plot_pareto draws two or three objectives; there are {len(names)}. Choose some: "
                f"objectives=[…], of {listing(names)}."
            )
        return problem
    if isinstance(objectives, str) or not isinstance(objectives, Sequence):
        raise TypeError(f"objectives must be a list of names; got {objectives!r}.")
    for name in objectives:
        if name not in names:
            hint = did_you_mean(name, names) or f" There are {listing(names)}."
            raise ValueError(f"there is no objective {name!r}.{hint}")
    if len(objectives) not in (2, 3) or len(set(objectives)) < len(objectives):
        raise ValueError(
            f"objectives must name two or three different ones of {listing(names)}; got "
            f"{list(objectives)!r}."
        )
    point = problem.reference_point
    return replace(
        problem,
        objectives=tuple(problem.objectives[names.index(name)] for name in objectives),
        reference_point=None if point is None else {name: point[name] for name in objectives},
    )
