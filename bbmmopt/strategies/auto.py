"""Which strategy: what "auto" does, and the one object that an `Optimizer` asks.

What "auto" does:

    d ≥ 20, one objective, no constraints,   trust_region: a box around the best trial
    1000 trials planned or done
    otherwise                                global: one model, searched everywhere

By `benchmarks/high_dimension.py`, in 20 dimensions: after 200 trials the better of the two differs
from problem to problem and from seed to seed; after 1000, in batches of 50, the box was three times
as near to the minimum of Ackley's function and half as near to Levy's, in less than half the time.
"sparse" wins here and loses there, and has to be asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from bbmmopt.explain import STRATEGIES
from bbmmopt.modelling import Modellers, SparseModeller
from bbmmopt.space import Space
from bbmmopt.strategies.base import Proposal, Request
from bbmmopt.strategies.default import Global
from bbmmopt.strategies.trust_region import TrustRegion

MANY_COLUMNS, MANY_TRIALS = 20, 1000


def choose_strategy(
    space: Space,
    budget: int | None,
    n: int,
    *,
    objectives: int = 1,
    constraints: int = 0,
    noise: str = "unknown",
    guided: bool = False,
) -> tuple[str, str]:
    """The name of the strategy that suits, and why, in words after "because".

    Args:
        space: The space.
        budget: How many trials are planned; None where nobody said.
        n: How many there are.
        objectives, constraints: How many, outcomes being constrained.
        noise: What the first objective was declared to have.
        guided: Whether a prior, the cost of trials or their perturbation counts: see `Guide`.
    """
    d = sum(column.kind != "fixed" for column in space.columns)
    if d < MANY_COLUMNS:
        return "global", f"{d} parameters are few enough to search everywhere"
    if objectives > 1 or constraints:
        return "global", "trust regions are for one objective without constraints"
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
class Chosen(TrustRegion):
    """The strategy that was asked for, or the one that suits.

    Attributes:
        space, start, acquisition, search: As in `Global` and `TrustRegion`.
        strategy: One of STRATEGIES.
        budget: How many trials are planned, if known.
        noise: What the first objective was declared to have.
    """

    strategy: str = "auto"
    budget: int | None = None
    noise: str = "unknown"

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
        return super().modellers

    def propose(self, request: Request) -> Proposal:
        """The next point of whichever it is, and in its origin which, and why.

        Raises:
            SpaceExhausted: If the space is finite and every allowed point was seen.
        """
        name, because = self.strategy, "it was asked for"
        if name == "auto" and (request.cost is not None or not request.guide.is_plain):
            name, because = "global", "trust regions know nothing of priors, costs and variation"
        elif name == "auto":
            name, because = choose_strategy(
                self.space,
                self.budget,
                len(request.data.y),
                objectives=1 + len(request.others),
                constraints=len(request.constraints),
                noise=self.noise,
                guided=request.cost is not None or request.guide.guides,
            )
        by = TrustRegion.propose if name == "trust_region" else Global.propose
        proposal = by(self, request)
        origin = proposal.origin | {"strategy": {"name": name, "because": because}}
        return replace(proposal, origin=origin)
