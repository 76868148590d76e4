"""BBMM: all of inference from products with K, set up once for one K̂ = K + noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import torch
from torch import Tensor

from surrogate.operators.base import LinearOperator
from surrogate.operators.basic import Diagonal
from surrogate.operators.kernel import Storage
from surrogate.solvers.mbcg import Solution, mbcg
from surrogate.solvers.preconditioners import Preconditioner, Structure

# Rank of the preconditioner: √(100 n), so that building it, n r², costs about as much as a few of
# the products it saves; and no more than this share of n.
_RANK, _SHARE = 100.0, 8


@dataclass(frozen=True)
class BBMM:
    """Solve by products with K alone: batched block conjugate gradients, preconditioned.

    Attributes:
        tolerance: Relative residual of the weights that predictions are made with.
        training_tolerance: Relative residual of the solves that gradients of a fit are made with.
        variance_tolerance: A variance v of f is returned once it is certain to be wrong by at most
            this share of v + σ²; inf takes what the cached root alone gives.
        probes: Random vectors that log|K̂| and its gradient are estimated with. Together with y
            and the constant, 14 make a block of 16, which is as quick as one of 9.
        rank: Of the preconditioner's low-rank part, at most; None chooses by n.
        block: Points in each cluster that the preconditioner treats exactly; 0 for none.
        max_steps: Most iterations of a solve.
        storage: Where K lives: see `KernelOperator`.
        budget: Bytes that K may take; `default_budget()` unless given.
        seed: Of the probes and the pivots: the same seed, the same bits.
    """

    tolerance: float = 1e-6
    training_tolerance: float = 1e-2
    variance_tolerance: float = 1e-2
    probes: int = 14
    rank: int | None = None
    block: int = 160
    max_steps: int = 1000
    storage: Storage = "auto"
    budget: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tolerance", "training_tolerance", "variance_tolerance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        for name, least in (("probes", 2), ("rank", 0), ("block", 0), ("max_steps", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}.")
        if self.storage not in get_args(Storage):
            raise ValueError(f"storage must be one of {get_args(Storage)}; got {self.storage!r}.")

    def rank_for(self, n: int) -> int:
        """Rank of the preconditioner for n points."""
        if self.rank is not None:
            return min(self.rank, n)
        return min(round(math.sqrt(_RANK * n)), max(n // _SHARE, min(n, 64)))

    def generator(self) -> torch.Generator:
        """A fresh generator with the seed."""
        return torch.Generator().manual_seed(self.seed)

    def structure(self, K: LinearOperator, noise: Tensor) -> Structure:
        """Pivots and clusters for K + noise."""
        rank, generator = self.rank_for(K.n), self.generator()
        return Structure.of(K, noise, rank=rank, block=self.block, generator=generator)

    def system(self, K: LinearOperator, noise: Tensor) -> System:
        """K̂ = K + diag(noise) and all that solving with it takes.

        Args:
            K: Without noise.
            noise: Variances, shape (n,).
        """
        return System(self, K, noise)


@dataclass(frozen=True)
class System:
    """K̂ = K + diag(noise), ready to be solved with.

    Attributes:
        options: How.
        K: Without noise.
        noise: Variances, shape (n,).
    """

    options: BBMM
    K: LinearOperator
    noise: Tensor

    @cached_property
    def operator(self) -> LinearOperator:
        """K̂."""
        return self.K + Diagonal(self.noise)

    @cached_property
    def preconditioner(self) -> Preconditioner:
        """P ≈ K̂."""
        return Preconditioner(self.K, self.noise, self.options.structure(self.K, self.noise))

    def solve(
        self,
        B: Tensor,
        *,
        guess: Tensor | None = None,
        tolerance: float | None = None,
        refine: bool = True,
        warn: bool = True,
    ) -> Solution:
        """K̂⁻¹B for B (n, t), as accurate as the options say."""
        return mbcg(
            self.operator,
            B,
            preconditioner=self.preconditioner,
            guess=guess,
            tolerance=self.options.tolerance if tolerance is None else tolerance,
            max_steps=self.options.max_steps,
            refine=refine,
            warn=warn,
        )
