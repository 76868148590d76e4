"""What told trials may really have been worth, and what running ones may be: joint draws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from bbmmopt.acquisition import Fantasised, base_samples, draw, prune_baseline
from bbmmopt.modelling import Belief, Beliefs
from bbmmopt.pareto import is_dominated
from bbmmopt.strategies.base import generator

_SAMPLES = 32
# Beyond so many trials a draw takes longer than it is worth, for noise averages out: what is
# believed of a trial is taken for what it was worth.
DRAWN_TO = 2000
_SAMPLES_OF_FRONTS = 16  # each of which has dozens of boxes
# Trials that are drawn values for: those that may be the best. Others would be in no sample.
_CANDIDATES = 100
# Share of the targets' variance below which noise leaves no such doubt.
_VISIBLE = 1e-3
_WIDTH = 128  # base samples are drawn for a multiple of so many points: see `base_samples`


@dataclass(frozen=True)
class Fantasies:
    """S joint draws of every output at trials that may be the best, and at those that are running.

    Where an output is exact, or nearly so, what was told of it is what it was: running trials
    alone are drawn.

    Attributes:
        objectives: Shape (k, S, b), for b trials.
        constraints: Shape (c, S, b).
        beliefs: About all k + c outputs, given these.
    """

    objectives: Tensor
    constraints: Tensor
    beliefs: tuple[Fantasised, ...]

    @property
    def feasible(self) -> tuple[Fantasised, ...]:
        """Beliefs about the constraints."""
        return self.beliefs[len(self.objectives) :]


def imagine(beliefs: Beliefs, seed: int) -> Fantasies:
    """Draw them; the same ones as long as no more is told, but for what is running.

    So one candidate of a batch after another sees the same world, with the others of it put in.
    """
    outputs = [*beliefs.objectives, *beliefs.constraints]
    told, data = len(beliefs.first.data.y), beliefs.first.data
    pending = data.place(data.pending)
    candidates = _candidates(beliefs)
    k = len(beliefs.objectives)
    count = _SAMPLES if k == 1 else _SAMPLES_OF_FRONTS
    if told > DRAWN_TO or not (len(pending) or any(map(is_noisy, outputs))):
        count = 1
    width = _WIDTH * -(-(len(candidates) + len(pending)) // _WIDTH)
    values, inside = [], []
    for i, belief in enumerate(outputs):
        base = _base(seed, told, i, count, max(width, 1)).to(data.device)
        drawn = _values(belief, candidates, pending, base)
        values.append(drawn)
        inside.append((belief, drawn))
    stacked = torch.stack(values)
    kept = np.arange(len(candidates))
    if k == 1 and len(candidates):
        # A draw at a trial that is never the best would only cost time.
        f = stacked[0, :, : len(candidates)]
        for c, belief in zip(stacked[1:], beliefs.constraints, strict=True):
            f = torch.where(c[:, : len(candidates)] >= belief.bound, f, -torch.inf)
        kept = np.flatnonzero(prune_baseline(f).cpu().numpy())
    return Fantasies(
        stacked[:k],
        stacked[k:],
        tuple(_given(belief, drawn, candidates, kept, pending) for belief, drawn in inside),
    )


@lru_cache(maxsize=8)
def _base(seed: int, told: int, output: int, count: int, width: int) -> Tensor:
    """Base samples of an output, shape (count, width), kept for the other points of a batch."""
    return base_samples(count, width, generator(seed, told, f"fantasies {output}"))


def is_noisy(belief: Belief) -> bool:
    """Whether noise leaves doubt about which trial is the best."""
    return len(belief.data.y) <= DRAWN_TO and belief.is_noisy(_VISIBLE)


def _candidates(beliefs: Beliefs) -> np.ndarray:
    """Indices of up to `_CANDIDATES` told trials that may be the best, in order of number."""
    n, within = len(beliefs.first.data.y), np.flatnonzero(beliefs.first.data.within)
    if len(within) <= _CANDIDATES:
        return within
    Y = np.stack([belief.fitted for belief in beliefs.objectives], 1)
    short = np.zeros(n)  # by how much constraints are missed
    for belief in beliefs.constraints:
        short += np.maximum(belief.bound - belief.fitted, 0.0)
    left, chosen = within, np.empty(0, dtype=int)
    if Y.shape[1] > 1:
        # Front after front, of what keeps the constraints; then what misses them by least.
        left = within[short[within] == 0]
        while len(left) and len(chosen) < _CANDIDATES:
            dominated = is_dominated(Y[left])
            chosen, left = np.concatenate([chosen, left[~dominated]]), left[dominated]
        left = np.setdiff1d(within, chosen)
    order = np.lexsort((-Y[left, 0], short[left]))
    return np.sort(np.concatenate([chosen, left[order]])[:_CANDIDATES])


def _values(belief: Belief, candidates: np.ndarray, pending: Tensor, base: Tensor) -> Tensor:
    """Values at the candidates, then at what is running, shape (S, b)."""
    rows, among = pending, belief.data.place(candidates)
    known = belief.posterior.y.new_empty(len(base), 0)
    if len(belief.data.y) > DRAWN_TO:
        with torch.no_grad():
            expected = belief.settled.marginals(pending)[0]
        return torch.cat([belief.posterior.fitted()[among], expected]).unsqueeze(0)
    if not is_noisy(belief):
        known = belief.posterior.y[among].expand(len(base), -1)
    else:
        rows = torch.cat([belief.posterior.X[among], pending])
    if not len(rows):
        return known
    with torch.no_grad():
        mean, covariance = belief.settled.joint(rows)
        return torch.cat([known, draw(mean, covariance, base, scale=belief.scale)], 1)


def _given(
    belief: Belief, drawn: Tensor, candidates: np.ndarray, kept: np.ndarray, pending: Tensor
) -> Fantasised:
    """The belief given the draws at the candidates kept, and at what is running."""
    b = len(candidates)
    which = np.arange(b, drawn.shape[1])
    rows = pending
    if is_noisy(belief):
        which = np.concatenate([kept, which])
        rows = torch.cat([belief.posterior.X[belief.data.place(candidates[kept])], pending])
    return belief.settled.fantasise(rows, drawn[:, belief.data.place(which)])
