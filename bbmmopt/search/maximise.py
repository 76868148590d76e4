"""Find the candidate of largest acquisition value in a space of any kind of parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bbmmopt.search.budget import Budget
from bbmmopt.search.domain import Domain, SpaceExhausted
from bbmmopt.search.gradient import Ascent, ValueAndGradient, ascend
from bbmmopt.search.region import Region
from bbmmopt.search.starts import around, boltzmann, change_discrete, sobol
from bbmmopt.search.within import ascend_curved, ascend_within

_ENUMERATE = 10_000  # finite spaces up to this size are scored whole
_LIST = 100_000  # those up to this size, when all that the search liked was seen before
_CHUNK = 1024  # rows scored at once: bounds the memory of their covariance with the data
_LATE = 64  # points that are scored where the time is over before the first is
# Of a limited number of evaluations, each climb should have so many, and the raw points half.
_PER_CLIMB = 20


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
    budget: Budget | None = None,
) -> Found:
    """Return the best unseen candidate found.

    A finite space of up to 10,000 points is scored whole. Otherwise raw points, scrambled Sobol
    and around the best trials, are scored in one batch; from a Boltzmann choice of them, the best
    one always included, all climb at once; in mixed spaces climbs alternate with moves to the best
    neighbour in one discrete parameter. Candidates are rounded to the lattice before they compete.

    In a space with constraints raw points are feasible ones, climbs keep to linear constraints
    exactly and to others by SLSQP, and only feasible candidates compete.

    A small budget makes for fewer raw points and climbs. A point comes back in any case: where the
    time is over, the best of 64; where but one evaluation is left, any unseen one.

    Args:
        acquisition: What to maximise.
        domain: Where.
        generator: Randomness of the raw points and of the choice of starts.
        scale: Length over which the acquisition changes in each column, shape (d,).
        centres: The best trials, shape (k, d); k may be 0.
        search: How hard to look.
        budget: How much of that may be done; no limit if left out.

    Raises:
        SpaceExhausted: If the space is finite and every allowed point was seen.
        NoFeasiblePoint: If no point meets the constraints of the space, or none was found.
    """
    search, budget = search or Search(), budget or Budget()
    space = domain.space
    if space.size is not None and space.size <= _ENUMERATE:
        return _enumerate(acquisition, domain, generator, budget)
    region = Region(domain) if space.constraints else None
    # One evaluation is kept for an unseen point, should all that the search finds have been seen.
    within = budget.keeping(1)
    X = _raw(domain, region, generator, centres, search, within)
    found, evaluations = _search(acquisition, domain, X, generator, scale, search, region, within)
    if found is not None:
        return found
    if space.size is not None and space.size <= _LIST:
        found = _enumerate(acquisition, domain, generator, budget)
    else:
        found = _anything_unseen(acquisition, domain, generator, region, budget)
    return replace(found, evaluations=evaluations + found.evaluations)


def _raw(
    domain: Domain,
    region: Region | None,
    generator: torch.Generator,
    centres: np.ndarray,
    search: Search,
    budget: Budget,
) -> np.ndarray:
    """Points to find starts among, shape (m, d): spread evenly, and around the best trials."""
    whole = search.raw + (search.raw // 4 + len(centres) if len(centres) else 0)
    room = min(budget.left / 2, _PER_CLIMB * search.starts)
    count = budget.keeping(int(room)).most(whole, _LATE)
    raw, near = search.raw, search.raw // 4
    if count < whole:
        near = count // 5 if len(centres) else 0
        raw = count - near
    if not raw:
        return np.empty((0, len(domain.space)))
    if region is not None:
        X = region.sample(raw, generator)
        if len(centres) and near:
            X = np.concatenate([X, region.near(centres, near, generator)])
        return X[:count]
    X = sobol(raw, len(domain.space), generator)
    if len(centres) and near:
        moved = around(centres, near, generator)
        X = np.concatenate([X, change_discrete(domain.space, moved, generator)])
    X = domain.place(X)
    return X if count < whole or not len(centres) else np.concatenate([X, domain.place(centres)])


def _search(
    acquisition: Scored,
    domain: Domain,
    X: np.ndarray,
    generator: torch.Generator,
    scale: Tensor,
    search: Search,
    region: Region | None,
    budget: Budget,
) -> tuple[Found | None, int]:
    """Climb from the best of the raw rows X, and choose among all that was met.

    Nothing if all of it was seen; and how many candidates were scored.
    """
    if not len(X):
        return None, 0
    values = _score(acquisition, X, budget)
    X = X[: len(values)]
    evaluations = len(X)
    # SLSQP climbs row by row, which takes several times as long.
    starts = search.starts if region is None or region.straight else -(-search.starts // 2)
    starts = int(min(starts, max(1, budget.left / _PER_CLIMB)))
    start = boltzmann(values, starts, generator).numpy()
    ends, end_values, more = _climb(
        acquisition, domain, X[start], values[start], scale, search, region, budget
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
            return Found(X[best], float(values[best]), evaluations + more), evaluations + more
    return None, evaluations + more


def _climb(
    acquisition: Scored,
    domain: Domain,
    X: np.ndarray,
    values: Tensor,
    scale: Tensor,
    search: Search,
    region: Region | None,
    budget: Budget,
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
            plain = not discrete and region is None
            room = budget if plain else budget.keeping(len(X))  # who are scored again
            room = room.part(2) if discrete else room
            if not room.allows(len(X)):
                break
            ascent = _ascend(climb, X, lower, upper, scale.numpy(), search, region, room)
            evaluations += ascent.evaluations
            if plain:
                return domain.place(ascent.X), torch.from_numpy(ascent.value), evaluations
            moved = domain.place(ascent.X) if region is None else region.pull_back(ascent.X, X)
            moved_values = _score(acquisition, moved, budget)
            evaluations += len(moved)
            improved = _keep_better(X, values, moved, moved_values)
        if discrete:
            stepped, count = _discrete_moves(acquisition, region or domain, X, values, budget)
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
    budget: Budget,
) -> Ascent:
    """The climb that fits the constraints."""
    rounds = search.climb_rounds
    if region is None:
        return ascend(climb, X, lower, upper, scale, max_rounds=rounds, budget=budget)
    lower, upper = region.bounds(lower, upper)
    box = climb, X, lower, upper, scale, region.polytope
    if region.straight:
        return ascend_within(*box, max_rounds=rounds, budget=budget)
    return ascend_curved(*box, region.curved, max_rounds=rounds, budget=budget)


def _keep_better(X: np.ndarray, values: Tensor, other: np.ndarray, other_values: Tensor) -> bool:
    """Overwrite rows by better ones; returns whether any row gained noticeably."""
    better = other_values > values
    gained = bool((other_values > values + 1e-3).any())
    X[better.numpy()] = other[better.numpy()]
    values[better] = other_values[better]
    return gained


def _discrete_moves(
    acquisition: Scored, domain: Domain | Region, X: np.ndarray, values: Tensor, budget: Budget
) -> tuple[bool, int]:
    """Move every row to its best neighbour until none has a better one; X and values change.

    Where the budget is not for all neighbours, those of the best rows come first.
    """
    any_gain, evaluations = False, 0
    for _ in range(10):
        neighbours, owner = domain.neighbours(X)
        if not len(neighbours):
            break
        count = budget.most(len(neighbours))
        if count < len(neighbours):
            first = (-values.numpy()[owner]).argsort(kind="stable")[:count]
            neighbours, owner = neighbours[first], owner[first]
        if not count:
            break
        scores = _score(acquisition, neighbours, budget)
        neighbours, owner = neighbours[: len(scores)], owner[: len(scores)]
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


def _enumerate(
    acquisition: Scored, domain: Domain, generator: torch.Generator, budget: Budget
) -> Found:
    """Score every unseen point of a finite space, or as many as may be."""
    X = domain.enumerate()
    count = max(budget.most(len(X), _LATE), 1)
    if count < len(X):
        X = X[torch.randperm(len(X), generator=generator)[:count].numpy()]
    return _best_of(acquisition, X, budget)


def _best_of(acquisition: Scored, X: np.ndarray, budget: Budget) -> Found:
    values = _score(acquisition, X, budget)
    best = int(values.argmax())
    return Found(X[best], float(values[best]), len(values))


def _anything_unseen(
    acquisition: Scored,
    domain: Domain,
    generator: torch.Generator,
    region: Region | None,
    budget: Budget,
) -> Found:
    """The best of some unseen points, when everything the search liked was seen before."""
    for _ in range(20):
        if region is not None:
            X = region.sample(4096, generator)
        else:
            X = domain.place(sobol(4096, len(domain.space), generator))
        X = X[domain.unseen(X)]
        if len(X):
            return _best_of(acquisition, X[: max(budget.most(len(X), _LATE), 1)], budget)
    raise SpaceExhausted(
        "no unseen point was found among 81,920 drawn at random; the part of the space that is "
        "left free seems to be used up. Widen the space or fix fewer parameters."
    )


def _score(acquisition: Scored, X: np.ndarray, budget: Budget) -> Tensor:
    """Scores of X (m, d) without gradients, in pieces that bound the memory taken.

    Of the first rows alone where the time is over before the rest: of the first piece at least.
    """
    tensor, values = torch.from_numpy(np.ascontiguousarray(X)).unsqueeze(-2), []
    with torch.no_grad():
        for part in tensor.split(_CHUNK):
            if values and not budget.allows(len(part)):
                break
            budget.spend(len(part))
            values.append(acquisition(part))
    return torch.cat(values)
