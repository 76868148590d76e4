"""yᵀK̂⁻¹y, log|K̂| and their gradients from one batched solve: the loss of BBMM, in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from scipy.stats import t as student_t
from torch import Tensor

from surrogate.checks import check_finite, on_device
from surrogate.operators.base import LinearOperator, check_operator
from surrogate.operators.basic import Diagonal
from surrogate.randomness import normal
from surrogate.solvers.base import SolveInfo
from surrogate.solvers.bbmm import BBMM, as_variances
from surrogate.solvers.lanczos import BlockLanczos
from surrogate.solvers.mbcg import mbcg
from surrogate.solvers.preconditioners import Preconditioner
from surrogate.solvers.quadrature import log_quadratic_forms

_DOUBT = 1e-4  # chance that the probes alone put the truth outside of the bounds


@dataclass(frozen=True)
class Estimate:
    """A number found by iteration and by chance, and how far off it may be.

    Attributes:
        value: Shape (), where the data are; differentiable where what it was made from is.
        lower, upper: The value for the K that was multiplied with is between them: certainly for
            what iterations left undone, with probability 0.9999 for the probes. What it costs to
            keep K in float32 is not in them.
        standard_error: Of the probes alone; 0 where there was no chance in it.
    """

    value: Tensor
    lower: float
    upper: float
    standard_error: float = 0.0

    @property
    def half_width(self) -> float:
        """Half the distance of the bounds."""
        return 0.5 * (self.upper - self.lower)

    def __float__(self) -> float:
        return float(self.value.detach())

    def __str__(self) -> str:
        return f"{float(self):.6g} (from {self.lower:.6g} to {self.upper:.6g})"


def certain(value: float | Tensor) -> Estimate:
    """A number without error but rounding."""
    value = torch.as_tensor(value, dtype=torch.float64)
    number = float(value.detach())
    return Estimate(value, number, number)


@dataclass(frozen=True)
class Probes:
    """Random vectors z with E[z zᵀ] = P, by which log|K̂| and its gradient are estimated.

    z = P^(1/2) g, each g of length √n in a direction drawn uniformly. With the length of a normal
    g left in, the variance of gᵀLg, L = log A, would be 2 tr(L²); so it is less than that by
    2 tr(L)² / n, which halved the standard error where P was far from K̂.

    Made from standard normal numbers that are drawn once, so that what is estimated with them is
    a smooth function of the parameters, and the same at each call.

    Attributes:
        Z: Shape (n, s).
        U: P⁻¹Z, shape (n, s).
    """

    Z: Tensor
    U: Tensor

    @staticmethod
    def draw(preconditioner: Preconditioner, options: BBMM) -> Probes:
        """The probes of a seed."""
        s, n, generator = options.probes, preconditioner.n, options.generator()
        device = preconditioner.L.device
        e2 = normal(n, s, generator=generator, device=device)
        e1 = normal(preconditioner.rank, s, generator=generator, device=device)
        Z = preconditioner.sample(e1, e2)
        U = preconditioner.solve(Z)
        scale = (n / (Z * U).sum(0)).sqrt() if n else 1.0  # zᵀP⁻¹z = gᵀg
        return Probes(Z * scale, U * scale)


@dataclass(frozen=True)
class InvQuadLogdet:
    """The solves behind one evaluation of log p(y), and what follows from them.

    The gradient of log p(y) in whatever K̂ depends on is that of Σ_k a_kᵀ K̂ b_k with A and B held
    fixed:

        ½ αᵀ ∂K̂ α - 1/(2s) Σ_i w_iᵀ ∂K̂ u_i,    α = K̂⁻¹(y - m),  w = K̂⁻¹z,  u = P⁻¹z

    without bias whatever P is, for E[z uᵀ] = I. Source: Gardner et al. (2018),
    https://arxiv.org/abs/1809.11165; probes with the covariance P after Wenger et al. (2022),
    https://arxiv.org/abs/2107.00243.

    Attributes:
        y: Shape (n,).
        mean: m.
        solved: K̂⁻¹[y, 1, Z], shape (n, s + 2): the guess for the next evaluation nearby.
        left: [y, 1, Z] - K̂ solved, shape (n, s + 2).
        probes: Z and P⁻¹Z.
        preconditioner: P.
        info: How the solve went.
        lanczos: Its coefficients, if they were asked for.
    """

    y: Tensor
    mean: float
    solved: Tensor
    left: Tensor
    probes: Probes
    preconditioner: Preconditioner
    info: SolveInfo
    lanczos: BlockLanczos | None

    @property
    def alpha(self) -> Tensor:
        """α = K̂⁻¹(y - m), shape (n,)."""
        return self.solved[:, 0] - self.mean * self.solved[:, 1]

    @cached_property
    def bilinear(self) -> tuple[Tensor, Tensor]:
        """A and B, each (n, s + 1)."""
        alpha, W = self.alpha.unsqueeze(1), self.solved[:, 2:]
        s = W.shape[1]
        A = torch.cat([0.5 * alpha, W * (-0.5 / s)], 1)
        return A, torch.cat([alpha, self.probes.U], 1)

    def quadratic(self) -> tuple[float, float]:
        """Bounds of (y - m)ᵀK̂⁻¹(y - m); the first is also the best estimate.

        With any x and r = b - K̂x: bᵀK̂⁻¹b = 2bᵀx - xᵀK̂x + rᵀK̂⁻¹r, of which the last term is at
        least 0 and small. Source: Artemev, Burt & van der Wilk (2021),
        https://arxiv.org/abs/2102.08314, with a preconditioner that need not be below K̂.
        """
        alpha, b = self.alpha, self.y - self.mean
        r = self.left[:, 0] - self.mean * self.left[:, 1]
        energy = self.preconditioner.energy_bound(r.unsqueeze(1))
        low, more = torch.stack([alpha @ (b + r), energy[0]]).tolist()
        return low, low + more

    def logdet(self) -> tuple[float, float, float, float]:
        """Estimate of log|K̂|, its bounds, and the standard error of the probes.

        log|K̂| = log|P| + E[gᵀ log(P^(-1/2) K̂ P^(-1/2)) g],   g = P^(-1/2) z
        """
        assert self.lanczos is not None
        P = self.preconditioner
        low, high = log_quadratic_forms(self.lanczos, P.floor)
        low, high = low[2:], high[2:]  # the probes' own
        s = len(low)
        each = torch.where(low.isfinite(), 0.5 * (low + high), high)
        error = float(each.std()) / math.sqrt(s)
        base, margin = float(P.logdet()), error * float(student_t.isf(_DOUBT / 2, s - 1))
        certain = P.logdet_bounds
        lower = max(base + float(low.mean()) - margin, certain[0])
        upper = min(base + float(high.mean()) + margin, certain[1])
        value = min(max(base + float(each.mean()), certain[0]), certain[1])
        return value, min(lower, value), max(upper, value), error

    def log_marginal_likelihood(self) -> Estimate:
        """log p(y) = -½ (y - m)ᵀK̂⁻¹(y - m) - ½ log|K̂| - n/2 log 2π."""
        quadratic, more = self.quadratic()
        logdet, least, most, error = self.logdet()
        constant = len(self.y) * math.log(2 * math.pi)
        value = -0.5 * (quadratic + logdet + constant)
        lower, upper = -0.5 * (more + most + constant), -0.5 * (quadratic + least + constant)
        value = torch.tensor(value, dtype=torch.float64, device=self.y.device)
        return Estimate(value, lower, upper, 0.5 * error)


@torch.no_grad()
def inv_quad_logdet(
    operator: LinearOperator,
    preconditioner: Preconditioner,
    probes: Probes,
    y: Tensor,
    *,
    mean: float | None = None,
    guess: Tensor | None = None,
    tolerance: float = 1e-2,
    max_steps: int = 1000,
    lanczos: bool = False,
    warn: bool = True,
) -> InvQuadLogdet:
    """One batched solve with K̂ for y, the constant and the probes.

    Args:
        operator: K̂, noise included.
        preconditioner: P ≈ K̂. For gradients that of nearby parameters is near enough; for bounds it
            has to be made of K̂.
        probes: Drawn with P.
        y: Shape (n,).
        mean: m; left out, the most likely one, 1ᵀK̂⁻¹y / 1ᵀK̂⁻¹1 (generalised least squares).
        guess: `solved` of an evaluation nearby.
        tolerance: Relative residual of each column.
        max_steps: Most iterations.
        lanczos: Whether log|K̂| itself is wanted, and not only its gradient; needs no guess.
        warn: Whether to warn with NotConverged.
    """
    B = torch.cat([y.unsqueeze(1), torch.ones_like(y).unsqueeze(1), probes.Z], 1)
    solution = mbcg(
        operator,
        B,
        preconditioner=preconditioner,
        guess=guess,
        tolerance=tolerance,
        max_steps=max_steps,
        lanczos=lanczos,
        warn=warn,
    )
    U, R = solution.U, solution.R
    if mean is None:
        # aᵀK̂⁻¹b = aᵀx + x'ᵀr up to the product of the errors of x ≈ K̂⁻¹b and x' ≈ K̂⁻¹a.
        by_y, by_one = (U[:, :2].sum(0) + U[:, 1] @ R[:, :2]).tolist()
        mean = by_y / by_one if by_one > 0 else 0.0
    return InvQuadLogdet(y, mean, U, R, probes, preconditioner, solution.info, solution.lanczos)


def log_marginal_likelihood(
    K: LinearOperator, noise: Tensor | float, y: Tensor, solver: BBMM | None = None
) -> Estimate:
    """log N(y; 0, K + diag(noise)) for a covariance that is known by its products.

    The value can be differentiated in `noise`, `y`, and in whatever `K.matmul` depends on by
    autograd: K is multiplied once more for that, with the solution of the systems held fixed.
    With rank > 0 pivots are drawn anew at each call, so between calls the value jumps within its
    bounds: for a line search take `BBMM(rank=0)`, or step by the gradient alone.

    Args:
        K: Covariance of f. Its `matmul` is called, and for the preconditioner its `diagonal`, its
            `rows` and its `coordinates`, unless `BBMM(rank=0, block=0)`. One product checks that
            they agree.
        noise: Variances, shape (n,) or (), positive.
        y: Shape (n,). This and noise of shape (n,) are on the device of K.
        solver: Tolerances and probes.

    Raises:
        TypeError: If K is no operator.
        ValueError: If shapes or devices do not match, a number is not finite or not positive, or K
            is not symmetric or contradicts itself.
    """
    solver = solver or BBMM()
    check_operator(K)
    y = on_device("y", y, K.device)
    if y.shape != (K.n,):
        raise ValueError(f"y must have shape ({K.n},), as K does; got {tuple(y.shape)}.")
    noise = as_variances(noise, K)
    check_finite("y", y)
    with torch.no_grad():
        system = solver.system(K, noise)
        P = system.preconditioner
        solved = inv_quad_logdet(
            system.operator,
            P,
            Probes.draw(P, solver),
            y,
            mean=0.0,
            tolerance=solver.training_tolerance,
            max_steps=solver.max_steps,
            lanczos=True,
        )
        estimate = solved.log_marginal_likelihood()
    value = estimate.value
    if torch.is_grad_enabled():
        # Terms that are zero, and whose gradient is that of the likelihood.
        A, B = solved.bilinear
        form = (A * (K + Diagonal(noise)).matmul(B)).sum() - (solved.alpha * y).sum()
        value = value + (form - form.detach())
    return Estimate(value, estimate.lower, estimate.upper, estimate.standard_error)
