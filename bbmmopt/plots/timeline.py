"""plot_timeline: who worked when."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from bbmmopt.plots.attempts import Attempt, attempts_of, rows_of, short_workers
from bbmmopt.plots.source import Source, stored
from bbmmopt.plots.style import (
    BLACK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    axes_or_new,
    check_axes,
    letters,
    place_legend,
    plain,
    short,
    tidy,
    title,
    width,
)
from bbmmopt.plots.table import Table
from bbmmopt.plots.times import in_words, unit_for
from bbmmopt.study import NoCompleteTrial, StoredStudy


@dataclass(frozen=True)
class _Look:
    """How the bars of a state look: they differ in colour, height and hatching."""

    label: str
    colour: str
    height: float
    hatch: str


_LOOKS = {
    "complete": _Look("complete", SKY, 0.84, ""),
    "pruned": _Look("stopped early", "0.85", 0.66, "...."),
    "failed": _Look("failed", VERMILION, 0.48, "////"),
    "retried": _Look("went wrong, was tried again", PURPLE, 0.48, "||||"),
    "taken over": _Look("lost, was taken over", "white", 0.48, "xxxx"),
    "running": _Look("running", ORANGE, 0.84, "\\\\"),
}
_HATCHED = 400  # up to so many bars have outlines and hatching: of more one would see nothing else
_VECTORS = 5000  # more bars are drawn as pixels in a PDF or SVG
_SMALL = 300.0  # points: narrower axes get shorter labels
_SILENT = 600.0  # seconds without a sign of life, at least, before running trials seem dead


def plot_timeline(study: Source, *, ax: Axes | None = None, legend: bool = True) -> Axes:
    """Draw a bar for each trial from its start to its end, in the row of the worker that ran it.

    A worker that ran several trials at once, such as a run with `workers=4`, has as many rows as
    that takes; so have trials without a named worker. Its label says which share of the time, from
    its first start to its last end, these rows were idle. A trial that was tried again, or taken
    over by another worker, has a bar for each go. Trials that run go on until now; but if nothing
    was heard of the study for long (over ten minutes, and over three times as long as it had
    lasted), the picture ends where it fell silent, and says so.

    Args:
        study: A study; at least one trial was started.
        ax: Where to draw; a new figure if left out.
        legend: Whether to explain the colours.

    Returns:
        The axes drawn on.

    Raises:
        NoCompleteTrial: If no trial was started. Nothing was drawn then.
    """
    check_axes(ax)
    table = timeline_data(study)
    facts = table.facts
    ax = axes_or_new(ax)
    tidy(ax)
    ax.grid(False, axis="y")
    first = facts["first"]
    unit = unit_for(facts["until"] - first)
    left = (table["started"] - first) / unit.seconds
    ended = np.where(np.isnan(table["finished"]), facts["until"], table["finished"])
    right = (np.maximum(ended, table["started"]) - first) / unit.seconds
    last = max((facts["until"] - first) / unit.seconds, 1e-9)
    rows = sum(worker["rows"] for worker in facts["workers"])
    ax.set_xlim(-0.01 * last, (1.01 if facts["silent"] is None else 1.0) * last)
    ax.set_ylim(rows - 0.4, -0.6)
    for state, look in _LOOKS.items():
        part = table["state"] == state
        if part.any():
            bars = _bars(left[part], right[part], table["row"][part], look.height)
            ax.add_collection(_collection(bars, look, table.rows), autolim=False)
    _number(ax, table, left, right, rows)
    ax.set_xlabel(f"{unit.name} since the first start")
    begun = datetime.fromtimestamp(first, UTC)
    notes = [f"first start: {begun:%Y-%m-%d %H:%M} UTC"]
    if facts["silent"] is not None:
        notes.append(f"nothing was heard for {in_words(facts['silent'])}: running trials are cut")
    count = len(np.unique(table["trial"]))
    workers = len(facts["workers"])
    heading = f"{count:,} trial{'s' * (count != 1)} of {workers} worker{'s' * (workers != 1)}"
    title(ax, heading, note="\n".join(notes))
    if legend:
        place_legend(ax, across=0.75 if width(ax) < _SMALL else 1.0)
    _name_workers(ax, facts["workers"], rows)  # in letters smaller than other labels
    return ax


def timeline_data(study: Source) -> Table:
    """The numbers behind `plot_timeline`: a row for each go at a trial, by trial.

    Args:
        study: As in `plot_timeline`.

    Returns:
        Columns "trial", "attempt" (1, 2 …), "worker" (None where it has no name), "started",
        "finished" (seconds since 1970; NaN while it runs), "state" (of the trial; "retried" or
        "taken over" of goes before the last) and "row" (in the picture). Facts: first (start),
        until (where the picture ends), silent (seconds without a sign of life, None if trials may
        well be running) and workers: from top to bottom {name, label, rows, idle} of each.

    Raises:
        NoCompleteTrial: If no trial was started.
    """
    with stored(study) as opened:
        attempts = attempts_of(opened)
        if not attempts:
            raise NoCompleteTrial(
                f"plot_timeline needs at least one trial that was started; study "
                f"{opened.study!r} has {len(opened.trials)} that nobody ran. Ask for one first."
            )
        until, silent = _end(opened, attempts)
    rows, counts = rows_of(attempts)
    ends = [np.nan if a.finished is None else a.finished for a in attempts]
    columns: dict[str, Any] = {
        "trial": np.array([a.trial for a in attempts], dtype=int),
        "attempt": np.array([a.number for a in attempts], dtype=int),
        "worker": np.array([a.worker for a in attempts], dtype=object),
        "started": np.array([a.started for a in attempts]),
        "finished": np.array(ends, dtype=float),
        "state": np.array([a.state for a in attempts], dtype=object),
        "row": np.array(rows, dtype=int),
    }
    labels, idle = short_workers(counts), _idle(attempts, counts, until)
    workers = [
        {"name": worker, "label": labels[worker], "rows": count, "idle": idle[worker]}
        for worker, count in counts.items()
    ]
    first = min(attempt.started for attempt in attempts)
    return Table(columns, first=first, until=until, silent=silent, workers=workers)


def _end(study: StoredStudy, attempts: list[Attempt]) -> tuple[float, float | None]:
    """Where the picture ends; and for how long nothing was heard, if running trials seem dead."""
    first = min(attempt.started for attempt in attempts)
    heard = max(max(attempt.started, attempt.finished or 0.0) for attempt in attempts)
    if all(attempt.finished is not None for attempt in attempts):
        return heard, None
    now = max(time.time(), heard)
    if now - heard > max(_SILENT, 3 * (heard - first)):
        # Reports are signs of life too; there may be many, so they are looked at only now.
        reports, _ = study.storage.reports(study.study)
        heard = max([heard, *(report.time for report in reports)])
    if now - heard > max(_SILENT, 3 * (heard - first)):
        return heard + 0.05 * (heard - first), now - heard
    return now, None


def _idle(
    attempts: list[Attempt], counts: dict[str | None, int], until: float
) -> dict[str | None, float]:
    """Which share of its rows' time each worker did nothing, from its first start to its last end.

    0 for one that had no time.
    """
    busy = dict.fromkeys(counts, 0.0)
    begin, end = dict.fromkeys(counts, np.inf), dict.fromkeys(counts, -np.inf)
    for attempt in attempts:
        worker = attempt.worker
        finished = max(until, attempt.started) if attempt.finished is None else attempt.finished
        busy[worker] += finished - attempt.started
        begin[worker] = min(begin[worker], attempt.started)
        end[worker] = max(end[worker], finished)
    whole = {worker: count * (end[worker] - begin[worker]) for worker, count in counts.items()}
    return {
        worker: max(1 - busy[worker] / time, 0.0) if time > 0 else 0.0
        for worker, time in whole.items()
    }


def _bars(left: np.ndarray, right: np.ndarray, row: np.ndarray, height: float) -> np.ndarray:
    """Corners of bars, shape (n, 4, 2)."""
    top, bottom = row - height / 2, row + height / 2
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)


def _collection(bars: np.ndarray, look: _Look, count: int) -> PolyCollection:
    """All bars of a state as one artist."""
    few = count <= _HATCHED
    corners: Any = bars  # an array is taken too, and faster
    return PolyCollection(
        corners,
        facecolor=look.colour,
        # Without outlines the shortest would vanish: they are given one in their own colour.
        edgecolor=BLACK if few or look.colour == "white" else look.colour,
        linewidth=0.5 if few else 0.25,
        hatch=look.hatch if few else None,
        label=look.label,
        rasterized=count > _VECTORS,
    )


def _number(ax: Axes, table: Table, left: np.ndarray, right: np.ndarray, rows: int) -> None:
    """Write the trial's number into each bar that has room for it."""
    box = ax.get_window_extent()
    points = 72 / ax.figure.dpi
    per_unit = box.width * points / abs(np.diff(ax.get_xlim()))[0]
    if table.rows > _HATCHED or box.height * points / max(rows, 1) < 13:
        return
    for number, start, end, row, state in zip(
        table["trial"], left, right, table["row"], table["state"], strict=True
    ):
        if (end - start) * per_unit < 5.5 * len(str(number)) + 7:
            continue
        patch = None if _LOOKS[state].hatch == "" else _BACKGROUND
        ax.text(
            (start + end) / 2,
            row,
            str(number),
            ha="center",
            va="center",
            fontsize=7.5,
            color=BLACK,
            bbox=patch,
            clip_on=True,
        )


_BACKGROUND = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}


def _name_workers(ax: Axes, workers: list[dict[str, Any]], rows: int) -> None:
    """A tick in the middle of each worker's rows, as far as there is room for its label."""
    small = width(ax) < _SMALL
    box = ax.get_window_extent()
    row_height = box.height * 72 / ax.figure.dpi / rows
    ticks, labels, above, free = [], [], 0, -np.inf
    for worker in workers:
        middle = above + (worker["rows"] - 1) / 2
        above += worker["rows"]
        two_lines = worker["rows"] * row_height >= 27
        needed = (22 if two_lines else 11) / row_height
        if middle - needed / 2 < free:
            continue
        free = middle + needed / 2
        name = plain(short(worker["label"], 10 if small else 24))
        ticks.append(middle)
        labels.append(f"{name}{chr(10) if two_lines else ', '}idle {worker['idle']:.0%}")
    ax.set_yticks(ticks, labels, fontsize=letters(ax, 8.0))
    ax.tick_params(axis="y", length=0)
    edges = np.cumsum([worker["rows"] for worker in workers])[:-1] - 0.5
    if len(workers) < 60 and rows > len(workers):
        ax.hlines(edges, 0, 1, transform=ax.get_yaxis_transform(), color="0.85", linewidth=0.8)
