"""Draws of a model's parameters from their posterior, where one maximum says too little of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from surrogate.models.exact import ExactGP
from surrogate.models.objective import ExactObjective, Parameters
from surrogate.solvers.cholesky import Cholesky
from surrogate.threads import one_thread

_APART = 1e-2  # log-parameters between gradients whose difference is a row of the curvature
_WIDEST = 2.0  # standard deviation of a log-parameter of which data and priors say nothing
_NEAR = 1e-3  # of a bound, within which a parameter is taken to be held by it

# Leapfrog steps that make a quarter of a circle: of a normal density, which curvature makes a round
# one, its end does not depend on its start.
_STEPS = 4

AModel = TypeVar("AModel", bound=ExactGP)


@dataclass(frozen=True)
class ParameterDraws(Generic[AModel]):
    """Models of equal weight that stand for the posterior of the parameters.

    Attributes:
        models: As many as were asked for; a chain that never moved is where the density is largest.
        accepted: Share of the moves that were. Far below 1, the posterior is far from normal, and
            few moves explore little of it.
        evaluations: Of the likelihood with its gradient.
    """

    models: tuple[AModel, ...]
    accepted: float
    evaluations: int


def draw_parameters(
    model: AModel,
    X: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator,
    noise: Tensor | None = None,
    count: int = 8,
    moves: int = 2,
) -> ParameterDraws[AModel]:
    """Draw parameters θ from p(θ | y) ∝ p(y | θ) p(θ), by Hamiltonian Monte Carlo.

    Each draw is the end of a chain of its own, of `moves` moves from the parameters of the model. A
    move follows a quarter of a circle in coordinates in which the log posterior has curvature 1
    there, in four leapfrog steps, and is accepted by Metropolis' rule: were the posterior normal
    and the steps exact, one move would be an independent draw. What a bound holds stays.

    θ are the logarithms of the free parameters (real ones as they are), and p(θ) is what `fit`
    maximises, so that draws lie around what it finds. Under a log-normal prior of x that is
    log x ~ N(location - scale², scale²), the normal around the logarithm of its mode: wide priors
    that are made for that mode would otherwise put most draws far above it. The constant mean is
    the most likely one for each θ.

    It takes p + 1 gradients for the curvature of p parameters and 4 for each move, all by Cholesky
    factors: it is meant for few data, which leave parameters open.

    Source: Neal (2011), MCMC using Hamiltonian dynamics, https://arxiv.org/abs/1206.1901.

    Args:
        model: Fitted to these data; left as it is.
        X: Shape (n, d).
        y: Shape (n,).
        generator: Of the draws.
        noise: Variance of each observation, shape (n,), NaN where it is to be learnt.
        count: How many models to return.
        moves: Of each chain.

    Raises:
        ValueError: If shapes do not match, values are not finite, counts are not positive, or no
            parameter is free.
    """
    if count < 1 or moves < 1:
        raise ValueError(f"count and moves must be at least 1; got count={count}, moves={moves}.")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("all parameters of the model are frozen: there is nothing to draw.")
    X, y, noise = model.as_data(X, y, noise)
    scratch = model.clone()
    objective = ExactObjective(Parameters(scratch), X, y, noise, Cholesky())
    models, accepted = [], 0
    with one_thread():
        mode = objective.parameters.position()
        root = _root_of_inverse(*_curvature(objective, mode))
        chart = _Chart(objective, mode, root)
        start = chart.at(np.zeros(root.shape[1]))
        for _ in range(count):
            place = start
            for _ in range(moves):
                place, moved = _move(chart, place, generator)
                accepted += moved
            objective(mode + root @ place.z)
            models.append(scratch.clone())
    return ParameterDraws(tuple(models), accepted / (count * moves), objective.evaluations)


def _curvature(objective: ExactObjective, mode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hessian of the negative log posterior, (k, k), and the k indices that no bound holds."""
    low, high = objective.parameters.low, objective.parameters.high
    held = (mode < low + _NEAR) | (mode > high - _NEAR)
    free = np.flatnonzero(~held)
    _, here = objective(mode)
    H = np.zeros((len(free), len(free)))
    for i, j in enumerate(free):
        there = mode.copy()
        # Towards the middle of its range.
        there[j] += _APART if 2 * mode[j] < low[j] + high[j] else -_APART
        H[i] = (objective(there)[1] - here)[free] / (there[j] - mode[j])
    return 0.5 * (H + H.T), held


def _root_of_inverse(H: np.ndarray, held: np.ndarray) -> np.ndarray:
    """R (p, k) with R Rᵀ = H⁻¹ where nothing is held, variances limited, and 0 elsewhere."""
    values, vectors = np.linalg.eigh(H)
    root = np.zeros((len(held), len(H)))
    root[~held] = vectors / np.sqrt(np.maximum(values, 1 / _WIDEST**2))
    return root


@dataclass(frozen=True)
class _Place:
    """Where a chain is: coordinates, potential energy and its gradient."""

    z: np.ndarray
    energy: float
    slope: np.ndarray


@dataclass(frozen=True)
class _Chart:
    """Log-parameters as mode + R z."""

    objective: ExactObjective
    mode: np.ndarray
    root: np.ndarray

    def at(self, z: np.ndarray) -> _Place:
        u = self.mode + self.root @ z
        parameters = self.objective.parameters
        if ((u < parameters.low) | (u > parameters.high)).any():
            return _Place(z, math.inf, np.zeros(len(z)))
        energy, gradient = self.objective(u)
        return _Place(z, energy, self.root.T @ gradient)


def _move(chart: _Chart, start: _Place, generator: torch.Generator) -> tuple[_Place, bool]:
    """Where one move leads, and whether it was accepted."""
    momentum = torch.randn(len(start.z), generator=generator, dtype=torch.float64).numpy()
    chance = float(torch.rand((), generator=generator, dtype=torch.float64))
    step, place, p = 0.5 * math.pi / _STEPS, start, momentum
    for _ in range(_STEPS):
        p = p - 0.5 * step * place.slope
        place = chart.at(place.z + step * p)
        if math.isinf(place.energy):
            return start, False
        p = p - 0.5 * step * place.slope
    lost = start.energy - place.energy + 0.5 * float(momentum @ momentum - p @ p)
    accepted = math.log(max(chance, 1e-300)) < lost
    return (place, True) if accepted else (start, False)
