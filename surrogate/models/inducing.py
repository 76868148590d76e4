"""Sparse Gaussian process regression: what the data say of f, told to M inducing points."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from surrogate.checks import as_matrix
from surrogate.kernels.base import Kernel
from surrogate.models.collapsed import Collapsed
from surrogate.models.exact import ExactGP
from surrogate.models.noise import Noise
from surrogate.models.priors import DIMENSION_SCALED, Prior, PriorSet
from surrogate.operators.kernel import KernelOperator
from surrogate.solvers.auto import Choice
from surrogate.solvers.cholesky import Cholesky
from surrogate.solvers.inv_quad_logdet import Estimate
from surrogate.solvers.pivots import random_pivots
from surrogate.transfers import beside, to_host
from surrogate.workspace import Workspace

if TYPE_CHECKING:
    from surrogate.models.inducing_posterior import InducingPosterior

# Pivots end where a tenth of the noise is all that is left of K, as of a preconditioner's: 0.05
# nats for each observation, which add up. Times this, it is 5e-5.
_LEFT = 1e-3
# Inducing points are no part of what is believed of f: nothing is known of them beforehand.
_ANYWHERE = Prior(None, math.nan, -1e9, 1e9, real=True)


class InducingGP(ExactGP):
    """A Gaussian process that knows its data by the values of f at M inducing points Z (SGPR).

    O(n M²) time for each step of a fit and for a posterior, O(M²) for a prediction; a fit takes
    some 16 n M bytes. What is maximised is a lower bound of log p(y), so that too few points look
    like noise and never like certainty:

        log N(y | m, Q + Σ) - ½ Σ_i (k_ii - q_ii) / σ_i²,    Q = K_XZ K_ZZ⁻¹ K_ZX

    Source: Titsias (2009), http://proceedings.mlr.press/v5/titsias09a.html.

    Smooth functions of few inputs need few points. For rough ones, or many inputs, the `gap` of a
    posterior stays large: take `ExactGP`, which is exact up to some tens of thousands of rows.

    Unless they are given, points begin at rows of the data, by randomly pivoted Cholesky at the
    parameters of an exact fit of up to 1000 rows, with which a fit begins. They are then learnt
    with the parameters: on ten rows for each point first, on four times as many next, on all rows
    at last. Posteriors of the fitted model have these points, and a fit of it goes on from them. A
    model that was not fitted chooses for each posterior.

    Args:
        kernel: k. The model keeps a copy.
        inducing: How many points M, at most; or where they are, shape (M, d). Where the data have
            fewer distinct rows there are fewer.
        learn_inducing: Whether a fit moves them; None for those it chooses, but not for those
            given. Of 20,000 rows of 4 inputs, 250 points that were learnt knew as much as 1000
            chosen ones. Points that are not learnt are chosen anew by a fit of a fitted model.
        fitc: Whether what the points leave out of k(x, x) counts as noise of its own: Snelson &
            Ghahramani (2006). Variances vary with x more truthfully; but what is maximised is then
            the likelihood of another model, bounds nothing, and may overfit, the more so with
            points that are learnt.
        mean: m, in the units of y; learnt.
        noise: σ², in the units of y squared; learnt. None takes the prior's start value. A `Noise`
            says how it varies.
        priors: As of `ExactGP`.
        seed: Of the choice of points; the same seed makes the same choice.

    Attributes:
        inducing: How many points to choose, at most; None where they were given.
        inducing_points: Z, shape (M, d), on the CPU; None before they are chosen.
    """

    inducing_points: Tensor | None

    def __init__(
        self,
        kernel: Kernel,
        inducing: int | Tensor = 500,
        *,
        learn_inducing: bool | None = None,
        fitc: bool = False,
        mean: float = 0.0,
        noise: float | Noise | None = None,
        priors: str | PriorSet = DIMENSION_SCALED,
        seed: int = 0,
    ) -> None:
        super().__init__(kernel, mean=mean, noise=noise, priors=priors, solver=Cholesky())
        chosen = isinstance(inducing, int)
        self.learn_inducing = chosen if learn_inducing is None else learn_inducing
        self.fitc, self.seed = fitc, seed
        if self.learn_inducing:
            self.register_parameter("inducing_points", None)
        else:
            self.register_buffer("inducing_points", None)
        self.inducing: int | None = None
        if isinstance(inducing, int):
            if inducing < 1:
                raise ValueError(f"there must be at least 1 inducing point; got {inducing}.")
            self.inducing = inducing
            return
        Z = as_matrix("inducing", inducing, self.dims)
        if not len(Z):
            raise ValueError("inducing must have at least one row, or be a number of points.")
        self.place(Z)

    @property
    def dims(self) -> int | None:
        """How many columns X must have, if the kernel or the inducing points say."""
        dims, Z = super().dims, self.inducing_points
        return Z.shape[1] if dims is None and Z is not None else dims

    def searched_parameters(self) -> list[nn.Parameter]:
        """Parameters of the kernel, of the noise, and the inducing points where they are learnt."""
        Z = self.inducing_points
        return [*super().searched_parameters(), *([Z] if isinstance(Z, nn.Parameter) else [])]

    def is_lengthscale(self) -> list[bool]:
        """Which entries of the flat vector of `log_priors` are lengthscales."""
        return super().is_lengthscale() + [False] * self._learnt

    @property
    def points_shape(self) -> tuple[int, int]:
        """Shape of the inducing points where a fit moves them; else (0, 1)."""
        Z = self.inducing_points
        rows, columns = Z.shape if isinstance(Z, nn.Parameter) and Z.requires_grad else (0, 1)
        return rows, columns

    def priors_of_parameters(self) -> list[Prior]:
        """Of [kernel parameters …, noise parameters …, inducing points …]; flat for the last."""
        return super().priors_of_parameters() + [_ANYWHERE] * self._learnt

    @property
    def _learnt(self) -> int:
        Z = self.inducing_points
        return Z.numel() if isinstance(Z, nn.Parameter) else 0

    def choice_for_fit(self, X: Tensor, noise: Tensor) -> Choice:
        """Factors of M × M matrices, whatever n."""
        return self.choice(len(X), self.points(X, noise))

    def choice(self, n: int, Z: Tensor) -> Choice:
        """What is done for n observations by these points."""
        how = "FITC" if self.fitc else "the collapsed bound"
        return Choice(
            Cholesky(), f"{len(Z)} points for {n} observations, by {how}", "inducing points"
        )

    def points(self, X: Tensor, noise: Tensor) -> Tensor:
        """The inducing points, chosen from checked data where there are none yet: (M, d).

        Where X is.
        """
        Z = self.inducing_points
        return self.chosen(X, noise) if Z is None else beside(Z, X)

    def prepared(self, X: Tensor, y: Tensor, noise: Tensor, *, restart: bool) -> Self:
        """A copy with points for these data, at parameters that suit both."""
        from surrogate.models.inducing_start import begin

        return begin(self, X, y, noise, restart=restart)

    @torch.no_grad()
    def chosen(self, X: Tensor, noise: Tensor) -> Tensor:
        """Rows of X by randomly pivoted Cholesky, filled up with any others that are distinct.

        Where pivots end all of K is explained, but only at these parameters: in a fit others may
        come, for which points that are no use now are.
        """
        assert self.inducing is not None
        most = min(self.inducing, len(X))
        generator = torch.Generator().manual_seed(self.seed)
        K = KernelOperator(self.kernel, X, storage="tiles")
        pivots = random_pivots(K, _LEFT * self.noise_variances(X, noise), most, generator)
        if len(pivots) == most:
            return X[pivots]
        others = torch.randperm(len(X), generator=generator).to(X.device)
        order = torch.cat([pivots, others])
        _, same = X[order].unique(dim=0, return_inverse=True)
        place = torch.arange(len(order), device=X.device)
        first = torch.full_like(others, len(order)).scatter_reduce(0, same, place, "amin")
        first = first[first < len(order)].sort().values[:most]
        return X[order[first]]

    def place(self, Z: Tensor) -> None:
        """Take a copy of these inducing points, shape (M, d)."""
        Z = Z.detach().to("cpu", copy=True)
        self.inducing_points = nn.Parameter(Z) if self.learn_inducing else Z

    @torch.no_grad()
    def collapsed(
        self,
        X: Tensor,
        noise: Tensor,
        *,
        Z: Tensor | None = None,
        solver: Cholesky | None = None,
        workspace: Workspace | None = None,
    ) -> Collapsed:
        """The bound for checked data, its matrices factored."""
        return Collapsed.of(
            self.kernel,
            self.points(X, noise) if Z is None else Z,
            X,
            self.noise_variances(X, noise),
            fitc=self.fitc,
            solver=solver or Cholesky(),
            workspace=workspace or Workspace(X.device),
        )

    def evaluator(
        self, X: Tensor, y: Tensor, noise: Tensor, solver: Cholesky, *, best_mean: bool
    ) -> Callable[[], tuple[float, list[Tensor], float]]:
        """What a fit calls at each step: the bound, its gradients, and the jitter."""
        workspace, fixed = Workspace(X.device), None
        if self.inducing_points is None:
            fixed = self.chosen(X, noise)

        @torch.no_grad()
        def evaluate() -> tuple[float, list[Tensor], float]:
            bound = self.collapsed(X, noise, Z=fixed, solver=solver, workspace=workspace)
            if best_mean:
                self.constant.copy_(bound.best_mean(y))
            r = y - self.constant
            return bound.value(r), self._gradients(bound, X, r, noise), bound.jitter

        return evaluate

    def _gradients(self, bound: Collapsed, X: Tensor, r: Tensor, noise: Tensor) -> list[Tensor]:
        """Of the bound, in `searched_parameters()` and m."""
        found = bound.gradients(r, points=bool(self._learnt))
        by_noise = self.noise_model.pullback(X, found.variances * noise.isnan())
        by_points = [found.points] if self._learnt else []
        return [*found.kernel, *by_noise, *by_points, found.mean]

    def log_marginal_likelihood(
        self, X: Tensor, y: Tensor, noise: Tensor | None = None
    ) -> Estimate:
        """The collapsed bound of log p(y | X), and one from above.

        Its value, which is its `lower`, is differentiable in the parameters, once. With `fitc` it
        is the likelihood of another model; there are no bounds then.

        Args:
            X: Shape (n, d).
            y: Shape (n,).
            noise: Variance of each observation, shape (n,), NaN where σ² is to be used.
        """
        return super().log_marginal_likelihood(X, y, noise)

    def log_density(self, X: Tensor, y: Tensor, noise: Tensor) -> Estimate:
        """`log_marginal_likelihood` of checked data."""
        bound = self.collapsed(X, noise)
        with torch.no_grad():
            r = y - self.constant
            estimate = self._bracketed(bound, bound.value(r), r)
        parameters = [*self.searched_parameters(), self.constant]
        if not (torch.is_grad_enabled() and any(p.requires_grad for p in parameters)):
            return estimate
        value = estimate.value
        gradients = to_host(*self._gradients(bound, X, r, noise))
        for p, g in zip(parameters, gradients, strict=True):
            value = value + (g * (p - p.detach())).sum()  # 0, whose gradient is g
        return replace(estimate, value=value)

    def bracketed(self, value: float, X: Tensor, y: Tensor, noise: Tensor) -> Estimate:
        """log p(y) of checked data, given what `evaluator` found where the model stands."""
        with torch.no_grad():
            return self._bracketed(self.collapsed(X, noise), value, y - self.constant)

    def _bracketed(self, bound: Collapsed, value: float, r: Tensor) -> Estimate:
        found = torch.tensor(value, dtype=torch.float64)
        if self.fitc:
            return Estimate(found, -math.inf, math.inf)
        return Estimate(found, value, max(value, bound.upper(r)))

    def condition(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, X: Tensor, y: Tensor, noise: Tensor | None = None
    ) -> InducingPosterior:
        """Belief about f after seeing the data; the model itself stays as it is.

        Args:
            X: Shape (n, d); n may be 0.
            y: Shape (n,).
            noise: Variance of each observation, shape (n,), NaN where σ² is to be used.

        Raises:
            ValueError: If shapes do not match or values are not finite.
        """
        from surrogate.models.inducing_posterior import InducingPosterior

        return InducingPosterior.of(self, *self.as_data(X, y, noise))
