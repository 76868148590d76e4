"""Find the candidate of largest acquisition value in a space of any kind of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bbmmopt.search.domain import Domain, SpaceExhausted
from bbmmopt.search.gradient import Ascent, ValueAndGradient, ascend
from bbmmopt.search.region import Region
from bbmmopt.search.starts import around, boltzmann, change_discrete, sobol
from bbmmopt.search.within import ascend_curved, ascend_within

_ENUMERATE = 10_000  # finite spaces up to this size are scored whole
_LIST = 100_000  # those up to this size, when all that the search liked was seen before
_CHUNK = 1024  # rows scored at once: bounds the memory of their covariance with the data


class Scored(Protocol):
    """What is maximised: scores of candidates, and their gradients."""

    def __call__(self, X: Tensor, /) -> Tensor:
        """Scores of groups of one, X (m, 1, d): shape (m,)."""
        ...

    def value_and_gradient(self, X: Tensor, /) -> tuple[Tensor, Tensor]:
        """Scores of X (m, d), shape (m,), and their gradients, shape (m, d)."""
        ...


@dataclass(frozen=True)
class Search:
    """How hard to look.

    Attributes:
        raw: Points scored to find starts, not counting those around the best trials.
        starts: How many of them are climbed from.
        climb_rounds: Most rounds of one climb, each one batched evaluation with gradients.
        rounds: Most alternations between climbing and discrete moves.
    """

    raw: int = 1024
    starts: int = 20
    climb_rounds: int = 80
    rounds: int = 4


@dataclass(frozen=True)
class Found:
    """The best candidate met.

    Attributes:
        x: On the lattice of the space, unseen where that was asked for, shape (d,).
        value: Its score.
        evaluations: How many candidates were scored, those with gradients included.
    """

    x: np.ndarray
    value: float
    evaluations: int


def maximise(
    acquisition: Scored,
    domain: Domain,
    *,
    generator: torch.Generator,
    scale: Tensor,
    centres: np.ndarray,
    search: Search | None = None,
) -> Found:
    """Return the best unseen candidate found.

    A finite space of up to 10,000 points is scored whole. Otherwise raw points, scrambled Sobol
    and around the best trials, are scored in one batch; from a Boltzmann choice of them, the best
    one always included, all climb at once; in mixed spaces climbs alternate with moves to the best
    neighbour in one discrete parameter. Candidates are rounded to the lattice before they compete.

    In a space with constraints raw points are feasible ones, climbs keep to linear constraints
    exactly and to others by SLSQP, and only feasible candidates compete.

    Args:
        acquisition: What to maximise.
        domain: Where.
        generator: Randomness of the raw points and of the choice of starts.
        scale: Length over which the acquisition changes in each column, shape (d,).
        centres: The best trials, shape (k, d); k may be 0.
        search: How hard to look.

    Raises:
        SpaceExhausted: If the space is finite and every allowed point was seen.
        NoFeasiblePoint: If no point meets the constraints of the space, or none was found.
    """
    search = search or Search()
    space = domain.space
    if space.size is not None and space.size <= _ENUMERATE:
        return _enumerate(acquisition, domain)
    region = Region(domain) if space.constraints else None
    if region is not None:
        X = region.sample(search.raw, generator)
        if len(centres):
            X = np.concatenate([X, region.near(centres, search.raw // 4, generator)])
        return _search(acquisition, domain, X, generator, scale, search, region)
    X = sobol(search.raw, len(space), generator)
    if len(centres):
        near = around(centres, search.raw // 4, generator)
        X = np.concatenate([X, change_discrete(space, near, generator)])
        X = np.concatenate([domain.place(X), domain.place(centres)])
    else:
        X = domain.place(X)
    return _search(acquisition, domain, X, generator, scale, search, None)


def _search(
    acquisition: Scored,
    domain: Domain,
    X: np.ndarray,
    generator: torch.Generator,
    scale: Tensor,
    search: Search,
    region: Region | None,
) -> Found:
    """Climb from the best of the raw rows X, and choose among all that was met."""
    space = domain.space
    values = _score(acquisition, X)
    evaluations = len(X)
    # SLSQP climbs row by row, which takes several times as long.
    starts = search.starts if region is None or region.straight else -(-search.starts // 2)
    start = boltzmann(values, starts, generator).numpy()
    ends, end_values, more = _climb(
        acquisition, domain, X[start], values[start], scale, search, region
    )
    # Rounding can lose what a climb gained: every point met competes, best first.
    X, values = np.concatenate([ends, X]), torch.cat([end_values, values])
    order = values.argsort(descending=True, stable=True).numpy()
    for block in np.array_split(order, max(1, len(order) // 16)):
        allowed = block[domain.unseen(X[block])]
        if region is not None:
            allowed = allowed[domain.feasible(X[allowed])]
        if len(allowed):
            best = int(allowed[0])
            return Found(X[best], float(values[best]), evaluations + more)
    if space.size is not None and space.size <= _LIST:
        return _enumerate(acquisition, domain)
    return _anything_unseen(acquisition, domain, generator, evaluations + more, region)


def _climb(
    acquisition: Scored,
    domain: Domain,
    X: np.ndarray,
    values: Tensor,
    scale: Tensor,
    search: Search,
    region: Region | None,
) -> tuple[np.ndarray, Tensor, int]:
    """Alternate climbs and discrete moves from each row; returns rows, values, evaluations."""

    def climb(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, gradient = acquisition.value_and_gradient(torch.from_numpy(rows))
        return value.numpy(), gradient.numpy()

    discrete, evaluations = bool(domain.discrete), 0
    for k in range(search.rounds):
        # Every other climb keeps to the lattice: rounding moved the others off their tops, and
        # the continuous columns have to follow.
        relax = k % 2 == 0
        lower, upper = domain.bounds(X, relax=relax)
        improved = False
        if bool((lower < upper).any()):
            ascent = _ascend(climb, X, lower, upper, scale.numpy(), search, region)
            evaluations += ascent.evaluations
            if not discrete and region is None:
                return domain.place(ascent.X), torch.from_numpy(ascent.value), evaluations
            moved = domain.place(ascent.X) if region is None else region.pull_back(ascent.X, X)
            moved_values = _score(acquisition, moved)
            evaluations += len(moved)
            improved = _keep_better(X, values, moved, moved_values)
        if discrete:
            stepped, count = _discrete_moves(acquisition, region or domain, X, values)
            evaluations += count
            improved = stepped or improved
        if (not improved and not relax) or not discrete:
            break
    return X, values, evaluations


def _ascend(
    climb: ValueAndGradient,
    X: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    scale: np.ndarray,
    search: Search,
    region: Region | None,
) -> Ascent:
    """The climb that fits the constraints."""
    if region is None:
        return ascend(climb, X, lower, upper, scale, max_rounds=search.climb_rounds)
    lower, upper = region.bounds(lower, upper)
    box = climb, X, lower, upper, scale, region.polytope
    if region.straight:
        return ascend_within(*box, max_rounds=search.climb_rounds)
    return ascend_curved(*box, region.curved, max_rounds=search.climb_rounds)


def _keep_better(X: np.ndarray, values: Tensor, other: np.ndarray, other_values: Tensor) -> bool:
    """Overwrite rows by better ones; returns whether any row gained noticeably."""
    better = other_values > values
    gained = bool((other_values > values + 1e-3).any())
    X[better.numpy()] = other[better.numpy()]
    values[better] = other_values[better]
    return gained


def _discrete_moves(
    acquisition: Scored, domain: Domain | Region, X: np.ndarray, values: Tensor
) -> tuple[bool, int]:
    """Move every row to its best neighbour until none has a better one; X and values change."""
    any_gain, evaluations = False, 0
    for _ in range(10):
        neighbours, owner = domain.neighbours(X)
        if not len(neighbours):
            break
        scores = _score(acquisition, neighbours)
        evaluations += len(neighbours)
        # The last of each owner's entries, in increasing order of score, is its best.
        order = scores.argsort(stable=True).numpy()
        best = np.full(len(X), -1)
        best[owner[order]] = order
        has = np.flatnonzero(best >= 0)
        at, at_values = X[has], values[has]
        gained = _keep_better(at, at_values, neighbours[best[has]], scores[best[has]])
        X[has], values[has] = at, at_values
        any_gain = any_gain or gained
        if not gained:
            break
    return any_gain, evaluations


def _enumerate(acquisition: Scored, domain: Domain) -> Found:
    """Score every unseen point of a finite space."""
    X = domain.enumerate()
    values = _score(acquisition, X)
    best = int(values.argmax())
    return Found(X[best], float(values[best]), len(X))


def _anything_unseen(
    acquisition: Scored,
    domain: Domain,
    generator: torch.Generator,
    evaluations: int,
    region: Region | None,
) -> Found:
    """The best of some unseen points, when everything the search liked was seen before."""
    for _ in range(20):
        if region is not None:
            X = region.sample(4096, generator)
        else:
            X = domain.place(sobol(4096, len(domain.space), generator))
        X = X[domain.unseen(X)]
        if len(X):
            values = _score(acquisition, X)
            best = int(values.argmax())
            return Found(X[best], float(values[best]), evaluations + len(X))
    raise SpaceExhausted(
        "no unseen point was found among 81,920 drawn at random; the part of the space that is "
        "left free seems to be used up. Widen the space or fix fewer parameters."
    )


def _score(acquisition: Scored, X: np.ndarray) -> Tensor:
    """Scores of X (m, d) without gradients, in pieces that bound the memory taken."""
    tensor = torch.from_numpy(np.ascontiguousarray(X)).unsqueeze(-2)
    with torch.no_grad():
        return torch.cat([acquisition(part) for part in tensor.split(_CHUNK)])
