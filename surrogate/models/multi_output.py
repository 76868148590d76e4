"""Several outputs at once: tables of values, in which some may be missing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from surrogate.checks import as_matrix, as_points, on_device
from surrogate.kernels.base import Kernel
from surrogate.kernels.stationary import Stationary
from surrogate.kernels.table import TableKernel
from surrogate.kernels.tasks import Coregionalization
from surrogate.models.exact import ExactGP
from surrogate.models.html import posterior_html
from surrogate.models.kronecker import complete_table
from surrogate.models.nested import nested_start
from surrogate.models.noise import Noise, NoisePerTask
from surrogate.models.paths import SamplePaths
from surrogate.models.posterior import Posterior, PosteriorInfo
from surrogate.models.priors import DIMENSION_SCALED, PriorSet
from surrogate.solvers.auto import Solver
from surrogate.solvers.inv_quad_logdet import Estimate
from surrogate.transfers import beside


class MultiOutputGP(ExactGP):
    """y_t(x) = f_t(x) + ε_t with Cov(f_t(x), f_u(x')) = Σ_q k_q(x, x') c_q(t, u).

    With one kernel and free covariances of the outputs, the default, this is the intrinsic model of
    coregionalisation (ICM); with several kernels the linear one (LMC). Outputs at known places s,
    the epochs of a learning curve or the wavelengths of a spectrum, have a kernel of s instead.

    NaN in Y is a value that is missing. A complete Y with one kernel is inferred from the
    eigenvectors of both covariances, in O(n³ + T³); one with gaps by Cholesky factors while it is
    small, else by products of n²T + nT² multiplications. All of it is exact. `ExactGP` does the
    rest: it is the same model on one row [x, s] per value.

    Args:
        kernel: k over x, or one k_q for each term. Where the covariance of the outputs is free, it
            has their variances, and those of a `Matern52` and its like are held at 1.
        outputs: How many outputs, T; or where they are, s, shape (T,) or (T, c).
        output_kernel: c over s, or one c_q for each term; a `Coregionalization` unless given.
            "independent" lets outputs share k and its lengthscales alone.
        rank: Of each free covariance: how many functions the outputs share.
        dims: Columns of x, where the kernel does not say.
        mean: m, shared by all outputs, in the units of y; learnt. Outputs of different scales are
            to be standardised first.
        noise: A σ² for each output, the default where they are numbered; "shared", one for all,
            where they are not; a number to start from; or a `Noise` of rows [x, s].
        priors, solver: As of `ExactGP`.
    """

    def __init__(
        self,
        kernel: Kernel | Sequence[Kernel],
        outputs: int | Tensor,
        *,
        output_kernel: Kernel | Sequence[Kernel] | Literal["independent"] | None = None,
        rank: int = 1,
        dims: int | None = None,
        mean: float = 0.0,
        noise: float | Noise | Literal["per output", "shared"] | None = None,
        priors: str | PriorSet = DIMENSION_SCALED,
        solver: Solver | None = None,
    ) -> None:
        kernels = [kernel] if isinstance(kernel, Kernel) else list(kernel)
        places, numbered = _places(outputs)
        free = output_kernel is None or isinstance(output_kernel, str)
        if free and not numbered:
            raise ValueError(
                "outputs at places s need an output_kernel, such as Matern52(1); without places, "
                "pass their number."
            )
        if output_kernel is None:
            others: list[Kernel] = [Coregionalization(len(places), rank) for _ in kernels]
        elif isinstance(output_kernel, str):
            others = [_independent(output_kernel, len(places)) for _ in kernels]
        else:
            alone = isinstance(output_kernel, Kernel)
            others = [output_kernel] if alone else list(output_kernel)
        if len(others) != len(kernels):
            raise ValueError(
                f"there must be as many output kernels as kernels; got {len(others)} and "
                f"{len(kernels)}."
            )
        split = _columns_of(kernels) if dims is None else dims
        terms = [(copy.deepcopy(k), c) for k, c in zip(kernels, others, strict=True)]
        if noise is None:
            noise = "per output" if numbered else "shared"
        level: float | Noise | None = None if isinstance(noise, str) else noise
        super().__init__(
            TableKernel(terms, split, places.shape[1]),
            mean=mean,
            noise=level,
            priors=priors,
            solver=solver,
        )
        if noise == "per output":
            if not numbered:
                raise ValueError("a noise per output needs outputs that are numbered.")
            start = float(self.noise.detach())
            self.noise_model = NoisePerTask(len(places), noise=start)
        self.places = places
        if free:
            for k, _ in self._terms:
                _hold_variance(k)

    @property
    def _terms(self) -> list[tuple[Kernel, Kernel]]:
        assert isinstance(self.kernel, TableKernel)
        return self.kernel.terms

    @property
    def outputs(self) -> int:
        """T."""
        return len(self.places)

    @property
    def columns(self) -> int:
        """Columns of x."""
        assert isinstance(self.kernel, TableKernel)
        return self.kernel.split

    @property
    def task_covariance(self) -> Tensor:
        """Covariance of the outputs at one and the same x, at 0 where that matters: (T, T)."""
        with torch.no_grad():
            rows = self.rows(torch.zeros(1, self.columns, dtype=torch.float64))[0]
            return self.kernel(rows, rows)

    @property
    def task_correlation(self) -> Tensor:
        """The same, scaled to a diagonal of ones: (T, T)."""
        C = self.task_covariance
        scale = C.diagonal().rsqrt()
        return scale.unsqueeze(1) * C * scale

    def rows(self, X: Tensor) -> Tensor:
        """Inputs [x, s] of all outputs at X (..., d): shape (..., T, d + c)."""
        T, c = self.places.shape
        x = X.unsqueeze(-2).expand(*X.shape[:-1], T, X.shape[-1])
        return torch.cat([x, beside(self.places, X).expand(*X.shape[:-1], T, c)], -1)

    def as_data(
        self, X: Tensor, y: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One row for each value that is there.

        Args:
            X: Shape (n, d).
            y: Shape (n, T), NaN where a value is missing.
            noise: Variances, shape (n, T), NaN where they are to be learnt.

        Raises:
            ValueError: If shapes do not match, something is infinite, or the data are on two
                devices.
        """
        X = as_matrix("X", X, self.columns)
        Y, shape = on_device("Y", y, X.device), (len(X), self.outputs)
        if Y.shape != shape:
            raise ValueError(
                f"Y must have a row for each of X and a column for each output, shape {shape}; "
                f"got {tuple(Y.shape)}. NaN says that a value is missing."
            )
        if noise is None:
            variances = X.new_full(shape, torch.nan)
        else:
            variances = on_device("noise", noise, X.device)
            if variances.shape != shape:
                raise ValueError(f"noise must have shape {shape}; got {tuple(variances.shape)}.")
        there = ~Y.isnan()
        return super().as_data(self.rows(X)[there], Y[there], variances[there])

    def prepared(self, X: Tensor, y: Tensor, noise: Tensor, *, restart: bool) -> Self:
        """Near the optimum where the data are a complete table."""
        if complete_table(self, X, noise) is None or len(y) < 2 or not _has_free(self):
            return self
        model = self.clone()
        nested_start(model, X, y, restart=restart)
        model.is_guarded = True
        return model

    def log_marginal_likelihood(
        self, X: Tensor, y: Tensor, noise: Tensor | None = None
    ) -> Estimate:
        """log p(Y | X) of the values that are there, with its error bar.

        Args:
            X: Shape (n, d).
            y: Shape (n, T), NaN where a value is missing.
            noise: Variances, shape (n, T), NaN where σ² is to be used.
        """
        return self.log_density(*self.as_data(X, y, noise))

    def condition(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, X: Tensor, y: Tensor, noise: Tensor | None = None
    ) -> MultiOutputPosterior:
        """Belief about all outputs after seeing the data; the model itself stays as it is.

        Args:
            X: Shape (n, d).
            y: Shape (n, T), NaN where a value is missing.
            noise: Variances, shape (n, T), NaN where σ² is to be used.
        """
        return MultiOutputPosterior(Posterior.of(self, *self.as_data(X, y, noise)))


@dataclass(frozen=True)
class MultiOutputPosterior:
    """What is believed of T outputs: `Posterior`, with one axis more.

    Attributes:
        long: The belief about f at rows [x, s].
    """

    long: Posterior

    @property
    def model(self) -> MultiOutputGP:
        """The model, its parameters frozen."""
        assert isinstance(self.long.model, MultiOutputGP)
        return self.long.model

    def _repr_html_(self) -> str:
        return posterior_html(type(self).__name__, self.model, self.info)

    @property
    def info(self) -> PosteriorInfo:
        """How the linear algebra was done; its n counts values."""
        return self.long.info

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of f, noise not included; differentiable in X.

        Args:
            X: Shape (..., d).

        Returns:
            Mean and standard deviation of each output, each of shape (..., T).
        """
        return self.long.marginals(self.model.rows(self._points(X)))

    def predictive(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a new observation of each output, noise included."""
        return self.long.predictive(self.model.rows(self._points(X)))

    def joint(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of all outputs over each group of q points.

        Args:
            X: Shape (..., q, d).

        Returns:
            Mean (..., q, T) and covariance (..., q T, q T), the outputs of a point side by side.
        """
        rows = self.model.rows(self._points(X))  # (..., q, T, d + c)
        mean, covariance = self.long.joint(rows.flatten(-3, -2))
        return mean.reshape(rows.shape[:-1]), covariance

    def sample(self, X: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` joint samples of all outputs at the rows of X (m, d): (count, m, T)."""
        rows = self.model.rows(as_matrix("X", X, self.model.columns, self.long.X.device))
        drawn = self.long.sample(rows.flatten(0, 1), count, generator)
        return drawn.reshape(count, *rows.shape[:-1])

    def sample_paths(
        self, count: int, generator: torch.Generator, features: int = 2048
    ) -> MultiOutputPaths:
        """Draw `count` functions, each with T outputs: see `SamplePaths`."""
        return MultiOutputPaths(self.model, self.long.sample_paths(count, generator, features))

    def append(self, X: Tensor, Y: Tensor, noise: Tensor | None = None) -> MultiOutputPosterior:
        """The posterior after more rows of the table; this one stays as it is.

        Values of rows that are there already may be appended too, the others of the row being NaN.

        Args:
            X: Shape (m, d).
            Y: Shape (m, T), NaN where a value is missing.
            noise: Variances, shape (m, T), NaN where the model's are to be used.
        """
        X = on_device("X", X, self.long.X.device)
        return MultiOutputPosterior(self.long.append(*self.model.as_data(X, Y, noise)))

    def _points(self, X: Tensor) -> Tensor:
        return as_points(X, self.model.columns, self.long.X.device)


@dataclass(frozen=True)
class MultiOutputPaths:
    """Functions drawn from a posterior, of T outputs each; differentiable.

    Attributes:
        model: Knows the outputs.
        long: The functions of rows [x, s].
    """

    model: MultiOutputGP
    long: SamplePaths

    def __call__(self, X: Tensor) -> Tensor:
        """Values of every path; differentiable in X.

        Args:
            X: Shape (m, d), where all paths are evaluated, or (count, m, d), where path i is
                evaluated at X[i].

        Returns:
            Shape (count, m, T).
        """
        X = on_device("X", X, self.long.X.device)
        rows = self.model.rows(X)  # (..., m, T, d + c)
        values = self.long(rows.flatten(-3, -2))
        return values.reshape(len(values), *rows.shape[-3:-1])


def _places(outputs: int | Tensor) -> tuple[Tensor, bool]:
    """Where the outputs are, shape (T, c), and whether that is but their number."""
    if isinstance(outputs, int):
        if outputs < 1:
            raise ValueError(f"outputs must be at least 1; got {outputs}.")
        return torch.arange(outputs, dtype=torch.float64).unsqueeze(1), True
    places = torch.as_tensor(outputs, dtype=torch.float64, device="cpu")
    places = as_matrix("outputs", places.unsqueeze(1) if places.ndim == 1 else places)
    if len(places.unique(dim=0)) < len(places) or not len(places):
        raise ValueError("outputs must be at different places; got one of them twice, or none.")
    return places.clone(), False


def _independent(word: str, T: int) -> Kernel:
    if word != "independent":
        raise ValueError(f'output_kernel must be a Kernel or "independent"; got {word!r}.')
    kernel = Coregionalization(T, factor=torch.zeros(T, 1, dtype=torch.float64))
    kernel.factor.requires_grad_(False)
    return kernel


def _has_free(model: MultiOutputGP) -> bool:
    return any(p.requires_grad for p in model.searched_parameters())


def _hold_variance(kernel: Kernel) -> None:
    """The covariance of the outputs has it already: both would be told apart by nothing."""
    if isinstance(kernel, Stationary):
        kernel.log_variance.data.zero_()
        kernel.log_variance.requires_grad_(False)


def _columns_of(kernels: Sequence[Kernel]) -> int:
    for kernel in kernels:
        dims = ExactGP(kernel).dims
        if dims is not None:
            return dims
    raise ValueError("the kernel does not say how many columns x has; pass dims.")
