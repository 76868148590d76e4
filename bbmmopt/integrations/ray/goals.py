"""Metric and mode of Ray: what is optimised."""

from __future__ import annotations

from typing import Any

from bbmmopt.problem import Constraints, Problem
from bbmmopt.space import Space


def check_goal(metric: Any, mode: Any) -> None:
    """Refuse a metric and a mode that do not go together.

    Args:
        metric: A name, or a list of names; None if it is not known yet.
        mode: "min" or "max", or a list of these; None if it is not known yet.

    Raises:
        ValueError: If they do not.
    """
    if mode is None:
        return
    for word in _listed(mode):
        if word not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max'; got {word!r}.")
    alike = isinstance(metric, str) == isinstance(mode, str)
    if metric is not None and not (alike and len(_listed(metric)) == len(_listed(mode))):
        raise ValueError(
            f"mode must be 'min' or 'max', or for a list of metrics a list as long; got metric "
            f"{metric!r} and mode {mode!r}."
        )


def problem_of(
    space: Space, metric: Any, mode: Any, *, noise: Any, constraints: Constraints
) -> Problem:
    """The problem that Ray means.

    Raises:
        ValueError, TypeError: As `Problem.make`.
    """
    goals = list(zip(_listed(metric), _listed(mode), strict=True))
    return Problem.make(
        space,
        minimize=[name for name, word in goals if word == "min"],
        maximize=[name for name, word in goals if word == "max"],
        noise=noise,
        constraints=constraints,
    )


def _listed(names: Any) -> list[Any]:
    return list(names) if isinstance(names, list | tuple) else [names]
