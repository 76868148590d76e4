"""Block conjugate gradients: all systems in one Krylov space, one product with K per iteration."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from surrogate.checks import check_finite
from surrogate.operators.base import LinearOperator
from surrogate.solvers.base import NotConverged, SolveInfo
from surrogate.solvers.cholesky import Cholesky, NotPositiveDefinite

# Steps between two looks at the true residual where products are inexact: in float32 the
# recursion's own has lost it after about twice as many.
_CHECK_EVERY = 12
_DRIFTED = 1.1  # times what the recursion says: the true residual is then another one
_PATIENCE = 3  # looks in a row that find nothing gained end a solve: rounding has the last word
_GAINED = 0.9  # of the smallest residual seen, below which something was
# Directions of the residual block below this share of it are rounding, and leave the block.
_DEPENDENT = 1e-12
# Products are off by about this, relative to |K| |v|: energies below that are rounding.
_EXACT, _INEXACT = 1e-14, 1e-6
# Rows of T, whose eigenvectors are computed: 1500 take a second.
_MOST = 1500


class Preconditioning(Protocol):
    """What the solver asks of P ≈ K."""

    def solve(self, R: Tensor, /) -> Tensor:
        """Return P⁻¹R for R (n, t)."""
        ...


@dataclass
class BlockLanczos:
    """T = Vᵀ P^(-1/2) K P^(-1/2) V, block tridiagonal, V orthonormal with n columns or fewer.

    P^(-1/2) B lies in the span of the first block of V, so that bᵀ P^(-1/2) f(·) P^(-1/2) b is
    found from f(T): see `surrogate.solvers.quadrature`.

    Attributes:
        start: P^(-1/2) B in the first block of the basis, shape (p, t).
        diagonal: Blocks of T on the diagonal.
        below: The blocks under them; as many, so the last one leads out of T.
    """

    start: Tensor
    diagonal: list[Tensor] = field(default_factory=list)
    below: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Solution:
    """What `mbcg` found.

    Attributes:
        U: K U ≈ B, shape (n, t), column-major.
        R: B - K U, by a product with U itself, shape (n, t), column-major.
        info: How well.
        lanczos: Coefficients for quadrature, when they were asked for.
    """

    U: Tensor
    R: Tensor
    info: SolveInfo
    lanczos: BlockLanczos | None


@torch.no_grad()
def mbcg(
    operator: LinearOperator,
    B: Tensor,
    *,
    preconditioner: Preconditioning | None = None,
    guess: Tensor | None = None,
    tolerance: float = 1e-6,
    max_steps: int = 1000,
    refine: bool = False,
    lanczos: bool = False,
    warn: bool = True,
) -> Solution:
    """Solve K U = B for all columns at once by preconditioned block conjugate gradients.

    Each step multiplies K with one (n, t) block and improves every column by what any of them
    learnt: with t = 17 in about half the steps of 17 separate runs. A column is done when its
    residual is at most `tolerance` times its own norm, by a product with the solution itself: at
    the end always, and along the way where products are inexact. Where rounding allows no more, the
    solve stops and returns the most accurate solution it had. All small algebra is in float64.

    Source: Dubrulle (2001), Retooling the method of block conjugate gradients (QR of the residual
    block); here with a preconditioner, a warm start and deflation.

    Args:
        operator: K, symmetric positive definite.
        B: Right-hand sides, shape (n, t).
        preconditioner: P ≈ K.
        guess: Where to start from, shape (n, t); zero unless given. The start is the combination
            of its columns that comes closest to each solution, so a bad one does no harm.
        tolerance: Relative residual to reach in every column.
        max_steps: Most iterations.
        refine: Whether the true residual is computed by `operator.precise`, which takes the
            solution to the accuracy of float64 though the products along the way have less.
        lanczos: Whether to keep the coefficients; without a guess only.
        warn: Whether to warn with NotConverged.

    Raises:
        ValueError: If shapes do not match or numbers are not finite.
        NotPositiveDefinite: If K or P turns out not to be.
    """
    B, guess = _checked(operator, B, guess, lanczos)
    run = _Run(operator, preconditioner, B, guess, tolerance, refine, lanczos)
    while True:
        if run.claims_to_be_done or run.steps >= max_steps or run.is_check_due:
            run.check()
        if run.is_done or run.steps >= max_steps:
            break
        run.step()
    if warn and not bool(run.info.converged.all()):
        reason = f"{max_steps} steps are all it may take" if run.is_able else "rounding allows no more"
        warnings.warn(
            f"block conjugate gradients stopped after {run.steps} steps, for {reason}: {run.info}. "
            f"Add noise to the diagonal, raise the rank of the preconditioner or max_steps, or ask "
            f"for less.",
            NotConverged,
            stacklevel=2,
        )
    return run.solution()


def _checked(
    operator: LinearOperator, B: Tensor, guess: Tensor | None, lanczos: bool
) -> tuple[Tensor, Tensor | None]:
    """B and guess in float64, as contiguous rows."""
    if B.ndim != 2 or len(B) != operator.n:
        raise ValueError(
            f"B must have shape ({operator.n}, t), one right-hand side per column; "
            f"got {tuple(B.shape)}. For a single one, pass b.unsqueeze(-1)."
        )
    check_finite("B", B)
    B = B.mT.to(torch.float64).contiguous()
    if guess is None:
        return B, None
    if lanczos:
        raise ValueError("Lanczos coefficients need a start from zero; leave out guess.")
    if guess.mT.shape != B.shape:
        raise ValueError(
            f"guess must have the shape {tuple(B.mT.shape)} of B; got {tuple(guess.shape)}."
        )
    check_finite("guess", guess)
    return B, guess.mT.to(torch.float64).contiguous()


class _Run:
    """A solve under way.

    Vectors are rows, products with K from the right: it is symmetric. Right-hand sides are divided
    by their norms, so that columns of any size stand side by side. The residual is kept as φᵀQ
    with orthonormal Q; directions that only rounding tells apart leave it, so columns that
    converge early, coincide or vanish do no harm.

    Attributes:
        U: Solutions so far, shape (t, n).
        Q, phi: The residual, shapes (p, n) and (p, t), p ≤ t.
        residual: Its norms, shape (t,): by recursion, or by a product with U right after a check.
        S, KS: Search directions of the last step and their products, shape (p, n).
        steps, products: How many there were.
    """

    def __init__(
        self,
        operator: LinearOperator,
        preconditioner: Preconditioning | None,
        B: Tensor,
        guess: Tensor | None,
        tolerance: float,
        refine: bool,
        lanczos: bool,
    ) -> None:
        self._operator, self._preconditioner, self._tolerance = operator, preconditioner, tolerance
        precise = operator.precise
        self._truth = precise if refine else operator
        self._inexact = precise is not operator
        self._norm = _norms(B).unsqueeze(1)  # (t, 1)
        self._B = B / self._norm
        self._reach = 0.0  # largest |K v| / |v| seen
        self._idle, self._last_check, self.is_able = 0, 0, True
        self.S = self.KS = self._inverse = None
        self.steps = self.products = 0
        self.U, R = torch.zeros_like(B), self._B
        if guess is not None:
            R = self._follow(guess / self._norm)
        self._best = self.U, R, R.norm(dim=1)
        self._restart(R)
        self._recorder = _Recorder(self.phi * self._norm.mT) if lanczos else None

    def _follow(self, guess: Tensor) -> Tensor:
        """Start from a guess (t, n), as if from a step that searched along it: the residual."""
        guess = guess.where(self._B.any(dim=1, keepdim=True), 0.0)  # zero is solved by zero
        self.U = guess.clone()
        self._search_along(guess, self._truth)
        assert self.KS is not None and self._inverse is not None
        R = self._B - self.KS
        a = self._inverse @ (guess @ R.mT)  # (t, t)
        self.U.addmm_(a.mT, guess)
        return R - a.mT @ self.KS

    def _restart(self, R: Tensor) -> None:
        """Continue from the residual R (t, n) of U."""
        self._R, self.residual = R, R.norm(dim=1)
        self.Q, self.phi = _orthonormal(R, least=0.0)
        self._rho = self.phi
        done = self.residual <= self._tolerance
        self._finished = torch.where(done, self.steps, -1)

    @property
    def claims_to_be_done(self) -> bool:
        """Whether all columns are, as far as the recursion knows."""
        return bool((self.residual <= self._tolerance).all())

    @property
    def is_done(self) -> bool:
        """Whether all columns are, by products with the solution, or there is no hope."""
        return not self.is_able or (self._R is not None and self.claims_to_be_done)

    @property
    def is_check_due(self) -> bool:
        return not self.is_able or (
            self._inexact and self.steps - self._last_check >= _CHECK_EVERY
        )
