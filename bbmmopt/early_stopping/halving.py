"""Stop all but the best part of the trials at each of a few steps: successive halving."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bbmmopt.early_stopping.base import Curves, checked_count


@dataclass(frozen=True)
class SuccessiveHalving:
    """At the steps r, r η, r η² …, its rungs, let the best 1/η of the trials there go on.

    Asynchronous: a trial that reaches a rung is compared, at that report, with those that were at
    the rung before it, whether they went on or not. It goes on if it is among the best
    max(1, ⌊n/η⌋) of the n there, itself included, equals among them, or if n < η. No worker waits,
    and no trial is paused.

    Li, Jamieson, Rostamizadeh, Gonina, Ben-Tzur, Hardt, Recht and Talwalkar, *A System for
    Massively Parallel Hyperparameter Tuning*, MLSys 2020 (ASHA), with one difference: theirs
    pauses trials at a rung and promotes them later, once enough worse ones have come; here a
    trial that is not promoted at once ends.

    A trial that did not report at a rung itself is there from its next report on, with the value
    of that. A report that is not finite is worse than any number.

    Args:
        min_steps: r, the first step at which a trial may be stopped. Steps that count what was
            done, from 1 on, fit best.
        reduction: η.

    Raises:
        TypeError, ValueError: If one of them is no such number.
    """

    min_steps: int = 1
    reduction: int = 4

    def __post_init__(self) -> None:
        checked_count("min_steps", self.min_steps, 1, "the first step to stop at")
        checked_count("reduction", self.reduction, 2, "of how many trials one goes on")

    def stops(self, curves: Curves, number: int, *, seed: int, sign: float = 1.0) -> str | None:
        """As in `StoppingRule`."""
        curve = curves.get(number)
        return _stops(curves, curve, self.min_steps, self.reduction, sign) if curve else None

    def to_json(self) -> dict[str, Any]:
        """As in `StoppingRule`."""
        return {"rule": "halving", **asdict(self)}


@dataclass(frozen=True)
class Hyperband:
    """Several `SuccessiveHalving` side by side, which begin to stop trials at different steps.

    How early a value tells how a trial will end is not known beforehand. So bracket s = 0 … s_max,
    s_max = ⌊log_η(R / r)⌋, has its first rung at r η^(s_max - s) and none from R on: the last one
    stops trials from r on, the first one hardly any. Trials are compared with those of their own
    bracket.

    Bracket s has n_s = ⌈(s_max + 1) η^s / (s + 1)⌉ of Σ n trials: Li, Jamieson, DeSalvo,
    Rostamizadeh and Talwalkar, *Hyperband: A Novel Bandit-Based Approach to Hyperparameter
    Optimization*, JMLR 18 (2018), Algorithm 1, where B = (s_max + 1) R. Here a trial's bracket is
    drawn with these odds, from the seed and its number: nothing is to be kept, and workers need
    not agree.

    Args:
        min_steps: r, the first step at which a trial may be stopped.
        max_steps: R, how many steps a trial has that is not stopped.
        reduction: η.

    Raises:
        TypeError, ValueError: If one of them is no such number.
    """

    min_steps: int
    max_steps: int
    reduction: int = 3

    def __post_init__(self) -> None:
        checked_count("min_steps", self.min_steps, 1, "the first step to stop at")
        checked_count("max_steps", self.max_steps, 1, "how many steps a whole trial has")
        checked_count("reduction", self.reduction, 2, "of how many trials one goes on")
        if self.max_steps < self.min_steps:
            raise ValueError(
                f"max_steps must be at least min_steps; got {self.max_steps} and {self.min_steps}."
            )

    def bracket(self, number: int, seed: int) -> int:
        """Bracket s of a trial: 0 stops the fewest."""
        digest = hashlib.blake2b(f"{seed}/{number}/bracket".encode(), digest_size=8).digest()
        sizes = self.sizes
        place = int.from_bytes(digest) % sum(sizes)
        for s, size in enumerate(sizes):
            if place < size:
                return s
            place -= size
        raise AssertionError("a place beyond the last bracket")

    @property
    def sizes(self) -> tuple[int, ...]:
        """n_s of each bracket."""
        eta, last = self.reduction, self._last
        return tuple(-(-(last + 1) * eta**s // (s + 1)) for s in range(last + 1))

    @property
    def _last(self) -> int:
        """s_max, in integers: a logarithm would be off by one now and then."""
        last = 0
        while self.min_steps * self.reduction ** (last + 1) <= self.max_steps:
            last += 1
        return last

    def stops(self, curves: Curves, number: int, *, seed: int, sign: float = 1.0) -> str | None:
        """As in `StoppingRule`."""
        curve = curves.get(number)
        if not curve:
            return None
        mine = self.bracket(number, seed)
        same = {k: other for k, other in curves.items() if self.bracket(k, seed) == mine}
        first = self.min_steps * self.reduction ** (self._last - mine)
        why = _stops(same, curve, first, self.reduction, sign, before=self.max_steps)
        return why and f"{why} of bracket {mine}"

    def to_json(self) -> dict[str, Any]:
        """As in `StoppingRule`."""
        return {"rule": "hyperband", **asdict(self)}


def _stops(
    curves: Curves,
    curve: Mapping[int, float],
    first: int,
    eta: int,
    sign: float,
    before: float = math.inf,
) -> str | None:
    """Whether a trial falls behind at the rung that its latest report reached."""
    rung = _rung(curve, first, eta)
    if rung is None or rung >= before:
        return None
    mine = _at(curve, rung)
    there = [_at(other, rung) for other in curves.values() if other and max(other) >= rung]
    places = max(1, len(there) // eta)
    better = sum(value > mine for value in there)
    if len(there) < eta or better < places:
        return None
    value = f"is {sign * mine:.6g}" if math.isfinite(mine) else "is missing"
    bar = sorted(there, reverse=True)[places - 1]
    return (
        f"at step {max(curve)} its value {value}, and {sign * bar:.6g} was needed to be among the "
        f"best {places} of the {len(there)} trials that reached step {rung}"
    )


def _rung(curve: Mapping[int, float], first: int, eta: int) -> int | None:
    """The highest rung that the latest report is the first to reach; None if it reached none."""
    step = max(curve)
    if step < first:
        return None
    rung = first
    while rung * eta <= step:
        rung *= eta
    return None if any(rung <= s < step for s in curve) else rung


def _at(curve: Mapping[int, float], rung: int) -> float:
    """The value of the first report from a rung on."""
    value = curve[min(s for s in curve if s >= rung)]
    return value if math.isfinite(value) else -math.inf
