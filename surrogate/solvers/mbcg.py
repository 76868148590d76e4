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
from surrogate.solvers.cholesky import NotPositiveDefinite

# Steps between two looks at the true residual where products are inexact: in float32 the
# recursion's own has lost it after about twice as many.
_CHECK_EVERY = 12
_PATIENCE = 3  # looks in a row that find nothing gained end a solve: rounding has the last word
_GAINED = 0.9  # of the smallest residual seen, below which something was
# Directions of the residual block below this share of it are rounding, and leave the block.
_DEPENDENT = 1e-12
_NEGLIGIBLE = 1e-14  # the same for the energies of the search directions


class Preconditioning(Protocol):
    """What the solver asks of P ≈ K."""

    def solve(self, R: Tensor, /) -> Tensor:
        """Return P⁻¹R for R (n, t)."""
        ...


@dataclass
class BlockLanczos:
    """T = Vᵀ P^(-1/2) K P^(-1/2) V, block tridiagonal, in an orthonormal basis V of n columns or less.

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
    learnt: with t = 17 in about half the steps of 17 separate runs. The residual is kept as Q φ
    with orthonormal Q; directions that only rounding tells apart leave the block, so columns that
    converge early, coincide or vanish do no harm. A column is done when its residual is at most
    `tolerance` times its own norm, by a product with the solution itself: at the end always, and
    along the way where products are inexact. All small algebra is in float64.

    Source: Dubrulle (2001), Retooling the method of block conjugate gradients, ETNA 12, 216-233
    (QR of the residual block), with a preconditioner, a warm start and deflation.

    Args:
        operator: K, symmetric positive definite.
        B: Right-hand sides, shape (n, t), float64.
        preconditioner: P ≈ K.
        guess: Where to start from, shape (n, t); zero unless given.
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
    _check(operator, B, guess, lanczos)
    t = B.shape[1]
    B = B.mT.contiguous()  # (t, n): in here, vectors are rows
    norm = B.norm(dim=1)
    norm = torch.where(norm > 0, norm, 1.0)  # a zero column is solved by zero
    U = torch.zeros_like(B) if guess is None else guess.mT.contiguous().clone()
    truth = operator.precise if refine else operator
    inexact = operator.precise is not operator
    R = B if guess is None else B - truth.matmul(U.mT).mT
    products = 0 if guess is None else 1
    Q, phi = _orthonormal(R, norm)  # (p, n), (p, t)
    residual = phi.norm(dim=0)
    finished = torch.where(residual <= tolerance, 0, -1)
    recorder = _Recorder(phi * norm) if lanczos else None
    best, idle, steps, since, fresh = residual, 0, 0, 0, True
    S = AS = G = None
    while True:
        met = bool((residual <= tolerance).all()) or steps >= max_steps
        if not fresh and (met or (inexact and since >= _CHECK_EVERY)):
            if recorder is not None and not recorder.closed:
                recorder.close(Q, _precondition(preconditioner, Q))
            R = B - truth.matmul(U.mT).mT
            Q, phi = _orthonormal(R, norm)
            products, since, fresh = products + 1, 0, True
            residual = R.norm(dim=1) / norm
            open_ = residual > tolerance
            finished[open_] = -1
            idle = idle + 1 if bool((residual > _GAINED * best)[open_].any()) else 0
            best = torch.minimum(best, residual)
            met = not bool(open_.any()) or steps >= max_steps or idle >= _PATIENCE
        if met:
            break
        W = _precondition(preconditioner, Q)
        if S is None or AS is None or G is None:
            S = W
        else:
            S = torch.addmm(W, _solve(G, AS @ W.mT, inexact).mT, S, alpha=-1.0)
        AS = operator.matmul(S.mT).mT
        G = _symmetric(S @ AS.mT)
        a = _solve(G, S @ Q.mT, inexact)  # (p, p)
        if recorder is not None and not recorder.closed:
            recorder.add(Q, W, G)
        U.addmm_(((a @ phi) * norm).mT, S)
        Q, rho = _orthonormal(torch.addmm(Q, a.mT, AS, alpha=-1.0))
        if recorder is not None and not recorder.closed:
            recorder.rho = rho
        phi = rho @ phi
        residual = phi.norm(dim=0)
        steps, since, products, fresh = steps + 1, since + 1, products + 1, False
        finished[(residual <= tolerance) & (finished < 0)] = steps
    info = SolveInfo(residual, torch.where(finished < 0, steps, finished), products, tolerance)
    if warn and not bool(info.converged.all()):
        warnings.warn(
            f"block conjugate gradients stopped after {steps} steps: {info}. Add noise to the "
            f"diagonal, raise the rank of the preconditioner or max_steps, or ask for less.",
            NotConverged,
            stacklevel=2,
        )
    return Solution(U.mT, R.mT, info, recorder.lanczos if recorder else None)


def _check(operator: LinearOperator, B: Tensor, guess: Tensor | None, lanczos: bool) -> None:
    if B.ndim != 2 or len(B) != operator.n:
        raise ValueError(
            f"B must have shape ({operator.n}, t), one right-hand side per column; "
            f"got {tuple(B.shape)}. For a single one, pass b.unsqueeze(-1)."
        )
    if guess is not None and guess.shape != B.shape:
        raise ValueError(f"guess must have the shape {tuple(B.shape)} of B; got {tuple(guess.shape)}.")
    if guess is not None and lanczos:
        raise ValueError("Lanczos coefficients need a start from zero; leave out guess.")
    check_finite("B", B)


def _precondition(preconditioner: Preconditioning | None, Q: Tensor) -> Tensor:
    return Q if preconditioner is None else preconditioner.solve(Q.mT).mT


def _orthonormal(R: Tensor, norm: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """R (t, n) = φᵀ Q, rows divided by `norm` first: orthonormal Q (p, n) and φ (p, t), p ≤ t.

    Directions that are negligible in all rows are left out.
    """
    if norm is not None:
        R = R / norm.unsqueeze(1)
    if not bool(R.isfinite().all()):
        raise ValueError("a product with K is not finite; is everything that K is made of finite?")
    Q, r = torch.linalg.qr(R.mT)  # (n, p), (p, t)
    left, s, right = torch.linalg.svd(r, full_matrices=False)
    kept = s > _DEPENDENT * s.max().clamp_min(1.0) if len(s) else s > 0
    return (Q @ left[:, kept]).mT.contiguous(), s[kept].unsqueeze(1) * right[kept]


def _symmetric(G: Tensor) -> Tensor:
    return 0.5 * (G + G.mT)


def _solve(G: Tensor, B: Tensor, inexact: bool) -> Tensor:
    """G⁻¹B for the energies G = SᵀKS (p, p) of search directions, without those that have none."""
    scale = G.diagonal().abs().clamp_min(1e-300).rsqrt()
    values, vectors = torch.linalg.eigh(scale.unsqueeze(1) * G * scale)
    least, most = float(values[0]), float(values[-1])
    if most <= 0 or least < -(1e-4 if inexact else 1e-8) * most or bool((G.diagonal() <= 0).any()):
        raise NotPositiveDefinite(
            f"block conjugate gradients met directions d with dᵀKd from "
            f"{float(G.diagonal().min()):.3g} to {float(G.diagonal().max()):.3g} and relative "
            f"eigenvalues from {least:.3g} to {most:.3g}; all must be positive. K or its "
            f"preconditioner is not positive definite: add noise to the diagonal, or use "
            f"products in float64."
        )
    inverse = torch.where(values > _NEGLIGIBLE * most, 1 / values, 0.0)
    return scale.unsqueeze(1) * (vectors @ (inverse.unsqueeze(1) * (vectors.mT @ (scale.unsqueeze(1) * B))))


class _Recorder:
    """Collects the coefficients of block Lanczos from those of block conjugate gradients.

    With N = QᵀP⁻¹Q = C Cᵀ the basis is V = P^(-1/2) Q C⁻ᵀ. From the recursions of the solver, and
    with H = C⁻¹GC⁻ᵀ and D = CᵀρC₋⁻ᵀ (₋: of the step before), T is a block LDLᵀ product:

        diagonal block H + D H₋ Dᵀ,    block below the one before it: -D H₋
    """

    def __init__(self, phi: Tensor) -> None:
        self.rho = phi  # Q of this step in what was Q of the last; at first, in B
        self.closed = False
        self.lanczos = BlockLanczos(phi)
        self._last: tuple[Tensor, Tensor] | None = None  # C and H of the step before

    def add(self, Q: Tensor, W: Tensor, G: Tensor) -> None:
        """Another step, with residual block Q (p, n), W = P⁻¹Q and energies G."""
        C = self._link(Q, W)
        half = torch.linalg.solve_triangular(C, G, upper=False)
        H = _symmetric(torch.linalg.solve_triangular(C, half.mT, upper=False))
        carried = self.lanczos.diagonal.pop() if self._last else 0.0
        self.lanczos.diagonal.append(H + carried)
        self._last = C, H

    def close(self, Q: Tensor, W: Tensor) -> None:
        """The block that leads out of the space, to the residual block Q that was left."""
        if not self.closed and self._last:
            self._link(Q, W)
            self.lanczos.diagonal.pop()
        self.closed = True

    def _link(self, Q: Tensor, W: Tensor) -> Tensor:
        """Add the block below the last step and, in place of the next diagonal one, its part."""
        C, info = torch.linalg.cholesky_ex(_symmetric(Q @ W.mT))
        if int(info):
            raise NotPositiveDefinite("the preconditioner is not positive definite.")
        if self._last is None:
            self.lanczos.start = C.mT @ self.rho
            return C
        C_last, H_last = self._last
        D = torch.linalg.solve_triangular(C_last, (C.mT @ self.rho).mT, upper=False).mT
        self.lanczos.below.append(-D @ H_last)
        self.lanczos.diagonal.append(D @ H_last @ D.mT)
        return C
