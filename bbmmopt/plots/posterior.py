"""plot_posterior: what the model believes of an objective or a constraint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.axes import Axes

from bbmmopt.optimizer import Optimizer
from bbmmopt.plots.believed import Believed, believed_of
from bbmmopt.plots.marks import draw_marks, hidden_note
from bbmmopt.plots.outputs import output_of
from bbmmopt.plots.regions import draw_chance, draw_forbidden, draw_level
from bbmmopt.plots.slices import make_slice, need_complete
from bbmmopt.plots.source import Source, modelled
from bbmmopt.plots.style import (
    BLACK,
    BLUE,
    VERMILION,
    axes_or_new,
    check_axes,
    place_legend,
    plain,
    short,
    tidy,
    title,
    upright,
)
from bbmmopt.plots.surface import Range, draw_bands, draw_curve, draw_surface
from bbmmopt.plots.table import Table
from bbmmopt.space.checks import is_integer
from bbmmopt.trial import Trial

Quantity = Literal["mean", "std"]

_MOST_SAMPLES = 1000


def posterior_data(
    study: Source,
    x: str | None = None,
    y: str | None = None,
    *,
    name: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    samples: int = 0,
) -> Table:
    """What `plot_posterior` draws: "params.X", "params.Y" of a surface, "median", and bands.

    The bands are "low_68", "high_68", "low_95" and "high_95"; functions drawn from the belief are
    "sample_0", "sample_1" … Rows, and the columns "allowed" and "chance", are as in
    `acquisition_data`.

    Args:
        study, x, y, name, fixed, samples: As in `plot_posterior`.

    Returns:
        A table; of its facts, `x` and `y` are the parameters, `held` the others' values, `name` the
        output, and `bound` what it is compared with if it is a constraint.

    Raises:
        NoCompleteTrial, ValueError, TypeError: As `plot_posterior`.
    """
    with modelled(study) as optimizer:
        return _believed(optimizer, x, y, name, fixed, samples).table()


def plot_posterior(
    study: Source,
    x: str | None = None,
    y: str | None = None,
    *,
    name: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    quantity: Quantity = "mean",
    samples: int = 0,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw what the model expects, over one parameter (with error bands) or two (a surface).

    In the user's units and sign: the median, which is the mean where the targets are not warped,
    and the bands that hold the output itself, noise of a measurement not included, with 68 and
    95 % probability (one and two standard deviations). Trials off the slice are drawn fainter;
    those that were stopped early stand at what they were forecast to end with. Of a constraint the
    bound is drawn too: a line, on a surface a dashed one. Where parameters vary in use, this is
    still what exact ones give; `plot_acquisition` of "mean" is what their variation is expected to.

    Args:
        study: As in `plot_acquisition`.
        x, y, fixed: What to draw and what to hold: as there.
        name: An objective or a constraint; may be left out where there is one objective.
        quantity: "mean": what is expected, with bands on a curve. "std": how uncertain that is, as
            half the width of the 68 % band.
        samples: How many functions that are drawn from the belief to add to a curve; they follow
            from the study's seed.
        ax: Where to draw; a new figure if left out.
        legend: Whether to explain the marks.

    Returns:
        The axes drawn on.

    Raises:
        NoCompleteTrial: If no trial is complete.
        ValueError, TypeError: As in `plot_acquisition`; or if `name` is no output. Nothing was
            drawn then.
    """
    check_axes(ax)
    if quantity not in get_args(Quantity):
        raise ValueError(f'quantity must be "mean" or "std"; got {quantity!r}.')
    if quantity == "std" and samples:
        raise ValueError('samples go with quantity="mean": a curve of what is expected.')
    with modelled(study) as optimizer:
        believed = _believed(optimizer, x, y, name, fixed, samples)
    ax = axes_or_new(ax)
    hidden = draw_believed(ax, believed, quantity)
    what = "Posterior" if quantity == "mean" else "Uncertainty"
    title(
        ax,
        plain(
            f"{what} of {short(believed.output.name)} after {believed.count} "
            f"trial{'s' * (believed.count != 1)}"
        ),
        held=believed.where.held,
        note="\n".join(
            [*believed.where.notes, *believed.notes, *hidden_note(believed.where, hidden)]
        ),
    )
    if legend:
        place_legend(ax)
    return ax


def _believed(
    optimizer: Optimizer,
    x: str | None,
    y: str | None,
    name: str | None,
    fixed: Mapping[str, Any] | None,
    samples: int,
) -> Believed:
    if not is_integer(samples) or not 0 <= samples <= _MOST_SAMPLES:
        raise ValueError(
            f"samples must be an integer from 0 to {_MOST_SAMPLES}, how many functions to draw; "
            f"got {samples!r}."
        )
    trials = optimizer.trials
    need_complete(optimizer, trials, "plot_posterior")
    output = output_of(optimizer, name)
    where = make_slice(optimizer, output.belief.lengthscales.numpy(), x, y, fixed, trials)
    if samples and where.y is not None:
        raise ValueError(
            f"samples are drawn on curves; leave y={where.y.name!r} out, or samples."
            if y is not None
            else f"samples are drawn on curves: give x alone, such as x={where.x.name!r}."
        )
    return believed_of(optimizer, output, where, int(samples))


def draw_believed(
    ax: Axes,
    believed: Believed,
    quantity: Quantity = "mean",
    *,
    limits: Range | None = None,
) -> list[Trial]:
    """Draw the belief, the regions and the marks.

    Args:
        ax: Where to draw.
        believed: What to draw.
        quantity: "mean" or "std".
        limits: The values that the scale tells apart; left out, those there are.

    Returns:
        The trials that have no place in the picture.
    """
    where, output, bound = believed.where, believed.output, believed.bound
    widths = f"half of the 68 % band of {short(output.name, 40)}"
    heights: Mapping[int, float] = {}
    if where.y is None and quantity == "mean":
        heights = believed.heights
        ax.set_ylim(*(view(believed) if limits is None else (limits.low, limits.high)))
        _draw_bands(ax, believed)
        ax.set_ylabel(upright(ax, short(output.name, 40)))
        if bound is not None:
            look = {"color": VERMILION, "linewidth": 1.4, "linestyle": "--", "zorder": 1.9}
            ax.axhline(bound, label=believed.limit, **look)
    elif where.y is None:
        most = min(where.possible(believed.half_width).max(), believed.observed)
        draw_curve(ax, where, believed.half_width, bottom=0.0, label=widths)
        ax.set_ylim(-0.12 * most, 1.1 * most)
    elif quantity == "mean":
        # Bright is good in both directions.
        cmap = "cividis_r" if output.good_is_low else "cividis"
        limits = limits or believed.limits()
        draw_surface(ax, where, believed.middle, limits, cmap=cmap, label=short(output.name, 40))
        if bound is not None and believed.middle.min() < bound < believed.middle.max():
            draw_level(ax, where, believed.middle, bound, believed.limit)
    else:
        limits = limits or Range.of(where.possible(believed.half_width), high=believed.observed)
        draw_surface(ax, where, believed.half_width, limits, cmap="magma", label=widths)
    if believed.chance is not None and bound is None:
        draw_chance(ax, where, believed.chance)
    draw_forbidden(ax, where)
    return draw_marks(ax, where, believed.kinds, heights)


def _draw_bands(ax: Axes, believed: Believed) -> None:
    """The median within its bands, whiskers over categories; and errors that were told."""
    tidy(ax)
    axis = believed.where.x
    draw_bands(ax, axis, believed.middle, believed.inner, believed.outer)
    for i, sample in enumerate(believed.samples):
        label = "drawn from the model" if i == 0 else "_drawn"
        look = {"color": BLUE, "alpha": 0.55, "label": label, "zorder": 1.9}  # under the median
        if axis.categorical:
            ax.plot(axis.values, sample, linestyle="", marker="_", markersize=9, **look)
        else:
            ax.plot(axis.values, sample, linewidth=0.8, **look)
    _draw_errors(ax, believed)
    axis.dress(ax, "x")


def view(believed: Believed) -> tuple[float, float]:
    """Limits that show the median and the trials on the slice whole, and other things in part.

    A band may reach to infinity, and most trials may lie far off the slice: room is made for them
    as far as that leaves the curve visible.
    """
    where, heights = believed.where, believed.heights
    trials = [t for group in believed.kinds.values() for t in group if t.number in heights]
    shown = [trial for trial in trials if where.shows(trial.params)]
    on = [heights[t.number] for t in shown if where.contains(t.params)]
    everything = [heights[t.number] for t in shown]
    middle = where.possible(believed.middle)
    low, high = min([middle.min(), *on]), max([middle.max(), *on])
    lower, upper = (where.possible(band) for band in believed.outer)
    otherwise = float(np.median(upper - lower))  # where nothing varies
    if believed.bound is not None:
        low = min(low, max(believed.bound, low - believed.observed))
        high = max(high, min(believed.bound, high + believed.observed))
    for lowest, highest, share in (
        (lower.min(), upper.max(), 0.7),
        (min(everything, default=low), max(everything, default=high), 0.5),
    ):
        span = (high - low) or otherwise
        low = min(low, max(lowest, low - share * span))
        high = max(high, min(highest, high + share * span))
    pad = 0.06 * ((high - low) or otherwise)
    return float(low - 2 * pad), float(high + pad)  # below, room for marks on the edge


def _draw_errors(ax: Axes, believed: Believed) -> None:
    """The standard errors that were told, of trials on the slice."""
    where = believed.where
    trials = [
        trial
        for group in believed.kinds.values()
        for trial in group
        if trial.number in believed.errors
        and where.shows(trial.params)
        and where.contains(trial.params)
    ]
    if trials:
        ax.errorbar(
            where.place(trials)[0],
            [believed.heights[trial.number] for trial in trials],
            [believed.errors[trial.number] for trial in trials],
            fmt="none",
            ecolor=BLACK,
            elinewidth=1.0,
            capsize=2.5,
            zorder=3.5,
        )
