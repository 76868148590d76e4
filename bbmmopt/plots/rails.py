"""Rails: the vertical axes of plot_parallel, and where each trial crosses them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from bbmmopt.former import Former
from bbmmopt.plots.style import far_worse, short
from bbmmopt.problem import Objective
from bbmmopt.space import Categorical, Integer, Ordinal, Real
from bbmmopt.space.parameters import Parameter
from bbmmopt.trial import Trial

NOWHERE = -0.12  # height of the place for trials that have no value of a parameter
_BEYOND = 0.035  # how far past the end of an axis what is beyond it stands
_SPREAD = 0.5  # of the cell of a level, over which trials of the same value are spread
_GOLDEN = (5**0.5 - 1) / 2
_LEVELS, _FEW = 24, 8  # up to so many choices, and integers, each get a tick
_LARGEST = 1e200  # values beyond are scaled
_CELLS = 40  # levels of more values are too close together for spreading


@dataclass(frozen=True)
class Rail:
    """One of the vertical axes.

    Attributes:
        name: What it is of.
        heights: Where each trial crosses it, shape (n,): from 0 to 1; NaN where its line ends.
        ticks: Heights and texts.
        numbers: Whether the texts are numbers.
        nowhere: Whether a trial has no value of this parameter.
        objective: None for a parameter.
        beyond: How many values are so bad that they stand beyond the end.
    """

    name: str
    heights: np.ndarray
    ticks: list[tuple[float, str]]
    numbers: bool = True
    nowhere: bool = False
    objective: Objective | None = None
    beyond: int = 0


def parameter_rail(former: Former, name: str, trials: Sequence[Trial]) -> Rail:
    """The axis of a parameter: its own scale, from bound to bound."""
    parameter = former.space.parameters[name]
    lattice = parameter.lattice
    cell = 1 / lattice.size if lattice is not None and lattice.size <= _CELLS else 0.0
    sideways = np.array([(trial.number * _GOLDEN) % 1 - 0.5 for trial in trials])
    has = np.array([former.has(name, trial.params) for trial in trials])
    heights = NOWHERE + 0.05 * sideways
    for i, trial in enumerate(trials):
        if has[i]:
            # What was told from beyond the bounds stands just beyond the end.
            place = min(max(parameter.to_unit(trial.params[name]), -_BEYOND), 1 + _BEYOND)
            heights[i] = place + _SPREAD * cell * sideways[i]
    numbers = isinstance(parameter, Real | Integer)
    return Rail(name, heights, _parameter_ticks(parameter), numbers, not has.all())


def _parameter_ticks(parameter: Parameter) -> list[tuple[float, str]]:
    """Heights and texts: each choice, round numbers, and the bounds where these are far off."""
    if isinstance(parameter, Categorical | Ordinal):
        labels = parameter.labels
        every = -(-len(labels) // _LEVELS)
        return [(parameter.to_unit(each), short(each, 16)) for each in labels[::every]]
    if isinstance(parameter, Integer):
        low, high, step = parameter.low, parameter.high, parameter.step
        numbers = range(low, high + 1, step)
        if len(numbers) > _FEW:
            whole = [round(x) for x in _round_numbers(low, high, log=parameter.log) if x % 1 == 0]
            numbers = [x for x in whole if x in numbers]
        ticks = [(parameter.to_unit(x), f"{x:.6g}") for x in numbers]
        ends = [(parameter.to_unit(end), f"{end:.4g}") for end in (low, high)]
    else:
        assert isinstance(parameter, Real)
        low, high = parameter.low, parameter.high
        numbers = _round_numbers(low, high, log=parameter.log)
        ticks = [(parameter.to_unit(x), f"{x:.6g}") for x in numbers if low <= x <= high]
        ends = [(parameter.to_unit(end), f"{end:.4g}") for end in (low, high)]
    for end in ends:
        if all(abs(end[0] - height) > 0.07 for height, _ in ticks):
            ticks.append(end)
    return ticks


def _round_numbers(low: float, high: float, *, log: bool) -> list[float]:
    if not log:
        return list(MaxNLocator(6).tick_values(low, high))
    subs = (1.0, 2.0, 5.0) if high / low < 200 else (1.0,)
    return list(LogLocator(subs=subs, numticks=9).tick_values(low, high))


def objective_rail(objective: Objective, values: np.ndarray) -> Rail:
    """The axis of an objective: linear, over all values (n,) but the far worse ones."""
    there = np.isfinite(values)
    heights = np.full(len(values), np.nan)
    if not there.any():
        return Rail(objective.name, heights, [], objective=objective)
    good_is_low = objective.direction == "minimize"
    beyond = np.zeros(len(values), dtype=bool)
    beyond[there] = far_worse(values[there], good_is_low=good_is_low)
    # A range of numbers near the largest double would be infinite.
    largest = float(np.abs(values[there]).max())
    unit = 10.0 ** math.floor(math.log10(largest)) if largest > _LARGEST else 1.0
    scaled = values / unit
    low, high = scaled[there & ~beyond].min(), scaled[there & ~beyond].max()
    if low == high:
        heights[there] = 0.5
        ticks = [(0.5, f"{low * unit:.6g}")]
    else:
        heights[there] = (scaled[there] - low) / (high - low)
        heights[beyond] = 1 + _BEYOND if good_is_low else -_BEYOND
        numbers = [x for x in MaxNLocator(6).tick_values(low, high) if low <= x <= high]
        ticks = [((x - low) / (high - low), f"{x * unit:.6g}") for x in numbers]
    return Rail(objective.name, heights, ticks, objective=objective, beyond=int(beyond.sum()))
