"""plot_history: how the run went."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bbmmopt.optimizer import NoCompleteTrial, Optimizer
from bbmmopt.plots.style import (
    BLACK,
    BLUE,
    VERMILION,
    axes_or_new,
    check_axes,
    place_legend,
    plain,
    scatter,
    short,
    tidy,
    title,
)
from bbmmopt.problem import Objective
from bbmmopt.space.checks import did_you_mean, finite, listing
from bbmmopt.trial import Trial, TrialState


def plot_history(
    optimizer: Optimizer,
    *,
    name: str | None = None,
    optimum: float | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw each trial's value and the best so far, in the user's units and sign.

    Failed trials are ticks on the bad edge. A few values that are far worse than all others do
    not set the scale: they stand as triangles on that edge.

    Args:
        optimizer: The run; at least one trial has finished.
        name: Which objective, if there are several.
        optimum: The best value possible, if known: the distance from it, the regret, is drawn then
            on a logarithmic scale.
        ax: Where to draw; a new figure if left out.
        legend: Whether to explain the marks.

    Returns:
        The axes drawn on.

    Raises:
        NoCompleteTrial: If no trial has finished.
        ValueError, TypeError: If `name` is not an objective, or a trial is better than `optimum`.
            Nothing was drawn then.
    """
    check_axes(ax)
    objective = _objective(optimizer, name)
    trials = optimizer.trials
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    failed = [t for t in trials if t.state == TrialState.FAILED]
    if not complete and not failed:
        raise NoCompleteTrial(
            f"plot_history needs at least one finished trial; study {optimizer.study!r} has "
            f"{len(trials)} unfinished. Tell a result first."
        )
    values = np.array([(t.values or {})[objective.name] for t in complete])  # (n,)
    heights = values if optimum is None else _regret(objective, complete, values, optimum)
    is_feasible = np.array([optimizer.problem.is_feasible(t) for t in complete], dtype=bool)
    good_is_low = optimum is not None or objective.direction == "minimize"

    ax = axes_or_new(ax)
    tidy(ax)
    _shade_start(ax, trials)
    if len(values):
        if optimum is not None:
            ax.set_yscale("log")
        beyond = _draw_values(ax, complete, heights, is_feasible, good_is_low)
        _draw_edge(ax, [t.number for t in complete], beyond, good_is_low)
    if len(values) and is_feasible.any():
        _draw_best(ax, complete, values, heights, is_feasible, good_is_low, trials[-1].number)
    if failed:
        edge = 0.985 if good_is_low else 0.015
        ax.scatter(
            [t.number for t in failed],
            [edge] * len(failed),
            marker="|",
            s=130,
            color=VERMILION,
            linewidths=2,
            transform=ax.get_xaxis_transform(),
            label="failed",
            clip_on=False,
            zorder=4,
        )
    if not len(values):
        ax.set_yticks([])
    _dress(ax, trials, objective, optimum)
    if legend:
        place_legend(ax)
    return ax


def _objective(optimizer: Optimizer, name: str | None) -> Objective:
    objectives = optimizer.problem.objectives
    names = optimizer.problem.names
    if name is None and len(objectives) > 1:
        raise ValueError(f"there are several objectives: pass name=, one of {listing(names)}.")
    for objective in objectives:
        if name in (None, objective.name):
            return objective
    hint = did_you_mean(name, names)
    raise ValueError(f"there is no objective {name!r}; there is {listing(names)}.{hint}")


def _regret(
    objective: Objective, complete: Sequence[Trial], values: np.ndarray, optimum: float
) -> np.ndarray:
    """Distance from the optimum, at least a little above 0 for a logarithmic scale."""
    optimum = finite("optimum", optimum)
    regret = objective.sign * (optimum - values)  # (n,)
    rounding = 1e-9 * max(1.0, abs(optimum))
    if len(regret) and regret.min() < -rounding:
        k = int(regret.argmin())
        raise ValueError(
            f"trial {complete[k].number} has {objective.name} = {values[k]:.12g}, better than "
            f"optimum={optimum!r}. Give the true optimum, or leave it out."
        )
    above = regret[regret > rounding]
    return regret.clip(min=0.1 * above.min() if len(above) else rounding)


def _shade_start(ax: Axes, trials: Sequence[Trial]) -> None:
    """Shade each stretch of trials that spread over the space, before the model took over."""
    numbers = [t.number for t in trials if t.origin.get("phase") == "space-filling"]
    if not numbers:
        return
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    for i, stretch in enumerate(np.split(np.array(numbers), breaks)):
        label = "_nolegend_" if i else "space-filling start"
        ax.axvspan(stretch[0] - 0.5, stretch[-1] + 0.5, color="0.92", lw=0, label=label, zorder=0)


def _draw_values(
    ax: Axes,
    complete: Sequence[Trial],
    heights: np.ndarray,
    is_feasible: np.ndarray,
    good_is_low: bool,
) -> np.ndarray:
    """Draw the values and set the limits; returns which values lie beyond, shape (n,)."""
    numbers = np.array([t.number for t in complete])
    is_log = ax.get_yscale() == "log"
    beyond = np.zeros(len(heights), dtype=bool) if is_log else _far_worse(heights, good_is_low)
    for part, label, faint in (
        (is_feasible & ~beyond, "value", False),
        (~is_feasible & ~beyond, "infeasible", True),
    ):
        if part.any():
            ax.scatter(
                numbers[part],
                heights[part],
                s=34,
                c="white",
                edgecolors=BLACK,
                alpha=0.4 if faint else 1.0,
                zorder=4,
                label=label,
            )
    scale = np.log(heights) if is_log else heights
    low, high = scale[~beyond].min(), scale[~beyond].max()
    span = (high - low) or 0.1 * abs(low) or 1.0
    # More room on the good side, for the annotation.
    good, bad = 0.16 * span, 0.08 * span
    low, high = (low - good, high + bad) if good_is_low else (low - bad, high + good)
    ax.set_ylim(*(np.exp([low, high]) if is_log else (low, high)))
    return beyond


def _far_worse(heights: np.ndarray, good_is_low: bool) -> np.ndarray:
    """Which values are so bad that the others would be squeezed: a fifth of them at most."""
    if len(heights) < 8:
        return np.zeros(len(heights), dtype=bool)
    cost = heights if good_is_low else -heights
    lower, upper, most = np.quantile(cost, [0.25, 0.75, 0.8])
    return cost > max(upper + 1.5 * (upper - lower), most)


def _draw_edge(ax: Axes, numbers: Sequence[int], beyond: np.ndarray, good_is_low: bool) -> None:
    """Triangles for values beyond the scale."""
    if not beyond.any():
        return
    ax.scatter(
        np.array(numbers)[beyond],
        np.full(beyond.sum(), 0.97 if good_is_low else 0.03),
        marker="^" if good_is_low else "v",
        s=34,
        c="white",
        edgecolors=BLACK,
        transform=ax.get_xaxis_transform(),
        label="beyond the scale",
        zorder=4,
    )


def _draw_best(
    ax: Axes,
    complete: Sequence[Trial],
    values: np.ndarray,
    heights: np.ndarray,
    is_feasible: np.ndarray,
    good_is_low: bool,
    last: int,
) -> None:
    """The best so far as steps, and its last value in words."""
    numbers = np.array([t.number for t in complete])[is_feasible]
    heights, values = heights[is_feasible], values[is_feasible]
    running = np.minimum.accumulate(heights) if good_is_low else np.maximum.accumulate(heights)
    ax.step(
        np.append(numbers, max(last, numbers[-1])),
        np.append(running, running[-1]),
        where="post",
        color=BLUE,
        linewidth=2,
        label="best so far",
        zorder=3,
    )
    k = int(heights.argmin() if good_is_low else heights.argmax())
    scatter(ax, "best", [numbers[k], heights[k]], "best")
    right = numbers[k] > 0.6 * last
    ax.annotate(
        f"{short(float(values[k]))} (trial {numbers[k]})",
        (float(numbers[k]), float(heights[k])),
        xytext=(-8 if right else 8, -9 if good_is_low else 9),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top" if good_is_low else "bottom",
        fontsize=9.5,
        fontweight="bold",
        zorder=5,
    )


def _dress(ax: Axes, trials: Sequence[Trial], objective: Objective, optimum: float | None) -> None:
    last = trials[-1].number
    ax.set_xlim(-0.5 - 0.01 * last, last + 0.5 + 0.02 * last)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    ax.set_xlabel("trial")
    words = f"{objective.name} ({objective.direction}d)"
    if optimum is not None:
        words = f"regret: distance of {objective.name} from {short(float(optimum))}"
    ax.set_ylabel(plain(words))
    counts = {
        state: sum(t.state == state for t in trials)
        for state in (TrialState.COMPLETE, TrialState.FAILED, TrialState.RUNNING)
    }
    parts = [f"{count} {state}" for state, count in counts.items() if count]
    heading = f"{objective.name} over {len(trials)} trial{'s' * (len(trials) != 1)}"
    title(ax, plain(heading), note=", ".join(parts) if len(parts) > 1 else "")
