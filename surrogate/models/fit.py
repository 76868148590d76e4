"""Fit a model: maximise the log marginal likelihood plus the log density of the priors."""

from __future__ import annotations

import math
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from surrogate.checks import as_matrix, as_noise, as_targets
from surrogate.models.descent import Minimum, minimise
from surrogate.models.exact import ExactGP, log_marginal_likelihood_and_gradient
from surrogate.solvers.cholesky import NotPositiveDefinite
from surrogate.threads import one_thread
from surrogate.workspace import Workspace

# Above this n one evaluation keeps several cores busy; below, threads only wait for each other.
_THREADS_PAY_FROM = 1000

_LENGTHSCALE_FACTORS = (1.0, 1 / 4, 1 / 16)
_FAR = 30.0  # times the units that priors for scaled data expect: a mistake, not an outlier


@dataclass(frozen=True)
class FitReport:
    """How a fit went.

    Attributes:
        value: Log marginal likelihood plus log prior density at the parameters found, in nats.
        log_marginal_likelihood: The first part alone, in nats.
        gradient_norm: Largest slope left, in nats per unit of a log-parameter; parameters held by
            a bound are left out.
        inverse_hessian: Estimated inverse Hessian over the free parameters but the mean, (p, p):
            about their posterior covariance, and what a later warm start begins with. None if not
            a step was taken.
        n: Observations fitted to.
        evaluations: Likelihood evaluations, over all starts.
        starts: How many starting points were tried.
        seconds: Wall time.
        jitter: Largest amount added to a diagonal on the way; 0 when nothing was needed.
        converged: Whether the optimiser of the winning start stopped by itself.
        message: What it said.
    """

    value: float
    log_marginal_likelihood: float
    gradient_norm: float
    inverse_hessian: np.ndarray | None = field(repr=False)
    n: int
    evaluations: int
    starts: int
    seconds: float
    jitter: float
    converged: bool
    message: str


def fit(
    model: ExactGP,
    X: Tensor,
    y: Tensor,
    *,
    noise: Tensor | None = None,
    restart: bool = True,
    max_evaluations: int = 200,
    tolerance: float = 1e-4,
) -> ExactGP:
    """Return a copy of the model at the parameters of largest posterior density.

    Quasi-Newton on log-parameters from where the model stands, and from where the priors start:
    with their lengthscales, a fourth or a sixteenth of them, whichever is the likeliest (data that
    wiggle look like noise to a model that begins with long ones). The better result is kept; where
    both starts are the same, there is one. Passing the last fitted model is a warm start: its
    parameters and curvature are used. Parameters with `requires_grad` off stay.

    Args:
        model: What to fit; left as it is.
        X: Shape (n, d). For n < 2 there is nothing to learn and a copy comes back.
        y: Shape (n,).
        noise: Variance of each observation, shape (n,), NaN where σ² is to be learnt.
        restart: Whether to guard against a bad basin by the second start.
        max_evaluations: Per start.
        tolerance: Stop when another step is predicted to gain less than this many nats.

    Raises:
        ValueError: If shapes do not match, values are not finite, or no parameter is free.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(
            "all parameters of the model are frozen, as those of posterior.model are; pass the "
            "model that was conditioned, or call model.requires_grad_(True) on a copy."
        )
    X = as_matrix("X", X, model.dims)
    y, noise = as_targets("y", y, len(X)), as_noise(noise, len(X))
    _warn_of_scales(model, X, y)
    began = time.perf_counter()
    last = model.report
    curvature = last.inverse_hessian if last else None
    model = model.clone()
    if len(X) < 2:
        model.report = FitReport(
            0.0, 0.0, 0.0, None, len(X), 0, 0, 0.0, 0.0, True, "fewer than two observations"
        )
        return model
    objective = _Objective(model, X, y, noise)
    if curvature is not None and len(curvature) != len(objective.low):
        curvature = None  # other parameters were free then
    if last is not None and curvature is not None and last.n < len(X):
        curvature = curvature * (last.n / len(X))  # more data bend the likelihood more
    with nullcontext() if len(X) >= _THREADS_PAY_FROM else one_thread():
        starts = objective.starts() if restart else [objective.position()]
        best, log_likelihood = objective.minimise(starts, curvature, max_evaluations, tolerance)
    x, g = best.x, best.gradient
    held = ((x <= objective.low) & (g > 0)) | ((x >= objective.high) & (g < 0))
    model.report = FitReport(
        value=-best.value,
        log_marginal_likelihood=log_likelihood,
        gradient_norm=float(np.abs(np.where(held, 0.0, g)).max(initial=0.0)),
        inverse_hessian=best.inverse_hessian,
        n=len(X),
        evaluations=objective.evaluations,
        starts=len(starts),
        seconds=time.perf_counter() - began,
        jitter=objective.jitter,
        converged=best.converged,
        message=best.message,
    )
    return model


class UnscaledData(UserWarning):
    """Data are far from the units that the priors of the model were made for."""


def _warn_of_scales(model: ExactGP, X: Tensor, y: Tensor) -> None:
    if not model.priors.unit_scales or len(X) < 2:
        return
    width, centre, spread = float(X.abs().max()), float(y.mean().abs()), float(y.std())
    if width > _FAR or centre > _FAR * max(spread, 1.0) or spread > _FAR:
        warnings.warn(
            f"the priors {model.priors.name!r} expect inputs in the unit cube and targets of mean "
            f"0 and standard deviation 1; got inputs up to {width:.3g} and targets of mean "
            f"{centre:.3g} and standard deviation {spread:.3g}. Scale the data, or pass "
            f'priors="flat-1" to ExactGP.',
            UnscaledData,
            stacklevel=3,
        )


class _Objective:
    """-(log likelihood + log prior) as a function of the free entries of one flat vector.

    The flat vector is [log kernel parameters …, log σ², m]. m is never among the free entries: it
    is either frozen or, at every evaluation, the most likely one.
    """

    def __init__(self, model: ExactGP, X: Tensor, y: Tensor, noise: Tensor) -> None:
        self._model, self._data = model, (X, y, noise)
        parameters = [*model.kernel.parameters(), model.log_noise, model.constant]
        self._flat = _flatten(parameters)
        self._priors = model.log_priors()
        self._workspace = Workspace()
        self._free = np.concatenate([np.full(p.numel(), p.requires_grad) for p in parameters])
        self._best_mean, self._free[-1] = bool(self._free[-1]), False
        self.low = self._priors.low[self._free[:-1]]
        self.high = self._priors.high[self._free[:-1]]
        start = self._priors.start
        self._prior_start = np.where(np.isnan(start), self._flat[:-1], start)[self._free[:-1]]
        self._lengthscales = np.array(model.is_lengthscale())[self._free[:-1]]
        self.evaluations, self.jitter = 0, 0.0

    def position(self) -> np.ndarray:
        """Where the model stands, moved inside the bounds."""
        return np.clip(self._flat[self._free], self.low, self.high)

    def starts(self) -> list[np.ndarray]:
        """Where the model stands, and the likeliest of the starts the priors offer."""
        here = self.position()
        offered = []
        for factor in _LENGTHSCALE_FACTORS:
            start = self._prior_start + math.log(factor) * self._lengthscales
            offered.append(np.clip(start, self.low, self.high))
        best = min(offered, key=lambda start: self(start)[0])
        differs = np.abs(here - best).max(initial=0.0) > 1e-3
        return [here, best] if differs else [best]

    def _write(self, free: np.ndarray) -> None:
        """Move the model to these values of its free parameters."""
        self._flat[self._free] = free

    def __call__(self, free: np.ndarray) -> tuple[float, np.ndarray]:
        self.evaluations += 1
        self._write(free)
        try:
            value, gradients, jitter = log_marginal_likelihood_and_gradient(
                self._model, *self._data, self._workspace, best_mean=self._best_mean
            )
        except NotPositiveDefinite:
            # Far out in the box; the line search backs away.
            return math.inf, np.zeros(len(free))
        self.jitter = max(self.jitter, jitter)
        prior, prior_gradient = self._priors.log_density(self._flat[:-1])
        gradient = torch.cat([g.reshape(-1) for g in gradients]).numpy()
        gradient[:-1] += prior_gradient
        return -(value + prior), -gradient[self._free]

    def minimise(
        self,
        starts: list[np.ndarray],
        curvature: np.ndarray | None,
        max_evaluations: int,
        tolerance: float,
    ) -> tuple[Minimum, float]:
        """The best of the descents, at which the model is left, and its log likelihood."""
        runs = [
            minimise(
                self,
                x,
                self.low,
                self.high,
                inverse_hessian=curvature if i == 0 else None,
                tolerance=tolerance,
                max_evaluations=max_evaluations,
            )
            for i, x in enumerate(starts)
        ]
        best = min(runs, key=lambda run: run.value)
        if not np.array_equal(self._flat[self._free], best.x):
            self(best.x)  # for its mean
        prior, _ = self._priors.log_density(self._flat[:-1])
        return best, -best.value - prior


def _flatten(parameters: list[nn.Parameter]) -> np.ndarray:
    """One vector that the parameters are views of: what is written into it, they have."""
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    offset = 0
    for p in parameters:
        p.data = flat[offset : offset + p.numel()].view(p.shape)
        offset += p.numel()
    return flat.numpy()
