"""The default: a space-filling start, then the largest acquisition value anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bbmmopt.acquisition import (
    Acquisition,
    LogExpectedImprovement,
    LogProbabilityOfImprovement,
    PosteriorMean,
    UpperConfidenceBound,
)
from bbmmopt.explain import ACQUISITIONS
from bbmmopt.modelling import Belief, Data, Modeller, search_threads_for
from bbmmopt.search import Domain, Found, Search, maximise
from bbmmopt.space import Space
from bbmmopt.strategies.base import Proposal, Request, generator
from bbmmopt.strategies.start import SpaceFilling


def make_acquisition(name: str, belief: Belief) -> Acquisition:
    """The acquisition function of this name on a belief, pending trials put in.

    Raises:
        ValueError: If there is none of that name.
    """
    match name:
        case "log_ei":
            return LogExpectedImprovement(belief.fantasised, belief.incumbent)
        case "log_pi":
            # One percent of a standard deviation above the incumbent, or it would creep.
            return LogProbabilityOfImprovement(belief.fantasised, belief.incumbent + 0.01)
        case "ucb":
            return UpperConfidenceBound(belief.fantasised)
        case "mean":
            return PosteriorMean(belief.posterior)
    raise ValueError(f"no acquisition {name!r}; there are {', '.join(ACQUISITIONS)}.")


@dataclass(frozen=True)
class Global:
    """Scrambled Sobol for `start` trials, then the maximum of an acquisition function.

    Attributes:
        space: The space.
        start: How many trials, told ones included, come before the model takes over.
        acquisition: One of ACQUISITIONS.
        search: How hard to look for its maximum.
    """

    space: Space
    start: int
    acquisition: str = "log_ei"
    search: Search = field(default_factory=Search)

    def __post_init__(self) -> None:
        if self.acquisition not in ACQUISITIONS:
            raise ValueError(
                f"acquisition must be one of {', '.join(ACQUISITIONS)}; got {self.acquisition!r}."
            )

    @cached_property
    def modeller(self) -> Modeller:
        """Fits the models, and caches them."""
        return Modeller(self.space)

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
            return SpaceFilling(self.space).propose(request)
        belief = self.modeller.belief(request.data)
        found = self.find(self.acquisition, belief, request)
        return Proposal(found.x, self._origin(belief, found, exact=request.data.exact))

    def find(self, acquisition: str, belief: Belief, request: Request) -> Found:
        """The unseen point where an acquisition function is largest."""
        with search_threads_for(len(belief.data.y)):
            return maximise(
                make_acquisition(acquisition, belief),
                Domain(self.space, request.fixed, request.seen),
                generator=generator(request.seed, request.number, acquisition),
                scale=belief.lengthscales,
                centres=belief.centres(5),
                search=self.search,
            )

    def _origin(self, belief: Belief, found: Found, *, exact: bool) -> dict[str, Any]:
        value, uncertainty = belief.predict(found.x[None])
        posterior, report = belief.posterior, belief.report
        note = {}
        if exact and not belief.data.exact:
            note = {"note": "declared exact, but a point was told two values: noise is learnt"}
        return note | {
            "phase": "model",
            "acquisition": self.acquisition,
            "acquisition_value": found.value,
            "candidates_scored": found.evaluations,
            "predicted": {"value": float(value[0]), "uncertainty": float(uncertainty[0])},
            "model": {
                "trials": len(belief.data.y),
                "pending": len(belief.data.pending),
                "failed": len(belief.data.failed),
                "targets": type(belief.transform).__name__,
                "priors": posterior.model.priors.name,
                "lengthscales": [round(float(v), 6) for v in belief.lengthscales],
                "noise_variance": float(posterior.model.noise.detach()),
                "log_marginal_likelihood": report.log_marginal_likelihood if report else None,
                "fit_evaluations": report.evaluations if report else 0,
                "jitter": posterior.info.jitter,
            },
        }
