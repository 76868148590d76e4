"""plot_contours: what the output depends on, parameter by parameter and pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.axes import Axes

from bbmmopt.optimizer import Optimizer
from bbmmopt.plots.dependence import Averages, Dependence, averaged, sliced
from bbmmopt.plots.importance import ranking
from bbmmopt.plots.marks import by_kind
from bbmmopt.plots.matrix import Matrix
from bbmmopt.plots.outputs import Output, output_of
from bbmmopt.plots.slices import make_slice, need_complete
from bbmmopt.plots.source import Source, modelled
from bbmmopt.plots.style import check_axes, short
from bbmmopt.plots.table import Table
from bbmmopt.space.checks import did_you_mean, listing
from bbmmopt.trial import Trial

At = Literal["average", "best"]

_COLUMNS = ("x", "y", "x_value", "y_value", "value", "low_68", "high_68", "low_95", "high_95")

_MOST = 4  # parameters are drawn, unless more are asked for


def contours_data(
    study: Source,
    parameters: Sequence[str] | None = None,
    *,
    name: str | None = None,
    at: At = "average",
    fixed: Mapping[str, Any] | None = None,
) -> Table:
    """What `plot_contours` draws: "x", "y", "x_value", "y_value", "value", one row a place.

    Rows of a main effect have no y (None, and NaN or None for its value), and the ends of the
    bands besides: "low_68", "high_68", "low_95", "high_95", NaN in other rows.

    Args:
        study, parameters, name, at, fixed: As in `plot_contours`.

    Returns:
        A table; of its facts, `parameters` are those drawn, `name` is the output.

    Raises:
        NoCompleteTrial, ValueError, TypeError: As in `plot_contours`.
    """
    with modelled(study) as optimizer:
        return _table(_look(optimizer, parameters, name, at, fixed))


def plot_contours(
    study: Source,
    parameters: Sequence[str] | None = None,
    *,
    name: str | None = None,
    at: At = "average",
    fixed: Mapping[str, Any] | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> np.ndarray:
    """Draw what the model expects over each pair of parameters, and the effect of each by itself.

    Below the diagonal surfaces, in the user's units, with the other parameters averaged out over
    the whole space (partial dependence, over 128 points that are always the same, or fewer of many
    trials and under constraints); on the diagonal the same over one parameter, with the bands that
    hold the averaged function with 68 and 95 % probability. Where the model warps its targets, it
    is warped ones that are averaged, and the average is taken back. A parameter that is not always
    active is averaged over the points where it is; under constraints of the space, over points that
    meet them. Places where none was found are hatched.

    Trials are projected onto each panel, so a mark need not have the value of the colour under it.

    Args:
        study: An Optimizer, a Study, or where one is stored; at least one trial is complete.
        parameters: Which, in this order; the four that matter most if left out, see
            `plot_importance`.
        name: Which objective or constraint, if there are several.
        at: "average", or "best": slices through the best trial, as in `plot_posterior`.
        fixed: Values to hold other parameters at, {name: value}.
        ax: Its place in the figure is divided, and it is switched off; a new figure if left out.
        legend: Whether to explain the marks.

    Returns:
        The panels, an array of Axes of shape (k, k), None above the diagonal.

    Raises:
        NoCompleteTrial: If no trial is complete.
        ValueError, TypeError: If a name or a value is wrong, or a parameter is nowhere active.
            Nothing was drawn then.
    """
    check_axes(ax)
    with modelled(study) as optimizer:
        look = _look(optimizer, parameters, name, at, fixed)
        kinds = by_kind(optimizer.problem, look.trials, best=True)
        former = optimizer.former
    matrix = Matrix.of(ax, len(look.names))
    matrix.draw(look.panels, look.output)
    matrix.mark(look.panels, kinds, former)
    matrix.title(look.heading, look.note)
    if legend:
        matrix.legend(look.panels)
    return matrix.panels


@dataclass(frozen=True)
class _Look:
    """What is drawn.

    Attributes:
        output: Of which output.
        names: The parameters.
        panels: Main effects under (x,), surfaces under (x, y).
        trials: All trials.
        at: As in `plot_contours`.
        fixed: As there, checked.
        unknown: Constraints that are functions which were not stored.
    """

    output: Output
    names: list[str]
    panels: dict[tuple[str, ...], Dependence]
    trials: list[Trial]
    at: At
    fixed: Mapping[str, Any]
    unknown: Sequence[str]

    @property
    def heading(self) -> str:
        """What is drawn, in words."""
        count = len(self.output.belief.data.y)
        return f"{short(self.output.name)} after {count} trial{'s' * (count != 1)}"

    @property
    def note(self) -> str:
        """What the surfaces are, in words."""
        words = "slices through the best trial"
        if self.at == "average":
            words = "all other parameters averaged out"
        if self.fixed:
            held = (f"{short(name)} = {short(value)}" for name, value in self.fixed.items())
            words += f"\nfixed: {', '.join(held)}"
        if self.unknown:
            words += f"\nnot stored, so not looked at: {', '.join(self.unknown)}"
        return words


def _look(
    optimizer: Optimizer,
    parameters: Sequence[str] | None,
    name: str | None,
    at: At,
    fixed: Mapping[str, Any] | None,
) -> _Look:
    """Check what is asked for, and compute it."""
    if at not in get_args(At):
        raise ValueError(f'at must be "average" or "best"; got {at!r}.')
    space = optimizer.space
    checked = space.validate_partial(fixed or {}, where="fixed")
    if parameters is not None:
        _check(optimizer, parameters, checked)
    trials = list(optimizer.trials)
    output = output_of(optimizer, name)
    need_complete(optimizer, trials, "plot_contours")
    averages = Averages.of(optimizer, output, checked)
    names = list(parameters or _most_important(output, optimizer, averages, checked, at))
    if at == "average":
        panels = averaged(output, averages, names)
    else:
        panels = sliced(output, optimizer, names, checked, trials)
    return _Look(output, names, panels, trials, at, checked, averages.unknown)


def _check(optimizer: Optimizer, parameters: Sequence[str], fixed: Mapping[str, Any]) -> None:
    space = optimizer.space
    if isinstance(parameters, str) or not isinstance(parameters, Sequence):
        raise TypeError(f"parameters must be a list of names; got {parameters!r}.")
    if not len(parameters):
        raise ValueError("parameters is empty: leave it out for those that matter most.")
    for parameter in parameters:
        if parameter not in space.names:
            hint = did_you_mean(parameter, space.names) or f" There are {listing(space.names)}."
            raise ValueError(f"parameters must be names of the space; got {parameter!r}.{hint}")
        if parameter in fixed:
            raise ValueError(f"parameter {parameter!r} is both drawn and fixed; drop one of them.")
        if space.parameters[parameter].kind == "fixed":
            raise ValueError(
                f"parameter {parameter!r} has a single value: there is nothing to draw."
            )
    if len(set(parameters)) < len(parameters):
        raise ValueError(f"parameters must differ; got {list(parameters)!r}.")


def _most_important(
    output: Output,
    optimizer: Optimizer,
    averages: Averages,
    fixed: Mapping[str, Any],
    at: At,
) -> list[str]:
    """The parameters that matter most, in the order of the space, of those that are active."""
    if at == "average":
        active = averages.active()
    else:
        lengthscales = output.belief.lengthscales.numpy()
        where = make_slice(optimizer, lengthscales, None, None, fixed, optimizer.trials)
        moving = [name for share in where.shares for name in share.names]
        active = {*(axis.name for axis in where.axes), *where.held, *moving}
    names = [n for n in ranking(output, optimizer) if n in active and n not in fixed][:_MOST]
    if not names:
        raise ValueError("every parameter is fixed: there is nothing left to draw.")
    return [name for name in optimizer.space.names if name in names]


def _table(look: _Look) -> Table:
    """Long: every place of every panel is a row."""
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for panel in look.panels.values():
        places = [places.ravel() for places in np.meshgrid(*(a.units for a in panel.axes))]
        count = panel.value.size
        columns["x"] += [panel.x.name] * count
        columns["y"] += [panel.y and panel.y.name] * count
        columns["x_value"] += map(panel.x.parameter.from_unit, places[0].tolist())
        if panel.y is None:
            columns["y_value"] += [None] * count
        else:
            columns["y_value"] += map(panel.y.parameter.from_unit, places[1].tolist())
        nothing = np.full(count, np.nan)
        ends = (*(panel.inner or (nothing, nothing)), *(panel.outer or (nothing, nothing)))
        for name, values in zip(_COLUMNS[4:], (panel.value, *ends), strict=True):
            columns[name] += values.ravel().tolist()
    found = {name: _typed(values) for name, values in columns.items()}
    for name in ("x", "y"):
        found[name] = np.array(columns[name], dtype=object)
    return Table(
        found,
        name=look.output.name,
        parameters=tuple(look.names),
        at=look.at,
        fixed=dict(look.fixed),
    )


def _typed(values: list[Any]) -> np.ndarray:
    """Numbers, NaN where there is none; of anything else objects, None where there is none."""
    is_number = all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        for value in values
    )
    return np.array(values, dtype=float if is_number else object)
