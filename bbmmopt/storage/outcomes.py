"""Outcomes of trials, compared and put into words."""

from typing import Any

from bbmmopt.trial import Trial, TrialAlreadyTold, TrialState, to_json

OUTCOME = ("values", "standard_errors", "constraints", "reason")


def outcome_of(trial: Trial) -> dict[str, Any]:
    """State and outcome, as the log of events keeps them."""
    found = {name: getattr(trial, name) for name in OUTCOME}
    return {"state": str(trial.state)} | {name: v for name, v in found.items() if v}


def same_outcome(told: Trial, again: Trial) -> bool:
    """Whether the second telling changes nothing."""
    if told.state == again.state != TrialState.COMPLETE:
        return True  # a second attempt fails with another traceback
    # As JSON, because nan != nan.
    return told.state == again.state and all(
        to_json(getattr(told, name)) == to_json(getattr(again, name))
        for name in ("values", "standard_errors", "constraints")
    )


def already_told(told: Trial, now: Trial) -> TrialAlreadyTold:
    """The error that names both outcomes."""
    return TrialAlreadyTold(
        f"trial {told.number} was told already: {_words(told)}; now it was told "
        f"{_words(now)}. The first is kept; the second is in the log of events. If both are "
        f"measurements, add the second as a trial of its own."
    )


def _words(trial: Trial) -> str:
    """complete with error = 0.5 ± 0.1"""
    if trial.values is None:
        return trial.state + (f" ({trial.reason})" if trial.reason else "")
    errors = trial.standard_errors
    told = [
        f"{name} = {value!r}" + (f" ± {errors[name]!r}" if errors.get(name) is not None else "")
        for name, value in (trial.values | trial.constraints).items()
    ]
    return f"{trial.state} with {', '.join(told)}"
