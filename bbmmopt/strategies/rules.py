"""Which acquisition function, and how it is built from what is believed.

What "auto" does:

    parameters that vary in use              robust: log expected improvement of what f is worth
                                             under perturbation
    two or three objectives                  log_ehvi: log expected hypervolume improvement
    more objectives                          scalarised: log expected improvement along a direction
                                             that is drawn for each trial
    constraints, and nothing keeps them yet  feasibility: log probability that a point does
    noise that matters, or trials running    noisy_log_ei: log expected improvement on a best value
                                             that is drawn, not known
    otherwise                                log_ei: on the best value told

Constraints multiply an improvement by the probability that they hold, and trials that failed by
the probability of success. A prior multiplies it by a power of its density that fades, and the cost
of trials divides it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bbmmopt.acquisition import (
    Acquisition,
    ConditionalValueAtRisk,
    ConstrainedLogExpectedImprovement,
    ExpectedUnderPerturbation,
    Feasible,
    IntegratedVariance,
    JointEntropySearch,
    KnowledgeGradient,
    LikelyFeasible,
    Log,
    LogExpectedHypervolumeImprovement,
    LogExpectedImprovement,
    LogMean,
    LogProbabilityOfFeasibility,
    LogProbabilityOfImprovement,
    LogScalarisedImprovement,
    LowerBoundMaxValueEntropySearch,
    NoiseVariance,
    NoisyLogExpectedImprovement,
    PerCost,
    PosteriorMean,
    PosteriorVariance,
    PriorGuided,
    UpperConfidenceBound,
    best_feasible,
    random_directions,
    sample_maxima,
    scalarise,
)
from bbmmopt.explain import ACQUISITIONS
from bbmmopt.modelling import Belief, Beliefs
from bbmmopt.pareto import boxes_of_each, infer_reference_point
from bbmmopt.search import Domain, Region
from bbmmopt.search.starts import sobol
from bbmmopt.space import Space
from bbmmopt.strategies.base import Request, generator
from bbmmopt.strategies.fantasies import DRAWN_TO, imagine, is_noisy
from bbmmopt.strategies.guide import Guide
from bbmmopt.strategies.thompson import thompson

_BOXES_TO = 3  # objectives, beyond which volumes have too many boxes

_SEVERAL = ("log_ehvi", "scalarised")  # suit several objectives, and no single one
_UNCONSTRAINED = (
    "log_pi",
    "ucb",
    "thompson",
    "max_value_entropy",
    "joint_entropy",
    "knowledge_gradient",
    "variance",
    "integrated_variance",
    "robust",
)
# Averaged over what the parameters may be, where data are few. More would take too long.
_AVERAGED = ("log_ei", "noisy_log_ei", "log_pi", "feasibility")
_NOT_IN_LOGS = ("ucb", "mean", "thompson")  # to which nothing can be multiplied

_OVER = 512  # points that stand for the whole space
_MAXIMA = 32  # sampled functions whose maxima are looked for
_OPTIMA = 16  # the same, where only some optima are needed
_FEATURES = 1024  # random features of each
_RISKS = 32  # sampled functions whose risk is measured
_RISK_FEATURES = 512
_BEST_OF = 100  # trials, of which one is the best under risk
# Variance of noise, in model units, that an observation has at least: an exact one at a sampled
# optimum would say everything.
_LEAST_NOISE = 1e-4


def choose(beliefs: Beliefs, guide: Guide | None = None) -> tuple[str, str]:
    """The name of the acquisition function that suits, and why, in words after "because"."""
    first = beliefs.first
    if guide is not None and guide.perturbation is not None:
        return "robust", "parameters will vary in use"
    if len(beliefs.objectives) > _BOXES_TO:
        return "scalarised", "there are many objectives"
    if len(beliefs.objectives) > 1:
        return "log_ehvi", "there are several objectives"
    if beliefs.constraints and not keeps_constraints(beliefs).any():
        return "feasibility", "no trial has kept all constraints yet"
    if len(first.data.y) > DRAWN_TO:
        return "log_ei", "so many trials leave little doubt about the best value"
    if len(first.data.pending):
        return "noisy_log_ei", "trials are running"
    if is_noisy(first):
        return "noisy_log_ei", "the values are noisy"
    return "log_ei", "the values are exact, or nearly so"


def keeps_constraints(beliefs: Beliefs) -> np.ndarray:
    """Which complete trials keep all constraints, as observed, shape (n,)."""
    kept = np.ones(len(beliefs.first.data.y), dtype=bool)
    for belief in beliefs.constraints:
        assert belief.data.bound is not None
        kept &= belief.data.y >= belief.data.bound
    return kept


def acquisition_for(name: str, beliefs: Beliefs, request: Request, space: Space) -> Acquisition:
    """The acquisition function of this name for a request."""
    return make_acquisition(
        name,
        beliefs,
        seed=request.seed,
        reference=request.reference,
        number=request.number,
        space=space,
        guide=request.guide,
    )


def make_acquisition(
    name: str,
    beliefs: Beliefs,
    *,
    seed: int = 0,
    reference: np.ndarray | None = None,
    number: int = 0,
    space: Space | None = None,
    guide: Guide | None = None,
) -> Acquisition:
    """The acquisition function of this name, with what is running and what failed put in.

    Args:
        name: One of ACQUISITIONS; "auto" is `choose`'s.
        beliefs: About all outputs.
        seed: The study's seed: of the draws.
        reference: Of several objectives, see `Request`.
        number: Of the trial: of what is drawn for each.
        space: Where maxima may be; the whole unit cube if left out.
        guide: What else the user knows or wants.

    Raises:
        ValueError: If there is none of that name, or it does not suit the problem.
    """
    guide = guide or Guide()
    if name == "auto":
        name, _ = choose(beliefs, guide)
    _check(name, beliefs, guide)
    if name in _AVERAGED and (members := beliefs.members):
        alone = partial(
            make_acquisition,
            name,
            seed=seed,
            reference=reference,
            number=number,
            space=space,
            guide=guide,
        )
        keys = [tuple(map(id, (*one.objectives, *one.constraints))) for one in members]
        distinct = {key: alone(one) for key, one in zip(keys, members, strict=True)}
        return LogMean([distinct[key] for key in keys])
    acquisition = _by_name(name, beliefs, seed, reference, number, space, guide)
    if name in _NOT_IN_LOGS:
        return acquisition
    if beliefs.success is not None:
        acquisition = Feasible(
            acquisition, *_constraint([beliefs.success]), beliefs.success.label_noise
        )
    powers, cost = powers_of(name, beliefs, guide), beliefs.cost
    if "cost" in powers and cost is not None:
        # From model units, which are standardised, to nats.
        scale = float(np.subtract(*cost.transform.inverse(np.array([1.0, 0.0]))))
        acquisition = PerCost(acquisition, cost.posterior, powers["cost"] * scale)
    if "prior" in powers and guide.prior is not None:
        acquisition = PriorGuided(acquisition, guide.prior, powers["prior"])
    return acquisition


def powers_of(name: str, beliefs: Beliefs, guide: Guide) -> dict[str, float]:
    """The powers with which the prior multiplies an acquisition and the cost divides it.

    {"prior": α, "cost": α}; one that has no say is left out.
    """
    if name in _NOT_IN_LOGS:
        return {}
    data, powers = beliefs.first.data, {}
    told = len(data.y) + len(data.failed)
    if guide.prior is not None:
        powers["prior"] = guide.prior_exponent(told)
    if beliefs.cost is not None and len(beliefs.cost.data.y):
        powers["cost"] = guide.cost_exponent(told)
    return powers


def _by_name(
    name: str,
    beliefs: Beliefs,
    seed: int,
    reference: np.ndarray | None,
    number: int,
    space: Space | None,
    guide: Guide,
) -> Acquisition:
    """The acquisition function itself, of which constraints are a part."""
    first = beliefs.first
    told = len(first.data.y)
    match name:
        case "scalarised":
            directions = generator(seed, number, "direction")
            point = reference_in_model_units(beliefs, reference, space, seed)
            return _scalarised(beliefs, seed, point, directions)
        case "robust":
            return _robust(first, seed, guide)
        case "max_value_entropy":
            draws = generator(seed, told, "maxima")
            _, maxima = _maxima(first, draws, _MAXIMA, space)
            search = LowerBoundMaxValueEntropySearch(first.fantasised, maxima, _noise(first))
            return Log(search)
        case "joint_entropy":
            optima, maxima = _maxima(first, generator(seed, told, "maxima"), _MAXIMA, space)
            noise = _noise(first, _LEAST_NOISE)
            return JointEntropySearch(first.fantasised, optima, maxima, noise)
        case "knowledge_gradient":
            optima, _ = _maxima(first, generator(seed, told, "maxima"), _OPTIMA, space)
            points = torch.cat([torch.from_numpy(first.centres(_OPTIMA)), optima])
            return KnowledgeGradient(first.fantasised, points, _noise(first))
        case "variance":
            return PosteriorVariance(first.fantasised)
        case "integrated_variance":
            points = _over(space, first, generator(seed, told, "points"))
            return IntegratedVariance(first.fantasised, points, _noise(first))
        case "log_ehvi":
            return _hypervolume(
                beliefs, seed, reference_in_model_units(beliefs, reference, space, seed)
            )
        case "feasibility":
            return _feasibility(beliefs)
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
                return LikelyFeasible(acquisition, _feasibility(beliefs))
            return acquisition


def _check(name: str, beliefs: Beliefs, guide: Guide) -> None:
    if name not in ACQUISITIONS:
        raise ValueError(f"no acquisition {name!r}; there are {', '.join(ACQUISITIONS)}.")
    k = len(beliefs.objectives)
    suited = name in _SEVERAL if k > 1 else name not in _SEVERAL
    if not (suited or name == "feasibility") or (name == "log_ehvi" and k > _BOXES_TO):
        suits = "scalarised" if k > _BOXES_TO else "log_ehvi" if k > 1 else "log_ei"
        raise ValueError(
            f"acquisition {name!r} does not suit {len(beliefs.objectives)} objective(s); "
            f'take {suits!r}, or "auto".'
        )
    if beliefs.constraints and name in _UNCONSTRAINED:
        raise ValueError(f'acquisition {name!r} knows no constraints; take "log_ei", or "auto".')
    if name == "feasibility" and not beliefs.constraints:
        raise ValueError('acquisition "feasibility" needs constraints; there are none.')
    varies = guide.perturbation is not None
    if name != "mean" and varies != (name == "robust"):
        raise ValueError(
            f'acquisition {name!r} does not know that parameters will vary; take "robust", or '
            f'"auto".'
            if varies
            else 'acquisition "robust" needs a perturbation; there is none.'
        )


def _constraint(beliefs: list[Belief] | tuple[Belief, ...]) -> tuple[list, Tensor]:
    """Posteriors with what is running and what failed put in, and their bounds."""
    bounds = torch.tensor([belief.bound for belief in beliefs], dtype=torch.float64)
    return [belief.fantasised for belief in beliefs], bounds


def _feasibility(beliefs: Beliefs) -> LogProbabilityOfFeasibility:
    return LogProbabilityOfFeasibility(*_constraint(beliefs.constraints))


def _constrained(beliefs: Beliefs, seed: int) -> Acquisition:
    drawn = imagine(beliefs, seed)
    bounds = torch.tensor([belief.bound for belief in beliefs.constraints], dtype=torch.float64)
    # Where no trial keeps the constraints in a draw, whatever does is an improvement.
    worst = float(beliefs.first.posterior.y.min())
    best = best_feasible(drawn.objectives[0], drawn.constraints, bounds, worst)
    return ConstrainedLogExpectedImprovement(drawn.beliefs, bounds, best)


def _hypervolume(beliefs: Beliefs, seed: int, reference: np.ndarray) -> Acquisition:
    drawn = imagine(beliefs, seed)
    Y = drawn.objectives.permute(1, 2, 0).numpy().copy()  # (S, b, k)
    for c, belief in zip(drawn.constraints, beliefs.constraints, strict=True):
        Y[(c < belief.bound).numpy()] = np.nan  # which no front has
    lower, upper = (torch.from_numpy(corner) for corner in boxes_of_each(Y, reference))
    k = len(beliefs.objectives)
    acquisition = LogExpectedHypervolumeImprovement(drawn.beliefs[:k], lower, upper)
    if beliefs.constraints:
        return Feasible(acquisition, *_constraint(beliefs.constraints))
    return acquisition


def _scalarised(
    beliefs: Beliefs, seed: int, reference: np.ndarray, directions: torch.Generator
) -> Acquisition:
    drawn, point = imagine(beliefs, seed), torch.from_numpy(reference)
    k = len(beliefs.objectives)
    (weights,) = random_directions(k, 1, directions)
    s = scalarise(drawn.objectives.movedim(0, -1), point, weights)  # (S, b)
    bounds = torch.tensor([belief.bound for belief in beliefs.constraints], dtype=torch.float64)
    # As for a single objective: where no trial keeps the constraints, whatever does is better.
    best = best_feasible(s, drawn.constraints, bounds, s.amin(1))
    acquisition = LogScalarisedImprovement(drawn.beliefs[:k], point, weights, best)
    if beliefs.constraints:
        return Feasible(acquisition, *_constraint(beliefs.constraints))
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
    with torch.no_grad():
        return max(float(belief.posterior.noise_variances().mean()), least)


def _over(space: Space | None, belief: Belief, draws: torch.Generator) -> Tensor:
    """Points all over the space, shape (m, d)."""
    d = belief.data.X.shape[1]
    if space is not None and space.constraints:
        return torch.from_numpy(Region(Domain(space)).sample(_OVER, draws))
    X = sobol(_OVER, d, draws)
    return torch.from_numpy(X if space is None else space.snap(X))


def _maxima(
    belief: Belief, draws: torch.Generator, count: int, space: Space | None
) -> tuple[Tensor, Tensor]:
    """Where `count` functions drawn from the belief are largest, and how large."""
    posterior = belief.fantasised
    candidates = torch.cat([_over(space, belief, draws), torch.from_numpy(belief.centres(_OPTIMA))])
    # Those told from outside the space are no candidates.
    candidates = candidates[((candidates >= 0) & (candidates <= 1)).all(1)]
    paths = posterior.sample_paths(count, draws, features=_FEATURES)
    if space is None:
        return sample_maxima(paths, candidates)
    if space.constraints:
        return sample_maxima(paths, candidates, steps=0)
    parameters = space.parameters.values()
    free = torch.tensor([p.kind == "continuous" and not p.when for p in parameters])
    return sample_maxima(paths, candidates, free=free)


# --------------------------------------------------------------------------------------
# Parameters that vary in use
# --------------------------------------------------------------------------------------


def expected_risk(belief: Belief, seed: int, guide: Guide) -> Acquisition:
    """What the varied parameters are expected to give, in model units."""
    deltas = guide.deltas(generator(seed, 0, "perturbations"))
    if guide.level == 1:
        return PosteriorMean(ExpectedUnderPerturbation(belief.posterior, deltas))
    draws = generator(seed, len(belief.data.y), "paths of risk")
    paths = belief.posterior.sample_paths(_RISKS, draws, features=_RISK_FEATURES)
    return ConditionalValueAtRisk(paths, deltas, guide.level)


def predict_risk(belief: Belief, x: np.ndarray, seed: int, guide: Guide) -> tuple[float, float]:
    """What the varied parameters of a row x (d,) are expected to give, and how uncertain that is.

    As `Belief.predict`, for which see the units.
    """
    acquisition, X = expected_risk(belief, seed, guide), torch.from_numpy(x[None])
    with torch.no_grad():
        if isinstance(acquisition, ConditionalValueAtRisk):
            risks = acquisition.risks(X)[:, 0].numpy()
            z, dz = risks.mean(), risks.std()
        else:
            assert isinstance(acquisition, PosteriorMean)
            z, dz = (part.numpy()[0] for part in acquisition.posterior.marginals(X))
    lower, value, upper = belief.transform.inverse(np.array([z - dz, z, z + dz]))
    return float(value), float(0.5 * upper - 0.5 * lower)


def _robust(belief: Belief, seed: int, guide: Guide) -> Acquisition:
    """Improvement on the best of the trials under perturbation, those that are running included."""
    posterior = belief.fantasised
    deltas = guide.deltas(generator(seed, 0, "perturbations"))
    likely = posterior.fitted().argsort(descending=True, stable=True)[:_BEST_OF]
    tried = posterior.X[likely]
    if guide.level == 1:
        expected = ExpectedUnderPerturbation(posterior, deltas)
        with torch.no_grad():
            return LogExpectedImprovement(expected, float(expected.marginals(tried)[0].max()))
    draws = generator(seed, len(belief.data.y), "paths of risk")
    paths = posterior.sample_paths(_RISKS, draws, features=_RISK_FEATURES)
    risk = ConditionalValueAtRisk(paths, deltas, guide.level)
    with torch.no_grad():
        best = risk.risks(tried).amax(1)
    return replace(risk, best=best)


def reference_in_model_units(
    beliefs: Beliefs, reference: np.ndarray | None, space: Space | None = None, seed: int = 0
) -> np.ndarray:
    """What counts as worthless in each objective, shape (k,): as given, or found.

    A little below the front of the trials and of what is expected all over the space, where that
    keeps the constraints: below the front of the trials alone, what lies beyond its ends would
    count as worthless, and never be tried.
    """
    if reference is not None:
        pairs = zip(beliefs.objectives, reference, strict=True)
        return np.array([b.transform.forward(np.array([r]))[0] for b, r in pairs])
    Y = np.stack([belief.posterior.y.numpy() for belief in beliefs.objectives], 1)
    kept = keeps_constraints(beliefs)
    Y = Y[kept] if kept.any() else Y
    X = _over(space, beliefs.first, generator(seed, len(kept), "reference"))
    with torch.no_grad():
        expected = torch.stack([b.settled.marginals(X)[0] for b in beliefs.objectives], 1)
        held = torch.ones(len(X), dtype=torch.bool)
        for b in beliefs.constraints:
            held &= b.settled.marginals(X)[0] >= b.bound
    return infer_reference_point(np.concatenate([Y, expected[held].numpy()]))
