"""plot_acquisition: how much each point promises, and where to go next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bbmmopt.optimizer import Optimizer
from bbmmopt.plots.marks import draw_marks, hidden_note
from bbmmopt.plots.regions import draw_chance, draw_forbidden
from bbmmopt.plots.slices import make_slice, need_complete
from bbmmopt.plots.source import Source, modelled
from bbmmopt.plots.style import MARKS, axes_or_new, check_axes, place_legend, scatter, title
from bbmmopt.plots.surface import Range, draw_curve, draw_surface
from bbmmopt.plots.table import Table
from bbmmopt.plots.worth import Worth, worth_of
from bbmmopt.trial import Trial


def acquisition_data(
    study: Source,
    x: str | None = None,
    y: str | None = None,
    *,
    fixed: Mapping[str, Any] | None = None,
    acquisition: str | None = None,
) -> Table:
    """What `plot_acquisition` draws: "params.X", "params.Y" of a surface, and "value".

    The points of a surface come row by row, x running fastest. Besides, "allowed" says whether the
    space's own constraints let a point be tried, "chance" of constraints on outcomes how likely the
    model takes them all to hold; and parameters that make up the rest of a mixture have columns.

    Args:
        study, x, y, fixed, acquisition: As in `plot_acquisition`.

    Returns:
        A table; of its facts, `x` and `y` are the parameters, `held` the others' values,
        `acquisition` what the function is called, and `next` the point `ask` would suggest, if any.

    Raises:
        NoCompleteTrial, ValueError, TypeError: As `plot_acquisition`.
    """
    with modelled(study) as optimizer:
        return _worth(optimizer, x, y, fixed, acquisition).table()


def plot_acquisition(
    study: Source,
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

    What the constraints of the space rule out is hatched. Where a sum of parameters must have one
    value, as of a mixture, those that are neither drawn nor fixed make up the rest, each by the
    same share of the room it has within its bounds. Constraints on outcomes should hold on one side
    of the dashed line, where the model takes that for even; on a curve the doubtful part is tinted.

    Args:
        study: An Optimizer, a Study, or where one is stored: "study.db", or "study.db#name" of
            several; at least one trial is complete.
        x: Parameter along the horizontal axis. Left out, the two (or one) along which the model
            changes fastest are drawn.
        y: Parameter along the vertical axis; left out, with an x, a curve is drawn.
        fixed: Values to hold other parameters at; those not named are held at the best trial's. Of
            several objectives, the best is the one of the front that is nearest to the best of
            each.
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
        UnknownStudy, StorageError: If there is no such study.
    """
    check_axes(ax)
    with modelled(study) as optimizer:
        worth = _worth(optimizer, x, y, fixed, acquisition)
    ax = axes_or_new(ax)
    hidden = draw_worth(ax, worth)
    title(
        ax,
        f"{worth.title} after {worth.count} trial{'s' * (worth.count != 1)}",
        held=worth.where.held,
        note="\n".join([*worth.notes, *worth.where.notes, *hidden_note(worth.where, hidden)]),
    )
    if legend:
        place_legend(ax)
    return ax


def _worth(
    optimizer: Optimizer,
    x: str | None,
    y: str | None,
    fixed: Mapping[str, Any] | None,
    acquisition: str | None,
) -> Worth:
    trials = optimizer.trials
    need_complete(optimizer, trials, "plot_acquisition")
    lengthscales = optimizer.beliefs().first.lengthscales.numpy()
    where = make_slice(optimizer, lengthscales, x, y, fixed, trials)
    return worth_of(optimizer, where, acquisition)


def draw_worth(ax: Axes, worth: Worth, *, limits: Range | None = None) -> list[Trial]:
    """Draw the function, the regions and the marks.

    Args:
        ax: Where to draw.
        worth: What to draw.
        limits: The values that the scale tells apart; left out, those there are.

    Returns:
        The trials that have no place in the picture.
    """
    where, values = worth.where, worth.values
    limits = limits or worth.limits()
    if where.y is None:
        # Room above for the star, below for the marks on the edge.
        height = limits.high - limits.low
        bottom = limits.low - 0.14 * height
        cut = f"\n(cut off below {limits.low:.3g})" if limits.extend == "min" else ""
        draw_curve(ax, where, values, bottom=bottom, label=worth.words + cut)
        ax.set_ylim(bottom, limits.high + 0.1 * height)
    else:
        draw_surface(ax, where, values, limits, cmap="viridis", label=worth.words)
    if worth.chance is not None:
        draw_chance(ax, where, worth.chance)
    draw_forbidden(ax, where)
    hidden = draw_marks(ax, where, worth.kinds)
    _draw_next(ax, worth)
    return hidden


def _draw_next(ax: Axes, worth: Worth) -> None:
    """Mark where `ask` would go and, unless that is on this slice, the slice's own maximum."""
    where, following = worth.where, worth.following
    if following is None:
        return
    at_start = following.origin.get("phase") != "model"
    on_slice = where.shows(following.params) and where.contains(following.params)
    allowed = where.allowed is None or where.allowed.any()
    if (at_start or not on_slice) and allowed:
        values = (
            worth.values
            if where.allowed is None
            else np.where(where.allowed, worth.values, -np.inf)
        )
        at = np.unravel_index(int(values.argmax()), where.shape)
        point = [axis.values[i] for axis, i in zip(where.axes, reversed(at), strict=True)]
        height = [] if where.y is not None else [values.max()]
        scatter(ax, "largest here", [*point, *height], "largest here")
    if not where.shows(following.params):
        return
    label = "next (of the start)" if at_start else "next"
    point = [axis.coordinate(following.params[axis.name]) for axis in where.axes]
    if where.y is None:
        point.append(float(np.clip(worth.height, *ax.get_ylim())))
        ax.axvline(point[0], color="0.6", linewidth=1.0, linestyle=":", zorder=1)
    drawn = scatter(ax, "next", point, label, faint=not on_slice)
    drawn.set_zorder(MARKS["next"].layer + 0.1)  # or the largest here, often close by, hides it
