"""The trial table: filtered, sorted and cut into pages here, so that 100,000 trials stay here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bbmmopt.problem import Problem
from bbmmopt.trial import Trial, TrialState, to_json

MOST = 200  # rows of a page

_PLAIN = ("number", "state", "worker", "started", "finished")
_PARTS = ("params", "values", "constraints")


@dataclass(frozen=True)
class Query:
    """Which trials to list, and in which order.

    Attributes:
        sort: "number", "state", "worker", "phase", "started", "finished", "seconds",
            "params.NAME", "values.NAME" or "constraints.NAME".
        descending: Whether large ones come first; trials without one come last either way.
        states: Only trials in one of these.
        text: Only trials that have this in their number, worker, phase, reason or parameters.

    Raises:
        ValueError: If there is no such column or state.
    """

    sort: str = "number"
    descending: bool = True
    states: tuple[TrialState, ...] = tuple(TrialState)
    text: str = ""

    def __post_init__(self) -> None:
        part, dot, name = self.sort.partition(".")
        known = (*_PLAIN, "phase", "seconds")
        if self.sort not in known and not (dot and name and part in _PARTS):
            listed = ", ".join((*known, *(f"{part}.NAME" for part in _PARTS)))
            raise ValueError(f"trials can be sorted by {listed}; got {self.sort!r}.")

    def of(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials that are wanted, in order; of equals the one asked first comes first."""
        wanted = self.text.casefold()
        found = [
            trial
            for trial in trials
            if trial.state in self.states and (not wanted or wanted in _text_of(trial))
        ]
        value = _getter(self.sort)
        keys = {trial.number: value(trial) for trial in found}
        there = [trial for trial in found if keys[trial.number] is not None]
        missing = [trial for trial in found if keys[trial.number] is None]
        there.sort(key=lambda trial: _rank(keys[trial.number]), reverse=self.descending)
        return there + missing


def row(trial: Trial, problem: Problem) -> dict[str, Any]:
    """What the table shows of a trial."""
    return {
        "number": trial.number,
        "state": str(trial.state),
        "values": trial.values,
        "standard_errors": {k: v for k, v in trial.standard_errors.items() if v is not None},
        "constraints": trial.constraints,
        "feasible": problem.is_feasible(trial) if trial.values is not None else None,
        "params": trial.params,
        "worker": trial.worker,
        "phase": trial.origin.get("phase"),
        "created": trial.created,
        "started": trial.started,
        "finished": trial.finished,
        "seconds": trial.duration,
        "reason": None if trial.reason is None else _last_line(trial.reason),
    }


def details(trial: Trial, problem: Problem, explanation: str) -> dict[str, Any]:
    """Everything there is to say of a trial."""
    return row(trial, problem) | {
        "reason": trial.reason,
        "explanation": explanation,
        "attrs": to_json(trial.attrs),
        "lease": trial.lease,
    }


def _getter(column: str) -> Callable[[Trial], Any]:
    part, _, name = column.partition(".")
    if part in _PARTS and name:
        return lambda trial: (getattr(trial, part) or {}).get(name)
    if column == "phase":
        return lambda trial: trial.origin.get("phase")
    return lambda trial: trial.duration if column == "seconds" else getattr(trial, column)


def _rank(value: Any) -> tuple[bool, Any]:
    """Numbers by size before texts by the alphabet: choices may be both."""
    is_text = isinstance(value, str)
    return is_text, value.casefold() if is_text else value


def _text_of(trial: Trial) -> str:
    """What a text is looked for in."""
    parts = [f"#{trial.number}", trial.worker, trial.origin.get("phase"), trial.reason]
    parts += [f"{name}={value}" for name, value in trial.params.items()]
    return "\n".join(str(part) for part in parts if part).casefold()


def _last_line(reason: str) -> str:
    lines = reason.strip().splitlines()
    return lines[-1] if lines else ""
