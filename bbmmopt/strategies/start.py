"""Spread the first trials evenly."""

from __future__ import annotations

import hashlib
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch.quasirandom import SobolEngine

from bbmmopt.search import Domain, Region, SpaceExhausted
from bbmmopt.space import Space
from bbmmopt.strategies.base import Proposal, Request, generator

_POOL = 1024  # feasible points among which those of a constrained space are chosen
_BLOCK = 128  # how many are chosen from one pool
_LIST = 100_000  # finite spaces up to this size can be listed


@dataclass(frozen=True)
class SpaceFilling:
    """The centre of the space, then a scrambled Sobol sequence indexed by trial number.

    In a space with constraints: the feasible point nearest to the centre, then feasible points each
    as far as possible from those before it, chosen from a pool that follows from the seed (and from
    what is fixed) alone.

    Attributes:
        space: The space.
    """

    space: Space

    def propose(self, request: Request) -> Proposal:
        """The next unseen point of the sequence.

        Raises:
            SpaceExhausted: If the space is finite and every allowed point was seen.
            NoFeasiblePoint: If no point meets the constraints, or none was found.
        """
        domain = Domain(self.space, request.fixed, request.seen)
        if self.space.constraints:
            return _feasible(domain, request)
        d = len(self.space)
        if request.number == 0:
            x = domain.place(np.full((1, d), 0.5))
            if domain.unseen(x)[0]:
                return Proposal(x[0], {"phase": "space-filling", "point": "centre"})
        digest = hashlib.blake2b(f"{request.seed}/sobol".encode(), digest_size=8).digest()
        engine = _sobol(d, int.from_bytes(digest) % 2**62, request.number)
        # A point that was seen is passed over, for the next unseen one further on.
        for block in (1, 64, 4096, 65536):
            X = domain.place(engine.draw(block, dtype=torch.float64).numpy())
            unseen = np.flatnonzero(domain.unseen(X))
            if len(unseen):
                return Proposal(X[unseen[0]], {"phase": "space-filling", "point": "sobol"})
        if self.space.size is not None and self.space.size <= _LIST:
            return Proposal(domain.enumerate()[0], {"phase": "space-filling", "point": "listed"})
        raise SpaceExhausted(
            "no unseen point was found among 69,697 of the Sobol sequence; the part of the space "
            "that is left free seems to be used up. Widen the space or fix fewer parameters."
        )


@lru_cache(maxsize=16)
def _beginning(d: int, seed: int) -> SobolEngine:
    """A sequence at its beginning. To scramble one takes longer than all the rest of a proposal."""
    return SobolEngine(d, scramble=True, seed=seed)


def _sobol(d: int, seed: int, number: int) -> SobolEngine:
    """The sequence of a seed from a number on."""
    engine = copy(_beginning(d, seed))
    engine.quasi = engine.quasi.clone()  # it moves in place
    return engine.fast_forward(number)


def _feasible(domain: Domain, request: Request) -> Proposal:
    """The next unseen point of the sequence of a space with constraints."""
    small = domain.space.size is not None and domain.space.size <= _LIST
    region = None if small else Region(domain)
    block, place = divmod(request.number, _BLOCK)
    for b in (block, block + 1, block + 2):
        draws = generator(request.seed, b, "feasible start")
        if region is None:
            X = replace(domain, seen=frozenset()).enumerate()
            X = X[torch.randperm(len(X), generator=draws)[:_POOL].numpy()]
        else:
            X = region.sample(_POOL, draws)
        if b == 0:
            X = np.concatenate([_middle(X, region)[None], X])
        X = X[_spread(domain.space, X, _BLOCK)]
        # Those of this number and after it, then those that others left behind.
        start = min(place, len(X)) if b == block else 0
        order = np.r_[start : len(X), :start]
        unseen = order[domain.unseen(X[order]) & domain.feasible(X[order])]
        if len(unseen):
            x, point = X[unseen[0]], "maximin"
            if b == 0 and unseen[0] == 0:
                centre = domain.place(np.full((1, len(x)), 0.5))[0]
                point = "centre" if np.allclose(x, centre, rtol=0.0, atol=1e-9) else "nearest"
            return Proposal(x, {"phase": "space-filling", "point": point})
    if region is None:
        return Proposal(domain.enumerate()[0], {"phase": "space-filling", "point": "listed"})
    X = region.sample(4096, generator(request.seed, request.number, "feasible rest"))
    unseen = np.flatnonzero(domain.unseen(X))
    if len(unseen):
        return Proposal(X[unseen[0]], {"phase": "space-filling", "point": "random"})
    raise SpaceExhausted(
        "no unseen point was found among some 4,000 that meet the constraints; the part of the "
        "space that is left free seems to be used up. Widen the space or fix fewer parameters."
    )


def _middle(X: np.ndarray, region: Region | None) -> np.ndarray:
    """The feasible point nearest to the centre, or one that is as near as those of X lead."""
    if region is not None:
        nearest = region.nearest(np.full(X.shape[1], 0.5))
        if nearest is not None:
            return nearest
    closest = X[((X - 0.5) ** 2).sum(1).argmin()]
    if region is None:
        return closest
    return region.climb_to(np.full(X.shape[1], 0.5), closest)


def _spread(space: Space, X: np.ndarray, count: int) -> np.ndarray:
    """Indices of up to `count` rows of X, each as far as possible from those before it.

    Two categories are as far apart as the two ends of a range. Begins with row 0.
    """
    categorical = np.array([c.kind == "categorical" for c in space.columns])
    chosen, nearest = [0], np.full(len(X), np.inf)
    while len(chosen) < count:
        away = X - X[chosen[-1]]
        away = np.where(categorical, away != 0, away)
        nearest = np.minimum(nearest, (away**2).sum(1))
        further = int(nearest.argmax())
        if nearest[further] <= 0:
            break
        chosen.append(further)
    return np.array(chosen)
