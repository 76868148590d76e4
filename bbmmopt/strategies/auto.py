"""Which strategy: what "auto" does, and the one object that an `Optimizer` asks.

What "auto" does:

    d ≥ 20, one objective,                   trust_region: a box around the best trial
    1000 trials planned or done
    otherwise                                global: one model, searched everywhere

By `benchmarks/high_dimension.py`, in 20 dimensions: after 200 trials the better of the two differs
from problem to problem and from seed to seed; after 1000, in batches of 50, the box was three times
as near to the minimum of Ackley's function and half as near to Levy's, in less than half the time.
With two constraints on outcomes, of Eriksson & Poloczek (2021), Ackley's function came as low by
the one as by the other after 400 trials, in batches of 20; after 1000, in batches of 50, to 0.051
and 0.063 in the box and to 0.073 and 0.131 everywhere (two seeds), in half the time.
"sparse" wins here and loses there, and has to be asked for; so have "portfolio" and "ensemble",
which take longer and lose more often than they win.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from bbmmopt.explain import STRATEGIES
from bbmmopt.modelling import EnsembleModeller, Modellers, SparseModeller
from bbmmopt.space import Space
from bbmmopt.strategies.base import Proposal, Request
from bbmmopt.strategies.default import Global
from bbmmopt.strategies.portfolio import MEMBERS, Portfolio
from bbmmopt.strategies.trust_region import TrustRegion

MANY_COLUMNS, MANY_TRIALS = 20, 1000


def choose_strategy(
    space: Space,
    budget: int | None,
    n: int,
    *,
    objectives: int = 1,
    noise: str = "unknown",
    guided: bool = False,
) -> tuple[str, str]:
    """The name of the strategy that suits, and why, in words after "because".

    Args:
        space: The space.
        budget: How many trials are planned; None where nobody said.
        n: How many there are.
        objectives: How many.
        noise: What the first objective was declared to have.
        guided: Whether a prior, the cost of trials or their perturbation counts: see `Guide`.
    """
    d = sum(column.kind != "fixed" for column in space.columns)
    if d < MANY_COLUMNS:
        number = "one parameter is" if d == 1 else f"{d} parameters are"
        return "global", f"{number} few enough to search everywhere"
    if objectives > 1:
        return "global", "trust regions are for one objective"
    if guided:
        return "global", "trust regions know nothing of priors, costs and perturbations"
    if noise == "noisy":
        return "global", "under noise a trust region would follow luck"
    if max(budget or 0, n) < MANY_TRIALS:
        return "global", "so few trials leave much of the space to be found"
    return (
        "trust_region",
        f"there are {d} parameters, and trials enough to work through boxes of them",
    )


@dataclass(frozen=True)
class Chosen(TrustRegion, Portfolio):
    """The strategy that was asked for, or the one that suits.

    Attributes:
        space, start, acquisition, search: As in `Global` and `TrustRegion`.
        strategy: One of STRATEGIES.
        budget: How many trials are planned, if known.
        noise: What the first objective was declared to have.
        batches: "greedy", or "joint" where they are improved as a whole: see `propose_together`.
    """

    strategy: str = "auto"
    budget: int | None = None
    noise: str = "unknown"
    batches: str = "greedy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strategy not in STRATEGIES:
            raise ValueError(
                f"strategy must be one of {', '.join(STRATEGIES)}; got {self.strategy!r}."
            )

    @cached_property
    def modellers(self) -> Modellers:
        """Fit the models, and cache them."""
        if self.strategy == "sparse":
            return Modellers(self.space, SparseModeller)
        if self.strategy == "ensemble":
            return Modellers(self.space, EnsembleModeller)
        return super().modellers

    @property
    def least_evaluations(self) -> int:
        """How many candidates it scores at least for one trial."""
        return len(MEMBERS) if self.strategy == "portfolio" else 1

    def propose(self, request: Request) -> Proposal:
        """The next point of whichever it is, and in its origin which, and why.

        Raises:
            SpaceExhausted: If the space is finite and every allowed point was seen.
        """
        name, because = self.strategy, "it was asked for"
        if name == "auto" and self.batches == "joint":
            name, because = "global", "joint batches are looked for everywhere"
        elif name == "auto" and (request.cost is not None or not request.guide.is_plain):
            name, because = "global", "trust regions know nothing of priors, costs and variation"
        elif name == "auto":
            name, because = choose_strategy(
                self.space,
                self.budget,
                len(request.data.y),
                objectives=1 + len(request.others),
                noise=self.noise,
                guided=request.cost is not None or request.guide.guides,
            )
        by = {"trust_region": TrustRegion, "portfolio": Portfolio}.get(name, Global).propose
        budget = request.budget.part(1)  # to know what ends this search
        proposal = by(self, replace(request, budget=budget))
        origin = proposal.origin | {"strategy": {"name": name, "because": because}}
        if budget.ended:
            origin["ended_by"] = sorted(budget.ended)
        return replace(proposal, origin=origin)
