"""Which acquisition function, and how it is built from what is believed.

What "auto" does:

    several objectives                       log_ehvi: log expected hypervolume improvement
    constraints, and nothing keeps them yet  feasibility: log probability that a point does
    noise that matters, or trials running    noisy_log_ei: log expected improvement on a best value
                                             that is drawn, not known
    otherwise                                log_ei: on the best value told

Constraints multiply an improvement by the probability that they hold, and trials that failed by
the probability of success.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bbmmopt.acquisition import (
    Acquisition,
    ConstrainedLogExpectedImprovement,
    Feasible,
    LikelyFeasible,
    LogExpectedHypervolumeImprovement,
    LogExpectedImprovement,
    LogProbabilityOfFeasibility,
    LogProbabilityOfImprovement,
    NoisyLogExpectedImprovement,
    PosteriorMean,
    UpperConfidenceBound,
    best_feasible,
)
from bbmmopt.explain import ACQUISITIONS
from bbmmopt.modelling import Belief, Beliefs
from bbmmopt.pareto import boxes_of_each, infer_reference_point
from bbmmopt.strategies.fantasies import imagine, is_noisy

# Beyond this n a draw at told trials takes longer than it is worth: noise averages out.
_NOISY_TO = 2000


def choose(beliefs: Beliefs) -> tuple[str, str]:
    """The name of the acquisition function that suits, and why, in words after "because"."""
    first = beliefs.first
    if len(beliefs.objectives) > 1:
        return "log_ehvi", "there are several objectives"
    if beliefs.constraints and not keeps_constraints(beliefs).any():
        return "feasibility", "no trial has kept all constraints yet"
    if len(first.data.y) > _NOISY_TO:
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


def make_acquisition(
    name: str, beliefs: Beliefs, *, seed: int = 0, reference: np.ndarray | None = None
) -> Acquisition:
    """The acquisition function of this name, with what is running and what failed put in.

    Args:
        name: One of ACQUISITIONS; "auto" is `choose`'s.
        beliefs: About all outputs.
        seed: The study's seed: of the draws.
        reference: Of several objectives, see `Request`.

    Raises:
        ValueError: If there is none of that name, or it does not suit the problem.
    """
    if name == "auto":
        name, _ = choose(beliefs)
    _check(name, beliefs)
    first = beliefs.first
    match name:
        case "log_ehvi":
            acquisition = _hypervolume(beliefs, seed, reference)
        case "feasibility":
            acquisition = _feasibility(beliefs)
        case "log_ei" | "noisy_log_ei" if beliefs.constraints:
            acquisition = _constrained(beliefs, seed)
        case "noisy_log_ei":
            drawn = imagine(beliefs, seed)
            best = drawn.objectives[0].amax(1)
            acquisition = NoisyLogExpectedImprovement(drawn.beliefs, best)
        case "log_ei":
            acquisition = LogExpectedImprovement(first.fantasised, first.incumbent)
        case "log_pi":
            # One percent of a standard deviation above the incumbent, or it would creep.
            acquisition = LogProbabilityOfImprovement(first.fantasised, first.incumbent + 0.01)
        case "ucb":
            return UpperConfidenceBound(first.fantasised)
        case _:
            acquisition = PosteriorMean(first.posterior)
            if beliefs.constraints:
                return LikelyFeasible(acquisition, _feasibility(beliefs))
            return acquisition
    if beliefs.success is not None:
        acquisition = Feasible(
            acquisition, *_constraint([beliefs.success]), beliefs.success.label_noise
        )
    return acquisition


def _check(name: str, beliefs: Beliefs) -> None:
    if name not in ACQUISITIONS:
        raise ValueError(f"no acquisition {name!r}; there are {', '.join(ACQUISITIONS)}.")
    several = len(beliefs.objectives) > 1
    if several != (name == "log_ehvi") and name != "feasibility":
        suits = "log_ehvi" if several else "log_ei"
        raise ValueError(
            f"acquisition {name!r} does not suit {len(beliefs.objectives)} objective(s); "
            f'take {suits!r}, or "auto".'
        )
    if beliefs.constraints and name in ("log_pi", "ucb"):
        raise ValueError(f'acquisition {name!r} knows no constraints; take "log_ei", or "auto".')
    if name == "feasibility" and not beliefs.constraints:
        raise ValueError('acquisition "feasibility" needs constraints; there are none.')


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


def _hypervolume(beliefs: Beliefs, seed: int, reference: np.ndarray | None) -> Acquisition:
    drawn = imagine(beliefs, seed)
    point = reference_in_model_units(beliefs, reference)
    Y = drawn.objectives.permute(1, 2, 0).numpy().copy()  # (S, b, k)
    for c, belief in zip(drawn.constraints, beliefs.constraints, strict=True):
        Y[(c < belief.bound).numpy()] = np.nan  # which no front has
    lower, upper = (torch.from_numpy(corner) for corner in boxes_of_each(Y, point))
    k = len(beliefs.objectives)
    acquisition = LogExpectedHypervolumeImprovement(drawn.beliefs[:k], lower, upper)
    if beliefs.constraints:
        return Feasible(acquisition, *_constraint(beliefs.constraints))
    return acquisition


def reference_in_model_units(beliefs: Beliefs, reference: np.ndarray | None) -> np.ndarray:
    """What counts as worthless in each objective: as given, or found from the trials, (k,)."""
    if reference is not None:
        pairs = zip(beliefs.objectives, reference, strict=True)
        return np.array([b.transform.forward(np.array([r]))[0] for b, r in pairs])
    Y = np.stack([belief.posterior.y.numpy() for belief in beliefs.objectives], 1)
    kept = keeps_constraints(beliefs)
    return infer_reference_point(Y[kept] if kept.any() else Y)
