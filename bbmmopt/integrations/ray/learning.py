"""Results of Ray, told to a study."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from bbmmopt.problem import Problem
from bbmmopt.space.checks import listing
from bbmmopt.study import Study

_log = logging.getLogger(__name__)


def values_of(problem: Problem, result: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Metrics and constraints of a result, and why they cannot be learnt from, if so."""
    names = [*problem.names, *(constraint.name for constraint in problem.constraints)]
    told = {name: result[name] for name in names if result.get(name) is not None}
    missing = [name for name in names if name not in told]
    if missing:
        return told, f"its result has no {listing(missing)}"
    try:
        return told, problem.check_values(told).failure
    except (TypeError, ValueError) as error:
        return told, str(error)


def report(study: Study, number: int, step: int, result: Mapping[str, Any]) -> None:
    """Keep a point of a learning curve, of the one objective there is.

    Args:
        study: The study.
        number: The trial's.
        step: How far it has come.
        result: Of that moment, flattened; what has no number is left out.
    """
    value = result.get(study.problem.names[0])
    if len(study.problem.objectives) > 1 or value is None:
        return
    try:
        study.report(number, step, value)
    except (TypeError, ValueError) as error:
        _log.warning("a result of trial %d is left out: %s", number, error)


def tell(
    study: Study,
    number: int,
    result: Mapping[str, Any],
    *,
    failed: str | None = None,
    stopped: int | None = None,
) -> None:
    """Record how a trial ended.

    Args:
        study: The study.
        number: The trial's.
        result: Its last one, flattened.
        failed: Why it failed, if Ray says so.
        stopped: After how many training iterations it was stopped early; None if it was not. What
            it would have ended with is forecast from its reports. Where that cannot be, with
            several objectives or constraints, its last result counts.

    Raises:
        TrialAlreadyTold: If it has ended otherwise.
    """
    told, failure = values_of(study.problem, result)
    failed = failed or failure
    if failed is not None:
        study.tell(number, failed=failed)
    elif stopped is not None and _is_forecast(study.problem):
        study.tell(number, pruned=f"Ray stopped it after training iteration {stopped}")
    else:
        study.tell(number, told)


def add(
    study: Study,
    params: Mapping[str, Any],
    result: Mapping[str, Any],
    curve: Mapping[int, Any],
    *,
    failed: str | None = None,
    stopped: int | None = None,
) -> int | None:
    """Record a trial that was not suggested here, which may lie outside the bounds.

    Args:
        study: The study.
        params: The point.
        result, failed, stopped: As in `tell`.
        curve: What it reported, {training iteration: value}.

    Returns:
        Its number; None if it is left out, having no value and lying outside.
    """
    told, failure = values_of(study.problem, result)
    valueless = bool(failed or failure) or (stopped is not None and _is_forecast(study.problem))
    if valueless:
        try:
            trial = study.enqueue(params)
        except ValueError as outside:
            _log.warning("a trial that has no final value is left out: %s", outside)
            return None
    else:
        trial = study.add_trial(params, told, outside=True)
    for step, value in curve.items():
        report(study, trial.number, step, {study.problem.names[0]: value})
    if valueless:
        tell(study, trial.number, result, failed=failed or failure, stopped=stopped)
    return trial.number


def _is_forecast(problem: Problem) -> bool:
    """Whether the model learns from forecasts of what stopped trials would have ended with."""
    return len(problem.objectives) == 1 and not problem.constraints
