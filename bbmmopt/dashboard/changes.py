"""What the page may change: put a point in line, tell what came out of a trial, stop the runs."""

from __future__ import annotations

import math
from typing import Any

from bbmmopt.dashboard.describing import point_from
from bbmmopt.dashboard.rows import row
from bbmmopt.problem import Problem
from bbmmopt.study import Study
from bbmmopt.trial import Trial


def enqueue(study: Study, sent: dict[str, Any]) -> dict[str, Any]:
    """Put a point in line: {"params": {name: value}}.

    Raises:
        ValueError, TypeError: If the point is not in the space.
    """
    params = _field(sent, "params", dict)
    return row(study.enqueue(point_from(study, params)), study.problem)


def tell(study: Study, sent: dict[str, Any]) -> dict[str, Any]:
    """Record an outcome.

    {"number": 3, "values": {name: value}} with "standard_errors": {name: value} if there are any;
    constraints are among the values. Or {"number": 3, "failed": reason}, {"number": 3, "pruned":
    reason}. Numbers may be texts; "nan" records the trial as failed.

    Raises:
        UnknownTrial, TrialAlreadyTold, ValueError, TypeError: As in `Study.tell`.
    """
    number = _field(sent, "number", int)
    reasons = {key: sent[key] for key in ("failed", "pruned") if sent.get(key) is not None}
    if reasons:
        if "values" in sent:
            raise ValueError(f"trial {number}: send values, failed or pruned, not two of them.")
        return row(study.tell(number, **reasons), study.problem)
    told: dict[str, Any] = {
        name: _number(name, value) for name, value in _field(sent, "values", dict).items()
    }
    errors = _field(sent, "standard_errors", dict) if "standard_errors" in sent else {}
    for name, value in errors.items():
        told[name] = (told.get(name), _number(f"standard error of {name}", value))
    return row(_tell(study, study.problem, number, told), study.problem)


def _tell(study: Study, problem: Problem, number: int, told: dict[str, Any]) -> Trial:
    """`Study.tell`, which would warn in the terminal of a value that counts as a failure: the page
    shows the trial as failed, and why."""
    failure = problem.check_values(told, trial_number=number).failure
    if failure is not None:
        return study.tell(number, failed=failure)
    return study.tell(number, told)


def stop(study: Study, sent: dict[str, Any]) -> dict[str, Any]:
    """Have the runs of the study end: {"reason": text}.

    Raises:
        TypeError: If the reason is no text.
    """
    reason = _field(sent, "reason", str)
    study.stop(reason)
    return {"reason": reason}


def _field(sent: dict[str, Any], name: str, kind: type) -> Any:
    """A field of what was sent.

    Raises:
        ValueError: If it is missing, or of another kind.
    """
    words = {dict: "a JSON object", int: "an integer", str: "a text"}[kind]
    if name not in sent:
        raise ValueError(f"{name!r} is missing: send {words}.")
    if not isinstance(sent[name], kind) or isinstance(sent[name], bool):
        raise ValueError(f"{name!r} must be {words}.")
    return sent[name]


def _number(name: str, given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        value = float(given)
    except ValueError:
        shown = f"got {given[:40]!r}" if given.strip() else "it is empty"
        raise ValueError(f"the value of {name} must be a number; {shown}.") from None
    if math.isinf(value) and "inf" not in given.lower():
        # As an infinity it would be recorded as a failure, and no other value could be told.
        raise ValueError(f"the value of {name} is too large for a float; got {given[:40]!r}.")
    return value
