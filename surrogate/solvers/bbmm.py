"""BBMM: all of inference from products with K, set up once for one K̂ = K + noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import torch
from torch import Tensor

from surrogate.checks import check_finite, on_device
from surrogate.operators.base import LinearOperator, Storage, check_columns, check_operator
from surrogate.operators.basic import Diagonal
from surrogate.operators.distributed import Ranks
from surrogate.operators.kernel import TilesName, default_budget
from surrogate.randomness import normal
from surrogate.solvers.mbcg import Solution, mbcg
from surrogate.solvers.pivots import Structure
from surrogate.solvers.preconditioners import Preconditioner

# Rank of the preconditioner: √(100 n), so that building it, n r², costs about as much as a few of
# the products it saves; no more than this share of n, and no more than `_MOST`: n = 50,000 would
# otherwise spend as much memory on low-rank factors as on K in float32.
_RANK, _SHARE, _MOST = 100.0, 8, 1500
_COPIES = 3  # of an n by rank matrix that there are at once
# On `BBMM.rounding`: for smooth kernels, n = 400 to 4000 and targets drawn from the model, log p(y)
# was off by up to 5e-3 nats per observation at 2e-7, 1e-3 at 1e-6 and 2e-4 at 5e-6.

# Columns of the smallest block: fewer get random helpers. A stored product with 8 columns takes
# twice as long as with one, and α is found in a third of the steps or fewer.
_BLOCK = 8


@dataclass(frozen=True)
class BBMM:
    """Solve by products with K alone: batched block conjugate gradients, preconditioned.

    Attributes:
        tolerance: Relative residual of the weights that predictions are made with.
        training_tolerance: Relative residual of the solves that gradients of a fit are made with.
        append_tolerance: Residual of the weights after rows were appended, as a share of what these
            were beyond what had been expected, but not above `tolerance`; inf takes the best
            weights in the space of the cached root and of the clusters around the new rows, and
            solves for nothing.
        variance_tolerance: A variance v of f is returned once it is certain to be wrong by at most
            this share of v + σ²; inf takes what the cached root alone gives.
        probes: Random vectors that log|K̂| and its gradient are estimated with. Together with y
            and the constant, 14 make a block of 16, which is as quick as one of 9.
        rank: Of the preconditioner's low-rank part, at most; None chooses by n.
        block: Points in each cluster that the preconditioner treats exactly; 0 for none.
        max_steps: Most iterations of a solve.
        storage: Where K lives: see `KernelOperator`.
        tiles: What computes K where it is not stored: "triton" (fused kernels on an NVIDIA GPU, for
            most kernels), "torch" (any kernel, on any device), or "auto", the first where it can.
        budget: Bytes that K may take; `default_budget()` unless given.
        rounding: Storage "auto" keeps K in float32, where float64 does not fit, if all noise
            variances are at least this times √n max k(x, x). The default costs 1e-3 nats per
            observation at most; 2e-7 is where K̂ might cease to be positive definite.
        refine: Whether solves and the cached root are refined by products in float64 where K is
            kept in float32. Each such product computes all of K anew; without them the K in
            float32 is taken for K, in residuals too.
        seed: Of the probes and the pivots: the same seed, the same bits.
        distributed: Whether K is computed in tiles whose rows are shared out among the processes of
            torch.distributed, all of which run the same program on the same data: see
            `DistributedKernelOperator`. A kernel with a product of its own is not shared out.
    """

    tolerance: float = 1e-6
    training_tolerance: float = 1e-2
    append_tolerance: float = 1e-2
    variance_tolerance: float = 1e-2
    probes: int = 14
    rank: int | None = None
    block: int = 160
    max_steps: int = 1000
    storage: Storage = "auto"
    tiles: TilesName = "auto"
    budget: int | None = None
    rounding: float = 1e-6
    refine: bool = True
    seed: int = 0
    distributed: bool = False

    def __post_init__(self) -> None:
        for name in ("tolerance", "training_tolerance", "append_tolerance", "variance_tolerance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        for name, least in (("probes", 2), ("rank", 0), ("block", 0), ("max_steps", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}.")
        if self.storage not in get_args(Storage):
            raise ValueError(f"storage must be one of {get_args(Storage)}; got {self.storage!r}.")
        if self.tiles not in get_args(TilesName):
            raise ValueError(f"tiles must be one of {get_args(TilesName)}; got {self.tiles!r}.")
        if self.distributed and self.storage not in ("auto", "tiles"):
            raise ValueError(
                f"distributed=True stores nothing of K, so storage must be 'tiles' or 'auto'; "
                f"got {self.storage!r}."
            )

    def rank_for(self, n: int, device: torch.device | None = None) -> int:
        """Rank of the preconditioner for n points on a device, the CPU unless given.

        Chosen so that its factors take no more than the budget of the device: at n = 10⁶ about 360
        where that is 8 GiB.
        """
        if self.rank is not None:
            return min(self.rank, n)
        fitting = default_budget(device) // (_COPIES * 8 * max(n, 1))
        chosen = min(round(math.sqrt(_RANK * n)), max(n // _SHARE, min(n, 64)), _MOST)
        return min(chosen, max(fitting, 1))

    def generator(self) -> torch.Generator:
        """A fresh generator with the seed."""
        return torch.Generator().manual_seed(self.seed)

    def structure(self, K: LinearOperator, noise: Tensor) -> Structure:
        """Pivots and clusters for K + noise."""
        rank, generator = self.rank_for(K.n, K.device), self.generator()
        if self.distributed:
            rank = Ranks.of(K.device).least(rank)
        return Structure.of(K, noise, rank=rank, block=self.block, generator=generator)

    def solve(
        self,
        operator: LinearOperator,
        preconditioner: Preconditioner,
        B: Tensor,
        *,
        guess: Tensor | None = None,
        tolerance: float | None = None,
        warn: bool = True,
    ) -> Solution:
        """K̂⁻¹B for B (n, t), by `mbcg`.

        Args:
            operator: K̂.
            preconditioner: P ≈ K̂.
            B: Shape (n, t), where the operator is.
            guess: Where to start from, shape (n, t).
            tolerance: Relative residual; `self.tolerance` unless given.
            warn: Whether to warn with NotConverged.
        """
        check_columns("B", B, operator.n)
        n, t = B.shape
        helpers = None
        if t < _BLOCK <= n:
            helpers = normal(n, _BLOCK - t, generator=self.generator(), device=B.device)
        return mbcg(
            operator,
            B,
            preconditioner=preconditioner,
            guess=guess,
            helpers=helpers,
            tolerance=self.tolerance if tolerance is None else tolerance,
            max_steps=self.max_steps,
            refine=self.refine,
            warn=warn,
        )

    def system(self, K: LinearOperator, noise: Tensor | float) -> System:
        """K̂ = K + diag(noise) and its preconditioner.

        Args:
            K: Without noise.
            noise: Variances, shape (n,) where K is, or ().

        Raises:
            ValueError: If the noise has another shape, or is elsewhere.
        """
        return System(self, K, _one_per_row(noise, K))


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
        with torch.no_grad():
            noise = self.noise.detach()
            return Preconditioner(self.K, noise, self.options.structure(self.K, noise))

    def solve(self, B: Tensor) -> Solution:
        """K̂⁻¹B for B (n, t), as accurate as the options say."""
        return self.options.solve(self.operator, self.preconditioner, B)


def solve(
    K: LinearOperator, noise: Tensor | float, B: Tensor, solver: BBMM | None = None
) -> Solution:
    """(K + noise)⁻¹B for a matrix that is known by its products.

    Args:
        K: Symmetric positive semi-definite; `diagonal` and `rows` are asked for a preconditioner,
            unless `BBMM(rank=0, block=0)`. One product checks that they agree with `matmul`.
        noise: Added to its diagonal: variances, shape (n,) or (), positive.
        B: Right-hand sides, shape (n, t). These and noise of shape (n,) are on the device of K.
        solver: Tolerance and preconditioner.

    Returns:
        The solution and what it leaves of B, on the device of K, and how it went; without
        gradients.

    Raises:
        TypeError: If K is no operator.
        ValueError: If shapes or devices do not match, a number is not finite or not positive, or K
            is not symmetric or contradicts itself.
    """
    check_operator(K)
    noise, B = as_variances(noise, K), on_device("B", B, K.device)
    check_columns("B", B, K.n)
    check_finite("B", B)
    return (solver or BBMM()).system(K, noise).solve(B)


def as_variances(noise: Tensor | float, K: LinearOperator) -> Tensor:
    """Noise variances (n,) where K is, or raise unless they are positive, one or n of them."""
    noise = _one_per_row(noise, K)
    if not bool(((noise > 0) & noise.isfinite()).all()):
        least, most = noise.detach().aminmax()
        raise ValueError(
            f"noise must hold finite, positive variances; "
            f"got values from {float(least):.3g} to {float(most):.3g}."
        )
    return noise


def _one_per_row(noise: Tensor | float, K: LinearOperator) -> Tensor:
    """Noise variances (n,) in float64 where K is, or raise unless they are one or n."""
    if not isinstance(noise, Tensor) or not noise.ndim:  # one number may come from anywhere
        noise = torch.as_tensor(noise, dtype=torch.float64, device=K.device)
    noise = on_device("noise", noise, K.device)
    if noise.shape not in ((), (K.n,)):
        raise ValueError(f"noise must have shape ({K.n},) or (); got {tuple(noise.shape)}.")
    return noise.expand(K.n)
