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

from functools import partial

import numpy as np

from bbmmopt.acquisition import (
    Acquisition,
    Feasible,
    LogMean,
    PerCost,
    PriorGuided,
    from_the_cpu,
)
from bbmmopt.explain import ACQUISITIONS
from bbmmopt.modelling import Beliefs
from bbmmopt.space import Space
from bbmmopt.space.checks import did_you_mean
from bbmmopt.strategies.base import Request
from bbmmopt.strategies.building import build, constraint_of
from bbmmopt.strategies.fantasies import DRAWN_TO, is_noisy
from bbmmopt.strategies.guide import Guide

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


def choose(beliefs: Beliefs, guide: Guide | None = None) -> tuple[str, str]:
    """The name of the acquisition function that suits, and why, in words after "because"."""
    first = beliefs.first
    if guide is not None and guide.perturbation is not None:
        return "robust", "parameters will vary in use"
    if len(beliefs.objectives) > _BOXES_TO:
        return "scalarised", "there are many objectives"
    if len(beliefs.objectives) > 1:
        return "log_ehvi", "there are several objectives"
    if beliefs.constraints and not beliefs.keep_constraints().any():
        return "feasibility", "no trial has kept all constraints yet"
    if len(first.data.y) > DRAWN_TO:
        return "log_ei", "so many trials leave little doubt about the best value"
    if len(first.data.pending):
        return "noisy_log_ei", "trials are running"
    if is_noisy(first):
        return "noisy_log_ei", "the values are noisy"
    return "log_ei", "the values are exact, or nearly so"


def acquisition_for(name: str, beliefs: Beliefs, request: Request, space: Space) -> Acquisition:
    """The acquisition function of this name for a request, of points on the CPU."""
    return from_the_cpu(made_for(name, beliefs, request, space), beliefs.first.device)


def made_for(name: str, beliefs: Beliefs, request: Request, space: Space) -> Acquisition:
    """The same, of points where the models are."""
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
        return LogMean([alone(one) for one in members])
    acquisition = build(name, beliefs, seed, reference, number, space, guide)
    if name in _NOT_IN_LOGS:
        return acquisition
    if beliefs.success is not None:
        acquisition = Feasible(
            acquisition, *constraint_of([beliefs.success]), beliefs.success.label_noise
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


def _check(name: str, beliefs: Beliefs, guide: Guide) -> None:
    if name not in ACQUISITIONS:
        hint = did_you_mean(name, list(ACQUISITIONS))
        raise ValueError(f"no acquisition {name!r}; there are {', '.join(ACQUISITIONS)}.{hint}")
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
