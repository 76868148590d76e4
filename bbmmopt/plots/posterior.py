"""plot_posterior: what the model believes of the objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.axes import Axes

from bbmmopt.modelling import Belief, one_thread
from bbmmopt.optimizer import Optimizer
from bbmmopt.plots.marks import by_kind, draw_marks
from bbmmopt.plots.slices import Slice, in_chunks, make_slice, need_complete
from bbmmopt.plots.style import (
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

    In the user's units and sign. The bands are one and two standard deviations of the objective
    itself, noise of a measurement not included; where the targets are normal they hold 68 and
    95 %. Trials that lie off the slice are drawn fainter.

    Args:
        optimizer: The run; at least one trial is complete.
        x, y, fixed: What to draw and what to hold: as in `plot_acquisition`.
        quantity: "mean"; or "std", how uncertain the model is.
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
    mean, std = _predict(optimizer, belief, where)

    ax = axes_or_new(ax)
    objective = optimizer.problem.objectives[0]
    kinds = by_kind(trials)
    best = optimizer.problem.best_of(trials)
    if best is not None:
        kinds["observed"].remove(best)
        kinds["best"] = [best]
    label = f"expected {objective.name}" if quantity == "mean" else f"std of {objective.name}"
    note = ""
    if where.y is None and quantity == "mean":
        _draw_bands(ax, where, mean, std)
        ax.set_ylabel(plain(objective.name))
        valued = {kind: kinds.pop(kind) for kind in ("observed", "best") if kind in kinds}
        _draw_errors(ax, where, objective.name, valued)
        note = draw_marks(ax, where, valued, lambda trial: (trial.values or {})[objective.name])
    elif where.y is None:
        draw_curve(ax, where, std, bottom=0.0, label=label)
        ax.set_ylim(-0.1 * std.max(), 1.1 * std.max())
    elif quantity == "mean":
        good_is_low = objective.direction == "minimize"
        side = "cut_high" if good_is_low else "cut_low"
        limits = _long_tail(mean, side)
        # Bright is good in both directions.
        cmap = "cividis_r" if good_is_low else "cividis"
        draw_surface(ax, where, mean, limits, cmap=cmap, label=label)
    else:
        draw_surface(ax, where, std, Range.of(std), cmap="magma", label=label)
    notes = [note, draw_marks(ax, where, kinds)]
    count = len(belief.data.y)
    what = "Posterior" if quantity == "mean" else "Posterior standard deviation"
    title(
        ax,
        plain(f"{what} of {objective.name} after {count} trial{'s' * (count != 1)}"),
        held=where.held,
        note="; ".join(filter(None, notes)),
    )
    if legend:
        place_legend(ax)
    return ax


def _predict(optimizer: Optimizer, belief: Belief, where: Slice) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the slice, in the user's sign, each of its shape."""
    with one_thread():
        parts = in_chunks(belief.predict, where.rows())
    mean, std = (np.concatenate(part).reshape(where.shape) for part in zip(*parts, strict=True))
    return optimizer.problem.from_model([mean])[optimizer.problem.names[0]], std


def _long_tail(values: np.ndarray, side: Literal["cut_low", "cut_high"]) -> Range:
    """All values; less the worst if those take more than half of the scale."""
    whole, cut = Range.of(values), Range.of(values, **{side: _CUT})
    return cut if cut.high - cut.low < 0.5 * (whole.high - whole.low) else whole


def _draw_bands(ax: Axes, where: Slice, mean: np.ndarray, std: np.ndarray) -> None:
    """The mean with one and two standard deviations; whiskers over categories."""
    tidy(ax)
    x = where.x.values
    if where.x.categorical:
        ax.grid(False, axis="x")
        for k, width in ((2, 6.0), (1, 14.0)):
            ax.vlines(
                x,
                mean - k * std,
                mean + k * std,
                color=BLUE,
                alpha=0.25,
                linewidth=width,
                label=f"± {k} std",
            )
        ax.scatter(x, mean, marker="_", s=500, color=BLUE, linewidths=2, label="mean", zorder=3)
    else:
        for k in (2, 1):
            ax.fill_between(
                x,
                mean - k * std,
                mean + k * std,
                color=BLUE,
                alpha=0.18,
                linewidth=0,
                label=f"± {k} std",
            )
        dots = {"marker": "o", "markersize": 3} if where.x.cells else {}
        ax.plot(x, mean, color=BLUE, linewidth=1.8, label="mean", **dots)
    where.x.dress(ax, "x")


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
