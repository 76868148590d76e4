"""Values and gradients of one function, learnt from together."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.checks import as_matrix, as_points, on_device
from surrogate.kernels.gradients import WithGradients
from surrogate.kernels.stationary import RBF, Matern52
from surrogate.models.exact import ExactGP
from surrogate.models.html import posterior_html
from surrogate.models.noise import NoisePerTask
from surrogate.models.paths import SamplePaths
from surrogate.models.posterior import Posterior, PosteriorInfo
from surrogate.models.priors import DIMENSION_SCALED, PriorSet
from surrogate.solvers.auto import Solver
from surrogate.solvers.inv_quad_logdet import Estimate


class NoiseOfGradients(NoisePerTask):
    """One σ² for values, one for all derivatives.

    Args:
        noise: Both, in the units of y squared, and of (y / x) squared.
    """

    def __init__(self, noise: tuple[float, float] | float) -> None:
        super().__init__(2, noise=noise)

    def _task(self, X: Tensor) -> Tensor:
        return (X[:, self.column] > 0).long()


class GradientGP(ExactGP):
    """y = f(x) + ε, and where they are known, derivatives ∂f/∂x_i + ε'.

    Y has a column for the value and one for each derivative; NaN is what was not observed. Targets
    are to be centred, and gradients scaled as they are: with y = (y₀ - a) / b, ∇y = ∇y₀ / b. It is
    `ExactGP` on one row [x, i] for each number, see `WithGradients`: by a Cholesky factor of the
    N numbers while these are few, else by products. Where most points have gradients, a product
    takes O(n² d) a column for n points, see `GradientOperator`, and their n × n matrices are kept
    while a third of the memory holds them; else K is, or computed in tiles, by storage and budget
    of the solver.

    Args:
        kernel: `RBF` or `Matern52`.
        noise: σ² of values and of derivatives, learnt: two numbers, or one for both. None takes the
            prior's start value.
        priors, solver: As of `ExactGP`.
    """

    def __init__(
        self,
        kernel: RBF | Matern52,
        *,
        noise: tuple[float, float] | float | None = None,
        priors: str | PriorSet = DIMENSION_SCALED,
        solver: Solver | None = None,
    ) -> None:
        joint = WithGradients(copy.deepcopy(kernel))
        super().__init__(joint, priors=priors, solver=solver)
        start = float(self.noise.detach()) if noise is None else noise
        self.noise_model = NoiseOfGradients(start)
        self.constant.requires_grad_(False)  # of f alone; `WithGradients` has one for it

    @property
    def columns(self) -> int:
        """Columns of x."""
        assert isinstance(self.kernel, WithGradients)
        return self.kernel.kernel.dims

    def derivatives(self, device: torch.device) -> Tensor:
        """The i of all derivatives, 1 … d, on a device."""
        return torch.arange(1, 1 + self.columns, device=device)

    def rows(self, X: Tensor, which: Tensor) -> Tensor:
        """Rows [x, i] for each i of `which` (k,), at X (..., d): shape (..., k, d + 1)."""
        k = len(which)
        x = X.unsqueeze(-2).expand(*X.shape[:-1], k, X.shape[-1])
        return torch.cat([x, which.to(X.dtype).expand(*X.shape[:-1], k).unsqueeze(-1)], -1)

    def as_data(
        self, X: Tensor, y: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One row for each number observed.

        Args:
            X: Shape (n, d).
            y: Values and derivatives, shape (n, 1 + d), NaN where not observed; or values, (n,).
            noise: Variances in the shape of y, NaN where they are to be learnt.

        Raises:
            ValueError: If shapes do not match, something is infinite, or the data are on two
                devices.
        """
        X = as_matrix("X", X, self.columns)
        Y, shape = on_device("y", y, X.device), (len(X), 1 + self.columns)
        if noise is not None:
            noise = on_device("noise", noise, X.device)
            if noise.shape != Y.shape:
                raise ValueError(
                    f"noise must have the shape {tuple(Y.shape)} of y; got {tuple(noise.shape)}."
                )
        if Y.shape == shape[:1]:
            rows = self.rows(X, X.new_zeros(1))[:, 0]
            return super().as_data(rows, Y, noise)
        if Y.shape != shape:
            raise ValueError(
                f"y must hold a value and {self.columns} derivative(s) for each row of X, shape "
                f"{shape}, or values alone; got {tuple(Y.shape)}. NaN says: not observed."
            )
        there = ~Y.isnan()
        which = torch.arange(1 + self.columns, device=X.device)
        rows = self.rows(X, which)[there]
        return super().as_data(rows, Y[there], None if noise is None else noise[there])

    def log_marginal_likelihood(
        self, X: Tensor, y: Tensor, noise: Tensor | None = None
    ) -> Estimate:
        """log p(y | X) of the numbers observed, with its error bar; arguments as of `as_data`."""
        return self.log_density(*self.as_data(X, y, noise))

    def condition(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, X: Tensor, y: Tensor, noise: Tensor | None = None
    ) -> GradientPosterior:
        """Belief about f and its gradient; arguments as of `as_data`."""
        return GradientPosterior(Posterior.of(self, *self.as_data(X, y, noise)))


@dataclass(frozen=True)
class GradientPosterior:
    """What is believed of f and of its gradient.

    Attributes:
        long: The belief about rows [x, i].
    """

    long: Posterior

    @property
    def model(self) -> GradientGP:
        """The model, its parameters frozen."""
        assert isinstance(self.long.model, GradientGP)
        return self.long.model

    def _repr_html_(self) -> str:
        return posterior_html(type(self).__name__, self.model, self.info)

    @property
    def info(self) -> PosteriorInfo:
        """How the linear algebra was done; its n counts numbers observed."""
        return self.long.info

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f at X (..., d), each of shape (...)."""
        mean, std = self.long.marginals(self._values(X))
        return mean, std

    def predictive(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """The same of a new observation of f, noise included."""
        return self.long.predictive(self._values(X))

    def gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of ∂f/∂x_i at X (..., d), each of shape (..., d)."""
        X = self._points(X)
        return self.long.marginals(self.model.rows(X, self.model.derivatives(X.device)))

    def joint(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (..., q) and covariance (..., q, q) of f over groups of q points X (..., q, d)."""
        return self.long.joint(self._values(X))

    def sample(self, X: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` joint samples of f at the rows of X (m, d): (count, m)."""
        X = as_matrix("X", X, device=self.long.X.device)
        return self.long.sample(self._values(X), count, generator)

    def sample_paths(
        self, count: int, generator: torch.Generator, features: int = 2048
    ) -> GradientPaths:
        """Draw `count` functions that have gradients: see `SamplePaths`."""
        return GradientPaths(self.model, self.long.sample_paths(count, generator, features))

    def append(self, X: Tensor, y: Tensor, noise: Tensor | None = None) -> GradientPosterior:
        """The posterior after more data, given as for `condition`; this one stays as it is."""
        X = on_device("X", X, self.long.X.device)
        return GradientPosterior(self.long.append(*self.model.as_data(X, y, noise)))

    def _values(self, X: Tensor) -> Tensor:
        X = self._points(X)
        return self.model.rows(X, X.new_zeros(1)).squeeze(-2)

    def _points(self, X: Tensor) -> Tensor:
        return as_points(X, self.model.columns, self.long.X.device)


@dataclass(frozen=True)
class GradientPaths:
    """Functions drawn from a posterior, and their gradients.

    Attributes:
        model: Knows the rows.
        long: The functions of rows [x, i].
    """

    model: GradientGP
    long: SamplePaths

    @property
    def count(self) -> int:
        """How many paths."""
        return self.long.count

    def __call__(self, X: Tensor) -> Tensor:
        """Values of every path; differentiable in X.

        Args:
            X: Shape (m, d), where all paths are evaluated, or (count, m, d), where path i is
                evaluated at X[i].

        Returns:
            Shape (count, m).
        """
        return self._at(X, torch.zeros(1, device=self.long.X.device)).squeeze(-1)

    def gradient(self, X: Tensor) -> Tensor:
        """∂f/∂x_i of every path, without autograd: shape (count, m, d); X as above."""
        return self._at(X, self.model.derivatives(self.long.X.device))

    def _at(self, X: Tensor, which: Tensor) -> Tensor:
        """What `which` (k,) says of every path: shape (count, m, k)."""
        X = as_points(X, self.model.columns, self.long.X.device)
        if X.shape[:-2] not in ((), (self.count,)) or X.ndim < 2:
            raise ValueError(
                f"X must have shape (m, d) or ({self.count}, m, d); got {tuple(X.shape)}."
            )
        rows = self.model.rows(X, which)  # (..., m, k, d + 1)
        return self.long(rows.flatten(-3, -2)).unflatten(-1, rows.shape[-3:-1])
