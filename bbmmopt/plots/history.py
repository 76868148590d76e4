"""plot_history: how a run went, or several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bbmmopt.plots.compared import draw_runs
from bbmmopt.plots.several import Seen, Several, is_one, look_at
from bbmmopt.plots.style import (
    BLACK,
    BLUE,
    VERMILION,
    axes_or_new,
    check_axes,
    far_worse,
    letters,
    place_legend,
    plain,
    scatter,
    short,
    tidy,
    title,
)
from bbmmopt.plots.table import Table
from bbmmopt.plots.times import unit_for
from bbmmopt.space.checks import finite
from bbmmopt.study import NoCompleteTrial
from bbmmopt.study.warm_start import PHASE
from bbmmopt.trial import Trial, TrialState

By = Literal["trial", "seconds"]

_VECTORS = 5000  # more dots are drawn as pixels in a PDF or SVG
# Colour and label of the trials that ended without a value.
_WITHOUT = {"failed": (VERMILION, "failed"), "pruned": ("0.45", "stopped early")}


def plot_history(
    study: Several,
    *,
    name: str | None = None,
    optimum: float | None = None,
    by: By = "trial",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw each trial's value and the best so far, in the user's units and sign.

    Trials that failed or were stopped early are ticks on the bad edge. A few values that are far
    worse than all others do not set the scale: they stand as triangles on that edge.

    Of several studies the best so far of each is drawn as a line. Studies of one label are repeats:
    their median is a line in a band from the lower to the upper quartile, from where each of them
    has a best value, as far as the shortest of them goes.

    Args:
        study: A study; or a list of studies; or {label: study or list of repeats}. At least one
            trial has finished.
        name: Which objective, if there are several.
        optimum: The best value possible, if known: the distance from it, the regret, is drawn then
            on a logarithmic scale.
        by: What goes along the horizontal axis: the trials' numbers, or the time at which their
            results came, since the study's first trial started.
        ax: Where to draw; a new figure if left out.
        legend: Whether to explain the marks.

    Returns:
        The axes drawn on.

    Raises:
        NoCompleteTrial: If no trial has finished.
        ValueError, TypeError: If `name` is not an objective, studies have different objectives, or
            a trial is better than `optimum`. Nothing was drawn then.
    """
    check_axes(ax)
    table = history_data(study, name=name, optimum=optimum, by=by)
    ax = axes_or_new(ax)
    tidy(ax)
    picture = _Picture(ax, table)
    if is_one(study):
        picture.draw_run()
    else:
        picture.draw_several()
    if legend:
        place_legend(ax)
    return ax


def history_data(
    study: Several,
    *,
    name: str | None = None,
    optimum: float | None = None,
    by: By = "trial",
) -> Table:
    """The numbers behind `plot_history`: a row for each trial, study by study.

    Args:
        study, name, optimum, by: As in `plot_history`. Rows are in the order of trials or of time.

    Returns:
        Columns "study" (its label), "repeat" (0, 1 … of those of one label), "trial", "seconds"
        (when its result came, since the study's first trial started), "values.NAME", "state",
        "phase" (how it was chosen), "feasible", "best" (of the feasible trials up to this row) and,
        with an optimum, "regret", the distance of the best from it. Facts: name, direction,
        optimum, by.

    Raises:
        NoCompleteTrial, ValueError, TypeError: As in `plot_history`.
    """
    if by not in get_args(By):
        raise ValueError(f'by must be "trial" or "seconds"; got {by!r}.')
    seen = look_at(study, name)
    if not any(trial.state.finished for one in seen for trial in one.trials):
        count = sum(len(one.trials) for one in seen)
        which = f"study {seen[0].study!r} has" if len(seen) == 1 else f"{len(seen)} studies have"
        raise NoCompleteTrial(
            f"plot_history needs at least one finished trial; {which} {count} unfinished. "
            f"Tell a result first."
        )
    if optimum is not None:
        optimum = finite("optimum", optimum)
        for one in seen:
            _check_optimum(one, optimum)
    parts = [_rows(one, by, optimum) for one in seen]
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    objective = seen[0].objective
    return Table(
        columns, name=objective.name, direction=objective.direction, optimum=optimum, by=by
    )


def _rows(one: Seen, by: By, optimum: float | None) -> dict[str, np.ndarray]:
    """The columns of one study."""
    objective, trials = one.objective, one.trials
    seconds = _seconds(trials)
    if by == "seconds":
        # What has not finished comes last; of equal times the one asked first.
        order = np.argsort(seconds, kind="stable")
        trials, seconds = [trials[i] for i in order], seconds[order]
    values = np.array([(t.values or {}).get(objective.name, np.nan) for t in trials], dtype=float)
    feasible = np.array([t.values is not None and one.problem.is_feasible(t) for t in trials], bool)
    scores = np.where(feasible, objective.sign * values, -np.inf)  # (n,)
    reached = np.maximum.accumulate(scores) if len(scores) else scores
    best = np.where(reached > -np.inf, objective.sign * reached, np.nan)
    columns = {
        "study": np.full(len(trials), one.label, dtype=object),
        "repeat": np.full(len(trials), one.repeat),
        "trial": np.array([t.number for t in trials], dtype=int),
        "seconds": seconds,
        f"values.{objective.name}": values,
        "state": np.array([str(t.state) for t in trials], dtype=object),
        "phase": np.array([t.origin.get("phase") for t in trials], dtype=object),
        "feasible": feasible,
        "best": best,
    }
    if optimum is not None:
        columns["regret"] = (objective.sign * (optimum - best)).clip(min=0.0)
    return columns


def _seconds(trials: Sequence[Trial]) -> np.ndarray:
    """When results came, since the first trial started, shape (n,); NaN for those that have not.

    What was taken along from another study was there from the start.
    """
    started = (t.started for t in trials if t.origin.get("phase") != PHASE)
    first = min((time for time in started if time is not None), default=0.0)
    ends = [np.nan if t.finished is None else max(t.finished - first, 0.0) for t in trials]
    return np.array(ends, dtype=float)


def _check_optimum(one: Seen, optimum: float) -> None:
    """Refuse an optimum that a feasible trial has beaten by more than rounding."""
    objective, rounding = one.objective, 1e-9 * max(1.0, abs(optimum))
    for trial in one.trials:
        value = (trial.values or {}).get(objective.name)
        if value is None or objective.sign * (optimum - value) >= -rounding:
            continue
        if one.problem.is_feasible(trial):
            where = f" of study {one.label!r}" if one.label != one.study else ""
            raise ValueError(
                f"trial {trial.number}{where} has {objective.name} = {value:.12g}, better than "
                f"optimum={optimum!r}. Give the true optimum, or leave it out."
            )


class _Picture:
    """What is drawn of a table, and how its numbers become places.

    Args:
        ax: Where to draw.
        table: Of `history_data`.
    """

    def __init__(self, ax: Axes, table: Table) -> None:
        self.ax, self.table, facts = ax, table, table.facts
        self.name, self.direction = facts["name"], facts["direction"]
        self.optimum: float | None = facts["optimum"]
        self.values = table[f"values.{self.name}"]
        self.good_is_low = self.optimum is not None or self.direction == "minimize"
        if facts["by"] == "trial":
            self.x, self.x_words = table["trial"].astype(float), "trial"
        else:
            seconds = table["seconds"]
            unit = unit_for(float(np.nanmax(seconds)))
            self.x, self.x_words = seconds / unit.seconds, f"{unit.name} since the first start"
        above = self._distance(np.append(self.values, table["best"]))
        above = above[above > 1e-9 * max(1.0, abs(self.optimum or 0.0))]
        self.least = 0.1 * float(above.min()) if len(above) else 1e-9

    def heights(self, values: np.ndarray) -> np.ndarray:
        """Where values are drawn: themselves, or their regret, a little above 0 for the scale."""
        if self.optimum is None:
            return values
        return self._distance(values).clip(min=self.least)

    def _distance(self, values: np.ndarray) -> np.ndarray:
        sign = 1 if self.direction == "maximize" else -1
        return sign * ((self.optimum or 0.0) - values)

    def draw_several(self) -> None:
        """The best so far of each label."""
        if self.optimum is not None:
            self.ax.set_yscale("log")
        repeats, last = draw_runs(
            self.ax,
            self.table,
            self.x,
            self.heights(self.table["best"]),
            good_is_low=self.good_is_low,
            finished=~np.isin(self.table["state"], ("waiting", "running")),
        )
        note = "lines: medians of repeats; bands: their quartiles" if repeats else ""
        count = len(dict.fromkeys(self.table["study"]))
        heading = f"Best {self.name} so far of {count} {'studies' if count > 1 else 'study'}"
        self._dress(heading if self.optimum is None else f"Regret of {self.name}", note, last)

    def draw_run(self) -> None:
        """Values and the best so far of the only study."""
        ax, table = self.ax, self.table
        if self.x_words == "trial":
            self._shade_start()
        complete = table["state"] == TrialState.COMPLETE
        feasible = table["feasible"]
        # A value that breaks a constraint may be better than the best that keeps it.
        shown = complete & (feasible | (self._distance(self.values) > 0) | (self.optimum is None))
        if shown.any():
            if self.optimum is not None:
                ax.set_yscale("log")
            self._draw_values(shown)
        if feasible.any():
            self._draw_best()
        for state, (colour, label) in _WITHOUT.items():
            self._draw_ticks(table["state"] == state, colour, label)
        if not shown.any():
            ax.set_yticks([])
        states = table["state"].tolist()
        parts = [
            f"{states.count(state):,} {word}"
            for state, word in {
                TrialState.COMPLETE: "complete",
                TrialState.FAILED: "failed",
                TrialState.PRUNED: "stopped early",
                TrialState.RUNNING: "running",
            }.items()
            if state in states
        ]
        heading = f"{self.name} over {table.rows:,} trial{'s' * (table.rows != 1)}"
        note = ", ".join(parts) if len(parts) > 1 else ""
        self._dress(heading, note, float(np.nanmax(self.x)))

    def _shade_start(self) -> None:
        """Shade each stretch of trials that spread over the space, before the model took over."""
        numbers = self.table["trial"][self.table["phase"] == "space-filling"]
        if not len(numbers):
            return
        breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
        for i, stretch in enumerate(np.split(numbers, breaks)):
            label = "_nolegend_" if i else "space-filling start"
            ends = stretch[0] - 0.5, stretch[-1] + 0.5
            self.ax.axvspan(*ends, color="0.92", lw=0, label=label, zorder=0)

    def _draw_values(self, shown: np.ndarray) -> None:
        """Draw these values, and set the limits: those far worse go to the edge."""
        ax, feasible = self.ax, self.table["feasible"]
        heights = self.heights(self.values)
        is_log = ax.get_yscale() == "log"
        beyond = np.zeros(len(heights), dtype=bool)
        if not is_log:
            beyond[shown] = far_worse(heights[shown], good_is_low=self.good_is_low)
        for part, label, faint in (
            (shown & feasible & ~beyond, "value", False),
            (shown & ~feasible & ~beyond, "infeasible", True),
        ):
            if part.any():
                look = _dots(self.table.rows)
                look["alpha"] = 0.4 if faint else 1.0
                ax.scatter(self.x[part], heights[part], zorder=4, label=label, **look)
        within = heights[shown & ~beyond]
        scale = np.log(within) if is_log else within
        low, high = scale.min(), scale.max()
        span = (high - low) or 0.1 * abs(low) or 1.0
        # More room on the good side, for the annotation: more of it where the axes are small.
        points = ax.get_window_extent().height / ax.figure.dpi * 72
        good, bad = min(56 / max(points, 1.0), 0.5) * span, 0.08 * span
        low, high = (low - good, high + bad) if self.good_is_low else (low - bad, high + good)
        ax.set_ylim(*(np.exp([low, high]) if is_log else (low, high)))
        if beyond.any():
            ax.scatter(
                self.x[beyond],
                np.full(beyond.sum(), 0.97 if self.good_is_low else 0.03),
                marker="^" if self.good_is_low else "v",
                transform=ax.get_xaxis_transform(),
                label="beyond the scale",
                zorder=4,
                **_dots(self.table.rows),
            )

    def _draw_best(self) -> None:
        """The best so far as steps, and its last value in words."""
        ax, table = self.ax, self.table
        feasible, heights = table["feasible"], self.heights(table["best"])
        x, last = self.x[feasible], float(np.nanmax(self.x))
        ax.step(
            np.append(x, max(last, x[-1])),
            np.append(heights[feasible], heights[feasible][-1]),
            where="post",
            color=BLUE,
            linewidth=2,
            label="best so far",
            zorder=3,
        )
        is_best = feasible & (self.values == table["best"][-1])
        k = int(np.flatnonzero(is_best)[0])
        height = float(self.heights(self.values[[k]])[0])
        scatter(ax, "best", [self.x[k], height], "best")
        right = self.x[k] > 0.6 * last
        ax.annotate(
            f"{short(float(self.values[k]))} (trial {table['trial'][k]})",
            (float(self.x[k]), height),
            xytext=(-8 if right else 8, -9 if self.good_is_low else 9),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top" if self.good_is_low else "bottom",
            fontsize=letters(ax, 9.5),
            fontweight="bold",
            zorder=5,
        )

    def _draw_ticks(self, part: np.ndarray, colour: str, label: str) -> None:
        """Ticks on the bad edge for trials that ended without a value."""
        if not part.any():
            return
        self.ax.scatter(
            self.x[part],
            np.full(part.sum(), 0.985 if self.good_is_low else 0.015),
            marker="|",
            s=130,
            color=colour,
            linewidths=max(0.7, 2 * min(1.0, 100 / part.sum()) ** 0.5),
            transform=self.ax.get_xaxis_transform(),
            label=label,
            clip_on=False,
            zorder=4,
        )

    def _dress(self, heading: str, note: str, last: float) -> None:
        ax = self.ax
        if self.x_words == "trial":
            ax.set_xlim(-0.5 - 0.01 * last, last + 0.5 + 0.02 * last)
            ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        else:
            ax.set_xlim(-0.03 * (last or 1.0), 1.03 * (last or 1.0))
        ax.set_xlabel(self.x_words)
        words = f"{self.name} ({self.direction}d)"
        if self.optimum is not None:
            words = f"regret of {self.name}"
            far = f"regret: distance from the optimum, {short(self.optimum)}"
            note = f"{far}\n{note}" if note else far
        ax.set_ylabel(plain(words))
        title(ax, plain(heading), note=note)


def _dots(count: int) -> dict[str, Any]:
    """How values are drawn: smaller where there are many."""
    size = max(4.0, 34 * min(1.0, 200 / count) ** 0.5)
    if size < 12:
        return {"s": size, "c": "0.6", "linewidths": 0, "rasterized": count > _VECTORS}
    return {"s": size, "c": "white", "edgecolors": BLACK, "linewidths": 1.0}
