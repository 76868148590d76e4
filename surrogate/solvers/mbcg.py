"""Block conjugate gradients: all systems in one Krylov space, one product with K per iteration."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from surrogate.checks import check_finite
from surrogate.operators.base import LinearOperator, check_columns
from surrogate.solvers.base import NotConverged, SolveInfo, levels_to_the_caller
from surrogate.solvers.block_algebra import (
    Directions,
    Product,
    check_products,
    factor_of,
    norms_of,
    orthonormal,
    symmetric,
)
from surrogate.solvers.cholesky import NotPositiveDefinite
from surrogate.solvers.lanczos import BlockLanczos, Recorder
from surrogate.transfers import to_device, to_host

# Steps between two looks at the true residual where products are inexact: in float32 the
# recursion's own has lost it after about twice as many.
_CHECK_EVERY = 12
_DRIFTED = 1.1  # times what the recursion says: the true residual is then another one
_PATIENCE = 3  # looks in a row that find nothing gained end a solve: rounding has the last word
_GAINED = 0.9  # of the smallest residual seen, below which something was
_EXACT = 1e-12  # roundoff of a product up to which the recursion is trusted to the end
_SURELY = 100.0  # times that rounding below zero, an energy is negative


class Preconditioning(Protocol):
    """What the solver asks of P ≈ K."""

    def solve(self, R: Tensor, /) -> Tensor:
        """Return P⁻¹R for R (n, t)."""
        ...


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
    helpers: Tensor | None = None,
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
    solve stops and returns the most accurate solution it had.

    Vectors stay where B is. Small algebra is in float64, and on the host where something is decided
    by it: a step waits for the device twice, for a few times t² numbers.

    Source: Dubrulle (2001), Retooling the method of block conjugate gradients, Electronic
    Transactions on Numerical Analysis 12, 216-233 (the residual block is kept as a QR
    factorisation); here with a preconditioner, a warm start and deflation.

    Args:
        operator: K, symmetric positive definite.
        B: Right-hand sides, shape (n, t), where K multiplies.
        preconditioner: P ≈ K.
        guess: Where to start from, shape (n, t); zero unless given. The start is the combination
            of its columns that comes closest to each solution, so a bad one does no harm.
        helpers: Further columns, shape (n, h), that widen the space and are not returned. With 15
            random ones a single right-hand side took a tenth to a half of the steps; a product of
            K with 16 columns took 1.3 (tiles) to 3.4 times (stored) as long as with one.
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
    if lanczos and guess is not None:
        raise ValueError("Lanczos coefficients need a start from zero; leave out guess.")
    if guess is not None and guess.shape != B.shape:
        raise ValueError(
            f"guess must have the shape {tuple(B.shape)} of B; got {tuple(guess.shape)}."
        )
    n, t = operator.n, B.shape[-1]
    B = _rows("B", B, n)
    start = None if guess is None else _rows("guess", guess, n)
    if helpers is not None:
        more = _rows("helpers", helpers, n)
        B = torch.cat([B, more])
        start = None if start is None else torch.cat([start, torch.zeros_like(more)])
    run = _Run(operator, preconditioner, B, start, t, tolerance, refine, lanczos)
    while run.steps < max_steps and not (run.seems_done or run.is_exhausted):
        run.step()
        if run.seems_done or run.is_check_due:
            run.check()
    return run.finish(warn)


def _rows(name: str, B: Tensor, n: int) -> Tensor:
    """B (n, t) as contiguous rows in float64."""
    check_columns(name, B, n)
    check_finite(name, B)
    return B.mT.to(torch.float64).contiguous()


class _Run:
    """A solve under way.

    Vectors are rows here. Right-hand sides have norm 1, so that columns of any size stand side by
    side. The residual is φᵀQ with orthonormal Q; directions that only rounding tells apart are not
    in it, so columns that converge early, coincide or vanish do no harm.

    Attributes:
        U: Solutions so far, shape (t, n).
        R: Their residuals by a product with U, shape (t, n); None after a step.
        residual: Norms of the residuals, shape (t,), after a step as the recursion has them; on
            the host.
        steps, products: How many there were.
        is_exhausted: Whether rounding allows no more.
    """

    def __init__(
        self,
        operator: LinearOperator,
        preconditioner: Preconditioning | None,
        B: Tensor,
        guess: Tensor | None,
        wanted: int,
        tolerance: float,
        refine: bool,
        lanczos: bool,
    ) -> None:
        self._operator = operator
        self._truth = operator.precise if refine else operator
        self._is_inexact = operator.roundoff > _EXACT or self._truth is not operator
        self._preconditioner, self._wanted = preconditioner, wanted
        self._asked = tolerance
        self._tolerance = torch.full((len(B),), tolerance, dtype=B.dtype)
        self._tolerance[wanted:] = math.inf  # helpers
        self._norm = norms_of(B)  # (t, 1)
        some = torch.where(self._norm > 0, self._norm, 1.0)
        self._B = B / some
        self._reach = 0.0  # the largest |K v| / |v| met
        self._along: Directions | None = None
        self._checked_at, self._idle = 0, 0
        self.steps, self.products, self.is_exhausted = 0, 0, False
        self.U, R = torch.zeros_like(B), self._B
        if guess is not None:
            R = self._start_from(torch.where(self._norm > 0, guess / some, 0.0))
        norms, sizes = to_host(self._norm, R.norm(dim=1))
        self._continue_from(R, sizes)
        self._done_at = torch.where(self.residual <= self._tolerance, 0, -1)
        self._recorder = Recorder(self._phi * norms.mT) if lanczos else None

    def _start_from(self, guess: Tensor) -> Tensor:
        """The combinations of the guesses (t, n) that are nearest in K's norm; the residual."""
        along = self._judged(self._multiplied(guess, self._truth))
        R = self._B - along.KS
        a = along.inverse @ (guess @ R.mT)  # (t, t)
        self.U = torch.addmm(guess, a.mT, guess)
        return torch.addmm(R, a.mT, along.KS, alpha=-1.0)

    def _continue_from(self, R: Tensor, residual: Tensor) -> None:
        self.R: Tensor | None = R
        self.residual = residual
        self._best = self.U.clone(), R, residual
        # Q (p, n); φ (p, t) and Q in terms of what was Q before, on the host.
        self._Q, self._phi = orthonormal(R, 0.0)
        self._rho = self._phi

    @property
    def seems_done(self) -> bool:
        """Whether all columns are as accurate as they were asked to be."""
        return bool((self.residual <= self._tolerance).all())

    @property
    def is_check_due(self) -> bool:
        """Whether the recursion is not to be trusted any longer."""
        since = self.steps - self._checked_at
        return self.is_exhausted or (self._is_inexact and since >= _CHECK_EVERY)

    def step(self) -> None:
        """One product with K, and the solutions that are best in the space it opens."""
        self._along, C = self._searched()
        self.is_exhausted = self._along.is_rounding
        if self._recorder is not None:
            self._recorder.add(C, self._along.G, self._rho)
        a = self._along.inverse @ (self._along.S @ self._Q.mT)  # (p, p)
        self.U.addmm_((a @ to_device(self._phi, a.device)).mT, self._along.S)
        left = torch.addmm(self._Q, a.mT, self._along.KS, alpha=-1.0)
        self._Q, self._rho = orthonormal(left, 1.0)
        self._phi = self._rho @ self._phi
        self.R, self.residual = None, self._phi.norm(dim=0)
        self.steps += 1
        self._done_at[(self.residual <= self._tolerance) & (self._done_at < 0)] = self.steps

    def check(self) -> None:
        """Look at the true residual; where the recursion has lost it, start again from there."""
        claimed = torch.where(
            self.residual <= self._tolerance, self._tolerance, _DRIFTED * self.residual
        )
        R = self._B - self._truth.matmul(self.U.mT).mT
        self.products, self._checked_at = self.products + 1, self.steps
        (self.residual,) = to_host(R.norm(dim=1))
        self.R = R
        self._done_at[self.residual > self._tolerance] = -1
        if bool((self.residual > claimed).any()):
            self._close()
            U, R_best, best = self._best
            open_ = self.residual > self._tolerance
            gained = bool((self.residual < _GAINED * best)[open_].all())
            self._idle = 0 if gained else self._idle + 1
            self.is_exhausted |= self._idle >= _PATIENCE
            residual = torch.minimum(self.residual, best)
            worse = to_device((self.residual > best).unsqueeze(1), R.device)
            self.U = torch.where(worse, U, self.U)
            # The new residual has a part along them, which steps conjugate to them would never see.
            self._along = None
            self._continue_from(torch.where(worse, R_best, R), residual)
        else:
            self._best = self.U.clone(), R, self.residual

    def finish(self, warn: bool) -> Solution:
        """The solution, which is checked if it was not."""
        if self.R is None:
            self.check()
        assert self.R is not None
        U, R = self.U * self._norm, self.R * self._norm
        t, done_at = self._wanted, torch.where(self._done_at < 0, self.steps, self._done_at)
        info = SolveInfo(self.residual[:t], done_at[:t], self.products, self._asked)
        if warn and not self.seems_done:
            reason = ", where rounding allows no more" if self.is_exhausted else ""
            warnings.warn(
                f"block conjugate gradients stopped after {self.steps} steps{reason}: {info}. Add "
                f"noise to the diagonal, raise the rank of the preconditioner or max_steps, or ask "
                f"for less.",
                NotConverged,
                stacklevel=levels_to_the_caller(),
            )
        self._close()
        lanczos = self._recorder.lanczos if self._recorder else None
        return Solution(U[:t].mT, R[:t].mT, info, lanczos)

    def _close(self) -> None:
        if self._recorder is not None and not self._recorder.closed:
            (C,) = to_host(factor_of(self._preconditioned()[1]))
            self._recorder.close(C, self._rho)

    def _preconditioned(self) -> tuple[Tensor, Tensor]:
        """W = P⁻¹Q and N = QᵀP⁻¹Q."""
        W = self._Q
        if self._preconditioner is not None:
            W = self._preconditioner.solve(W.mT).mT
        return W, symmetric(self._Q @ W.mT)

    def _searched(self) -> tuple[Directions, Tensor]:
        """What is searched along next, and on the host the lower triangular C with N = C Cᵀ."""
        W, N = self._preconditioned()
        if N.device.type == "cpu":
            C = factor_of(N)
            return self._judged(self._conjugate(C, W)), C
        # Whether N has a factor is read together with what the product tells. Should it have none,
        # the product was for nothing.
        C, info = torch.linalg.cholesky_ex(N)
        there_is_one = (info == 0) & C.isfinite().all()
        C = torch.where(there_is_one, C, torch.eye(len(C), dtype=C.dtype, device=C.device))
        product = self._conjugate(C, W)
        C_read, was_there_one, *told = to_host(C, there_is_one, *product.told)
        if not bool(was_there_one):
            C = factor_of(N)
            product = self._conjugate(C, W)
            C_read, *told = to_host(C, *product.told)
        return self._judged(product, *told), C_read

    def _conjugate(self, C: Tensor, W: Tensor) -> Product:
        """As orthonormal as K ≈ P, conjugate to the directions before, and multiplied with K."""
        S = torch.linalg.solve_triangular(C, W, upper=False)
        if self._along is not None:
            S = self._along.conjugate(S)
        return self._multiplied(S, self._operator)

    def _multiplied(self, S: Tensor, operator: LinearOperator) -> Product:
        KS = operator.matmul(S.mT).mT
        self.products += 1
        told = symmetric(S @ KS.mT), S.norm(dim=1), KS.norm(dim=1)
        return Product(S, KS, told, operator.roundoff)

    def _judged(self, product: Product, *told: Tensor) -> Directions:
        """Search directions with G⁻¹, without what is rounding in G; `told` if it was read."""
        G, size, reach = told or to_host(*product.told)
        check_products(G, "a product with K")
        energy = G.diagonal().abs()
        some = energy > 0
        if not bool(some.any()):
            return Directions(product.S, product.KS, G, torch.zeros_like(product.told[0]), True)
        self._reach = max(self._reach, float((reach / size)[some].max()))
        # Energies vᵀKv are off by that of K v.
        per_energy = float((size.square() / energy)[some].max())
        rounding = product.roundoff * self._reach * per_energy
        scale = torch.where(some, energy.rsqrt(), 0.0)
        values, vectors = torch.linalg.eigh(scale.unsqueeze(1) * G * scale)
        least, most = float(values[0]), float(values[-1])
        if least < -_SURELY * rounding * most:
            raise NotPositiveDefinite(
                f"block conjugate gradients met directions d with dᵀKd from "
                f"{float(G.diagonal().min()):.3g} to {float(G.diagonal().max()):.3g} and relative "
                f"eigenvalues from {least:.3g} to {most:.3g}; all must be positive. K or its "
                f"preconditioner is not positive definite: add noise to the diagonal, or use "
                f"products in float64."
            )
        kept = values > rounding * most
        inverse = torch.where(kept, 1 / values, 0.0)
        root = scale.unsqueeze(1) * vectors
        inverse = (root * inverse) @ root.mT
        there = to_device(inverse, product.S.device)
        return Directions(product.S, product.KS, G, there, not bool(inverse.any()))
