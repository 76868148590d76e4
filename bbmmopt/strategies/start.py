"""Spread the first trials evenly."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from bbmmopt.search import Domain, SpaceExhausted
from bbmmopt.space import Space
from bbmmopt.strategies.base import Proposal, Request


@dataclass(frozen=True)
class SpaceFilling:
    """The centre of the space, then a scrambled Sobol sequence indexed by trial number.

    Attributes:
        space: The space.
    """

    space: Space

    def propose(self, request: Request) -> Proposal:
        """The next unseen point of the sequence.

        Raises:
            SpaceExhausted: If the space is finite and every allowed point was seen.
        """
        domain = Domain(self.space, request.fixed, request.seen)
        d = len(self.space)
        if request.number == 0:
            x = domain.place(np.full((1, d), 0.5))
            if domain.unseen(x)[0]:
                return Proposal(x[0], {"phase": "space-filling", "point": "centre"})
        digest = hashlib.blake2b(f"{request.seed}/sobol".encode(), digest_size=8).digest()
        engine = torch.quasirandom.SobolEngine(
            d, scramble=True, seed=int.from_bytes(digest) % 2**62
        )
        engine.fast_forward(request.number)
        # A point that was seen is passed over, for the next unseen one further on.
        for block in (1, 64, 4096, 65536):
            X = domain.place(engine.draw(block, dtype=torch.float64).numpy())
            unseen = np.flatnonzero(domain.unseen(X))
            if len(unseen):
                return Proposal(X[unseen[0]], {"phase": "space-filling", "point": "sobol"})
        if self.space.size is not None and self.space.size <= 100_000:
            return Proposal(domain.enumerate()[0], {"phase": "space-filling", "point": "listed"})
        raise SpaceExhausted(
            "no unseen point was found among 69,697 of the Sobol sequence; the part of the space "
            "that is left free seems to be used up. Widen the space or fix fewer parameters."
        )
