"""The collapsed bound of sparse regression: its value, its gradients and its bracket."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from surrogate.kernels.base import Kernel, Linearised
from surrogate.solvers.cholesky import Cholesky, CholeskyFactor
from surrogate.transfers import beside
from surrogate.workspace import Workspace

# Added to K_ZZ, relative to its diagonal, so that Q stays below K and the bound a bound: points
# that say the same make K_ZZ singular, and jitter that comes and goes would make a fit uneven.
_JITTER = 1e-10
# Least noise, relative to the mean of k(z, z); what `covariance.helped` is elsewhere.
_LEAST_NOISE = 1e-10
_ENTRIES = 2**21  # of K_ZX worked on at once: 16 MiB
_FEWEST = 128  # columns of it, however many inducing points


def pieces(n: int, points: int) -> list[slice]:
    """Rows of the data, as many at once as their covariances with the points may take memory."""
    size = max(_FEWEST, _ENTRIES // max(points, 1))
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def factor_of_points(kernel: Kernel, Z: Tensor, solver: Cholesky) -> tuple[CholeskyFactor, Tensor]:
    """L of K_ZZ (M, M), and the least noise that goes with it, shape ()."""
    K = kernel.evaluate(Z, Z, Z.new_empty(len(Z), len(Z)))
    least = _LEAST_NOISE * K.diagonal().mean() if len(Z) else Z.new_zeros(())
    K.diagonal().mul_(1 + _JITTER)
    return solver.factor(K), least


def whitened(kernel: Kernel, Z: Tensor, X: Tensor, factor: CholeskyFactor) -> Tensor:
    """A = L⁻¹ k(Z, X), shape (M, n), without a graph: the points explain Q = AᵀA of K."""
    return factor.whiten(kernel.evaluate(Z, X, Z.new_empty(len(Z), len(X))))


@dataclass(frozen=True)
class System:
    """Q + D, Q = AᵀA, D a diagonal, solved by Woodbury's identity.

        (Q + D)⁻¹ = D⁻¹ - D⁻¹Aᵀ B⁻¹ A D⁻¹,    B = I + A D⁻¹ Aᵀ

    Attributes:
        A: Piece by piece, each of shape (M, c).
        D: Shape (n,).
        B: Its factor.
    """

    A: list[Tensor]
    D: Tensor
    B: CholeskyFactor

    @staticmethod
    def of(A: list[Tensor], D: Tensor, points: int, solver: Cholesky) -> System:
        """Build B in O(n M²) and factor it."""
        B = torch.eye(points, dtype=D.dtype, device=D.device)
        for part, d in zip(A, _split(D, A), strict=True):
            B.addmm_(part / d, part.mT)
        return System(A, D, solver.factor(B))

    def times(self, R: Tensor) -> Tensor:
        """A R for R (n, t), shape (M, t)."""
        out = R.new_zeros(len(self.B.L), R.shape[1])
        for part, rows in zip(self.A, _split(R, self.A), strict=True):
            out.addmm_(part, rows)
        return out

    def misfit(self, R: Tensor) -> tuple[Tensor, Tensor]:
        """w = B⁻¹ A D⁻¹ R, shape (M, t), and R - Aᵀw, shape (n, t), for R (n, t).

        D⁻¹ times the latter is (Q + D)⁻¹R.
        """
        w = self.B.solve(self.times((R.mT / self.D).mT))
        explained = [part.mT @ w for part in self.A]
        return w, R - torch.cat(explained) if explained else R

    def quadratic(self, r: Tensor) -> Tensor:
        """rᵀ(Q + D)⁻¹r for r (n,), shape (): the least of (r - Aᵀw)ᵀD⁻¹(r - Aᵀw) + wᵀw over w.

        A sum of squares, where Woodbury's identity has a difference of large numbers.
        """
        w, misfit = self.misfit(r.unsqueeze(1))
        return (misfit[:, 0].square() / self.D).sum() + w.square().sum()

    def logdet(self) -> Tensor:
        """log|Q + D|, shape ()."""
        return self.D.log().sum() + self.B.logdet()

    def log_density(self, r: Tensor) -> Tensor:
        """log N(r | 0, Q + D), shape ()."""
        return -0.5 * (self.quadratic(r) + self.logdet() + len(r) * math.log(2 * math.pi))


@dataclass(frozen=True)
class Collapsed:
    """The bound at one set of parameters, with all that its gradients need.

        log p(y) ≥ log N(y | m, Q + Σ) - ½ Σ_i (k_ii - q_ii) / σ_i²

    where Q = K_XZ K_ZZ⁻¹ K_ZX. Source: Titsias (2009),
    http://proceedings.mlr.press/v5/titsias09a.html. With `fitc` it is no bound but
    log N(y | m, Q + diag(K - Q) + Σ): Snelson & Ghahramani (2006), Sparse Gaussian processes using
    pseudo-inputs.

    Attributes:
        kernel: k.
        Z: Inducing points, shape (M, d).
        X: Shape (n, d).
        factor: L, of K_ZZ.
        variances: Σ, σ² of each observation, shape (n,).
        left: k(x, x) - q(x, x), shape (n,).
        helped: Where σ² was too small and was raised, shape (n,).
        fitc: Whether what is left of K counts as noise.
        system: Q + Σ, or Q + diag(K - Q) + Σ.
        linearised: k(Z, X), where it is in one piece.
        solver: How matrices are factored.
        workspace: Scratch memory.
    """

    kernel: Kernel
    Z: Tensor
    X: Tensor
    factor: CholeskyFactor
    variances: Tensor
    left: Tensor
    helped: Tensor
    fitc: bool
    system: System
    linearised: Linearised | None
    solver: Cholesky
    workspace: Workspace

    @staticmethod
    @torch.no_grad()
    def of(
        kernel: Kernel,
        Z: Tensor,
        X: Tensor,
        variances: Tensor,
        *,
        fitc: bool,
        solver: Cholesky,
        workspace: Workspace,
    ) -> Collapsed:
        """Factor everything, in O(n M²) time and O(n M) memory."""
        Z = Z.detach()
        factor, least = factor_of_points(kernel, Z, solver)
        parts, linearised = pieces(len(X), len(Z)), None
        if len(parts) == 1:
            linearised = kernel.linearise(Z, X, workspace.child("ZX"))
            A = [factor.whiten(linearised.K)]
        else:
            A = [whitened(kernel, Z, X[rows], factor) for rows in parts]
        explained = [part.square().sum(0) for part in A]
        left = kernel.diagonal(X) - torch.cat(explained) if explained else X.new_empty(0)
        left = left.clamp_min(0.0)
        helped, variances = variances <= least, variances.clamp_min(least)
        system = System.of(A, variances + left if fitc else variances, len(Z), solver)
        return Collapsed(
            kernel, Z, X, factor, variances, left, helped, fitc, system, linearised, solver,
            workspace,
        )  # fmt: skip

    @property
    def jitter(self) -> float:
        """The most that had to be added to a diagonal, but for what always is."""
        return max(self.factor.jitter, self.system.B.jitter)

    @property
    def trace_term(self) -> Tensor:
        """½ Σ_i (k_ii - q_ii) / σ_i², in nats, shape ()."""
        return 0.5 * (self.left / self.variances).sum()

    def best_mean(self, y: Tensor) -> Tensor:
        """The m of largest density, 1ᵀWy / 1ᵀW1 with W = (Q + D)⁻¹, shape ()."""
        by_one = self.system.misfit(torch.ones_like(y).unsqueeze(1))[1][:, 0] / self.system.D
        return by_one @ y / by_one.sum()

    def value(self, r: Tensor) -> float:
        """The bound, or FITC's log density, for r = y - m."""
        return float(self.system.log_density(r) - (0.0 if self.fitc else self.trace_term))

    def upper(self, r: Tensor) -> float:
        """No smaller than log p(y), for r = y - m.

            log N(r | 0, Q + Σ) with Σ + tr(K - Q) in its quadratic form

        since log|K̂| ≥ log|Q + Σ| and K ⪯ Q + tr(K - Q). Source: Titsias (2014), Variational
        inference for Gaussian and determinantal point processes.
        """
        A, M = self.system.A, len(self.Z)
        plain = System.of(A, self.variances, M, self.solver) if self.fitc else self.system
        wide = System.of(A, self.variances + self.left.sum(), M, self.solver)
        constant = len(r) * math.log(2 * math.pi)
        return float(-0.5 * (wide.quadratic(r) + plain.logdet() + constant))

    @torch.no_grad()
    def gradients(self, r: Tensor, *, points: bool) -> Gradients:
        """Gradients of `value`, in closed form, in O(n M²).

        With α = Wr, w_ii the diagonal of W = (Q + D)⁻¹ and g_i = ½ (α_i² - w_ii) the gradient in
        D, that in Q is ½ (ααᵀ - W) + diag(h): h_i = 1 / 2σ_i² from the trace term; h_i = -g_i for
        FITC, whose D has -q_ii in it. Through Q = AᵀA and A = L⁻¹K_ZX,

            C = ∂/∂A = Aα αᵀ - B⁻¹A D⁻¹ + 2 A diag(h)
            ∂/∂K_ZX = L⁻ᵀC,    ∂/∂K_ZZ = -½ L⁻ᵀ C Aᵀ L⁻¹,    ∂/∂k_ii = -h_i

        The bound has 2 diag(h) = D⁻¹, so that C = Aα αᵀ + (I - B⁻¹) A D⁻¹, and A D⁻¹Aᵀ = B - I:
        one product with A makes ∂/∂K_ZX, and none CAᵀ.

        Args:
            r: y - m, shape (n,).
            points: Whether those in Z are wanted.
        """
        kernel, Z, D, M = self.kernel, self.Z, self.system.D, len(self.Z)
        B = self.system.B
        alpha = self.system.misfit(r.unsqueeze(1))[1][:, 0] / D  # (n,)
        by_alpha = self.system.times(alpha.unsqueeze(1))  # Aα, (M, 1)
        by_variance, by_prior = torch.empty_like(r), torch.empty_like(r)
        eye = torch.eye(M, dtype=D.dtype, device=D.device)
        kept = (B.L @ B.L.mT).sub_(eye)  # A D⁻¹ Aᵀ = B - I, (M, M)
        shrunk = B.solve(kept)  # I - B⁻¹, to the last digit where it is small
        spread = self.factor.unwhiten(shrunk - eye if self.fitc else shrunk)
        CA = by_alpha @ by_alpha.mT + (-shrunk if self.fitc else shrunk @ kept)
        by_kernel = tuple(D.new_zeros(p.shape) for p in kernel.parameters())
        by_points = torch.zeros_like(Z)
        lifted = self.factor.unwhiten(by_alpha)  # L⁻ᵀAα, (M, 1)
        for rows, A in zip(pieces(len(r), M), self.system.A, strict=True):
            a, d, left = alpha[rows], D[rows], self.left[rows]
            leverage = B.whiten(A).square().sum(0)  # of AᵀB⁻¹A
            g = 0.5 * (a.square() - 1 / d + leverage / d.square())
            G = (spread @ (A / d)).addmm_(lifted, a[None])
            if self.fitc:
                h, by_variance[rows] = -g, g
                weighted = A * (2 * h)
                CA.addmm_(weighted, A.mT)
                G += self.factor.unwhiten(weighted)
            else:
                h, by_variance[rows] = 0.5 / d, g + 0.5 * left / d.square()
            by_prior[rows] = -h
            K = self.linearised or kernel.linearise(Z, self.X[rows], self.workspace.child("ZX"))
            by_kernel = _plus(by_kernel, K.parameters(G))
            if points:
                by_points += K.inputs(G)
        if M:
            G = self.factor.unwhiten(self.factor.unwhiten(CA).mT).mul_(-0.5)
            G = 0.5 * (G + G.mT)
            G.diagonal().mul_(1 + _JITTER)
            K = kernel.linearise(Z, Z, self.workspace.child("ZZ"))
            by_kernel = _plus(by_kernel, K.parameters(G))
            if points:
                by_points += 2 * K.inputs(G)  # each of them stands in a row and in a column
        by_kernel = _plus(by_kernel, _diagonal_pullback(kernel, self.X, by_prior))
        return Gradients(by_kernel, by_points, by_variance * ~self.helped, alpha.sum())


@dataclass(frozen=True)
class Gradients:
    """Of the bound.

    Attributes:
        kernel: In the parameters of the kernel.
        points: In Z, shape (M, d); zeros where they were not wanted.
        variances: In σ² of each observation, shape (n,).
        mean: In m, shape ().
    """

    kernel: tuple[Tensor, ...]
    points: Tensor
    variances: Tensor
    mean: Tensor


def _split(values: Tensor, like: list[Tensor]) -> tuple[Tensor, ...]:
    return values.split([part.shape[1] for part in like]) if like else ()


def _plus(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(a + b for a, b in zip(first, second, strict=True))


def _diagonal_pullback(kernel: Kernel, X: Tensor, by_prior: Tensor) -> tuple[Tensor, ...]:
    """Gradients in the kernel's parameters of a loss whose gradient in k(x, x) is given, (n,)."""
    parameters = list(kernel.parameters())
    wanted = [i for i, p in enumerate(parameters) if p.requires_grad]
    gradients = [X.new_zeros(p.shape) for p in parameters]
    if wanted and len(X):
        with torch.enable_grad():
            prior = kernel.diagonal(X)
        if prior.requires_grad:
            found = torch.autograd.grad(
                prior, [parameters[i] for i in wanted], by_prior, allow_unused=True
            )
            for i, gradient in zip(wanted, found, strict=True):
                gradients[i] = gradients[i] if gradient is None else beside(gradient, X)
    return tuple(gradients)


@dataclass(frozen=True)
class Sums:
    """What the data add up to: all that a belief about f needs of them.

    Attributes:
        factor: L, of K_ZZ.
        least: Least noise variance that is worked with, shape ().
        S: A D⁻¹ Aᵀ, shape (M, M).
        b: A D⁻¹ (y - m), shape (M,).
        trace_term: ½ Σ_i (k_ii - q_ii) / σ_i², in nats.
    """

    factor: CholeskyFactor
    least: Tensor
    S: Tensor
    b: Tensor
    trace_term: float = 0.0

    @staticmethod
    def of(kernel: Kernel, Z: Tensor) -> Sums:
        """Of no data."""
        factor, least = factor_of_points(kernel, Z, Cholesky())
        return Sums(factor, least, Z.new_zeros(len(Z), len(Z)), Z.new_zeros(len(Z)))

    @torch.no_grad()
    def plus(
        self, kernel: Kernel, Z: Tensor, X: Tensor, r: Tensor, variances: Tensor, *, fitc: bool
    ) -> Sums:
        """The sums with n more observations, in O(n M²) time and O(M²) memory.

        Args:
            kernel: k.
            Z: Shape (M, d).
            X: Shape (n, d).
            r: y - m, shape (n,).
            variances: σ² of each, shape (n,).
            fitc: Whether what is left of K counts as noise.
        """
        S, b, traces = self.S.clone(), self.b.clone(), []
        for rows in pieces(len(X), len(Z)):
            A = whitened(kernel, Z, X[rows], self.factor)
            left = (kernel.diagonal(X[rows]) - A.square().sum(0)).clamp_min(0.0)
            noise = variances[rows].clamp_min(self.least)
            scaled = A / (noise + left if fitc else noise)
            S.addmm_(scaled, A.mT)
            b.addmv_(scaled, r[rows])
            traces.append((left / noise).sum())
        trace = self.trace_term
        for part in torch.stack(traces).tolist() if traces else ():
            trace += 0.5 * part
        return Sums(self.factor, self.least, S, b, trace)

    @cached_property
    def B(self) -> CholeskyFactor:
        """The factor of I + A D⁻¹ Aᵀ."""
        with torch.inference_mode(False), torch.no_grad():
            eye = torch.eye(len(self.S), dtype=self.S.dtype, device=self.S.device)
            return Cholesky().factor(self.S + eye)
