"""plot_pareto: the trade-off between objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from bbmmopt.plots.front import Front, front_of
from bbmmopt.plots.source import Source, modelled, stored
from bbmmopt.plots.style import (
    BANDS,
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    axes_or_new,
    check_axes,
    fitted,
    height,
    ink,
    letters,
    place_legend,
    scatter,
    short,
    tidy,
    title,
    width,
)
from bbmmopt.plots.table import Table
from bbmmopt.problem import Objective, Problem
from bbmmopt.trial import TrialState

_MANY = 200  # dominated trials, from which on their marks get smaller
_FAR = 3.0  # extents of the front, beyond which trials and the reference point are out of view


def plot_pareto(
    study: Source,
    *,
    objectives: Sequence[str] | None = None,
    belief: bool = False,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw trials by two objectives, and the front of those that no other beats in both.

    In the user's units and sign. The front is a staircase: what lies on its bad side is dominated;
    what of that is shaded, up to the reference point, is the hypervolume. Of three objectives the
    third is the colour, bright being good.

    With `belief` also what the model expects to be possible: the front of its mean, the region in
    which the true front is with a probability of 80 % (two objectives only), and running and
    waiting trials at what is expected of them, with bars that hold it with 68 %.

    Args:
        study: An Optimizer, a Study, or where one is stored; at least one trial is complete.
        objectives: Two or three of them, if there are more, or in another order: along x, along y,
            colour. The front is of these alone.
        belief: Whether to ask the model.
        ax: Where to draw; a new figure if left out.
        legend: Whether to explain the marks.

    Returns:
        The axes drawn on.

    Raises:
        NoCompleteTrial: If no trial is complete.
        ValueError: If there are less than two objectives, or more than three and `objectives` does
            not say which. Nothing was drawn then.
    """
    check_axes(ax)
    if not belief:
        with stored(study) as source:
            seen, believed = front_of(source, objectives), None
    else:
        from bbmmopt.plots.front_belief import believed_front

        with modelled(study) as optimizer:
            seen = front_of(optimizer, objectives)
            believed = believed_front(optimizer, seen.problem)
    ax = axes_or_new(ax)
    tidy(ax)
    if len(seen.problem.objectives) == 2:
        _draw_two(ax, seen, believed)
    else:
        _draw_three(ax, seen, believed)
    for side, objective in zip("xy", seen.problem.objectives, strict=False):
        room = width(ax) if side == "x" else height(ax)
        ax.set(**{f"{side}label": _words(ax, objective, room)})
    _dress(ax, seen, believed)
    if legend:
        place_legend(ax)
    return ax


def pareto_data(study: Source, *, objectives: Sequence[str] | None = None) -> Table:
    """The complete trials, and which of them no other beats; without the model.

    Args:
        study, objectives: As in `plot_pareto`.

    Returns:
        A row for each complete trial, by number: "trial", "values.NAME", "standard_errors.NAME",
        "feasible", "on_front". Facts: objectives, reference_point ({name: value}), inferred
        (whether that was found from the front, as none was given) and hypervolume; these are None
        and 0 where no trial is feasible.

    Raises:
        NoCompleteTrial, ValueError: As in `plot_pareto`.
    """
    with stored(study) as source:
        return front_of(source, objectives).table


def pareto_belief_data(study: Source, *, objectives: Sequence[str] | None = None) -> Table:
    """What the model believes of the front, of two or three objectives.

    Args:
        study, objectives: As in `plot_pareto`.

    Returns:
        Rows of three kinds. "expected": points on the front of the posterior mean, with "params.
        NAME". "pending": trials that run or wait, with "trial" and their parameters. "attained", of
        two objectives: the corners of what a "share" of 0.1, 0.5 and 0.9 of the fronts of functions
        drawn from the model reaches or surpasses. All have "values.NAME", the first two "low.NAME"
        and "high.NAME" too, the ends of the central 68 %. Fact: draws, the number of functions.

    Raises:
        NoCompleteTrial, ValueError: As in `plot_pareto`.
    """
    from bbmmopt.plots.front_belief import believed_front

    with modelled(study) as optimizer:
        return believed_front(optimizer, front_of(optimizer, objectives).problem)


def _words(ax: Axes, objective: Objective, room: float) -> str:
    """The name of an objective and its direction, in so many points."""
    direction = f" ({objective.direction}d)"
    size = letters(ax)
    return fitted(objective.name, room - 0.6 * size * len(direction), size) + direction


def _xy(problem: Problem, Y: np.ndarray) -> list[np.ndarray]:
    """Coordinates in the picture of values, larger is better, (n, k): k arrays (n,)."""
    return list(problem.from_model(list(Y.T)).values())


def _draw_two(ax: Axes, seen: Front, believed: Table | None) -> None:
    problem, Y, front = seen.problem, seen.Y, seen.Y[seen.on_front]
    _set_view(ax, seen, believed)
    reference = seen.reference
    if reference is not None and len(front):
        above = front[(front > reference).all(1)]
        if len(above):
            corners = _staircase(above, reference)
            x, y = _xy(problem, np.concatenate([corners, reference[None]]))
            ax.fill(x, y, color=ink(ax), alpha=0.08, linewidth=0, zorder=0.5)
    if believed is not None:
        _draw_belief(ax, problem, believed)
    if len(front):
        x, y = _xy(problem, _staircase(front, _bad_corner(ax, problem)))
        ax.plot(x, y, color=ink(ax), linewidth=1.4, zorder=3)
    _draw_errors(ax, seen)
    rest = seen.feasible & ~seen.on_front
    for kind, some, faint in (
        ("infeasible", ~seen.feasible, False),
        ("observed", rest, True),
        ("best", seen.on_front, False),
    ):
        if some.any():
            label = {"observed": "dominated", "best": "on the front"}.get(kind, kind)
            _put(ax, kind, _xy(problem, Y[some]), label, faint=faint)
    if reference is not None:
        x, y = _xy(problem, reference[None])
        (low, high), (bottom, top) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
        if low <= x[0] <= high and bottom <= y[0] <= top:
            options: dict[str, Any] = {"marker": "+", "s": 90, "color": ink(ax), "linewidths": 1.6}
            ax.scatter(x, y, label="reference point", zorder=4, **options)


def _put(ax: Axes, kind: str, xy: Sequence[np.ndarray], label: str, *, faint: bool = False) -> None:
    """Marks of a kind; dominated trials faint, for they are many and matter little."""
    drawn = scatter(ax, kind, xy, label, faint=faint)
    drawn.set_label(label)  # here faint does not mean off a slice
    count = len(xy[0])
    if faint and count > _MANY:
        drawn.set_sizes(drawn.get_sizes() * (_MANY / count) ** 0.5)
        drawn.set_rasterized(count > 10 * _MANY)


def _staircase(front: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """The edge of what a front (f, 2) dominates above a corner (2,), larger is better.

    From the corner's height under the last point to the corner's side of the first one.
    """
    front = front[np.lexsort((front[:, 1], front[:, 0]))]
    front = front[np.unique(front, axis=0, return_index=True)[1]]  # copies once, ascending
    x, y = front.T
    steps = np.empty((2 * len(front) + 1, 2))
    steps[1::2] = front
    steps[0] = corner[0], y[0]
    steps[2:-1:2, 0], steps[2:-1:2, 1] = x[:-1], y[1:]
    steps[-1] = x[-1], corner[1]
    return steps


def _bad_corner(ax: Axes, problem: Problem) -> np.ndarray:
    """A point beyond the bad edges of the picture, larger is better, (2,)."""
    ends = [np.array(ax.get_xlim()), np.array(ax.get_ylim())]
    inside = [o.sign * end for o, end in zip(problem.objectives, ends, strict=True)]
    return np.array([end.min() - np.ptp(end) for end in inside])


def _set_view(ax: Axes, seen: Front, believed: Table | None) -> None:
    """Limits that show the front whole, and other things as far as they leave it visible."""
    whole = [seen.Y[seen.on_front] if seen.on_front.any() else seen.Y]
    if believed is not None:
        median = (believed["kind"] == "expected") | (believed["share"] == 0.5)
        whole.append(_of(believed, seen.problem, median))
    core = np.concatenate(whole)
    other = [seen.Y]
    if seen.reference is not None:
        other.append(seen.reference[None])
    if believed is not None:
        other.append(_of(believed, seen.problem, np.ones(believed.rows, dtype=bool)))
    everything = np.concatenate(other)
    for j, side in enumerate("xy"):
        low, high = core[:, j].min(), core[:, j].max()
        spread = (high - low) or np.ptp(everything[:, j]) or abs(high) or 1.0
        bottom = max(low - _FAR * spread, everything[:, j].min())
        top = min(high + _FAR * spread, everything[:, j].max())
        pad = 0.06 * (top - bottom) or 0.1 * spread
        ends = seen.problem.objectives[j].sign * np.array([bottom - pad, top + pad])
        ax.set(**{f"{side}lim": (ends.min(), ends.max())})


def _of(table: Table, problem: Problem, some: np.ndarray) -> np.ndarray:
    """Values of some rows, larger is better, shape (m, k)."""
    values = {name: table[f"values.{name}"][some] for name in problem.names}
    return np.array(problem.to_model(values)).T.reshape(-1, len(problem.names))  # type: ignore[arg-type]


def _draw_belief(ax: Axes, problem: Problem, believed: Table) -> None:
    """The fronts that may be, the expected one, and what is pending."""
    corner = _bad_corner(ax, problem)
    steps = {}
    for share in (0.1, 0.9):
        some = (believed["kind"] == "attained") & (believed["share"] == share)
        corners = _of(believed, problem, some)
        steps[share] = _staircase(corners, corner) if len(corners) else corner[None]
    # Between the two staircases: along one, back along the other.
    x, y = _xy(problem, np.concatenate([steps[0.1], steps[0.9][::-1]]))
    look = {"facecolor": BANDS[0], "edgecolor": BANDS[1], "linewidth": 0.6, "zorder": 1}
    ax.fill(x, y, label="80 % band", **look)
    expected = _of(believed, problem, believed["kind"] == "expected")
    if len(expected):
        x, y = _xy(problem, _staircase(expected, corner))
        ax.plot(x, y, color=BLUE, linewidth=1.8, label="expected front", zorder=2)
    pending = believed["kind"] == "pending"
    if pending.any():
        centre, bars = [], []
        for name in problem.names:
            value, low, high = (believed[f"{p}.{name}"][pending] for p in ("values", "low", "high"))
            centre.append(value)
            bars.append([value - low, high - value])
        ax.errorbar(*centre, xerr=bars[0], yerr=bars[1], fmt="none", ecolor=ORANGE, zorder=3.5)
        scatter(ax, "pending", centre, "pending")


def _draw_errors(ax: Axes, seen: Front) -> None:
    """The standard errors that were told of trials on the front."""
    names, some = seen.problem.names, seen.on_front
    errors = [np.nan_to_num(seen.table[f"standard_errors.{name}"][some]) for name in names]
    if any(error.any() for error in errors):
        at = [seen.table[f"values.{name}"][some] for name in names]
        bars = {"ecolor": ink(ax), "elinewidth": 1.0, "capsize": 2.5, "zorder": 3.5}
        ax.errorbar(*at, xerr=errors[0], yerr=errors[1], fmt="none", **bars)


def _draw_three(ax: Axes, seen: Front, believed: Table | None) -> None:
    """The third objective as colour."""
    names, third = seen.problem.names, seen.problem.objectives[2]
    columns = [seen.table[f"values.{name}"] for name in names]
    shown = columns[2][seen.feasible] if seen.feasible.any() else columns[2]
    norm = Normalize(shown.min(), shown.max())
    cmap = "viridis" if third.direction == "maximize" else "viridis_r"
    if believed is not None:
        expected = believed["kind"] == "expected"
        x, y, z = (believed[f"values.{name}"][expected] for name in names)
        ax.scatter(x, y, c=z, norm=norm, cmap=cmap, s=7, marker="s", label="expected front")
        pending = believed["kind"] == "pending"
        if pending.any():
            at = [believed[f"values.{name}"][pending] for name in names[:2]]
            scatter(ax, "pending", at, "pending")
    if (~seen.feasible).any():
        scatter(ax, "infeasible", [c[~seen.feasible] for c in columns[:2]], "infeasible")
    for some, size, edge, thickness, label in (
        (seen.feasible & ~seen.on_front, 26, GREY, 0.6, "dominated"),
        (seen.on_front, 64, BLACK, 1.8, "on the front"),
    ):
        if some.any():
            x, y, z = (c[some] for c in columns)
            look = {"edgecolors": edge, "linewidths": thickness, "zorder": 4 + size / 100}
            ax.scatter(x, y, c=z, norm=norm, cmap=cmap, s=size, label=label, **look)
    bar = ax.figure.colorbar(ScalarMappable(norm, cmap), ax=ax, pad=0.02, aspect=28)
    bar.set_label(_words(ax, third, height(ax)), fontsize=letters(ax))
    bar.ax.tick_params(labelsize=letters(ax))
    bar.outline.set_visible(False)  # type: ignore[operator]


def _dress(ax: Axes, seen: Front, believed: Table | None) -> None:
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(6))
    count, facts = len(seen.Y), seen.table.facts
    size = int(seen.on_front.sum())
    lines = []
    if facts["reference_point"] is not None and size:
        at = ", ".join(short(facts["reference_point"][name]) for name in seen.problem.names)
        found = " (found from the front)" if facts["inferred"] else ""
        lines.append(f"hypervolume {facts['hypervolume']:.4g} up to ({at}){found}")
    others = dict(seen.others)
    if believed is not None:
        others |= dict.fromkeys((str(TrialState.RUNNING), str(TrialState.WAITING)), 0)
    parts = [f"{number} {state}" for state, number in others.items() if number]
    if len(seen.problem.objectives) == 2:
        x, y = _xy(seen.problem, seen.Y)
        (low, high), (bottom, top) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
        hidden = int((~((low <= x) & (x <= high) & (bottom <= y) & (y <= top))).sum())
        parts += [f"{hidden} out of view"] * bool(hidden)
    if parts:
        lines.append(f"not shown: {', '.join(parts)}")
    title(ax, f"{size} of {count} trials on the front", note="\n".join(lines))
