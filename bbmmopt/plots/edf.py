"""plot_edf: how many trials found values this good."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from bbmmopt.plots.several import Several, look_at
from bbmmopt.plots.style import (
    axes_or_new,
    check_axes,
    far_worse,
    line_look,
    place_legend,
    plain,
    tidy,
    title,
)
from bbmmopt.plots.table import Table
from bbmmopt.study import NoCompleteTrial


def plot_edf(
    study: Several,
    *,
    name: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the share of trials that found a value at least this good: an empirical distribution.

    A step curve for each study; higher is better, whatever the direction. The share is one of all
    finished trials: those that failed, were stopped early or broke a constraint never reached any
    value, so that the curve of a study with such trials ends below 100 %. Studies of one label are
    counted together.

    Args:
        study: A study; or a list of studies; or {label: study or list of repeats}. At least one
            trial of them is complete and feasible.
        name: Which objective, if there are several.
        ax: Where to draw; a new figure if left out.
        legend: Whether to explain the lines.

    Returns:
        The axes drawn on.

    Raises:
        NoCompleteTrial: If no trial is complete and feasible.
        ValueError, TypeError: If `name` is not an objective, or studies have different objectives.
            Nothing was drawn then.
    """
    check_axes(ax)
    table = edf_data(study, name=name)
    facts = table.facts
    ax = axes_or_new(ax)
    tidy(ax)
    minimised = facts["direction"] == "minimize"
    low, high, beyond = _limits(table["value"], good_is_low=minimised)
    for i, (label, finished) in enumerate(facts["finished"].items()):
        mine = table["study"] == label
        value, share = table["value"][mine], table["share"][mine]
        if not len(value):
            x, y = value, share
        elif minimised:
            x = np.concatenate([value[:1], value, [max(high, value[-1])]])
            y = np.concatenate([[0.0], share, share[-1:]])
        else:
            x = np.concatenate([[min(low, value[0])], value, value[-1:]])
            y = np.concatenate([share[:1], share, [0.0]])
        words = f"{plain(label)} ({finished:,} trial{'s' * (finished != 1)})"
        ax.step(x, y, where="post" if minimised else "pre", label=words, **line_look(i))
    ax.set_xlim(low, high)
    ax.set_ylim(0, 1.04)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel(plain(f"{facts['name']} ({facts['direction']}d)"))
    ax.set_ylabel("trials this good or better")
    never = sum(facts["without"].values())
    notes = [f"{never:,} of {sum(facts['finished'].values()):,} trials never reached a value"]
    notes = notes * bool(never) + [f"{beyond} lie{'s' * (beyond == 1)} beyond the scale"] * bool(
        beyond
    )
    title(ax, plain(f"How often {facts['name']} was this good"), note="; ".join(notes))
    if legend:
        place_legend(ax)
    return ax


def edf_data(study: Several, *, name: str | None = None) -> Table:
    """The numbers behind `plot_edf`: a row for each step of the curves, study by study.

    Args:
        study, name: As in `plot_edf`.

    Returns:
        Columns "study" (its label), "value" (each that was found, rising) and "share" (of the
        finished trials, those with a value at least as good). Facts: name, direction, finished
        ({label: trials}) and without ({label: those of them that never reached a value}).

    Raises:
        NoCompleteTrial, ValueError, TypeError: As in `plot_edf`.
    """
    seen = look_at(study, name)
    objective = seen[0].objective
    found: dict[str, list[float]] = {one.label: [] for one in seen}
    finished = dict.fromkeys(found, 0)
    for one in seen:
        finished[one.label] += sum(trial.state.finished for trial in one.trials)
        found[one.label] += [
            trial.values[objective.name]
            for trial in one.trials
            if trial.values is not None and one.problem.is_feasible(trial)
        ]
    if not any(found.values()):
        raise NoCompleteTrial(
            f"plot_edf needs at least one complete and feasible trial; there are "
            f"{sum(finished.values())} finished ones. Tell a result first."
        )
    labels, values, shares = [], [], []
    for label, told in found.items():
        value, count = np.unique(np.array(told, dtype=float), return_counts=True)
        as_good = count.cumsum() if objective.sign < 0 else count[::-1].cumsum()[::-1]
        labels += [label] * len(value)
        values.append(value)
        shares.append(as_good / max(finished[label], 1))
    return Table(
        {
            "study": np.array(labels, dtype=object),
            "value": np.concatenate(values),
            "share": np.concatenate(shares),
        },
        name=objective.name,
        direction=objective.direction,
        finished=finished,
        without={label: finished[label] - len(told) for label, told in found.items()},
    )


def _limits(values: np.ndarray, *, good_is_low: bool) -> tuple[float, float, int]:
    """Where the picture begins and ends, and how many values lie beyond: those far worse."""
    beyond = far_worse(values, good_is_low=good_is_low)
    low, high = float(values[~beyond].min()), float(values[~beyond].max())
    pad = 0.05 * ((high - low) or abs(low) or 1.0)
    return low - pad, high + pad, int(beyond.sum())
