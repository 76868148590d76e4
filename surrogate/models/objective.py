"""What a fit maximises, as functions of one flat vector of log-parameters."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from surrogate.models.covariance import helped, kept_as, kernel_operator
from surrogate.models.exact import ExactGP
from surrogate.operators.base import CovarianceOperator, Storage
from surrogate.operators.basic import Diagonal
from surrogate.solvers.bbmm import BBMM
from surrogate.solvers.cholesky import Cholesky, NotPositiveDefinite
from surrogate.solvers.inv_quad_logdet import Estimate, InvQuadLogdet, Probes, inv_quad_logdet
from surrogate.solvers.pivots import Structure
from surrogate.solvers.preconditioners import Preconditioner
from surrogate.transfers import to_host
from surrogate.workspace import Workspace

_LENGTHSCALE_FACTORS = (1.0, 1 / 4, 1 / 16)

# A preconditioner serves until a parameter has changed by this factor, its pivots and clusters
# until one has changed by the second: probes and guesses stay good as long as P does.
_SAME_P = math.log(1.5)
_SAME_STRUCTURE = math.log(2.5)


class Parameters:
    """A model's parameters as one flat vector [kernel …, noise …, m], and its priors.

    m is never among the free entries: it is either frozen or, at every evaluation, the most
    likely one.

    Args:
        model: Whose parameters become views of the flat vector.

    Attributes:
        low, high: Bounds of the free entries, shape (p,).
        best_mean: Whether m is free.
        points: How many of the last free entries are coordinates of points.
        columns: How many of these each point has.
        dense: How many free entries come before them.
    """

    def __init__(self, model: ExactGP) -> None:
        self.model = model
        parameters = [*model.searched_parameters(), model.constant]
        self._flat = _flatten(parameters)
        self._priors = model.log_priors()
        self._free = np.concatenate([np.full(p.numel(), p.requires_grad) for p in parameters])
        self.best_mean, self._free[-1] = bool(self._free[-1]), False
        self.low = self._priors.low[self._free[:-1]]
        self.high = self._priors.high[self._free[:-1]]
        start = self._priors.start
        self._prior_start = np.where(np.isnan(start), self._flat[:-1], start)[self._free[:-1]]
        rows, self.columns = model.points_shape
        self.points = rows * self.columns
        self.dense = len(self.low) - self.points
        self._lengthscales = np.array(model.is_lengthscale())[self._free[:-1]]

    def position(self) -> np.ndarray:
        """Where the model stands, moved inside the bounds."""
        return np.clip(self._flat[self._free], self.low, self.high)

    def offered(self) -> list[np.ndarray]:
        """Where the priors would start: with their lengthscales, and with shorter ones."""
        return [
            np.clip(self._prior_start + math.log(factor) * self._lengthscales, self.low, self.high)
            for factor in _LENGTHSCALE_FACTORS
        ]

    def move(self, free: np.ndarray) -> None:
        """Move the model to these values of its free parameters."""
        self._flat[self._free] = free

    def at(self, free: np.ndarray) -> bool:
        """Whether the model stands there."""
        return np.array_equal(self._flat[self._free], free)

    def log_prior(self) -> float:
        """Log prior density where the model stands."""
        return self._priors.log_density(self._flat[:-1])[0]

    def add_prior(self, gradients: list[Tensor]) -> tuple[float, np.ndarray]:
        """Log prior density, and the gradient of posterior density in the free parameters.

        Args:
            gradients: Of log p(y) in `model.searched_parameters()` and m, on any device.
        """
        prior, prior_gradient = self._priors.log_density(self._flat[:-1])
        gradient = torch.cat([g.reshape(-1) for g in to_host(*gradients)]).numpy()
        gradient[:-1] += prior_gradient
        return prior, gradient[self._free]


class ExactObjective:
    """-(log likelihood + log prior) by a Cholesky factor, with its gradient."""

    def __init__(
        self, parameters: Parameters, X: Tensor, y: Tensor, noise: Tensor, solver: Cholesky
    ) -> None:
        self.parameters = parameters
        self.evaluator = parameters.model.evaluator(
            X, y, noise, solver, best_mean=parameters.best_mean
        )
        self.evaluations, self.jitter = 0, 0.0

    def __call__(self, free: np.ndarray) -> tuple[float, np.ndarray]:
        self.evaluations += 1
        self.parameters.move(free)
        try:
            value, gradients, jitter = self.evaluator()
        except NotPositiveDefinite:
            # Far out in the box; the line search backs away.
            return math.inf, np.zeros(len(free))
        self.jitter = max(self.jitter, jitter)
        prior, gradient = self.parameters.add_prior(gradients)
        return -(value + prior), -gradient


class ProductObjective:
    """The gradient of -(log likelihood + log prior), by products with K.

    With probes made of the same random numbers throughout, it is a smooth function of the
    parameters, and the same at each call. Each solve starts from the one before.

    Args:
        parameters: Of the model.
        X, y: Checked data, shapes (n, d) and (n,).
        noise: Variances with NaN where σ² is to be used, shape (n,).
        options: Tolerances, probes, storage.
    """

    def __init__(
        self, parameters: Parameters, X: Tensor, y: Tensor, noise: Tensor, options: BBMM
    ) -> None:
        self.parameters, self._options = parameters, options
        self._X, self._y, self._noise = X, y, noise
        self.storage: Storage | None = None
        self.arithmetic: str | None = None
        self._stored: Storage | None = None
        self._workspace = Workspace(X.device)
        self._structure: tuple[np.ndarray, Structure] | None = None
        self._probes: tuple[np.ndarray, Preconditioner, Probes] | None = None
        self._guess: Tensor | None = None
        self._known: tuple[np.ndarray, np.ndarray] | None = None  # where it was last asked
        self.evaluations, self.products = 0, 0

    def __call__(self, free: np.ndarray) -> np.ndarray:
        """Gradient at these values of the free parameters."""
        if self._known is not None and np.array_equal(self._known[0], free):
            return self._known[1]
        K, noise = self._covariance(free)
        return self._gradient(K, self._solve(K, noise, free))

    def with_value(self, free: np.ndarray) -> tuple[Estimate, np.ndarray]:
        """Log likelihood, and the gradient, from a solve that starts afresh and goes further."""
        K, noise = self._covariance(free)
        self._probes = None  # log|K̂| is told the better, the closer P is
        solved = self._solve(K, noise, free, afresh=True)
        estimate = solved.log_marginal_likelihood()
        estimate = replace(estimate, value=estimate.value.cpu())  # for a report
        gradient = self._gradient(K, solved)
        self._known = free.copy(), gradient
        return estimate, gradient

    def _covariance(self, free: np.ndarray) -> tuple[CovarianceOperator, Tensor]:
        self.evaluations += 1
        self.parameters.move(free)
        model = self.parameters.model
        with torch.no_grad():
            noise = helped(
                model.noise_variances(self._X, self._noise), model.kernel.diagonal(self._X)
            )
        kept = kept_as(model.kernel, self._X, noise, self._options)
        if kept.storage != self._stored:
            self._stored = kept.storage
            self._workspace = Workspace(self._X.device)  # the other one would stay
        K = kernel_operator(model.kernel, self._X, noise, self._options, self._workspace, kept)
        self.storage, self.arithmetic = K.storage, K.arithmetic
        return K, noise

    def _solve(
        self, K: CovarianceOperator, noise: Tensor, free: np.ndarray, *, afresh: bool = False
    ) -> InvQuadLogdet:
        preconditioner, probes = self._preconditioned(K, noise, free)
        solved = inv_quad_logdet(
            K + Diagonal(noise),
            preconditioner,
            probes,
            self._y,
            mean=None if self.parameters.best_mean else float(self.parameters.model.mean.detach()),
            guess=None if afresh else self._guess,
            tolerance=self._options.training_tolerance,
            max_steps=self._options.max_steps,
            lanczos=afresh,
        )
        self.parameters.model.constant.data.fill_(solved.mean)
        self._guess = solved.solved
        self.products += solved.info.products
        return solved

    def _gradient(self, K: CovarianceOperator, solved: InvQuadLogdet) -> np.ndarray:
        A, B = solved.bilinear
        by_variance = (A * B).sum(1) * self._noise.isnan()
        by_noise = self.parameters.model.noise_model.pullback(self._X, by_variance)
        gradients = [*K.pullback(A, B), *by_noise, solved.alpha.sum()]
        return -self.parameters.add_prior(gradients)[1]

    def _preconditioned(
        self, K: CovarianceOperator, noise: Tensor, free: np.ndarray
    ) -> tuple[Preconditioner, Probes]:
        """P and the probes drawn with it, those of earlier parameters while they serve."""
        if self._probes is None or _moved(self._probes[0], free) > _SAME_P:
            if self._structure is None or _moved(self._structure[0], free) > _SAME_STRUCTURE:
                self._structure = free.copy(), self._options.structure(K, noise)
            preconditioner = Preconditioner(K, noise, self._structure[1])
            self._probes = free.copy(), preconditioner, Probes.draw(preconditioner, self._options)
        return self._probes[1:]


def _moved(before: np.ndarray, now: np.ndarray) -> float:
    return float(np.abs(now - before).max(initial=0.0))


def _flatten(parameters: list[nn.Parameter]) -> np.ndarray:
    """One vector that the parameters are views of: what is written into it, they have."""
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    offset = 0
    for p in parameters:
        p.data = flat[offset : offset + p.numel()].view(p.shape)
        offset += p.numel()
    return flat.numpy()
