"""Which solver for how many observations: measured, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

from surrogate.solvers.bbmm import BBMM
from surrogate.solvers.cholesky import Cholesky


@dataclass(frozen=True)
class Choice:
    """A solver, and why it.

    Attributes:
        solver: Cholesky or BBMM, with its options.
        reason: In words.
        method: What is done instead where the data have a structure that allows it.
    """

    solver: Cholesky | BBMM
    reason: str
    method: str | None = None

    @property
    def name(self) -> str:
        """\"cholesky\", \"bbmm\", or the method."""
        return self.method or type(self.solver).__name__.lower()


@dataclass(frozen=True)
class Auto:
    """Cholesky while it is the cheaper, BBMM from there on.

    A fit evaluates the likelihood ten times and more, a posterior factors K̂ once and then answers
    each question in n² operations: so the two change over at different sizes. Measured on two
    threads, d = 6: at n = 500 both fits take the same time; at 1000 products take a tenth to two
    thirds, for an optimum up to 0.4 nats lower. For predictions a factor is the quicker at all
    sizes where it fits: it takes 16 n² bytes while it is made, 4 GB at the size chosen here.

    Attributes:
        fit_from: Observations from which a fit works by products.
        predict_from: The same for what a posterior keeps.
        cholesky: Below.
        bbmm: From there on.
    """

    fit_from: int = 1000
    predict_from: int = 16_000
    cholesky: Cholesky = field(default_factory=Cholesky)
    bbmm: BBMM = field(default_factory=BBMM)

    def for_fit(self, n: int) -> Choice:
        """The solver that fits n observations."""
        return self._choose(n, self.fit_from)

    def for_prediction(self, n: int) -> Choice:
        """The solver behind a posterior of n observations."""
        return self._choose(n, self.predict_from)

    def _choose(self, n: int, limit: int) -> Choice:
        pay = f"the {limit} from which products pay"
        if n < limit:
            return Choice(self.cholesky, f"{n} observations, below {pay}")
        return Choice(self.bbmm, f"{n} observations, at or above {pay}")


Solver = Cholesky | BBMM | Auto


def is_distributed(solver: Solver) -> bool:
    """Whether its products, where it makes any, are shared out among ranks."""
    options = solver.bbmm if isinstance(solver, Auto) else solver
    return isinstance(options, BBMM) and options.distributed


def for_fit(solver: Solver, n: int) -> Choice:
    """What fits n observations under a solver given by the user."""
    return solver.for_fit(n) if isinstance(solver, Auto) else Choice(solver, "as asked")


def for_prediction(solver: Solver, n: int) -> Choice:
    """What stands behind a posterior of n observations under a solver given by the user."""
    return solver.for_prediction(n) if isinstance(solver, Auto) else Choice(solver, "as asked")
