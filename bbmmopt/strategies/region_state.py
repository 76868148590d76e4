"""Where a trust region stands: what follows from the trials, counted anew each time.

Source: Eriksson et al. (2019), Scalable global optimization via local Bayesian optimization
(TuRBO), https://arxiv.org/abs/1910.01739; one region at a time. With constraints on outcomes,
Eriksson & Poloczek (2021), Scalable constrained Bayesian optimization (SCBO),
https://arxiv.org/abs/2002.08526.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bbmmopt.modelling import Data, transform_of
from bbmmopt.strategies.base import Past

LENGTH, SHORTEST, LONGEST = 0.8, 2.0**-7, 1.6
SUCCESSES = 3  # in a row, after which a region doubles
_GAIN = 1e-3  # of the best value, which a success has to gain
_LEAST, _MOST = 1e-300, 1e100  # violations: more than none, and few enough to be added


@dataclass(frozen=True)
class Trials:
    """What a trust region has to know of each trial that ended, in order of number, (n,) each.

    Attributes:
        y: Its value, larger is better; NaN where it failed.
        region: Number of the region that proposed it; -1 for what came from elsewhere.
        known: How many trials had ended when its box was made; -1 where no box was.
        violation: By how much it misses the constraints in total, 0 where it keeps them; None
            where there are no constraints. Of those that failed it does not count.
    """

    y: np.ndarray
    region: np.ndarray
    known: np.ndarray
    violation: np.ndarray | None = None

    @property
    def short(self) -> np.ndarray:
        """The violations, (n,); 0 where there are no constraints."""
        return np.zeros(len(self.y)) if self.violation is None else self.violation

    @property
    def regions(self) -> np.ndarray:
        """The region of each: what comes from elsewhere belongs to that of its time, (n,)."""
        claimed = self.region.clip(min=0)
        return np.where(self.region < 0, np.maximum.accumulate(claimed), claimed)


@dataclass(frozen=True)
class State:
    """Where a trust region stands.

    Attributes:
        length: Mean side of the box.
        successes: How many in a row, batches being counted, since the last change of length.
        failures: How many trials in a row without success, since the last change of length.
        restarts: Number of the region: how many came before it.
        best: Which of the trials that ended is the best of the region: of those that keep all
            constraints or, while none does, the one that misses them by least. None before there
            is one.
        since: How many trials had ended at the last change of length: boxes made before that do
            not count any more.
        violation: By how much the best misses the constraints in total; 0 where it keeps them.
    """

    length: float = LENGTH
    successes: int = 0
    failures: int = 0
    restarts: int = 0
    best: int | None = None
    since: int = 0
    violation: float = 0.0


def patience(d: int) -> int:
    """After how many failures in a row a region is halved: ⌈max(4, d)⌉."""
    return max(4, d)


def replay(trials: Trials, d: int) -> State:
    """The state that a sequence of trials leads to.

    Trials of one batch, those whose box was made of the same knowledge, succeed together if the
    best of them gains more than 1e-3 |b| on the best value b before; or, where that is less, than
    1e-3 of the range of y, so that a constant added to all values does not forbid success.
    Three batches that succeed in a row double the length, up to 1.6; ⌈max(4, d)⌉ trials in a row
    that fail halve it; below 2⁻⁷ another region begins. What was proposed before such a change no
    longer counts after it, but for being the best; nor does, ever, what was told from elsewhere.

    Values are compared among trials that keep all constraints, any of which is better than all
    others. While none does, a batch succeeds if it lowers the least violation by 1e-3 of it.

    Args:
        trials: All that ended, in order of number.
        d: Number of columns that can move.
    """
    region = trials.regions
    current = int(region.max(initial=0))
    mine = np.flatnonzero(region == current).tolist()
    y, known, short = trials.y.tolist(), trials.known.tolist(), trials.short.tolist()
    length, successes, failures, since = LENGTH, 0, 0, 0
    best, top, least, missed = None, -math.inf, math.inf, math.inf
    k = 0
    while k < len(mine):
        box, end = known[mine[k]], k + 1
        while box >= 0 and end < len(mine) and known[mine[end]] == box:
            end += 1
        batch = [i for i in mine[k:end] if not math.isnan(y[i])]
        winner = min(batch, key=lambda i: (short[i], -y[i]), default=None)
        gained = False
        if winner is not None:
            if best is None or (missed > 0 and not short[winner] > 0):
                gained = True
            elif missed > 0:
                gained = short[winner] < (1 - _GAIN) * missed
            elif not short[winner] > 0:
                gained = y[winner] > top + _GAIN * min(abs(top), top - least)
            least = min([least, *(y[i] for i in batch if not short[i] > 0)])
            if best is None or (short[winner], -y[winner]) < (missed, -top):
                best, top, missed = winner, y[winner], short[winner]
        if box >= since and box >= 0:
            successes = successes + 1 if gained else 0
            failures = 0 if gained else failures + end - k
            if successes >= SUCCESSES or failures >= patience(d):
                length = min(2 * length, LONGEST) if gained else length / 2
                successes, failures, since = 0, 0, mine[end - 1] + 1
                if length < SHORTEST:
                    return State(restarts=current + 1, since=since)
        k = end
    violation = 0.0 if best is None else missed
    return State(length, successes, failures, current, best, since, violation)


def past_trials(
    y: np.ndarray, failed: int, past: Sequence[Past], violation: np.ndarray | None = None
) -> Trials:
    """What is known of the trials that ended, in order of number.

    Args:
        y: Values of the complete ones, in order of number.
        failed: How many failed.
        past: As in `Request`.
        violation: See `total_violation`.
    """
    ended = [trial for trial in past if trial.outcome != "pending"]
    if not ended:
        ended = [Past("complete", {})] * len(y) + [Past("failed", {})] * failed
    complete = np.array([trial.outcome == "complete" for trial in ended], dtype=bool)
    values, short = np.full(len(ended), np.nan), None
    values[complete] = y
    if violation is not None:
        short = np.zeros(len(ended))
        short[complete] = violation
    labels = [trial.origin.get("region") or {} for trial in ended]
    return Trials(
        values,
        np.array([label.get("number", -1) for label in labels], dtype=int),
        np.array([label.get("known", -1) for label in labels], dtype=int),
        short,
    )


def total_violation(constraints: tuple[Data, ...], first: int) -> np.ndarray | None:
    """By how much each complete trial misses the constraints in total, (n,); None without any.

        Σ_j max(bound_j - y_j, 0) / s_j

    s_j is the standard deviation of y_j, its bad side cut off, among the first trials: units do not
    matter, and what was a success stays one when more is told.

    Args:
        constraints: What is known of each.
        first: How many trials come first.
    """
    if not constraints:
        return None
    total = np.zeros(len(constraints[0].y))
    for data in constraints:
        assert data.bound is not None
        missed = (data.y < data.bound) & data.told
        slope = transform_of(data.rows(slice(first)), None).log_slope(data.y[missed])
        with np.errstate(over="ignore"):
            total[missed] += np.exp(np.log(data.bound - data.y[missed]) + slope).clip(_LEAST, _MOST)
        total[~data.told] += _MOST  # nobody knows: any that is known to be near comes before
    return total
