"""What an acquisition function is worth over a slice: computed here, drawn by `acquisition`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bbmmopt.acquisition import (
    Acquisition,
    LogMean,
    PerCost,
    PriorGuided,
)
from bbmmopt.modelling import Beliefs, one_thread
from bbmmopt.optimizer import Optimizer, SpaceExhausted
from bbmmopt.plots.chance import Chance, chance_of
from bbmmopt.plots.marks import by_kind
from bbmmopt.plots.slices import Slice, in_chunks
from bbmmopt.plots.surface import Range
from bbmmopt.plots.table import Table
from bbmmopt.trial import Trial

# What the acquisition functions are called in a picture, by the names of `ACQUISITIONS`.
WORDS = {
    "log_ei": "log expected improvement",
    "noisy_log_ei": "log noisy expected improvement",
    "log_pi": "log probability of improvement",
    "ucb": "upper confidence bound",
    "mean": "posterior mean",
    "log_ehvi": "log expected hypervolume improvement",
    "scalarised": "log expected scalarised improvement",
    "feasibility": "log probability of feasibility",
    "max_value_entropy": "log information about the best value",
    "joint_entropy": "log information about the optimum",
    "knowledge_gradient": "log knowledge gradient",
    "variance": "log uncertainty",
    "integrated_variance": "log reduction of the mean variance",
    "robust": "log expected robust improvement",
    "thompson": "function drawn from the model",
}
_NOT_IN_LOGS = ("ucb", "mean", "thompson")
# A log acquisition falls by hundreds near trials. The lowest quarter of a surface may be cut off,
# and more of a curve, but nothing within e^-12 of the largest value; and what is less than e^-60
# of it, or the colours would not tell the others apart.
_CUT_SURFACE, _CUT_CURVE = 0.25, 0.4
_KEPT, _DEEPEST = 12.0, 60.0


@dataclass(frozen=True)
class Worth:
    """An acquisition function over a slice, and where `ask` would go.

    Attributes:
        where: The slice.
        values: In model units, of the slice's shape.
        words: What the function is called.
        weights: What its values are weighed by besides, in words.
        falls: Whether its values fall without end, as logs and penalties do.
        chance: That the constraints on outcomes hold; None if there are none.
        following: What `ask` would suggest; None where nothing is left, or a function is missing
            that says what is allowed.
        height: Of that point on this slice; NaN where it has no place there.
        kinds: Trials under what they are marked as.
    """

    where: Slice
    values: np.ndarray
    words: str
    weights: tuple[str, ...]
    falls: bool
    chance: Chance | None
    following: Trial | None
    height: float
    kinds: dict[str, list[Trial]]

    @property
    def count(self) -> int:
        """How many trials there are a value of."""
        known = ("observed", "infeasible", "stopped early")
        return sum(len(self.kinds.get(kind, ())) for kind in known)

    @property
    def title(self) -> str:
        """The words, as a title begins."""
        first = self.words.split(",")[0]
        return first[0].upper() + first[1:]

    def limits(self) -> Range:
        """The values that a scale tells apart."""
        values = self.where.possible(self.values)
        low = floor_of(values, curve=self.where.y is None) if self.falls else -np.inf
        return Range.of(values, low=low)

    @property
    def notes(self) -> list[str]:
        """What weighs besides, in a sentence, if anything does."""
        *others, last = self.weights or ("",)
        listed = f"{', '.join(others)} and {last}" if others else last
        return [f"weighed by {listed}"] * bool(self.weights)

    def table(self) -> Table:
        """The numbers, as `acquisition_data` returns them."""
        chance = {} if self.chance is None else {"chance": self.chance.probability}
        following = None if self.following is None else dict(self.following.params)
        return self.where.table(
            {"value": self.values} | chance, acquisition=self.words, next=following
        )


def floor_of(values: np.ndarray, *, curve: bool) -> float:
    """From where on down values (m,) of a function that falls without end are not told apart."""
    most, share = float(values.max()), _CUT_CURVE if curve else _CUT_SURFACE
    return min(max(float(np.quantile(values, share)), most - _DEEPEST), most - _KEPT)


def worth_of(optimizer: Optimizer, where: Slice, acquisition: str | None) -> Worth:
    """Evaluate an acquisition function over a slice.

    Args:
        optimizer: The run.
        where: The slice.
        acquisition: A name, see `Optimizer`; the study's own if left out.

    Raises:
        ValueError: If there is none of that name, or it does not suit the problem.
    """
    beliefs = optimizer.beliefs()
    function, name = optimizer.acquisition(acquisition), optimizer.acquisition_name(acquisition)
    following, height = None if where.unknown else _next(optimizer, acquisition), np.nan
    if following is not None and where.shows(following.params):
        height = float(_evaluate(function, where.row_at(following.params)[None])[0])
    return Worth(
        where,
        _evaluate(function, where.rows).reshape(where.shape),
        _words(name, optimizer),
        tuple(_weights(name, function, optimizer, beliefs)),
        name not in _NOT_IN_LOGS or bool(optimizer.problem.constraints),
        chance_of(beliefs, where),
        following,
        height,
        by_kind(optimizer.problem, optimizer.trials),
    )


def _words(name: str, optimizer: Optimizer) -> str:
    if name == "mean" and optimizer.settings.get("perturbation"):
        return "expected value under variation"
    return WORDS[name]


def _weights(
    name: str, function: Acquisition, optimizer: Optimizer, beliefs: Beliefs
) -> Iterator[str]:
    """What multiplies the acquisition function, in words."""
    inside = list(_parts(function))
    if optimizer.problem.constraints and name != "feasibility":
        yield "constraints"
    if beliefs.success is not None and name not in _NOT_IN_LOGS:
        yield "success"
    if any(isinstance(part, PriorGuided) for part in inside):
        yield "the prior"
    if any(isinstance(part, PerCost) for part in inside):
        yield "the time it takes"


def _parts(function: Acquisition) -> Iterator[Acquisition]:
    """An acquisition function, and those that it wraps."""
    inner: Any = function
    while inner is not None:
        yield inner
        first = inner.parts[0] if isinstance(inner, LogMean) else None
        inner = first or getattr(inner, "acquisition", None)


def _evaluate(function: Acquisition, X: np.ndarray) -> np.ndarray:
    """Values at rows of the unit cube X (m, d), shape (m,)."""
    with torch.no_grad(), one_thread():
        parts = in_chunks(lambda rows: function(torch.from_numpy(rows).unsqueeze(-2)).numpy(), X)
    return np.concatenate(parts)


def _next(optimizer: Optimizer, acquisition: str | None) -> Trial | None:
    """What `ask` would suggest; None if there is no point left."""
    try:
        return optimizer.preview(acquisition=acquisition)
    except SpaceExhausted:
        return None
