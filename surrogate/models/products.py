"""The cache of a posterior that works by products: no matrix of n × n is ever factored."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from surrogate.kernels.base import Kernel
from surrogate.models.cache import Cache, Explained
from surrogate.models.covariance import helped, kernel_operator
from surrogate.models.root import InverseRoot, Projection
from surrogate.operators.base import CovarianceOperator, LinearOperator, Storage
from surrogate.operators.basic import Diagonal
from surrogate.operators.bordered import Bordered
from surrogate.operators.kernel import KernelOperator
from surrogate.solvers.base import NotConverged, SolveInfo, levels_to_the_caller
from surrogate.solvers.bbmm import BBMM
from surrogate.solvers.mbcg import Solution
from surrogate.solvers.pivots import Structure, clusters
from surrogate.solvers.preconditioners import Preconditioner

_COLUMNS = 128  # variances solved for at once
_LEAST_SHARE = 1e-2  # of the tolerance asked for, below which weights need not be better
_AT_ONCE = 5000  # rows appended without a solve, at most: their clusters are factored
_FIRST_TRY = 30.0  # how much looser the first of two solves is: bounds are often better than feared


@dataclass(frozen=True)
class ProductCache(Cache):
    """By products with K.

    What is cached is made of plain tensors, in inference mode too: it may serve gradients later.

    Attributes:
        options: Tolerances.
        kernel: k, frozen.
        X: Inputs, shape (n, d).
        noise: Variances as given, shape (n,).
        residual: y - m, shape (n,).
        border: What rows were appended to, if they were.
    """

    options: BBMM
    kernel: Kernel
    X: Tensor
    noise: Tensor
    residual: Tensor
    border: _Border | None = None

    @property
    def storage(self) -> Storage:
        """Where K is kept."""
        return self._covariance.storage

    @property
    def arithmetic(self) -> str | None:
        """What computes K where it is kept nowhere."""
        return self._covariance.arithmetic

    @property
    def _covariance(self) -> CovarianceOperator:
        """K of the rows that none were appended to."""
        if self.border is not None:
            return self.border.inner._covariance
        assert isinstance(self.K, CovarianceOperator)
        return self.K

    @cached_property
    @torch.inference_mode(False)
    def K(self) -> LinearOperator:
        """k(X, X), stored as the options say for as long as this cache lives."""
        return kernel_operator(self.kernel, self.X, self.noise, self.options)

    @cached_property
    @torch.inference_mode(False)
    def variances(self) -> Tensor:
        """The noise that is reckoned with, shape (n,): as given but where that is all but zero."""
        return helped(self.noise, self.K.diagonal())

    @property
    def jitter(self) -> float:
        """The most that was added to a noise variance, in units of y squared."""
        return float((self.variances - self.noise).max()) if len(self.noise) else 0.0

    @cached_property
    def operator(self) -> LinearOperator:
        """K̂."""
        return self.K + Diagonal(self.variances)

    @cached_property
    @torch.inference_mode(False)
    def preconditioner(self) -> Preconditioner:
        """P ≈ K̂."""
        if self.border is not None:
            border, n = self.border, len(self.border.inner.residual)
            index = clusters(self._coordinates[n:], self._block)
            old = border.inner.preconditioner
            return old.append(border.K12, border.K22, self.variances[n:], index)
        return Preconditioner(self.K, self.variances, self._structure)

    @cached_property
    @torch.inference_mode(False)
    def _structure(self) -> Structure:
        return self.options.structure(self.K, self.variances)

    @property
    def _coordinates(self) -> Tensor:
        return self.kernel.coordinates(self.X)

    @property
    def _block(self) -> int:
        """Points in a cluster."""
        return self.options.block or max(len(self.X), 1)

    @cached_property
    @torch.inference_mode(False)
    def _solved(self) -> tuple[Tensor, SolveInfo]:
        guess = None if self.border is None else self.border.guess.unsqueeze(1)
        solution = self._solve(self.residual.unsqueeze(1), self._tolerance, guess)
        return solution.U.squeeze(1), solution.info

    @property
    def _is_solved_for(self) -> bool:
        """Whether α is found by a solve, and not from the root alone."""
        border = self.border
        if border is None or not math.isinf(self.options.append_tolerance):
            return True
        return len(border.surprise) > _AT_ONCE

    @property
    def _tolerance(self) -> float:
        """Relative residual of α: small also beside what appended rows changed, be it little.

        But no smaller than a hundredth of what was asked for.
        """
        asked = self.options.tolerance
        if self.border is None:
            return asked
        sizes = torch.stack([self.border.surprise.norm(), self.residual.norm()])
        surprise, whole = sizes.tolist()
        share = self.options.append_tolerance * (surprise / max(whole, 1e-300))
        return min(asked, max(share, _LEAST_SHARE * asked))

    @cached_property
    @torch.inference_mode(False)
    def alpha(self) -> Tensor:
        if self._is_solved_for:
            return self._solved[0]
        assert self.border is not None
        return self.border.guess + self.root.appended(self._entries, self.border.surprise)

    @cached_property
    def info(self) -> SolveInfo:
        """How the solve for α went; where there was none, what one product with α says."""
        if self._is_solved_for:
            return self._solved[1]
        with torch.inference_mode(False):
            left = self.residual - self.operator.matmul(self.alpha.unsqueeze(1)).squeeze(1)
            relative = left.norm() / self.residual.norm().clamp_min(1e-300)
        none = torch.zeros(1, dtype=torch.long)
        return SolveInfo(relative.unsqueeze(0).cpu(), none, 1, self.options.append_tolerance)

    @cached_property
    @torch.inference_mode(False)
    def root(self) -> InverseRoot:
        """The subspace that variances are first looked for in."""
        if self.border is not None:
            old = self.border.inner.root
            return old.append(self._entries, self.border.K12, self._coordinates, self._block)
        P = self.preconditioner
        basis = P.solve(P.L.mT)
        options = self.options
        operator = self.operator.precise if options.refine else self.operator
        if math.isinf(options.append_tolerance) and math.isinf(options.variance_tolerance):
            # Nothing is solved any more, unless somebody asks for it: P, as large as the root, can
            # be made again.
            _ = self.alpha
            del vars(self)["preconditioner"], P
        return InverseRoot.of(operator, basis, self._structure.clusters)

    @property
    def _entries(self) -> LinearOperator:
        """K̂, of which a few entries are asked."""
        return KernelOperator(self.kernel, self.X, storage="tiles") + Diagonal(self.variances)

    @torch.inference_mode(False)
    def _solve(
        self, B: Tensor, tolerance: float, guess: Tensor | None = None, warn: bool = True
    ) -> Solution:
        return self.options.solve(
            self.operator,
            self.preconditioner,
            B,
            guess=guess,
            tolerance=tolerance,
            warn=warn,
        )

    def _solutions(self, B: Tensor) -> Iterator[Solution]:
        """Of K̂U = B, B (n, t), a few columns at a time."""
        for some in B.split(_COLUMNS, dim=1):
            yield self._solve(some, self.options.tolerance)

    def solve(self, B: Tensor) -> Tensor:
        return torch.cat([solution.U for solution in self._solutions(B)], 1)

    def quadratic(self, k: Tensor) -> Tensor:
        columns = k.detach().flatten(0, -2).mT  # (n, m)
        solutions = [(solution.U, solution.R) for solution in self._solutions(columns)]
        U, R = (torch.cat(parts, 1) for parts in zip(*solutions, strict=True))
        x, r = U.mT.reshape(k.shape), R.mT.reshape(k.shape)
        # With r = k - xK̂: kxᵀ + xrᵀ = kK̂⁻¹kᵀ - rK̂⁻¹rᵀ. What it leaves of a covariance has no
        # negative eigenvalue, and is off by the square of the residual alone.
        form = k.detach() @ x.transpose(-1, -2) + x @ r.transpose(-1, -2)
        # A term that is zero, and whose derivative is that of the form.
        by_k = (k - k.detach()) @ x.transpose(-1, -2)
        return form + by_k + by_k.transpose(-1, -2)

    def precisions(self) -> Tensor:
        n = len(self.residual)
        out = self.residual.new_empty(n)
        for some in torch.arange(n, device=out.device).split(_COLUMNS):
            unit = self.residual.new_zeros(n, len(some))
            unit[some, some - some[0]] = 1.0
            solution = self._solve(unit, self.options.tolerance)
            out[some] = ((unit + solution.R) * solution.U).sum(0)  # off by the residual squared
        return out

    @torch.inference_mode(False)
    def explain(self, k: Tensor, prior: Tensor) -> Explained:
        """By the root; then, where that is not certain to be enough, by solving for the rest."""
        projection = self.root.project(k)
        amount = projection.explained
        if math.isinf(self.options.variance_tolerance):
            short = (prior - amount).clamp_min(0.0)
            return Explained(amount, short, lambda: self.root.weights(projection))
        x = self.root.weights(projection)  # (m, n)
        r = k - self._image(projection)
        amount = amount + (r * x).sum(1)  # all but zero: what the root's own jitter left out
        short = self.preconditioner.energy_bound(r.mT)
        open_ = (short > self._allowed(prior - amount)).nonzero().squeeze(1)
        for some in open_.split(_COLUMNS) if len(open_) else ():
            amount[some], short[some], x[some] = self._solve_rest(
                k[some], x[some], prior[some], (amount + short)[some]
            )
        return Explained(amount, short, lambda: x)

    def _allowed(self, variance: Tensor) -> Tensor:
        """How much of a variance may stay unexplained: a share of v + σ², shape (m,)."""
        share = self.options.variance_tolerance
        least = self.variances.min() if len(self.variances) else 0.0
        return share / (1 + share) * (variance.clamp_min(0.0) + least)

    def _image(self, projection: Projection) -> Tensor:
        """K̂x for each test point, shape (m, n), from K̂R and a few columns of K̂."""
        root = self.root
        out = torch.cat([projection.inside @ root.KR.mT, projection.inside @ root.beyond.mT], 1)
        for _, points, some in projection.groups:
            local = projection.local[points, : len(some)]
            out[points] += local @ self.K.rows(some)
            out[points.unsqueeze(1), some] += local * self.variances[some]
        return out

    def _solve_rest(
        self, k: Tensor, x: Tensor, prior: Tensor, most: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Amount, shortfall and weights of a few test points, by solves that start from x.

        Args:
            k: Shape (m, n).
            x: Shape (m, n).
            prior: Prior variances, shape (m,).
            most: What kᵀK̂⁻¹k is certainly not above, shape (m,).
        """
        for slack in (_FIRST_TRY, 1.0):
            # A residual of this size is certainly small enough, were slack 1.
            enough = (self._allowed(prior - most) * self.variances.min()).sqrt() / k.norm(dim=1)
            tolerance = min(slack * float(enough.min().clamp_min(1e-13)), 0.1)
            solution = self._solve(k.mT, tolerance, x.mT, warn=False)
            x, R = solution.U.mT, solution.R
            amount = ((k + R.mT) * x).sum(1)
            short = self.preconditioner.energy_bound(R)
            missed = short > self._allowed(prior - amount)
            if not bool(missed.any()):
                break
            most = amount + short
        else:
            off = short / ((prior - amount).clamp_min(0.0) + self.variances.min())
            warnings.warn(
                f"{int(missed.sum())} of {len(k)} variances are certain to within "
                f"{float(off[missed].max()):.2g} of v + σ² only, not "
                f"{self.options.variance_tolerance:g}: {solution.info}.",
                NotConverged,
                stacklevel=levels_to_the_caller(),
            )
        return amount, short, x

    def append(
        self, K12: Tensor, K22: Tensor, residual: Tensor, X: Tensor, noise: Tensor
    ) -> ProductCache:
        """What there is gets a border: K, P and the root; the solve for α starts from the last."""
        old, m = len(self.residual), len(residual)
        if not m:
            return self
        added = noise[old:]
        diagonal = K22.diagonal() - added
        variances = torch.cat([self.variances, helped(added, diagonal)])
        K22 = K22 - torch.diag_embed(added)
        both = torch.cat([self.residual, residual])
        with torch.inference_mode(False):
            surprise = residual - K12.mT @ self.alpha
            guess = torch.cat([self.alpha, torch.zeros_like(residual)])
            K = Bordered(self.K, K12, K22)
        border = _Border(self, K12, K22, surprise, guess)
        extended = ProductCache(self.options, self.kernel, X, noise, both, border)
        # `cached_property` looks here first; the fields themselves are never set twice.
        vars(extended).update(K=K, variances=variances)
        return extended


@dataclass(frozen=True)
class _Border:
    """What rows were appended to, and how they lie.

    Attributes:
        inner: The cache before.
        K12: Covariance of old and new rows, shape (n, m).
        K22: Of the new rows, without noise, shape (m, m).
        surprise: y - mean of the new rows, by the α before, shape (m,).
        guess: The α before, and zeros, shape (n + m,).
    """

    inner: ProductCache
    K12: Tensor
    K22: Tensor
    surprise: Tensor
    guess: Tensor
