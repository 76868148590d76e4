"""What a model believes of one output after some trials."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bbmmopt.modelling.data import Data, threads_for
from bbmmopt.modelling.heteroskedastic import varies
from bbmmopt.modelling.input_warp import warps
from bbmmopt.transforms import TargetTransform
from surrogate import FitReport, Matern52, Posterior


@dataclass(frozen=True)
class Belief:
    """What the model believes of one output.

    Attributes:
        posterior: Given the complete trials, over the unit cube, in model units: standardised,
            larger is better.
        settled: The same, with failed trials put in at what was expected of them, or worse:
            uncertainty is gone there, so nobody goes there again.
        fantasised: With pending trials put in too, at what is expected of them.
        transform: From the user's units (larger better) to model units.
        incumbent: What the next trial should beat, in model units. The best of the complete trials,
            as observed when the objective is exact, else by the posterior mean, which noise does
            not flatter; or what is expected of a pending trial, if that is more: or the next one
            would go right beside it. -inf without data.
        data: What it was built from.
        contradicted: Whether the output was declared exact and its values say otherwise.
        cut_short: Whether a fit was ended early, its parameters not the likeliest yet.
        members: What is believed under several models that data do not tell apart, all equally
            likely; empty where there is one.
    """

    posterior: Posterior
    settled: Posterior
    fantasised: Posterior
    transform: TargetTransform
    incumbent: float
    data: Data
    contradicted: bool = False
    cut_short: bool = False
    members: tuple[Belief, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.data.device

    @cached_property
    def fitted(self) -> np.ndarray:
        """What is expected of each complete trial, without its noise, in model units, shape (n,).

        Not to be written into.
        """
        return self.posterior.fitted().cpu().numpy()

    @cached_property
    def mean_noise(self) -> float:
        """Variance of the noise, given or learnt, in model units: mean over the trials."""
        with torch.no_grad():
            return float(self.posterior.noise_variances().mean())

    @property
    def lengthscales(self) -> Tensor:
        """Length over which f changes in each column of the unit cube, shape (d,).

        1 for categorical columns, whose distances mean nothing.
        """
        scale = torch.ones(self.data.X.shape[1], dtype=torch.float64)
        for kernel in self.posterior.model.kernel.modules():
            if isinstance(kernel, Matern52):
                columns = list(kernel.columns or range(kernel.dims))
                scale[columns] = kernel.lengthscale.detach()
        return scale

    @property
    def bound(self) -> float:
        """Of a constraint, in model units: it holds from there on."""
        if self.data.bound is None:
            raise ValueError("an objective has no bound.")
        return float(self.transform.forward(np.array([self.data.bound]))[0])

    @property
    def label_noise(self) -> float:
        """Mean variance of what was told of it, where it was told with one, in model units."""
        return float(self.posterior.noise.nanmean())

    @property
    def noise(self) -> float:
        """Variance of the noise where none is given, in model units: mean over the trials."""
        if not self.noise_varies:
            return float(self.posterior.model.noise.detach())
        return float(self.noise_at(self.posterior.X).mean())

    @property
    def noise_varies(self) -> bool:
        """Whether that variance depends on the parameters."""
        return varies(self.posterior.model)

    @property
    def warps_inputs(self) -> bool:
        """Whether lengths are those of warped columns, not of the unit cube itself."""
        return warps(self.posterior.model)

    def noise_at(self, X: Tensor) -> Tensor:
        """That variance at rows X (..., d) of the unit cube, shape (...); differentiable."""
        found = self.posterior.model.noise_model(X.reshape(-1, X.shape[-1]))
        return found.reshape(X.shape[:-1])

    def is_noisy(self, share: float) -> bool:
        """Whether noise, given or learnt, is more than this share of the targets' variance."""
        if self.data.exact:
            return False
        return bool(len(self.data.y)) and self.mean_noise > share

    @property
    def scale(self) -> float:
        """Variance before the data, in model units: what rounding is relative to."""
        with torch.no_grad():
            X = torch.full((1, self.data.X.shape[1]), 0.5, dtype=torch.float64)
            return float(self.posterior.model.kernel.diagonal(X))

    @property
    def report(self) -> FitReport | None:
        """How the fit went."""
        return self.posterior.model.report

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is expected at rows of the unit cube, and how uncertain that is.

        Median and half the width of the central 68 %: mean and standard deviation where targets
        are not warped. Where they are, what is barely possible far out in the tail would make the
        mean useless, while quantiles pass through any monotone map.

        Args:
            X: Shape (m, d).

        Returns:
            Two (m,) arrays in the user's units, larger is better.
        """
        z, dz = self.marginals(X)
        lower, upper = self.transform.inverse(z - dz), self.transform.inverse(z + dz)
        return self.transform.inverse(z), 0.5 * upper - 0.5 * lower

    def marginals(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation at rows X (m, d), in model units, shape (m,) each."""
        with torch.no_grad(), threads_for(len(self.data.y)):
            mean, std = self.posterior.marginals(self.data.place(np.ascontiguousarray(X)))
        mean, std = torch.stack([mean, std]).cpu().numpy()
        return mean, std

    def mean_and_draws(
        self, count: int, generator: torch.Generator, features: int = 1024
    ) -> Callable[[np.ndarray], np.ndarray]:
        """The mean and `count` functions drawn from the belief, all evaluated at once.

        The mean is the path without a draw from the prior: so it costs O(n) a row, where
        `marginals`, which tell the variance too, take O(n²).

        Args:
            count: How many functions; 0 for the mean alone.
            generator: Of the draws.
            features: Random features of each.

        Returns:
            Maps rows X (m, d) to values in model units, shape (1 + count, m), the mean first.
        """
        posterior = self.posterior
        paths = posterior.sample_paths(max(1, count), generator, features=features)
        alpha = posterior.solve((posterior.y - paths.mean).unsqueeze(-1))  # (n, 1)
        nothing = torch.zeros_like(paths.w[:, :1])
        w = torch.cat([nothing, paths.w[:, :count]], 1)
        every = replace(paths, w=w, v=torch.cat([alpha, paths.v[:, :count]], 1))

        def values(X: np.ndarray) -> np.ndarray:
            with torch.no_grad(), threads_for(len(self.data.y)):
                return every(self.data.place(np.ascontiguousarray(X))).cpu().numpy()

        return values

    def chance(self, x: np.ndarray, noise: float = 0.0) -> float:
        """Probability that a constraint holds at a row x (d,), as observed with this noise."""
        with torch.no_grad(), threads_for(len(self.data.y)):
            mean, std = self.posterior.marginals(self.data.place(x[None]))
        return float(torch.special.ndtr((mean - self.bound) / (std.square() + noise).sqrt()))

    def centres(self, count: int, kept: np.ndarray | None = None) -> np.ndarray:
        """The `count` complete trials that the model thinks best, best first, shape (k, d).

        Args:
            count: k, or fewer where there are not so many.
            kept: Which trials count, shape (n,); all, where none does.
        """
        mean = torch.from_numpy(self.fitted)
        if kept is not None and kept.any():
            mean = mean.masked_fill(torch.from_numpy(~kept), -torch.inf)
            count = min(count, int(kept.sum()))
        return self.data.X[mean.argsort(descending=True, stable=True)[:count].numpy()]


def believe(posterior: Posterior, transform: TargetTransform, data: Data) -> Belief:
    """Find the incumbent and put in the trials that have no value."""
    within = torch.from_numpy(data.within)
    if not len(data.y):
        incumbent = -math.inf
    else:
        values = posterior.y if data.exact else posterior.fitted()
        incumbent = float(values.cpu()[within].max())
    return with_fantasies(posterior, transform, incumbent, data)


def with_fantasies(
    posterior: Posterior, transform: TargetTransform, incumbent: float, data: Data
) -> Belief:
    """Add the posteriors that have failed, and pending, trials put in.

    Failed ones at the mean or the median of what was observed, whichever is worse: the
    hyperparameters never see them. Pending ones at the posterior mean.
    """
    settled = posterior
    if len(data.failed):
        X = data.place(data.failed)
        mean = settled.marginals(X)[0]
        if len(posterior.y):
            mean = mean.clamp_max(float(posterior.y.median()))
        settled = settled.append(X, mean)
    fantasised = settled
    if len(data.pending):
        X = data.place(data.pending)
        mean = settled.marginals(X)[0]
        fantasised = settled.append(X, mean)
        if len(posterior.y):
            incumbent = max(incumbent, float(mean.max()))
    return Belief(posterior, settled, fantasised, transform, incumbent, data)
