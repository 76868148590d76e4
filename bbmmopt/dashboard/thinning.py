"""Which rows of a long table are drawn: a page can show some thousand marks, not 100,000."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bbmmopt.problem import Problem

_LEADING = 100  # best trials of each objective


def thinned(
    columns: Mapping[str, np.ndarray], most: int, always: np.ndarray, *, latest: bool
) -> dict[str, np.ndarray]:
    """The rows that are drawn, of columns (n,) with one called "trial".

    Args:
        columns: The table.
        most: How many trials are drawn besides those that always are.
        always: Which rows are drawn in any case, bool, shape (n,).
        latest: Whether the others are those of the highest numbers; else they are spread evenly,
            and chosen by their numbers: as more come, those chosen before stay until there are
            twice as many.
    """
    trials = np.asarray(columns["trial"])
    numbers = np.unique(trials)
    if len(numbers) <= most:
        return dict(columns)
    if latest:
        chosen = trials >= numbers[-most]
    else:
        stride = 1
        while np.count_nonzero(numbers % stride == 0) > most:
            stride *= 2
        chosen = trials % stride == 0
    chosen = chosen | always
    return {name: np.asarray(values)[chosen] for name, values in columns.items()}


def kept(
    kind: str, columns: Mapping[str, np.ndarray], facts: Mapping[str, Any], problem: Problem
) -> np.ndarray:
    """Which rows of a picture must not be left out, bool, shape (n,)."""
    keep = np.zeros(len(columns["trial"]), dtype=bool)
    if kind == "history":
        best = np.asarray(columns["best"], dtype=float)
        keep = np.append(True, best[1:] != best[:-1]) & np.isfinite(best)
        keep[-1:] = True  # the curve goes on to the end
    elif kind == "pareto":
        keep = np.asarray(columns["on_front"], dtype=bool)
    elif kind == "parallel":
        for objective in problem.objectives:
            scores = objective.sign * np.asarray(columns[f"values.{objective.name}"], dtype=float)
            order = np.argsort(np.where(np.isnan(scores), -np.inf, scores), kind="stable")
            keep[order[-_LEADING:]] = True
    elif kind == "curves" and facts["best"] is not None:
        keep = np.asarray(columns["trial"]) == facts["best"]
    return keep
