"""What a model believes of an output over a slice: computed here, drawn by `posterior`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from bbmmopt.modelling import one_thread
from bbmmopt.optimizer import Optimizer
from bbmmopt.plots.chance import Chance, chance_of
from bbmmopt.plots.marks import by_kind, forecasts
from bbmmopt.plots.outputs import Output
from bbmmopt.plots.slices import Slice, in_chunks
from bbmmopt.plots.surface import Range
from bbmmopt.plots.table import Table
from bbmmopt.trial import Trial

_CUT = 0.1  # the share of a surface with the worst values, which may get one colour


@dataclass(frozen=True)
class Believed:
    """Quantiles of the belief over a slice, in the user's units and sign, each of its shape.

    Attributes:
        where: The slice.
        output: What it is believed of.
        middle: The median.
        inner: Ends of the 68 % band, the lower one first.
        outer: Ends of the 95 % band.
        samples: Functions drawn from the belief, shape (n, *shape).
        chance: That the constraints on outcomes hold; None if there are none.
        least, most: The smallest and the largest value observed.
        count: How many values the model was built from.
        kinds: Trials under what they are marked as.
        heights: Values of trials by number: told ones, and forecasts of those stopped early.
        errors: Standard errors that were told, by number.
    """

    where: Slice
    output: Output
    middle: np.ndarray
    inner: tuple[np.ndarray, np.ndarray]
    outer: tuple[np.ndarray, np.ndarray]
    samples: np.ndarray
    chance: Chance | None
    least: float
    most: float
    count: int
    kinds: dict[str, list[Trial]]
    heights: Mapping[int, float]
    errors: Mapping[int, float]

    @property
    def half_width(self) -> np.ndarray:
        """Half of the 68 % band: the standard deviation of a normal distribution."""
        return 0.5 * self.inner[1] - 0.5 * self.inner[0]

    @property
    def observed(self) -> float:
        """How far the observed values spread; at least a little."""
        return (self.most - self.least) or max(1e-3 * abs(self.most), 1e-300)

    @property
    def bound(self) -> float | None:
        """Of a constraint, what it is compared with."""
        return self.output.offset if self.output.is_constraint else None

    @property
    def limit(self) -> str:
        """That in words."""
        return f"bound: {'≤' if self.output.good_is_low else '≥'} {self.bound:g}"

    @property
    def notes(self) -> list[str]:
        """From where on the model takes bad values for equal, if it saw such."""
        belief = self.output.belief
        cut = float(getattr(belief.transform, "low", -np.inf))
        told = belief.data.y[belief.data.told]
        if not len(told) or told.min() >= cut:
            return []
        value = float(self.output.offset + self.output.sign * cut)
        side = "above" if self.output.good_is_low else "below"
        return [f"the model takes values {side} {value:.3g} as {value:.3g}"]

    def limits(self) -> Range:
        """The colours of a surface: without the worst tenth where that would take half of them."""
        middle = self.where.possible(self.middle)
        low, high = self.least - self.observed, self.most + self.observed
        whole = Range.of(middle, low=low, high=high)
        if self.output.good_is_low:
            cut = Range.of(middle, low=low, high=min(high, float(np.quantile(middle, 1 - _CUT))))
        else:
            cut = Range.of(middle, low=max(low, float(np.quantile(middle, _CUT))), high=high)
        return cut if cut.high - cut.low < 0.5 * (whole.high - whole.low) else whole

    def table(self) -> Table:
        """The numbers, as `posterior_data` returns them."""
        columns = {"median": self.middle}
        for share, (low, high) in ((68, self.inner), (95, self.outer)):
            columns |= {f"low_{share}": low, f"high_{share}": high}
        columns |= {f"sample_{i}": sample for i, sample in enumerate(self.samples)}
        if self.chance is not None:
            columns["chance"] = self.chance.probability
        facts = {} if self.bound is None else {"bound": self.bound}
        return self.where.table(columns, name=self.output.name, **facts)


def believed_of(optimizer: Optimizer, output: Output, where: Slice, samples: int = 0) -> Believed:
    """Mean ± 0, 1, 2 std in model units, taken to the user's units.

    Quantiles go through any monotone map unharmed. Where the model warps its targets, a long tail
    of what is possible makes the mean and the standard deviation in user's units useless.

    Args:
        optimizer: The run.
        output: What of.
        where: The slice.
        samples: How many functions to draw.
    """
    belief, trials = output.belief, optimizer.trials
    with one_thread():
        parts = in_chunks(belief.marginals, where.rows)
    mean, std = (np.concatenate(part).reshape(where.shape) for part in zip(*parts, strict=True))
    data = belief.data
    told = data.y[data.told]  # larger is better
    ends = output.offset + output.sign * np.array([told.min(), told.max()])
    heights = {t.number: v for t in trials if (v := output.observed(t)) is not None}
    errors = (
        {}
        if output.is_constraint
        else {t.number: error for t in trials if (error := t.standard_errors.get(output.name))}
    )
    return Believed(
        where,
        output,
        output.in_user_units(mean),
        output.ends(mean, std, 1),
        output.ends(mean, std, 2),
        _samples(output, where, samples, optimizer.seed),
        chance_of(optimizer.beliefs(), where),
        float(ends.min()),
        float(ends.max()),
        len(told),
        by_kind(optimizer.problem, trials, best=True),
        heights | ({} if output.is_constraint else forecasts(optimizer, trials)),
        errors,
    )


def _samples(output: Output, where: Slice, count: int, seed: int) -> np.ndarray:
    """Functions drawn from the belief, over the whole slice together, shape (count, *shape)."""
    belief = output.belief
    if not count:
        return np.empty((0, *where.shape))
    draws = torch.Generator().manual_seed(seed % 2**63)
    with one_thread():
        z = belief.posterior.sample(belief.data.place(where.rows), count, draws)
    return output.in_user_units(z.cpu().numpy()).reshape(count, *where.shape)
