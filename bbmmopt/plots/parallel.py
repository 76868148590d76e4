"""plot_parallel: each trial as a line through its parameters and what came out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.lines import Line2D

from bbmmopt.former import Former
from bbmmopt.plots.rails import NOWHERE, Rail, objective_rail, parameter_rail
from bbmmopt.plots.source import Source, stored
from bbmmopt.plots.style import (
    ORANGE,
    VERMILION,
    axes_or_new,
    check_axes,
    halo,
    ink,
    place_legend,
    plain,
    short,
    steep,
    title,
    width,
)
from bbmmopt.plots.table import Table, columns_of
from bbmmopt.problem import Objective
from bbmmopt.space.checks import did_you_mean, listing
from bbmmopt.study import NoCompleteTrial, StoredStudy
from bbmmopt.trial import TrialState

_RASTER = 2000  # more lines than that are pixels in a PDF too
_EACH, _WIDEST = 0.6, 20.0  # inches of a new figure for an axis, and of all of it
_PENDING = (TrialState.RUNNING, TrialState.WAITING)


def plot_parallel(
    study: Source,
    *,
    parameters: Sequence[str] | None = None,
    name: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw parallel coordinates: a vertical axis for each parameter, a line for each trial.

    The last axes are those of the objectives; colour is the objective, dark being good, and the
    best trial (with several objectives: the front) is a thick line. A line goes through "–" where
    a parameter is not active in its trial. Trials of one and the same choice are spread a little,
    so that they can be told apart. Values far worse than all others stand at the end of the axis.

    Args:
        study: An Optimizer, a Study, or where one is stored; at least one trial.
        parameters: Which ones, from left to right; all that have more than one value if left out.
        name: Which objective is the colour, of several; the first if left out.
        ax: Where to draw; a new figure if left out.
        legend: Whether to explain the lines.

    Returns:
        The axes drawn on.

    Raises:
        NoCompleteTrial: If there are no trials.
        ValueError: If a parameter or objective is unknown. Nothing was drawn then.
    """
    check_axes(ax)
    with stored(study) as source:
        seen = _seen(source, parameters, name)
    ax = axes_or_new(ax, min(_WIDEST, max(7.0, _EACH * len(seen.rails))))
    below = _dress(ax, seen)
    lines = _draw_lines(ax, seen)
    for i in range(len(seen.rails)):
        _draw_rail(ax, seen, i)
    if legend:
        for label, look in lines.items():
            ax.add_line(Line2D([], [], label=label, **look))
        place_legend(ax, below=below)
    return ax


def parallel_data(
    study: Source, *, parameters: Sequence[str] | None = None, name: str | None = None
) -> Table:
    """The trials with their parameters and values.

    Args:
        study, parameters, name: As in `plot_parallel`.

    Returns:
        A row for each trial, by number: "trial", "params.NAME", "values.NAME", "state", "feasible",
        and "best" for the trials that stand out. Facts: objectives, and name, the one
        that is the colour.

    Raises:
        NoCompleteTrial, ValueError: As in `plot_parallel`.
    """
    with stored(study) as source:
        return _seen(source, parameters, name).table


# --------------------------------------------------------------------------------------
# What there is
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """What is drawn.

    Attributes:
        table: See `parallel_data`.
        rails: From left to right.
        coloured: The rail that is the colour.
    """

    table: Table
    rails: list[Rail]
    coloured: Rail

    def of(self, *states: TrialState) -> np.ndarray:
        """Which trials are in one of these states, shape (n,)."""
        return np.isin(self.table["state"].astype(str), [str(state) for state in states])


def _seen(study: StoredStudy, parameters: Sequence[str] | None, name: str | None) -> _Seen:
    problem, former = study.problem, study.former
    names = _chosen(former, parameters)
    if name is not None and name not in problem.names:
        hint = did_you_mean(name, problem.names) or f" There is {listing(problem.names)}."
        raise ValueError(f"there is no objective {name!r}.{hint}")
    name = problem.names[0] if name is None else name
    trials = study.trials
    if not trials:
        raise NoCompleteTrial(
            f"plot_parallel needs at least one trial; study {study.study!r} has none. Ask for one "
            f"first."
        )
    if len(problem.names) == 1:
        best = problem.best_of(trials)
        stand_out = set() if best is None else {best.number}
    else:
        stand_out = {trial.number for trial in problem.pareto_front_of(trials)}
    state = np.empty(len(trials), dtype=object)
    state[:] = [str(trial.state) for trial in trials]
    table = Table(
        {
            "trial": np.array([trial.number for trial in trials]),
            **columns_of("params", names, [trial.params for trial in trials]),
            **columns_of("values", problem.names, [trial.values or {} for trial in trials]),
            "state": state,
            "feasible": np.array([problem.is_feasible(trial) for trial in trials]),
            "best": np.array([trial.number in stand_out for trial in trials]),
        },
        name=name,
        objectives=problem.names,
    )
    rails = [parameter_rail(former, each, trials) for each in names]
    rails += [objective_rail(each, table[f"values.{each.name}"]) for each in problem.objectives]
    return _Seen(table, rails, next(r for r in rails if r.objective and r.name == name))


def _chosen(former: Former, parameters: Sequence[str] | None) -> list[str]:
    """The parameters to draw; of those that are fixed now, the ones that were not always."""
    space = former.space
    varied = [name for name in space.names if space.parameters[name].kind != "fixed"]
    if parameters is None:
        if not varied:
            raise ValueError("every parameter has a single value: there is nothing to draw.")
        return varied
    if isinstance(parameters, str) or not isinstance(parameters, Sequence) or not parameters:
        raise TypeError(f"parameters must be a list of names; got {parameters!r}.")
    for name in parameters:
        if name not in space.names:
            hint = did_you_mean(name, space.names) or f" The space has {listing(space.names)}."
            raise ValueError(f"there is no parameter {name!r}.{hint}")
        if name not in varied:
            raise ValueError(f"parameter {name!r} has a single value: there is nothing to draw.")
    if len(set(parameters)) < len(parameters):
        raise ValueError(f"parameters must differ; got {list(parameters)!r}.")
    return list(parameters)


# --------------------------------------------------------------------------------------
# Drawing
# --------------------------------------------------------------------------------------


def _colours(objective: Objective) -> ListedColormap:
    """Dark is good: pale lines are hard to see on white, and these matter least."""
    shades = colormaps["viridis"](np.linspace(0.0, 0.93, 256))
    return ListedColormap(shades if objective.direction == "minimize" else shades[::-1])


def _draw_lines(ax: Axes, seen: _Seen) -> dict[str, dict[str, Any]]:
    """A line for each trial; returns what is to be explained, {label: its look}."""
    heights = np.stack([rail.heights for rail in seen.rails], axis=1)  # (n, rails)
    objective = seen.coloured.objective
    assert objective is not None
    complete, best = seen.of(TrialState.COMPLETE), seen.table["best"]
    feasible = seen.table["feasible"]
    alpha = float(np.clip((100 / len(heights)) ** 0.7, 0.03, 0.9))
    without = {"linewidth": 0.9, "alpha": max(alpha, 0.3)}
    explained = {}
    for label, some, look in (
        ("failed", seen.of(TrialState.FAILED), {"color": "0.5", "linestyle": "--"}),
        ("stopped early", seen.of(TrialState.PRUNED), {"color": "0.5", "linestyle": ":"}),
        ("infeasible", complete & ~feasible, {"color": "0.75"}),
        ("pending", seen.of(*_PENDING), {"color": ORANGE, "linestyle": "--"}),
    ):
        if some.any():
            explained[label] = look | without
            order = 2.5 if label == "pending" else 1.0
            _add(ax, heights[some], label, zorder=order, **explained[label])
    rest = np.flatnonzero(complete & feasible & ~best)
    rest = rest[np.argsort(objective.sign * seen.coloured.heights[rest], kind="stable")]
    if len(rest):
        drawn = _add(ax, heights[rest], "trial", linewidth=1.1, alpha=alpha, zorder=2.0)
        drawn.set(array=seen.coloured.heights[rest], cmap=_colours(objective), norm=Normalize(0, 1))
    if best.any():
        label = "best" if len(seen.table.facts["objectives"]) == 1 else "on the front"
        explained[label] = _draw_best(ax, seen, heights[best], label)
    return explained


def _draw_best(ax: Axes, seen: _Seen, heights: np.ndarray, label: str) -> dict[str, Any]:
    """Thick lines: one that stands out of all others, or a front in its colours; how it looks."""
    width, front = (2.6, False) if label == "best" else (2.2, True)
    look: dict[str, Any] = {} if front else {"color": VERMILION}
    border = halo(ax, width + 2)
    drawn = _add(ax, heights, label, linewidth=width, zorder=3.0, path_effects=border, **look)
    if front and seen.coloured.objective is not None:
        values = seen.coloured.heights[seen.table["best"]]
        colours = _colours(seen.coloured.objective)
        drawn.set(array=values, cmap=colours, norm=Normalize(0, 1))
        look = {"color": colours(0.5)}
    return look | {"linewidth": width}


def _add(ax: Axes, heights: np.ndarray, label: str, **look: Any) -> LineCollection:
    """Lines through heights (m, rails), up to where they end."""
    x = np.arange(heights.shape[1])
    lines = [np.column_stack([x, row])[np.isfinite(row)] for row in heights]
    drawn = LineCollection(lines, gid=label, rasterized=len(lines) > _RASTER, **look)
    ax.add_collection(drawn, autolim=False)
    return drawn


def _draw_rail(ax: Axes, seen: _Seen, i: int) -> None:
    """A vertical line, its ticks, and their texts in white halos on its left."""
    rail = seen.rails[i]
    ax.plot([i, i], [0, 1], color=ink(ax), linewidth=1.0, zorder=4)
    if rail is seen.coloured and rail.objective is not None:
        ends = np.linspace(0, 1, 65)
        # Each reaches into the next, or the background shows between them.
        pieces = [[(i, end), (i, min(1.0, end + 2 / 64))] for end in ends[:-1]]
        options: dict[str, Any] = {"linewidth": 6, "zorder": 4.1, "capstyle": "butt"}
        strip = LineCollection(pieces, cmap=_colours(rail.objective), gid="scale", **options)
        strip.set_array(0.5 * (ends[:-1] + ends[1:]))
        ax.add_collection(strip, autolim=False)
    apart = width(ax) / len(seen.rails)
    room = max(3, int(apart / 5.5))
    letters: dict[str, Any] = {"fontsize": _letters(ax), "zorder": 5, "textcoords": "offset points"}
    letters |= {"path_effects": halo(ax)}
    if rail.nowhere:
        look: dict[str, Any] = letters | {"ha": "center", "va": "top", "fontweight": "bold"}
        ax.annotate("–", (i, NOWHERE), xytext=(0, -5), **look)
    for height, text in rail.ticks:
        ax.plot([i - 0.02, i], [height, height], color=ink(ax), linewidth=0.9, zorder=4)
        if rail.numbers and 6 + 0.6 * _letters(ax) * len(text) > apart:
            continue  # a number is written whole or not at all
        ax.annotate(
            plain(text if rail.numbers else short(text, room)),
            (i, height),
            xytext=(-6, 0),
            ha="right",
            va="center",
            **letters,
        )


def _letters(ax: Axes) -> float:
    return 8.5 if width(ax) >= 250 else 6.5


def _dress(ax: Axes, seen: _Seen) -> float:
    """Names of the axes and the title; returns how much room the names take below, in points."""
    ax.spines[:].set_visible(False)
    ax.yaxis.set_visible(False)
    ax.set_xlim(-0.4, len(seen.rails) - 1 + 0.15)
    ax.set_ylim(NOWHERE - 0.1 if any(rail.nowhere for rail in seen.rails) else -0.06, 1.06)
    names = [
        short(rail.name) + (f"\n({rail.objective.direction}d)" if rail.objective else "")
        for rail in seen.rails
    ]
    longest = max(len(line) for name in names for line in name.splitlines())
    size = _letters(ax) + 1
    apart = width(ax) / len(names)
    angle = steep(apart, size)
    turned = longest * 0.56 * size > apart
    look: dict[str, Any] = {}
    if turned:
        look = {"rotation": angle, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(len(names)), [plain(name) for name in names], fontsize=size, **look)
    ax.tick_params(length=0)
    table = seen.table
    count = table.rows
    states = {state: int((table["state"] == state).sum()) for state in map(str, TrialState)}
    parts = [f"{number} {state}" for state, number in states.items() if number]
    notes = [", ".join(parts)] if len(parts) > 1 else []
    notes += [
        f"{rail.beyond} of {rail.name} far beyond the scale" for rail in seen.rails if rail.beyond
    ]
    heading = f"{short(seen.coloured.name)} of {count} trial{'s' * (count != 1)}"
    title(ax, plain(heading), note="\n".join(notes))
    # Names of objectives have two lines.
    return 12 + (0.56 * math.sin(math.radians(angle)) * longest + 2.4) * size if turned else 38.0
