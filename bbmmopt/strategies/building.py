"""How each acquisition function is built from what is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bbmmopt.acquisition import (
    Acquisition,
    ConstrainedLogExpectedImprovement,
    Feasible,
    IntegratedVariance,
    JointEntropySearch,
    KnowledgeGradient,
    LikelyFeasible,
    Log,
    LogExpectedHypervolumeImprovement,
    LogExpectedImprovement,
    LogProbabilityOfFeasibility,
    LogProbabilityOfImprovement,
    LogScalarisedImprovement,
    LowerBoundMaxValueEntropySearch,
    NoiseVariance,
    NoisyLogExpectedImprovement,
    PosteriorMean,
    PosteriorVariance,
    UpperConfidenceBound,
    best_feasible,
    random_directions,
    sample_maxima,
    scalarise,
)
from bbmmopt.modelling import Belief, Beliefs
from bbmmopt.pareto import boxes_of_each, infer_reference_point
from bbmmopt.search import Domain, Region
from bbmmopt.search.starts import sobol
from bbmmopt.space import Space
from bbmmopt.strategies.base import generator
from bbmmopt.strategies.fantasies import imagine
from bbmmopt.strategies.guide import Guide
from bbmmopt.strategies.risk import expected_risk, improvement_at_risk
from bbmmopt.strategies.thompson import thompson

_OVER = 512  # points that stand for the whole space
_MAXIMA = 32  # sampled functions whose maxima are looked for
_OPTIMA = 16  # the same, where only some optima are needed
_FEATURES = 1024  # random features of each
# Variance of noise, in model units, that an observation has at least: an exact one at a sampled
# optimum would say everything.
_LEAST_NOISE = 1e-4


def build(
    name: str,
    beliefs: Beliefs,
    seed: int,
    reference: np.ndarray | None,
    number: int,
    space: Space | None,
    guide: Guide,
) -> Acquisition:
    """The acquisition function of a name itself, of which constraints are a part.

    What it is multiplied by, and what it is averaged over, is `make_acquisition`'s; so are the
    arguments.
    """
    first = beliefs.first
    told = len(first.data.y)
    match name:
        case "scalarised":
            directions = generator(seed, number, "direction")
            point = reference_in_model_units(beliefs, reference, space, seed, guide.held)
            return _scalarised(beliefs, seed, point, directions)
        case "robust":
            return improvement_at_risk(first, seed, guide)
        case "max_value_entropy":
            draws = generator(seed, told, "maxima")
            _, maxima = _maxima(first, draws, _MAXIMA, space, guide.held)
            search = LowerBoundMaxValueEntropySearch(first.fantasised, maxima, _noise(first))
            return Log(search)
        case "joint_entropy":
            optima, maxima = _maxima(
                first, generator(seed, told, "maxima"), _MAXIMA, space, guide.held
            )
            noise = _noise(first, _LEAST_NOISE)
            return JointEntropySearch(first.fantasised, optima, maxima, noise)
        case "knowledge_gradient":
            optima, _ = _maxima(first, generator(seed, told, "maxima"), _OPTIMA, space, guide.held)
            points = torch.cat([first.data.place(first.centres(_OPTIMA)), optima])
            return KnowledgeGradient(first.fantasised, points, _noise(first))
        case "variance":
            return PosteriorVariance(first.fantasised)
        case "integrated_variance":
            points = _over(space, first, generator(seed, told, "points"), guide.held)
            return IntegratedVariance(first.fantasised, points, _noise(first))
        case "log_ehvi":
            return _hypervolume(
                beliefs, seed, reference_in_model_units(beliefs, reference, space, seed, guide.held)
            )
        case "feasibility":
            return feasibility(beliefs)
        case "log_ei" | "noisy_log_ei" if beliefs.constraints:
            return _constrained(beliefs, seed)
        case "noisy_log_ei":
            drawn = imagine(beliefs, seed)
            best = drawn.objectives[0].amax(1)
            return NoisyLogExpectedImprovement(drawn.beliefs, best)
        case "log_ei":
            return LogExpectedImprovement(first.fantasised, first.incumbent)
        case "log_pi":
            # One percent of a standard deviation above the incumbent, or it would creep.
            return LogProbabilityOfImprovement(first.fantasised, first.incumbent + 0.01)
        case "ucb":
            return UpperConfidenceBound(first.fantasised)
        case "thompson":
            return thompson(first, seed)
        case _:
            if guide.perturbation is not None:
                return expected_risk(first, seed, guide)
            acquisition = PosteriorMean(first.posterior)
            if beliefs.constraints:
                return LikelyFeasible(acquisition, feasibility(beliefs))
            return acquisition


def constraint_of(beliefs: list[Belief] | tuple[Belief, ...]) -> tuple[list, Tensor]:
    """Posteriors with what is running and what failed put in, and their bounds."""
    return [belief.fantasised for belief in beliefs], _bounds(beliefs, beliefs[0].device)


def _bounds(beliefs: Sequence[Belief], device: torch.device) -> Tensor:
    """What each output must reach, shape (C,)."""
    bounds = [belief.bound for belief in beliefs]
    return torch.tensor(bounds, dtype=torch.float64, device=device)


def feasibility(beliefs: Beliefs) -> LogProbabilityOfFeasibility:
    """Log probability that all constraints hold."""
    return LogProbabilityOfFeasibility(*constraint_of(beliefs.constraints))


def _constrained(beliefs: Beliefs, seed: int) -> Acquisition:
    drawn = imagine(beliefs, seed)
    bounds = _bounds(beliefs.constraints, beliefs.first.device)
    # Where no trial keeps the constraints in a draw, whatever does is an improvement.
    worst = float(beliefs.first.posterior.y.min())
    best = best_feasible(drawn.objectives[0], drawn.constraints, bounds, worst)
    return ConstrainedLogExpectedImprovement(drawn.beliefs, bounds, best)


def _hypervolume(beliefs: Beliefs, seed: int, reference: np.ndarray) -> Acquisition:
    drawn = imagine(beliefs, seed)
    Y = drawn.objectives.permute(1, 2, 0).cpu().numpy().copy()  # (S, b, k)
    for c, belief in zip(drawn.constraints, beliefs.constraints, strict=True):
        Y[(c < belief.bound).cpu().numpy()] = np.nan  # which no front has
    lower, upper = map(beliefs.first.data.place, boxes_of_each(Y, reference))
    k = len(beliefs.objectives)
    acquisition = LogExpectedHypervolumeImprovement(drawn.beliefs[:k], lower, upper)
    if beliefs.constraints:
        return Feasible(acquisition, *constraint_of(beliefs.constraints))
    return acquisition


def _scalarised(
    beliefs: Beliefs, seed: int, reference: np.ndarray, directions: torch.Generator
) -> Acquisition:
    drawn, point = imagine(beliefs, seed), beliefs.first.data.place(reference)
    k = len(beliefs.objectives)
    (weights,) = random_directions(k, 1, directions).to(point.device)
    s = scalarise(drawn.objectives.movedim(0, -1), point, weights)  # (S, b)
    bounds = _bounds(beliefs.constraints, point.device)
    # As for a single objective: where no trial keeps the constraints, whatever does is better.
    best = best_feasible(s, drawn.constraints, bounds, s.amin(1))
    acquisition = LogScalarisedImprovement(drawn.beliefs[:k], point, weights, best)
    if beliefs.constraints:
        return Feasible(acquisition, *constraint_of(beliefs.constraints))
    return acquisition


# --------------------------------------------------------------------------------------
# Information, and what is known everywhere
# --------------------------------------------------------------------------------------


def _noise(belief: Belief, least: float = 0.0) -> NoiseVariance:
    """Variance of the noise of the next observation, in model units, and at least so much.

    Where it depends on the parameters, a function of them; else the mean of what was given or
    learnt.
    """
    if belief.noise_varies:
        return lambda X: belief.noise_at(X).clamp_min(least)
    return max(belief.mean_noise, least)


def _over(
    space: Space | None, belief: Belief, draws: torch.Generator, held: Mapping[int, float]
) -> Tensor:
    """Points all over the space, some columns held, shape (m, d)."""
    d = belief.data.X.shape[1]
    if space is not None and space.constraints:
        return belief.data.place(Region(Domain(space, held)).sample(_OVER, draws))
    X = sobol(_OVER, d, draws)
    return belief.data.place(X if space is None else Domain(space, held).place(X))


def _maxima(
    belief: Belief,
    draws: torch.Generator,
    count: int,
    space: Space | None,
    held: Mapping[int, float],
) -> tuple[Tensor, Tensor]:
    """Where `count` functions drawn from the belief are largest, and how large."""
    posterior = belief.fantasised
    over, centres = _over(space, belief, draws, held), belief.centres(_OPTIMA)
    # Those told from outside the space are no candidates.
    centres = centres[((centres >= 0) & (centres <= 1)).all(1)]
    if space is not None and held:
        centres = Domain(space, held).place(centres)
    candidates = torch.cat([over, belief.data.place(centres)])
    paths = posterior.sample_paths(count, draws, features=_FEATURES)
    if space is None:
        return sample_maxima(paths, candidates)
    if space.constraints:
        return sample_maxima(paths, candidates, steps=0)
    parameters = enumerate(space.parameters.values())
    free = torch.tensor(
        [p.kind == "continuous" and not p.when and j not in held for j, p in parameters]
    )
    return sample_maxima(paths, candidates, free=free)


def reference_in_model_units(
    beliefs: Beliefs,
    reference: np.ndarray | None,
    space: Space | None,
    seed: int,
    held: Mapping[int, float],
) -> np.ndarray:
    """What counts as worthless in each objective, shape (k,): as given, or found.

    A little below the front of the trials and of what is expected all over the space, where that
    keeps the constraints: below the front of the trials alone, what lies beyond its ends would
    count as worthless, and never be tried.
    """
    if reference is not None:
        pairs = zip(beliefs.objectives, reference, strict=True)
        return np.array([b.transform.forward(np.array([r]))[0] for b, r in pairs])
    Y = np.stack([belief.posterior.y.cpu().numpy() for belief in beliefs.objectives], 1)
    kept = beliefs.keep_constraints()
    Y = Y[kept] if kept.any() else Y
    X = _over(space, beliefs.first, generator(seed, len(kept), "reference"), held)
    with torch.no_grad():
        expected = torch.stack([b.settled.marginals(X)[0] for b in beliefs.objectives], 1)
        allowed = torch.ones(len(X), dtype=torch.bool, device=X.device)
        for b in beliefs.constraints:
            allowed &= b.settled.marginals(X)[0] >= b.bound
    return infer_reference_point(np.concatenate([Y, expected.cpu()[allowed.cpu()].numpy()]))
