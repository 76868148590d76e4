"""Reasons to stop a run that hold for the whole study, whoever ran its trials."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bbmmopt.problem import Problem
from bbmmopt.study.tally import Tally
from bbmmopt.trial import Trial

if TYPE_CHECKING:
    # Elsewhere imported where it is used: it needs torch, and worker processes read this file.
    from bbmmopt.optimizer import Optimizer


class StopRule(ABC):
    """When a run should start no more trials."""

    @abstractmethod
    def reason(self, optimizer: Optimizer, tally: Tally) -> str | None:
        """Why to stop, in words with numbers; None to go on.

        Args:
            optimizer: The study.
            tally: How far it has come.
        """

    def check(self, objectives: int, perturbed: bool) -> None:
        """Refuse a problem that the rule is not made for.

        Args:
            objectives: How many it has.
            perturbed: Whether its parameters vary in use.

        Raises:
            ValueError: If it is not.
        """
        if objectives > 1:
            raise ValueError(
                f"{type(self).__name__} is for one objective, and there are {objectives}: no trial "
                f"is the best of them. Stop by n_trials, timeout or TotalTrials."
            )


@dataclass(frozen=True)
class Target(StopRule):
    """Stop when the best complete trial that keeps the constraints is good enough.

    Attributes:
        value: At most this when minimising, at least this when maximising.
    """

    value: float

    def __post_init__(self) -> None:
        _check_number("Target", "value", self.value)

    def reason(self, optimizer: Optimizer, tally: Tally) -> str | None:
        problem = optimizer.problem
        best = tally.best
        if best is None or _gain(problem, self.value, best.value) < 0:
            return None
        return f"target {self.value:g} reached: {_best(problem, best)}"


@dataclass(frozen=True)
class Patience(StopRule):
    """Stop when so many trials have brought no improvement.

    Trials count in the order of their numbers, failed and pruned ones too.

    Attributes:
        trials: How many.
        min_improvement: What is no more than this much better is no improvement.
    """

    trials: int
    min_improvement: float = 0.0

    def __post_init__(self) -> None:
        _check_count("Patience", "trials", self.trials)
        _check_number("Patience", "min_improvement", self.min_improvement)
        if self.min_improvement < 0:
            raise ValueError(
                f"Patience: min_improvement must be at least 0; got {self.min_improvement!r}."
            )

    def reason(self, optimizer: Optimizer, tally: Tally) -> str | None:
        # What counts as an improvement is a record: nothing before it can have been as good.
        problem, best = optimizer.problem, None
        for record in tally.records:
            if best is None or _gain(problem, best.value, record.value) > self.min_improvement:
                best = record
        since = tally.ended if best is None else tally.ended_after(best.number)
        if since < self.trials:
            return None
        if best is None:
            return f"no patience: {since} trials, and none of them complete and feasible"
        more = f" by more than {self.min_improvement:g}" if self.min_improvement else ""
        return f"no patience: no improvement{more} in {since} trials since {_best(problem, best)}"


@dataclass(frozen=True)
class TotalTrials(StopRule):
    """Stop when the study has so many trials, whoever ran them.

    For several independent processes on one storage that do them together: they never begin more,
    and a run ends when all of them have ended. Until then it takes over those of others that died.
    Failed and pruned trials count, and those that were added or are in line.

    Attributes:
        n: How many.
    """

    n: int

    def __post_init__(self) -> None:
        _check_count("TotalTrials", "n", self.n)

    def check(self, objectives: int, perturbed: bool) -> None:
        """Any problem will do."""

    def reason(self, optimizer: Optimizer, tally: Tally) -> str | None:
        done = tally.ended >= self.n
        return f"all {self.n} trials of the study done" if done else None


@dataclass(frozen=True)
class RemainingImprovement(StopRule):
    """Stop when the model expects that another trial would improve on the best by hardly anything.

    The expected improvement of the most promising point, `Optimizer.remaining_improvement`. It is
    as good as the model: with few trials it may be sure of what is wrong.

    Attributes:
        below: In the units of the objective.
        after: Complete trials before which the model is not asked; left out, 10 more than there
            are at the start (`n_start`).
    """

    below: float
    after: int | None = None

    def __post_init__(self) -> None:
        _check_number("RemainingImprovement", "below", self.below)
        if self.below <= 0:
            raise ValueError(
                f"RemainingImprovement: below must be positive; got {self.below!r}. Some "
                f"improvement can always be expected."
            )
        if self.after is not None:
            _check_count("RemainingImprovement", "after", self.after)

    def check(self, objectives: int, perturbed: bool) -> None:
        super().check(objectives, perturbed)
        if perturbed:
            raise ValueError(
                "RemainingImprovement is of what trials show, and perturbation looks for what "
                "varied parameters give. Stop by n_trials, timeout or TotalTrials."
            )

    def reason(self, optimizer: Optimizer, tally: Tally) -> str | None:
        after = optimizer.settings["n_start"] + _AFTER_START if self.after is None else self.after
        if tally.complete < after:
            return None
        left = optimizer.remaining_improvement()
        if left >= self.below:
            return None
        return (
            f"little left to gain: an improvement of {left:.3g} is expected of another trial, "
            f"less than {self.below:g}"
        )


_AFTER_START = 10


def checked_rules(stop: Any) -> tuple[StopRule, ...]:
    """One or several rules, or none, as a tuple.

    Raises:
        TypeError: If it is something else.
    """
    if stop is None:
        return ()
    several = isinstance(stop, Iterable) and not isinstance(stop, str)
    rules: tuple[Any, ...] = tuple(stop) if several else (stop,)
    for rule in rules:
        if not isinstance(rule, StopRule):
            raise TypeError(
                f"stop takes rules such as Target(0.1), Patience(20), TotalTrials(100) or "
                f"RemainingImprovement(0.01), one or a list; got {rule!r}."
            )
    return rules


def _gain(problem: Problem, before: float | None, now: float | None) -> float:
    """How much better the second value is, whatever the direction."""
    assert before is not None and now is not None
    return problem.objectives[0].sign * (now - before)


def _best(problem: Problem, best: Trial) -> str:
    return f"{problem.names[0]} {best.value:.6g} (trial {best.number})"


def _check_count(rule: str, name: str, count: Any) -> None:
    if isinstance(count, bool) or not isinstance(count, numbers.Integral):
        raise TypeError(f"{rule}: {name} must be an integer, a number of trials; got {count!r}.")
    if count < 1:
        raise ValueError(f"{rule}: {name} must be at least 1; got {count}.")


def _check_number(rule: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{rule}: {name} must be a number; got {value!r}.")
    if not math.isfinite(value):
        raise ValueError(f"{rule}: {name} must be finite; got {value!r}.")
