"""Gaussian processes of few inputs and many observations: covariances interpolated from a grid."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from surrogate.checks import as_matrix
from surrogate.kernels.axes import Axis
from surrogate.kernels.base import Kernel
from surrogate.kernels.grid import GridKernel, GridKernelOperator
from surrogate.models.exact import ExactGP
from surrogate.models.grid_root import NodeRoot
from surrogate.models.noise import Noise
from surrogate.models.posterior import _RELATIVE_FLOOR, Posterior
from surrogate.models.priors import DIMENSION_SCALED, PriorSet
from surrogate.models.products import ProductCache
from surrogate.solvers.auto import Auto, Choice, Solver
from surrogate.solvers.base import levels_to_the_caller
from surrogate.solvers.bbmm import BBMM
from surrogate.solvers.inv_quad_logdet import Estimate

_POINTS = {1: 500, 2: 100, 3: 40}  # of the grid along each of d inputs, unless given
_MOST_NODES = 5 * 10**7  # a block of 16 vectors on the grid then takes 6 GB
_LOOKED_AT = 500  # rows of the data among which interpolation is compared with k
_COARSE = 0.05  # of s²: what interpolation may be off; two steps to a lengthscale of a Matérn-5/2
_AT_ONCE = 2**16  # test points


class CoarseGrid(UserWarning):
    """A grid has too few nodes for how quickly a function varies."""


class GridGP(ExactGP):
    """A Gaussian process of up to three inputs whose covariances are interpolated from a grid.

    k(x, x') = s² Π_j k_j(x_j, x'_j) between the nodes of a grid, w(x)ᵀ K_grid w(x') between all
    others, w(x) the cubic weights of the 4^d nodes around x (SKI, also known as KISS-GP). A product
    with K costs O(n 4^d + G log G) for n observations and G nodes, so fits and posteriors of
    hundreds of thousands of observations need little more than time and memory for n r numbers, r
    the rank of the preconditioner. What this differs from the model with k itself is the error of
    interpolation: exactly none at the nodes, and see `interpolation_error`.

    Source: Wilson & Nickisch (2015), https://arxiv.org/abs/1503.01957.

    Args:
        kernels: k_j, one stationary kernel of one input for each column of X: a product of Matérn
            kernels is not the Matérn kernel of several inputs. Or one for all columns, itself or
            its class, with `dims`. Their variances are multiplied into s² and held at 1.
        grid: How many nodes lie between the bounds, both included: for each input or for all;
            the number of inputs decides unless given. A lengthscale should be two steps or more.
        variance: s² > 0, in the units of y squared. Left out, it starts where the priors do.
        dims: How many inputs, where `kernels` is one for all.
        bounds: Between what the grid lies: (low, high) for each input or for all, in the units of
            X; two steps beyond can be predicted too. Left out, a fit puts it over its data, and
            over the unit cube where that is what the priors expect; later posteriors of the fitted
            model have the same grid. A model that was not fitted makes one for each posterior.
        mean, noise, priors: As of `ExactGP`.
        solver: As of `ExactGP`; unless given, products from smaller n on, for they are quick, with
            a preconditioner of lower rank.

    Raises:
        TypeError: If a kernel is no kernel.
        ValueError: If there are more than three inputs, the grid is too large, a kernel is not
            stationary or not one of one input, or numbers do not match.
    """

    kernel: GridKernel

    def __init__(
        self,
        kernels: Sequence[Kernel] | Kernel | Callable[[int], Kernel],
        grid: int | Sequence[int] | None = None,
        variance: float | None = None,
        *,
        dims: int | None = None,
        bounds: Sequence[float] | Sequence[Sequence[float]] | Tensor | None = None,
        mean: float = 0.0,
        noise: float | Noise | None = None,
        priors: str | PriorSet = DIMENSION_SCALED,
        solver: Solver | None = None,
    ) -> None:
        kernel = GridKernel(_factors(kernels, dims), variance)
        points = _points(grid, kernel.dims)
        limits = None if bounds is None else _limits(bounds, kernel.dims)
        super().__init__(
            kernel,
            mean=mean,
            noise=noise,
            priors=priors,
            solver=_default_solver() if solver is None else solver,
        )
        self.points, self._is_bounded = points, limits is not None
        if limits is not None:
            self.kernel = self.kernel.on(_axes(limits.tolist(), points))

    @property
    def grid(self) -> tuple[Tensor, ...] | None:
        """The nodes along each input, those beyond the bounds included; None before there are."""
        axes = self.kernel.axes
        return None if axes is None else tuple(axis.nodes for axis in axes)

    def placed(self, X: Tensor) -> Self:
        """The model with a grid, made for X (n, d) if it has none; parameters are shared.

        Without a grid and without data it stays the model with k itself, which it then is.
        """
        return self if self.kernel.axes is not None else self._anew(X)

    def prepared(self, X: Tensor, y: Tensor, noise: Tensor, *, restart: bool) -> Self:
        """The model with a grid for X; one that was made for other data is made anew."""
        return self if self._is_bounded else self._anew(X)

    def _anew(self, X: Tensor) -> Self:
        limits = self._around(X)
        if limits is None:
            return self
        twin = copy.copy(self)
        twin._modules = {**self._modules, "kernel": self.kernel.on(_axes(limits, self.points))}
        return twin

    def _around(self, X: Tensor) -> list[list[float]] | None:
        """Bounds of a grid for X (n, d): pairs (low, high), None where nothing says them."""
        if not len(X):
            return [[0.0, 1.0]] * self.kernel.dims if self.priors.unit_scales else None
        limits = torch.stack([X.amin(0), X.amax(0)], 1)  # (d, 2)
        if self.priors.unit_scales:
            limits = torch.stack([limits[:, 0].clamp_max(0.0), limits[:, 1].clamp_min(1.0)], 1)
        return [
            self._widened(j, low, high) for j, (low, high) in enumerate(limits.detach().tolist())
        ]

    def _widened(self, j: int, low: float, high: float) -> list[float]:
        """The same bounds if they differ, else a lengthscale to either side."""
        if high - low > 1e-12 * max(abs(low), abs(high)):
            return [low, high]
        here, there = self.kernel.parts[j].coordinates(
            torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        )
        apart = float((there - here).norm().detach())
        width = 1 / apart if apart > 0 else 1.0
        width = max(width, 1e-6 * abs(low))
        return [low - width, high + width]

    @torch.no_grad()
    def interpolation_error(self, X: Tensor) -> float:
        """The largest |k_grid(x, x') - k(x, x')| among some hundred rows of X, relative to s².

        What the grid changes of the model, at the parameters it has: 0 where all rows are nodes.
        In O(1) for any n: the rows are drawn, the same ones at each call.

        Args:
            X: Shape (n, d).
        """
        X = as_matrix("X", X, self.kernel.dims)
        some = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))[:_LOOKED_AT]
        if not len(some):
            return 0.0
        kernel, rows = self.placed(X).kernel, X[some.to(X.device)]
        off = kernel(rows, rows) - kernel.on(None)(rows, rows)
        return float(off.abs().max() / kernel.variance)

    def covariance(self, X: Tensor, noise: Tensor | None = None) -> Tensor:
        """K̂ = k(X, X) + noise on the diagonal, shape (n, n), differentiable in the parameters."""
        placed = self.placed(X)
        return super().covariance(X, noise) if placed is self else placed.covariance(X, noise)

    def log_density(self, X: Tensor, y: Tensor, noise: Tensor) -> Estimate:
        """`log_marginal_likelihood` of checked data."""
        placed = self.placed(X)
        return (
            super().log_density(X, y, noise) if placed is self else placed.log_density(X, y, noise)
        )

    def condition(self, X: Tensor, y: Tensor, noise: Tensor | None = None) -> GridPosterior:
        """Belief about f after seeing the data; the model itself stays as it is.

        Warns with `CoarseGrid` where interpolation is off by more than 0.05 s²; how much it is, is
        told in `info.reason`.

        Args:
            X: Shape (n, d); n may be 0.
            y: Shape (n,).
            noise: Variance of each observation, shape (n,), NaN where σ² is to be used.

        Raises:
            ValueError: If shapes do not match, values are not finite, or a row is beyond the grid
                that the model has.
        """
        X, y, variances = self.as_data(X, y, noise)
        model = self.placed(X)
        off = model.interpolation_error(X)
        if off > _COARSE:
            nodes = " × ".join(map(str, self.points))
            warnings.warn(
                f"a grid of {nodes} nodes is too coarse for these lengthscales: covariances are "
                f"off by up to {off:.2g} s². Ask for more nodes, or use ExactGP, or InducingGP "
                f"for more observations than that can take.",
                CoarseGrid,
                stacklevel=levels_to_the_caller(),
            )
        return GridPosterior.on_grid(Posterior.of(model, X, y, variances), off)


class GridPosterior(Posterior):
    """f given n observations: a `Posterior`, with means from one vector on the grid.

    `mean` costs O(4^d) for each point, whatever n. So do standard deviations, times r, the rank of
    a root that is kept on the grid, up to 1000: it gives bounds from both sides, and where they are
    too far apart for the solver's `variance_tolerance`, O(n r) and more for each point goes into
    what any posterior by products does. `BBMM(variance_tolerance=inf)` lets the upper bound do.
    The root is made when first asked for, in O(n 4^d r + G r²), and anew after rows were appended.
    """

    model: GridGP

    @staticmethod
    def on_grid(posterior: Posterior, off: float) -> GridPosterior:
        """A posterior of a model on a grid, where covariances are off by that much of s²."""
        choice = posterior._choice
        if len(posterior.y):
            told = f"{choice.reason}; covariances on the grid off by up to {off:.1g} s²"
            choice = replace(choice, reason=told)
        return GridPosterior._like(posterior, choice)

    @staticmethod
    def _like(posterior: Posterior, choice: Choice) -> GridPosterior:
        p = posterior
        return GridPosterior(p.model, p.X, p.y, p.noise, p._cache, choice)

    def mean(self, X: Tensor) -> Tensor:
        """Mean of f at each x, in O(4^d); differentiable in X.

        Args:
            X: Shape (..., d).

        Returns:
            Shape (...).
        """
        X, kernel = self._points(X), self.model.kernel
        flat = X.reshape(-1, X.shape[-1])
        if kernel.axes is None:
            above = kernel(flat, self.X) @ self._cache.alpha
        else:
            places = (kernel.nodes(part) for part in flat.split(_AT_ONCE))
            above = torch.cat([(self._nodes[index] * w).sum(1) for index, w in places])
        return (self.model.constant + above).reshape(X.shape[:-1])

    @cached_property
    @torch.inference_mode(False)
    def _nodes(self) -> Tensor:
        """Mean of f - m at the nodes, K_grid Wᵀα, shape (nodes,)."""
        K = GridKernelOperator(self.model.kernel, self.X)
        return K.inner.matmul(K.project(self._cache.alpha.unsqueeze(1))).squeeze(1)

    @cached_property
    @torch.inference_mode(False)
    def _root(self) -> NodeRoot | None:
        """None where K̂ was factored, which tells all there is to know, or there can be none."""
        cache, kernel = self._cache, self.model.kernel
        if kernel.axes is None or not isinstance(cache, ProductCache):
            return None
        return NodeRoot.of(GridKernelOperator(kernel, self.X), cache.variances)

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f, noise not included, at each x by itself.

        Differentiable in X. O(4^d r) for each point; where a variance v is not certain to the
        `variance_tolerance` of the solver, a share of v + σ², it is solved for with all data.

        Args:
            X: Shape (..., d).

        Returns:
            Mean and standard deviation, each of shape (...).
        """
        if self._root is None:
            return super().marginals(X)
        X = self._points(X)
        flat = X.reshape(-1, X.shape[-1])
        lower, upper = self._bracket(flat)
        std = upper.sqrt()
        open_ = self._open(lower, upper.detach())
        if len(open_):
            std = std.index_put((open_,), super().marginals(flat[open_])[1])
        return self.mean(flat).reshape(X.shape[:-1]), std.reshape(X.shape[:-1])

    def _bracket(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of the variances at X (m, d), each (m,); the upper one is differentiable."""
        root, kernel = self._root, self.model.kernel
        assert root is not None
        lower, upper = [], []
        for part in X.split(_AT_ONCE):
            index, weights = kernel.nodes(part)
            prior = kernel.diagonal(part)
            least = root.least_variance(index, weights.detach())
            floor = torch.maximum(least, _RELATIVE_FLOOR * prior.detach())
            lower.append(least)
            upper.append(torch.maximum(prior - root.explained(index, weights), floor))
        return torch.cat(lower), torch.cat(upper)

    def _open(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Which variances are not certain enough."""
        assert isinstance(self._cache, ProductCache)
        share = self._cache.options.variance_tolerance
        if math.isinf(share):
            return torch.empty(0, dtype=torch.long, device=upper.device)
        noise = self._cache.variances
        least = noise.min() if len(noise) else 0.0
        return (upper - lower > share * (lower + least)).nonzero().squeeze(1)

    def variance_bounds(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Two numbers that the variance of f at each x is certainly between, rounding apart.

        One and the same where K̂ was factored; `marginals` returns the root of the upper one.

        Args:
            X: Shape (..., d).

        Returns:
            Lower and upper bound, each of shape (...).
        """
        if self._root is None:
            return super().variance_bounds(X)
        X = self._points(X)
        flat = X.reshape(-1, X.shape[-1])
        with torch.no_grad():
            lower, upper = self._bracket(flat)
            open_ = self._open(lower, upper)
            if len(open_):
                lower[open_], upper[open_] = super().variance_bounds(flat[open_])
        return lower.reshape(X.shape[:-1]), upper.reshape(X.shape[:-1])

    def append(self, X: Tensor, y: Tensor, noise: Tensor | None = None) -> GridPosterior:
        """The posterior after m more observations; this one stays as it is.

        Args:
            X: Shape (m, d), inside the grid.
            y: Shape (m,).
            noise: Variance of each, shape (m,), NaN where the model's σ² is to be used.

        Raises:
            ValueError: As of `condition`.
        """
        return self._like(super().append(X, y, noise), self._choice)


def _default_solver() -> Auto:
    """Measured on one thread, d = 2: fits by products are the quicker from n = 400 on, and 10⁵ rows
    take 35 s, at rank 150 as at 400. With clusters variances took six times as long.
    """
    return Auto(fit_from=500, predict_from=2000, bbmm=BBMM(rank=200, block=0))


def _factors(
    kernels: Sequence[Kernel] | Kernel | Callable[[int], Kernel], dims: int | None
) -> list[Kernel]:
    if isinstance(kernels, Sequence):
        if dims not in (None, len(kernels)):
            raise ValueError(f"there are {len(kernels)} kernels, but dims={dims}; leave dims out.")
        factors = list(kernels)
    else:
        if dims is None:
            raise ValueError("with one kernel for all inputs, pass dims, how many there are.")
        alone = kernels if isinstance(kernels, Kernel) else kernels(1)
        factors = [alone] * dims
    if not 1 <= len(factors) <= 3:
        raise ValueError(
            f"GridGP takes 1 to 3 inputs, for a grid has its points to the power of that; got "
            f"{len(factors)}. Use InducingGP for many observations, ExactGP for fewer."
        )
    return factors


def _points(grid: int | Sequence[int] | None, d: int) -> tuple[int, ...]:
    if grid is None:
        grid = _POINTS[d]
    points = (grid,) * d if isinstance(grid, int) else tuple(int(p) for p in grid)
    if len(points) != d or min(points) < 2:
        raise ValueError(
            f"grid must be a number of nodes of at least 2, or {d} of them, one for each input; "
            f"got {grid}."
        )
    if math.prod(points) > _MOST_NODES:
        raise ValueError(
            f"a grid of {' × '.join(map(str, points))} nodes is more than {_MOST_NODES:.0e}, too "
            f"large to multiply with; ask for fewer, or use InducingGP."
        )
    return points


def _limits(bounds: Sequence[float] | Sequence[Sequence[float]] | Tensor, d: int) -> Tensor:
    limits = torch.as_tensor(bounds, dtype=torch.float64)
    if limits.shape not in ((2,), (d, 2)):
        raise ValueError(
            f"bounds must be a pair (low, high), or one for each of {d} inputs; got shape "
            f"{tuple(limits.shape)}."
        )
    limits = limits.expand(d, 2)
    if not bool((limits.isfinite().all() & (limits[:, 0] < limits[:, 1])).all()):
        raise ValueError(f"bounds must be finite, with low < high; got {limits.tolist()}.")
    return limits


def _axes(limits: list[list[float]], points: tuple[int, ...]) -> list[Axis]:
    return [Axis.over(low, high, p) for (low, high), p in zip(limits, points, strict=True)]
