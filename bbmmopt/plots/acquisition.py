"""plot_acquisition: how much each point promises, and where to go next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from bbmmopt.acquisition import (
    Acquisition,
    ConstrainedLogExpectedImprovement,
    Feasible,
    LogExpectedHypervolumeImprovement,
    LogExpectedImprovement,
    LogProbabilityOfFeasibility,
    LogProbabilityOfImprovement,
    NoisyLogExpectedImprovement,
    PosteriorMean,
    UpperConfidenceBound,
)
from bbmmopt.modelling import one_thread
from bbmmopt.optimizer import Optimizer, SpaceExhausted
from bbmmopt.plots.marks import by_kind, draw_marks, hidden_note
from bbmmopt.plots.slices import Slice, in_chunks, make_slice, need_complete
from bbmmopt.plots.style import axes_or_new, check_axes, place_legend, scatter, title
from bbmmopt.plots.surface import Range, draw_curve, draw_surface
from bbmmopt.trial import Trial

_WORDS: dict[type[Acquisition], str] = {
    LogExpectedImprovement: "log expected improvement",
    NoisyLogExpectedImprovement: "log expected improvement",
    ConstrainedLogExpectedImprovement: "log expected feasible improvement",
    LogExpectedHypervolumeImprovement: "log expected hypervolume improvement",
    LogProbabilityOfFeasibility: "log probability of feasibility",
    LogProbabilityOfImprovement: "log probability of improvement",
    UpperConfidenceBound: "upper confidence bound",
    PosteriorMean: "posterior mean",
}
# A log acquisition falls by hundreds near trials. The lowest quarter of a surface may be cut off,
# and more of a curve, but nothing within e^-12 of the largest value.
_PLAIN = (UpperConfidenceBound, PosteriorMean)
_CUT_SURFACE, _CUT_CURVE, _KEPT = 0.25, 0.4, 12.0


def plot_acquisition(
    optimizer: Optimizer,
    x: str | None = None,
    y: str | None = None,
    *,
    fixed: Mapping[str, Any] | None = None,
    acquisition: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the acquisition function over one parameter (a curve) or two (a surface).

    The next point is where `ask` would go now. In a space of more parameters it may lie off the
    slice, as most trials do; those are drawn fainter, and the largest value on the slice is marked
    by itself. Logarithmic acquisition functions are cut off below: see the colour bar.

    Args:
        optimizer: The run; at least one trial is complete.
        x: Parameter along the horizontal axis. Left out, the two (or one) along which the model
            changes fastest are drawn.
        y: Parameter along the vertical axis; left out, with an x, a curve is drawn.
        fixed: Values to hold other parameters at; those not named are held at the best trial's.
        acquisition: A name, see `Optimizer`; the study's own if left out. The values
            are in the model's units: targets standardised, larger is better.
        ax: Where to draw; a new figure if left out.
        legend: Whether to explain the marks.

    Returns:
        The axes drawn on.

    Raises:
        NoCompleteTrial: If no trial is complete.
        ValueError, TypeError: If a name or a value is wrong, or a parameter is not active on the
            slice. Nothing was drawn then.
    """
    check_axes(ax)
    trials = optimizer.trials
    belief = optimizer.beliefs().first
    need_complete(optimizer, trials, "plot_acquisition")
    function = optimizer.acquisition(acquisition)
    where = make_slice(optimizer, belief.lengthscales.numpy(), x, y, fixed, trials)
    values = _evaluate(function, where.rows()).reshape(where.shape)
    following = _next(optimizer, acquisition)
    kinds = by_kind(trials)

    ax = axes_or_new(ax)
    inner = function.acquisition if isinstance(function, Feasible) else function
    words = _WORDS.get(type(inner), type(inner).__name__)
    floor = -np.inf
    if not isinstance(function, _PLAIN):
        share = _CUT_CURVE if where.y is None else _CUT_SURFACE
        floor = min(float(np.quantile(values, share)), float(values.max()) - _KEPT)
    limits = Range.of(values, low=floor)
    if where.y is None:
        _draw_curve(ax, where, values, limits, words)
    else:
        draw_surface(ax, where, values, limits, cmap="viridis", label=words)
    hidden = draw_marks(ax, where, kinds)
    if following is not None:
        _draw_next(ax, where, values, function, following)
    count = len(kinds["observed"])
    title(
        ax,
        f"{words[0].upper()}{words[1:]} after {count} trial{'s' * (count != 1)}",
        held=where.held,
        note=hidden_note(where, hidden),
    )
    if legend:
        place_legend(ax)
    return ax


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


def _draw_curve(ax: Axes, where: Slice, values: np.ndarray, limits: Range, words: str) -> None:
    # Room above for the star, below for the marks on the edge.
    height = limits.high - limits.low
    bottom = limits.low - 0.14 * height
    cut = f"\n(cut off below {limits.low:.3g})" if limits.extend == "min" else ""
    draw_curve(ax, where, values, bottom=bottom, label=words + cut)
    ax.set_ylim(bottom, limits.high + 0.1 * height)


def _draw_next(
    ax: Axes, where: Slice, values: np.ndarray, function: Acquisition, following: Trial
) -> None:
    """Mark where `ask` would go and, unless that is on this slice, the slice's own maximum."""
    at_start = following.origin.get("phase") != "model"
    on_slice = where.shows(following.params) and where.contains(following.params)
    if at_start or not on_slice:
        at = np.unravel_index(int(values.argmax()), where.shape)
        point = [axis.values[i] for axis, i in zip(where.axes, reversed(at), strict=True)]
        height = [] if where.y is not None else [values.max()]
        scatter(ax, "largest here", [*point, *height], "largest here")
    if not where.shows(following.params):
        return
    label = "next (of the start)" if at_start else "next"
    point = [axis.coordinate(following.params[axis.name]) for axis in where.axes]
    if where.y is None:
        point.append(float(_evaluate(function, where.row_at(following.params)[None])[0]))
        ax.axvline(point[0], color="0.6", linewidth=1.0, linestyle=":", zorder=1)
    scatter(ax, "next", point, label, faint=not on_slice)
