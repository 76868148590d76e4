"""plot_posterior: what the model believes of the objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.axes import Axes

from bbmmopt.modelling import Belief, one_thread
from bbmmopt.optimizer import Optimizer
from bbmmopt.plots.marks import by_kind, draw_marks, hidden_note
from bbmmopt.plots.slices import Slice, in_chunks, make_slice, need_complete
from bbmmopt.plots.style import (
    BANDS,
    BLACK,
    BLUE,
    axes_or_new,
    check_axes,
    place_legend,
    plain,
    tidy,
    title,
)
from bbmmopt.plots.surface import Range, draw_curve, draw_surface
from bbmmopt.trial import Trial

Quantity = Literal["mean", "std"]

_CUT = 0.1  # the share of a surface with the worst values, which may get one colour


def plot_posterior(
    optimizer: Optimizer,
    x: str | None = None,
    y: str | None = None,
    *,
    fixed: Mapping[str, Any] | None = None,
    quantity: Quantity = "mean",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw what the model expects, over one parameter (with error bands) or two (a surface).

    In the user's units and sign: the median, which is the mean where the targets are not warped,
    and the bands that hold the objective itself, noise of a measurement not included, with 68 and
    95 % probability (one and two standard deviations). Trials off the slice are drawn fainter.

    Args:
        optimizer: The run; at least one trial is complete.
        x, y, fixed: What to draw and what to hold: as in `plot_acquisition`.
        quantity: "mean": what is expected, with bands on a curve. "std": how uncertain that is, as
            half the width of the 68 % band.
        ax: Where to draw; a new figure if left out.
        legend: Whether to explain the marks.

    Returns:
        The axes drawn on.

    Raises:
        NoCompleteTrial: If no trial is complete.
        ValueError, TypeError: As in `plot_acquisition`. Nothing was drawn then.
    """
    check_axes(ax)
    if quantity not in get_args(Quantity):
        raise ValueError(f'quantity must be "mean" or "std"; got {quantity!r}.')
    trials = optimizer.trials
    belief = optimizer.belief()
    need_complete(optimizer, trials, "plot_posterior")
    where = make_slice(optimizer, belief.lengthscales.numpy(), x, y, fixed, trials)
    bands = _bands(optimizer, belief, where)
    objective = optimizer.problem.objectives[0]

    ax = axes_or_new(ax)
    kinds = by_kind(trials)
    best = optimizer.problem.best_of(trials)
    if best is not None:
        kinds["observed"].remove(best)
        kinds["best"] = [best]
    hidden: list[Trial] = []
    if where.y is None and quantity == "mean":
        valued = {kind: kinds.pop(kind) for kind in ("observed", "best") if kind in kinds}
        _draw_bands(ax, where, bands, objective.name, valued)
        ax.set_ylabel(plain(objective.name + _cut_note(optimizer, belief)))
        hidden += draw_marks(ax, where, valued, lambda t: (t.values or {})[objective.name])
    elif where.y is None:
        most = min(bands.half_width.max(), bands.observed)
        draw_curve(ax, where, bands.half_width, bottom=0.0, label=_half(objective.name))
        ax.set_ylim(-0.12 * most, 1.1 * most)
    elif quantity == "mean":
        # Bright is good in both directions.
        cmap = "cividis_r" if objective.direction == "minimize" else "cividis"
        limits = _limits(bands, good_is_low=objective.direction == "minimize")
        label = objective.name + _cut_note(optimizer, belief)
        draw_surface(ax, where, bands.middle, limits, cmap=cmap, label=label)
    else:
        limits = Range.of(bands.half_width, high=bands.observed)
        draw_surface(ax, where, bands.half_width, limits, cmap="magma", label=_half(objective.name))
    hidden += draw_marks(ax, where, kinds)
    what = "Posterior" if quantity == "mean" else "Uncertainty"
    count = len(belief.data.y)
    title(
        ax,
        plain(f"{what} of {objective.name} after {count} trial{'s' * (count != 1)}"),
        held=where.held,
        note=hidden_note(where, hidden),
    )
    if legend:
        place_legend(ax)
    return ax


@dataclass(frozen=True)
class _Bands:
    """Quantiles of the belief over a slice, in the user's units and sign, each of its shape.

    Attributes:
        middle: The median.
        inner: Ends of the 68 % band, the lower one first.
        outer: Ends of the 95 % band.
        least, most: The smallest and the largest value observed.
    """

    middle: np.ndarray
    inner: tuple[np.ndarray, np.ndarray]
    outer: tuple[np.ndarray, np.ndarray]
    least: float
    most: float

    @property
    def half_width(self) -> np.ndarray:
        """Half of the 68 % band: the standard deviation of a normal distribution."""
        return 0.5 * (self.inner[1] - self.inner[0])

    @property
    def observed(self) -> float:
        """How far the observed values spread; at least a little."""
        return (self.most - self.least) or max(1e-3 * abs(self.most), 1e-300)


def _bands(optimizer: Optimizer, belief: Belief, where: Slice) -> _Bands:
    """Mean ± 0, 1, 2 std in model units, taken to the user's units.

    Not `belief.predict`: where the model warps its targets, a long tail of what is possible makes
    the mean and the standard deviation in user's units useless, or infinite. Quantiles go through
    any monotone map unharmed, and are mean ± k std where nothing is warped.
    """
    with one_thread():
        parts = in_chunks(belief.marginals, where.rows())
    mean, std = (np.concatenate(part).reshape(where.shape) for part in zip(*parts, strict=True))
    problem = optimizer.problem

    def in_user_units(z: np.ndarray) -> np.ndarray:
        return problem.from_model([belief.transform.inverse(z)])[problem.names[0]]

    def ends(k: int) -> tuple[np.ndarray, np.ndarray]:
        low, high = in_user_units(mean - k * std), in_user_units(mean + k * std)
        return np.minimum(low, high), np.maximum(low, high)

    values = problem.from_model([belief.data.y])[problem.names[0]]
    return _Bands(in_user_units(mean), ends(1), ends(2), float(values.min()), float(values.max()))


def _cut_note(optimizer: Optimizer, belief: Belief) -> str:
    """From where on the model does not tell bad values apart, if it saw such values."""
    cut = float(getattr(belief.transform, "low", -np.inf))
    if not len(belief.data.y) or belief.data.y.min() >= cut:
        return ""
    problem = optimizer.problem
    value = problem.from_model([cut])[problem.names[0]]
    side = "above" if problem.objectives[0].direction == "minimize" else "below"
    return f"\n(the model takes values {side} {value:.3g} as {value:.3g})"


def _half(name: str) -> str:
    return f"half of the 68 % band of {name}"


def _limits(bands: _Bands, *, good_is_low: bool) -> Range:
    """The colours of a surface: without the worst tenth, if that takes more than half of them."""
    low, high = bands.least - bands.observed, bands.most + bands.observed
    whole = Range.of(bands.middle, low=low, high=high)
    if good_is_low:
        cut = Range.of(bands.middle, low=low, high=min(high, np.quantile(bands.middle, 1 - _CUT)))
    else:
        cut = Range.of(bands.middle, low=max(low, np.quantile(bands.middle, _CUT)), high=high)
    return cut if cut.high - cut.low < 0.5 * (whole.high - whole.low) else whole


def _draw_bands(
    ax: Axes, where: Slice, bands: _Bands, name: str, kinds: Mapping[str, Sequence[Trial]]
) -> None:
    """The median within its bands, whiskers over categories; and errors that were told."""
    tidy(ax)
    ax.set_ylim(*_view(where, bands, name, [t for group in kinds.values() for t in group]))
    x, middle = where.x.values, bands.middle
    for (lower, upper), colour, width, label in (
        (bands.outer, BANDS[0], 0.18, "95 % band"),
        (bands.inner, BANDS[1], 0.36, "68 % band"),
    ):
        if where.x.categorical:
            ax.bar(x, upper - lower, bottom=lower, color=colour, width=width, label=label)
        else:
            ax.fill_between(x, lower, upper, color=colour, linewidth=0, label=label)
    if where.x.categorical:
        ax.grid(False, axis="x")
        ax.hlines(middle, x - 0.25, x + 0.25, color=BLUE, linewidth=2, label="median")
    else:
        dots = {"marker": "o", "markersize": 3} if where.x.cells else {}
        ax.plot(x, middle, color=BLUE, linewidth=1.8, label="median", **dots)
    _draw_errors(ax, where, name, kinds)
    where.x.dress(ax, "x")


def _view(where: Slice, bands: _Bands, name: str, trials: Sequence[Trial]) -> tuple[float, float]:
    """Limits that show the median and the trials on the slice whole, and other things in part.

    A band may reach to infinity, and most trials may lie far off the slice: room is made for them
    as far as that leaves the curve visible.
    """
    shown = [trial for trial in trials if where.shows(trial.params)]
    on = [(t.values or {})[name] for t in shown if where.contains(t.params)]
    everything = [(t.values or {})[name] for t in shown]
    low, high = min([bands.middle.min(), *on]), max([bands.middle.max(), *on])
    otherwise = float(np.median(bands.outer[1] - bands.outer[0]))  # where nothing varies
    for lowest, highest, share in (
        (bands.outer[0].min(), bands.outer[1].max(), 0.7),
        (min(everything, default=low), max(everything, default=high), 0.5),
    ):
        span = (high - low) or otherwise
        low = min(low, max(lowest, low - share * span))
        high = max(high, min(highest, high + share * span))
    pad = 0.06 * ((high - low) or otherwise)
    return float(low - 2 * pad), float(high + pad)  # below, room for marks on the edge


def _draw_errors(ax: Axes, where: Slice, name: str, kinds: Mapping[str, Sequence[Trial]]) -> None:
    """The standard errors that were told, of trials on the slice."""
    trials = [
        trial
        for group in kinds.values()
        for trial in group
        if trial.standard_errors.get(name)
        and where.shows(trial.params)
        and where.contains(trial.params)
    ]
    if trials:
        ax.errorbar(
            where.place(trials)[0],
            [(trial.values or {})[name] for trial in trials],
            [trial.standard_errors[name] or 0.0 for trial in trials],
            fmt="none",
            ecolor=BLACK,
            elinewidth=1.0,
            capsize=2.5,
            zorder=3.5,
        )
