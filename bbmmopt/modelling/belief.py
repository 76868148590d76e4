"""What a model believes of one output after some trials."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bbmmopt.modelling.data import Data, threads_for
from bbmmopt.transforms import TargetTransform
from surrogate import FitReport, Matern52, Posterior


@dataclass(frozen=True)
class Belief:
    """What the model believes of one objective.

    Attributes:
        posterior: Given the complete trials, over the unit cube, in model units: standardised,
            larger is better.
        fantasised: The same, with pending and failed trials put in at what was expected of them:
            uncertainty is gone there, so nobody goes there again.
        transform: From the user's units (larger better) to model units.
        incumbent: What the next trial should beat, in model units. The best of the complete trials,
            as observed when the objective is exact, else by the posterior mean, which noise does
            not flatter; or what is expected of a pending trial, if that is more: or the next one
            would go right beside it. -inf without data.
        data: What it was built from.
    """

    posterior: Posterior
    fantasised: Posterior
    transform: TargetTransform
    incumbent: float
    data: Data

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
        with torch.no_grad(), threads_for(len(self.data.y)):
            mean, std = self.posterior.marginals(torch.from_numpy(np.ascontiguousarray(X)))
        z, dz = mean.numpy(), std.numpy()
        lower, upper = self.transform.inverse(z - dz), self.transform.inverse(z + dz)
        return self.transform.inverse(z), 0.5 * upper - 0.5 * lower

    def centres(self, count: int) -> np.ndarray:
        """The `count` complete trials that the model thinks best, best first, shape (k, d)."""
        mean = self.posterior.fitted()
        return self.data.X[mean.argsort(descending=True, stable=True)[:count].numpy()]


def believe(posterior: Posterior, transform: TargetTransform, data: Data) -> Belief:
    """Find the incumbent and put in the trials that have no value."""
    if not len(data.y):
        incumbent = -math.inf
    elif data.exact:
        incumbent = float(posterior.y.max())
    else:
        incumbent = float(posterior.fitted().max())
    return with_fantasies(posterior, transform, incumbent, data)


def with_fantasies(
    posterior: Posterior, transform: TargetTransform, incumbent: float, data: Data
) -> Belief:
    """Add the posterior that has pending and failed trials put in.

    Pending ones at the posterior mean. Failed ones at the mean or the median of what was observed,
    whichever is worse: the hyperparameters never see them.
    """
    fantasised = posterior
    if len(data.pending):
        X = torch.from_numpy(data.pending)
        mean = fantasised.marginals(X)[0]
        fantasised = fantasised.append(X, mean)
        if len(posterior.y):
            incumbent = max(incumbent, float(mean.max()))
    if len(data.failed):
        X = torch.from_numpy(data.failed)
        mean = fantasised.marginals(X)[0]
        if len(posterior.y):
            mean = mean.clamp_max(float(posterior.y.median()))
        fantasised = fantasised.append(X, mean)
    return Belief(posterior, fantasised, transform, incumbent, data)
