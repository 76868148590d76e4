"""The cache of a posterior that works by products: no matrix of n × n is ever factored."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from surrogate.kernels.base import Kernel
from surrogate.models.cache import Cache, Explained
from surrogate.models.covariance import kernel_operator
from surrogate.models.root import InverseRoot, Projection
from surrogate.operators.base import LinearOperator
from surrogate.operators.basic import Diagonal
from surrogate.operators.kernel import KernelOperator
from surrogate.solvers.base import NotConverged, SolveInfo
from surrogate.solvers.bbmm import BBMM
from surrogate.solvers.mbcg import Solution, mbcg
from surrogate.solvers.preconditioners import Preconditioner, Structure

_COLUMNS = 128  # variances solved for at once
_FIRST_TRY = 30.0  # how much looser the first of two solves is: bounds are often better than feared


@dataclass(frozen=True)
class ProductCache(Cache):
    """By products with K.

    Attributes:
        options: Tolerances.
        kernel: k, frozen.
        X: Inputs, shape (n, d).
        noise: Variances, shape (n,).
        residual: y - m, shape (n,).
        structure: Pivots and clusters of the preconditioner.
        guess: Where the solve for α starts, shape (n,).
    """

    options: BBMM
    kernel: Kernel
    X: Tensor
    noise: Tensor
    residual: Tensor
    structure: Structure | None = None
    guess: Tensor | None = None

    @cached_property
    def K(self) -> KernelOperator:
        """k(X, X), stored as the options say for as long as this cache lives."""
        return kernel_operator(self.kernel, self.X, self.noise, self.options)

    @cached_property
    def operator(self) -> LinearOperator:
        """K̂."""
        return self.K + Diagonal(self.noise)

    @cached_property
    def preconditioner(self) -> Preconditioner:
        """P ≈ K̂."""
        return Preconditioner(self.K, self.noise, self._structure)

    @cached_property
    def _structure(self) -> Structure:
        return self.structure or self.options.structure(self.K, self.noise)

    @cached_property
    def _solved(self) -> tuple[Tensor, SolveInfo]:
        guess = None if self.guess is None else self.guess.unsqueeze(1)
        solution = self._solve(self.residual.unsqueeze(1), self.options.tolerance, guess)
        return solution.U.squeeze(1), solution.info

    @property
    def alpha(self) -> Tensor:
        return self._solved[0]

    @property
    def info(self) -> SolveInfo:
        """How the solve for α went."""
        return self._solved[1]

    @cached_property
    def root(self) -> InverseRoot:
        """The subspace that variances are first looked for in."""
        P = self.preconditioner
        basis = P.solve(P.L.mT)
        return InverseRoot.of(self.operator.precise, basis, self._structure.clusters)

    def _solve(self, B: Tensor, tolerance: float, guess: Tensor | None = None, warn: bool = True) -> Solution:
        return mbcg(
            self.operator,
            B,
            preconditioner=self.preconditioner,
            guess=guess,
            tolerance=tolerance,
            max_steps=self.options.max_steps,
            refine=True,
            warn=warn,
        )

    def solve(self, B: Tensor) -> Tensor:
        columns = [self._solve(part, self.options.tolerance).U for part in B.split(_COLUMNS, dim=1)]
        return torch.cat(columns, 1) if columns else torch.zeros_like(B)

    def quadratic(self, k: Tensor) -> Tensor:
        flat = k.detach().reshape(-1, k.shape[-1])
        x = self.solve(flat.mT).mT.reshape(k.shape)
        form = k @ x.transpose(-1, -2)
        # Half of the derivative comes from either k; x stands still.
        form = form + form.transpose(-1, -2)
        return form - 0.5 * form.detach()

    def precisions(self) -> Tensor:
        n = len(self.residual)
        out = self.residual.new_empty(n)
        for rows in torch.arange(n).split(_COLUMNS):
            unit = self.residual.new_zeros(n, len(rows))
            unit[rows, torch.arange(len(rows))] = 1.0
            out[rows] = self.solve(unit)[rows, torch.arange(len(rows))]
        return out

    def explain(self, k: Tensor, prior: Tensor) -> Explained:
        """By the root; then, where that is not certain to be enough, by solving for the rest."""
        projection = self.root.project(k)
        amount = projection.explained
        if math.isinf(self.options.variance_tolerance):
            short = (prior - amount).clamp_min(0.0)
            return Explained(amount, short, lambda: self.root.weights(projection))
        x = self.root.weights(projection)  # (m, n)
        short = self._shortfall((k - self._image(projection)).mT)
        allowed = self._allowed(prior, amount)
        open_ = (short > allowed).nonzero().squeeze(1)
        for some in open_.split(_COLUMNS) if len(open_) else ():
            amount[some], short[some], x[some] = self._solve_rest(k[some], x[some], prior[some])
        return Explained(amount, short, lambda: x)

    def _allowed(self, prior: Tensor, amount: Tensor) -> Tensor:
        """How much of the variance may stay unexplained: a share of v + σ², shape (m,)."""
        share = self.options.variance_tolerance
        return share / (1 + share) * ((prior - amount).clamp_min(0.0) + self.noise.min())

    def _image(self, projection: Projection) -> Tensor:
        """K̂x for each test point, shape (m, n), from K̂R and a few columns of K̂."""
        root = self.root
        out = projection.inside @ root.KR.mT
        for _, points, some in root.groups(projection.owner):
            local = projection.local[points, : len(some)]
            out[points] += local @ self.kernel.linearise(self.X[some], self.X).K
            out[points.unsqueeze(1), some] += local * self.noise[some]
        return out

    def _shortfall(self, R: Tensor) -> Tensor:
        """Upper bound of rᵀK̂⁻¹r for the columns of R (n, t): the lesser of two, shape (t,)."""
        plain = (R.square() / self.noise.unsqueeze(1)).sum(0)
        P = self.preconditioner
        return torch.minimum(plain, (R * P.solve(R)).sum(0) / P.floor)

    def _solve_rest(self, k: Tensor, x: Tensor, prior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Amount, shortfall and weights of a few test points, by solves that start from x."""
        amount = (k * x).sum(1)
        # A residual of this size is certainly small enough.
        enough = (self._allowed(prior, amount) * self.noise.min()).sqrt() / k.norm(dim=1)
        least = float(enough.min().clamp_min(1e-13))
        for tolerance in (min(_FIRST_TRY * least, 0.1), least):
            solution = self._solve(k.mT, tolerance, x.mT, warn=False)
            x, R = solution.U.mT, solution.R
            amount = ((k + R.mT) * x).sum(1)
            short = self._shortfall(R)
            missed = short > self._allowed(prior, amount)
            if not bool(missed.any()):
                break
        else:
            worst = float((short / (prior - amount + self.noise.min()))[missed].max())
            warnings.warn(
                f"{int(missed.sum())} of {len(k)} variances are certain to within {worst:.2g} of "
                f"v + σ² only, not {self.options.variance_tolerance:g}: {solution.info}.",
                NotConverged,
                stacklevel=2,
            )
        return amount, short, x

    def append(
        self, K12: Tensor, K22: Tensor, residual: Tensor, X: Tensor, noise: Tensor
    ) -> ProductCache:
        """Starts from the present α; the preconditioner keeps its pivots."""
        m = len(residual)
        return ProductCache(
            self.options,
            self.kernel,
            X,
            noise,
            torch.cat([self.residual, residual]),
            None,
            torch.cat([self.alpha, residual.new_zeros(m)]),
        )
