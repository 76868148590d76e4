"""plot_curves: what trials reported on their way, and how the stopped ones would have ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from bbmmopt.early_stopping import Forecast, forecast
from bbmmopt.plots.source import Source, stored
from bbmmopt.plots.style import (
    BLUE,
    GREY,
    MARKS,
    ORANGE,
    SKY,
    VERMILION,
    axes_or_new,
    check_axes,
    far_worse,
    place_legend,
    plain,
    tidy,
    title,
)
from bbmmopt.plots.table import Table
from bbmmopt.study import NoCompleteTrial, StoredStudy
from bbmmopt.trial import TrialState


@dataclass(frozen=True)
class _Look:
    """How the curves of trials of a state look, and the mark at their ends."""

    label: str
    colour: str
    width: float
    marker: str | None
    layer: float


_LOOKS = {
    "complete": _Look("complete", SKY, 1.0, None, 2.0),
    "failed": _Look("failed", VERMILION, 1.0, "X", 2.1),
    "pruned": _Look("stopped early", GREY, 1.0, "s", 2.2),
    "running": _Look("running", ORANGE, 1.4, "^", 2.3),
}
_MARKED = 200  # up to so many curves of a state have a mark at their end
_SIDE = 0.08  # forecasts at one step stand side by side, over this share of the steps
_FORECASTS = 40  # up to so many forecasts have an error bar each


def plot_curves(
    study: Source, *, log: bool = False, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw a line for each trial that reported how far it had come, over the steps.

    The curves of trials that were stopped early end in a mark and go on, dashed, to what the trial
    would have ended with, by what complete trials gained from that step on; the bar there is its
    standard error. The model learns from these forecasts. There are none where there are several
    objectives or constraints. Values that are not finite leave a gap.

    Args:
        study: A study; at least one trial has reported a finite value.
        log: Whether the vertical axis is logarithmic; values and forecasts up to 0 are left out.
        ax: Where to draw; a new figure if left out.
        legend: Whether to explain the lines.

    Returns:
        The axes drawn on.

    Raises:
        NoCompleteTrial: If no trial has reported a value that can be drawn. Nothing was drawn then.
    """
    check_axes(ax)
    table = curves_data(study)
    facts = table.facts
    reported = table["kind"] == "reported"
    drawable = np.isfinite(table["value"]) & ((table["value"] > 0) | (not log))
    if not (reported & drawable).any():
        above = " above 0" if log else ""
        raise NoCompleteTrial(
            f"plot_curves needs a finite value{above} that a trial has reported: "
            f"trial.report(step, value)."
        )
    ax = axes_or_new(ax)
    tidy(ax)
    if log:
        ax.set_yscale("log")
    shown = np.where(drawable, table["value"], np.nan)  # what cannot be drawn is a gap
    beyond = _limit(ax, table, shown)
    _draw_reports(ax, table, np.where(reported, shown, np.nan), reported)
    if (drawable & ~reported).any():
        _draw_forecasts(ax, table, shown, reported)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    ax.set_xlabel("step")
    ax.set_ylabel(plain(f"{facts['name']} ({facts['direction']}d)"))
    states = table["state"]
    counts = {state: len(np.unique(table["trial"][states == state])) for state in _LOOKS}
    notes = [", ".join(f"{n} {_LOOKS[state].label}" for state, n in counts.items() if n)]
    missing = int((reported & ~drawable).sum())
    notes += [f"{missing} report{'s' * (missing != 1)} cannot be drawn"] * bool(missing)
    notes += [f"{beyond} lie{'s' * (beyond == 1)} beyond the scale"] * bool(beyond)
    count = sum(counts.values())
    heading = f"Learning curves of {count:,} trial{'s' * (count != 1)}"
    title(ax, heading, note="; ".join(notes))
    if legend:
        place_legend(ax)
    return ax


def curves_data(study: Source) -> Table:
    """The numbers behind `plot_curves`: a row for each report and each forecast, by trial.

    Args:
        study: As in `plot_curves`.

    Returns:
        Columns "trial", "step", "value", "kind" ("reported" or "forecast"), "low" and "high" (of a
        forecast, one standard error away, NaN where that is not known) and "state" (the trial's).
        A forecast stands at the step at which half of the complete trials had ended, or at the last
        one of its own. Facts: name, direction and best (the best trial, None if it did not report).

    Raises:
        NoCompleteTrial: If no trial has reported anything.
    """
    with stored(study) as opened:
        curves = opened.curves
        trials = {trial.number: trial for trial in opened.trials}
        if not curves:
            raise NoCompleteTrial(
                f"plot_curves needs a trial that reported something: trial.report(step, value); "
                f"none of the {len(trials)} of study {opened.study!r} did."
            )
        forecasts = _forecasts(opened, curves)
        several = len(opened.problem.objectives) > 1
        best = None if several else opened.problem.best_of(trials.values())
        objective = opened.problem.objectives[0]
    ends = [max(curves[k]) for k in curves if trials[k].state == TrialState.COMPLETE]
    end = median(ends) if ends else 0
    rows: list[tuple[int, int, float, str, float, float, str]] = []
    for number, curve in sorted(curves.items()):
        state, steps = str(trials[number].state), sorted(curve)
        rows += [(number, s, curve[s], "reported", math.nan, math.nan, state) for s in steps]
        if number in forecasts:
            value = forecasts[number].value
            error = forecasts[number].error
            spread = math.nan if error is None else error
            last = max(math.ceil(end), steps[-1])
            rows.append((number, last, value, "forecast", value - spread, value + spread, state))
    names = ("trial", "step", "value", "kind", "low", "high", "state")
    kinds = (int, int, float, object, float, float, object)
    return Table(
        {
            name: np.array(column, dtype=kind)
            for name, kind, column in zip(names, kinds, zip(*rows, strict=True), strict=True)
        },
        name=objective.name,
        direction=objective.direction,
        best=None if best is None or best.number not in curves else best.number,
    )


def _forecasts(
    study: StoredStudy, curves: Mapping[int, Mapping[int, float]]
) -> dict[int, Forecast]:
    """What the stopped trials would have ended with; as the model is told.

    Of one objective and no constraints, or their other outcomes would be missing.
    """
    problem = study.problem
    if len(problem.objectives) > 1 or problem.constraints:
        return {}
    finals, stopped = {}, []
    for trial in study.trials:
        if trial.state == TrialState.PRUNED:
            stopped.append(trial.number)
        elif trial.values is not None and trial.number in curves:
            finals[trial.number] = trial.values[problem.names[0]]
    return forecast(curves, finals, stopped)


def _limit(ax: Axes, table: Table, shown: np.ndarray) -> int:
    """Set the limits so that a few hopeless reports do not squeeze the rest.

    Returns:
        How many reports lie beyond.
    """
    steps = table["step"][np.isfinite(shown)]
    low, high = float(steps.min()), float(steps.max())
    pad = 0.03 * ((high - low) or 1.0)
    ax.set_xlim(low - pad, high + _SIDE * (high - low) + pad)
    heights = shown[np.isfinite(shown)]
    is_log = ax.get_yscale() == "log"
    if is_log:
        scale = np.log(heights)
    else:
        # How curves end, and would have ended, is looked at by itself: many begin far worse.
        parts_of = 2 * table["trial"] + (table["kind"] == "forecast")
        ends = heights[np.diff(parts_of[np.isfinite(shown)], append=-1) != 0]
        good_is_low = table.facts["direction"] == "minimize"
        parts = (heights, ends)
        kept = [part[~far_worse(part, good_is_low=good_is_low)] for part in parts]
        scale = np.concatenate(kept)
    low, high = float(scale.min()), float(scale.max())
    pad = 0.07 * ((high - low) or abs(low) or 1.0)
    limits = np.exp([low - pad, high + pad]) if is_log else np.array([low - pad, high + pad])
    ax.set_ylim(*limits)
    return int(((heights < limits[0]) | (heights > limits[1])).sum())


def _draw_reports(ax: Axes, table: Table, shown: np.ndarray, reported: np.ndarray) -> None:
    """The curves of each state as one artist, and the best trial's above all."""
    best = table.facts["best"]
    is_best = table["trial"] == (-1 if best is None else best)
    for state, look in _LOOKS.items():
        lines = _lines(table, shown, reported & (table["state"] == state) & ~is_best)
        if not lines:
            continue
        marker = look.marker if len(lines) <= _MARKED else None
        alpha = min(1.0, max(0.25, 6 / len(lines) ** 0.5))
        drawn = LineCollection(
            lines,
            colors=look.colour,
            linewidths=look.width,
            alpha=alpha,
            zorder=look.layer,
            gid=look.label,
        )
        ax.add_collection(drawn, autolim=False)
        if marker is None:
            # The lines themselves may be too faint for the legend.
            ax.plot([], [], color=look.colour, linewidth=look.width, label=look.label)
        ends = np.array([line[np.isfinite(line[:, 1])][-1] for line in lines])  # (n, 2)
        if marker is None:
            # A curve of one report is no line.
            ends = ends[[np.isfinite(line[:, 1]).sum() == 1 for line in lines]]
        if not len(ends):
            continue
        ax.plot(
            *ends.T,
            marker=marker or ".",
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.4,
            linestyle="",
            color=look.colour,
            zorder=look.layer + 0.5,
            label="_nolegend_" if marker is None else look.label,
        )
    for line in _lines(table, shown, reported & is_best):
        mark, end = MARKS["best"], np.flatnonzero(np.isfinite(line[:, 1]))[-1]
        ax.plot(
            *line.T,
            color=BLUE,
            linewidth=2.2,
            marker=mark.marker,
            markersize=mark.size**0.5,
            markerfacecolor=mark.face,
            markeredgecolor=mark.edge,
            markevery=[end],
            label=f"best (trial {best})",
            zorder=3,
        )


def _lines(table: Table, shown: np.ndarray, part: np.ndarray) -> list[np.ndarray]:
    """The points of each trial among these rows, each of shape (m, 2); without empty ones."""
    points = np.column_stack([table["step"][part], shown[part]])  # (n, 2)
    lines = np.split(points, np.flatnonzero(np.diff(table["trial"][part])) + 1)
    return [line for line in lines if np.isfinite(line[:, 1]).any()]


def _draw_forecasts(ax: Axes, table: Table, shown: np.ndarray, reported: np.ndarray) -> None:
    """Dashed from the last report to the forecast, with its error; side by side at one step."""
    foretold = np.flatnonzero(~reported & np.isfinite(shown))
    foretold = foretold[np.argsort(shown[foretold], kind="stable")]
    seen = np.flatnonzero(reported & np.isfinite(shown))
    ends = seen[np.flatnonzero(np.diff(table["trial"][seen], append=-1))]  # the last of each trial
    last = {table["trial"][k]: (table["step"][k], shown[k]) for k in ends}
    at = table["step"][foretold].astype(float)
    steps = table["step"][np.isfinite(shown)]
    room = _SIDE * float(np.ptp(steps))
    for step in np.unique(at):
        same = np.flatnonzero(at == step)
        if len(same) > 1:
            at[same] += room * np.arange(1, len(same) + 1) / len(same)
    values = shown[foretold]
    tips = zip(table["trial"][foretold], at, values, strict=True)
    lines = [np.array([last[number], (x, y)]) for number, x, y in tips if number in last]
    fade = min(1.0, (_FORECASTS / len(foretold)) ** 0.5)  # of many, none may hide the reports
    dashed = LineCollection(
        lines, colors=GREY, linewidths=0.9, linestyles="--", alpha=0.7 * fade, zorder=2.2
    )
    ax.add_collection(dashed, autolim=False)
    known = np.isfinite(table["low"][foretold]) & (len(foretold) <= _FORECASTS)
    low = table["low"][foretold].clip(min=ax.get_ylim()[0])
    ax.errorbar(
        at[known],
        values[known],
        [(values - low)[known].clip(min=0.0), (table["high"][foretold] - values)[known]],
        fmt="none",
        ecolor=GREY,
        elinewidth=0.9,
        capsize=2,
        zorder=2.6,
    )
    ax.plot(
        at,
        values,
        marker="s",
        markersize=4.5,
        markerfacecolor="white",
        markeredgecolor=GREY,
        linestyle="",
        alpha=max(0.3, fade),
        zorder=2.7,
        label="forecast of its end",
    )
