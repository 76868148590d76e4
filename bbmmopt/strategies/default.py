"""The default: a space-filling start, then the largest acquisition value anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbmmopt.explain import ACQUISITIONS
from bbmmopt.modelling import Belief, Beliefs, Data, Modellers, search_threads_for, threads_for
from bbmmopt.pareto import pareto_front_of
from bbmmopt.search import Domain, Found, Search, maximise
from bbmmopt.space import Space
from bbmmopt.strategies.base import Proposal, Request, generator
from bbmmopt.strategies.guide import Guide
from bbmmopt.strategies.rules import acquisition_for, choose, powers_of
from bbmmopt.strategies.start import SpaceFilling


@dataclass(frozen=True)
class Global:
    """Scrambled Sobol for `start` trials, then the maximum of an acquisition function.

    Attributes:
        space: The space.
        start: How many trials, told ones included, come before the model takes over.
        acquisition: "auto", or one of ACQUISITIONS.
        search: How hard to look for its maximum.
    """

    space: Space
    start: int
    acquisition: str = "auto"
    search: Search = field(default_factory=Search)

    def __post_init__(self) -> None:
        if self.acquisition not in ("auto", *ACQUISITIONS):
            raise ValueError(
                f"acquisition must be auto or one of {', '.join(ACQUISITIONS)}; "
                f"got {self.acquisition!r}."
            )

    @cached_property
    def modellers(self) -> Modellers:
        """Fit the models, and cache them."""
        return Modellers(self.space)

    def starting(self, data: Data) -> bool:
        """Whether the next trial still belongs to the space-filling start.

        Trials under way count, but the model waits for half of the start to have come back: with
        many workers there would be nothing to model.
        """
        told = len(data.y) + len(data.failed)
        return told + len(data.pending) < self.start or len(data.y) < max(2, self.start // 2)

    def propose(self, request: Request) -> Proposal:
        """The next point, by whichever phase it is.

        Raises:
            SpaceExhausted: If the space is finite and every allowed point was seen.
        """
        if self.starting(request.data):
            return start_of(self.space, request)
        beliefs = self.modellers.beliefs(request.known, request.budget.ends_fits)
        name, because = self.acquisition, "it was asked for"
        if name == "auto":
            name, because = choose(beliefs, request.guide)
        found = self.find(name, beliefs, request.alone())
        origin = {"phase": "model", "acquisition": name, "because": because}
        return Proposal(found.x, origin | told_of(beliefs, found, name, request.guide))

    def find(self, acquisition: str, beliefs: Beliefs, request: Request) -> Found:
        """The unseen point where an acquisition function is largest."""
        first = beliefs.first
        with threads_for(len(first.data.y)):
            scored = acquisition_for(acquisition, beliefs, request, self.space)
        with search_threads_for(len(first.data.y)):
            return maximise(
                scored,
                Domain(self.space, request.fixed, request.seen),
                generator=generator(request.seed, request.number, acquisition),
                scale=scale_of(beliefs),
                centres=_centres(beliefs, 5),
                search=self.search,
                budget=request.budget,
            )


def start_of(space: Space, request: Request) -> Proposal:
    """The next point of the start: every second one from the prior, where there is one.

    Raises:
        SpaceExhausted: If the space is finite and every allowed point was seen.
    """
    domain = Domain(space, request.fixed, request.seen)
    x = request.guide.start(domain, generator(request.seed, 0, "prior start"), request.number)
    if x is not None:
        return Proposal(x, {"phase": "space-filling", "point": "prior"})
    return SpaceFilling(space).propose(request)


def scale_of(beliefs: Beliefs) -> Tensor:
    """Length over which any of the outputs changes in each column, shape (d,)."""
    outputs = [*beliefs.objectives, *beliefs.constraints]
    return torch.stack([belief.lengthscales for belief in outputs]).amin(0)


def _centres(beliefs: Beliefs, count: int) -> np.ndarray:
    """Trials to look around: the best, or the front, of those that keep the constraints."""
    kept = beliefs.keep_constraints()
    if len(beliefs.objectives) == 1:
        return beliefs.first.centres(count, kept)
    Y = np.stack([belief.fitted for belief in beliefs.objectives], 1)
    if kept.any():
        Y[~kept] = np.nan
    front = np.flatnonzero(pareto_front_of(Y))
    # Evenly along the first objective.
    order = front[np.argsort(Y[front, 0], kind="stable")]
    some = np.unique(np.linspace(0, len(order) - 1, min(len(order), 2 * count)).round().astype(int))
    return beliefs.first.data.X[order[some]]


def told_of(beliefs: Beliefs, found: Found, acquisition: str, guide: Guide) -> dict[str, Any]:
    """What the origin of a trial tells of the models, in JSON types.

    Args:
        beliefs: About all outputs.
        found: The trial's point.
        acquisition: The name of what is largest there.
        guide: What else guided the search.
    """
    first = beliefs.first
    predicted = [_predicted(belief, found) for belief in beliefs.objectives]
    told = {
        "acquisition_value": found.value,
        "candidates_scored": found.evaluations,
        "predicted": predicted[0],
        "model": _model(first),
    }
    if len(predicted) > 1:
        told["predicted_others"] = predicted[1:]
    if beliefs.constraints:
        told["constraints_hold"] = [belief.chance(found.x) for belief in beliefs.constraints]
    if beliefs.success is not None:
        told["success"] = beliefs.success.chance(found.x, beliefs.success.label_noise)
    if beliefs.cost is not None and len(beliefs.cost.data.y):
        log_seconds, _ = beliefs.cost.predict(found.x[None])
        told["seconds"] = float(np.exp(log_seconds[0]))
    if beliefs.cut_short:
        told["fit_cut_short"] = True
    if powers := powers_of(acquisition, beliefs, guide):
        told["powers"] = powers
    return told


def _predicted(belief: Belief, found: Found) -> dict[str, float]:
    value, uncertainty = belief.predict(found.x[None])
    return {"value": float(value[0]), "uncertainty": float(uncertainty[0])}


def _model(belief: Belief) -> dict[str, Any]:
    posterior, report = belief.posterior, belief.report
    told = {
        "trials": len(belief.data.y),
        "pending": len(belief.data.pending),
        "failed": len(belief.data.failed),
        "targets": type(belief.transform).__name__,
        "priors": posterior.model.priors.name,
        "lengthscales": [round(float(v), 6) for v in belief.lengthscales],
        "noise_variance": belief.noise,
        "log_marginal_likelihood": report.log_marginal_likelihood if report else None,
        "fit_evaluations": report.evaluations if report else 0,
        "jitter": posterior.info.jitter,
    }
    if belief.data.stopped:
        told["stopped"] = belief.data.stopped
    if belief.noise_varies:
        at_trials = belief.noise_at(posterior.X)
        told["noise_variance_range"] = torch.stack([at_trials.min(), at_trials.max()]).tolist()
    if belief.device.type != "cpu":
        told["device"] = str(belief.device)
    if belief.warps_inputs:
        told["inputs"] = "Warped"
    if belief.members:
        told["members"] = len(belief.members)
    if belief.contradicted:
        told["note"] = "declared exact, but a point was told two values: noise is learnt"
    return told
