"""plot_importance: which parameters matter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.axes import Axes

from bbmmopt.modelling import threads_for
from bbmmopt.optimizer import Optimizer
from bbmmopt.plots.outputs import Output, known_space, output_of
from bbmmopt.plots.slices import need_complete
from bbmmopt.plots.sobol import REPLICATES, Functions, by_rank, pick_freeze, with_errors
from bbmmopt.plots.source import Source, modelled
from bbmmopt.plots.style import (
    BANDS,
    GREY,
    SKY,
    axes_or_new,
    check_axes,
    halo,
    ink,
    letters,
    place_legend,
    plain,
    short,
    tidy,
    title,
    width,
)
from bbmmopt.plots.table import Table
from bbmmopt.search import Domain, Region

_PATHS = 64  # draws of the function, whose indices tell what the model leaves open
_FEATURES = 1024  # of the prior of each; half as many as draws to be searched have
_EVEN = 1024  # feasible points of a replicate
_LINE = 13.0  # points that a bar takes at least
_NAMES = 0.4  # of the width, that names may take


def importance_data(study: Source, *, name: str | None = None) -> Table:
    """What `plot_importance` draws: "parameter", "first", "first_error", "total", "total_error".

    The parameters come in order of importance; those with a single value are left out. Errors are
    one standard error. Under constraints of the space there is no total: it is NaN.

    Args:
        study: As in `plot_importance`.
        name: As there.

    Returns:
        A table; of its facts, `name` is the output, `constrained` says whether the space has
        constraints, `unknown` which of them are functions that were not stored and so not looked
        at, and `warped` whether the model warps its targets.

    Raises:
        NoCompleteTrial: If no trial is complete.
        ValueError: If `name` is no output, or no parameter has more than one value.
    """
    with modelled(study) as optimizer:
        return _shares(optimizer, name)


def plot_importance(
    study: Source, *, name: str | None = None, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw how much of the variance of an output each parameter explains: Sobol indices.

        first order: Var(E[f | x]) / Var f, what x explains by itself
        total: E[Var(f | all but x)] / Var f, what it explains together with others too

    Of the posterior mean over the whole space: every parameter even over its range, a log one over
    its logarithm, whatever trials were made. A parameter that is not active changes nothing there.
    Where the model warps its targets, the variance is that of warped ones: a few values far on the
    bad side would otherwise be all that counts. Whiskers are one standard error: of integration,
    and of what the model does not know, which 64 draws of the function show; the parameters of the
    model are taken to be right.

    Under constraints of the space, parameters depend on each other, and totals make no sense: of
    mixtures they are 0. Then first order alone is drawn, over points that meet the constraints;
    what two parameters say alike counts for both.

    Args:
        study: An Optimizer, a Study, or where one is stored; at least one trial is complete.
        name: Which objective or constraint, if there are several.
        ax: Where to draw; a new figure if left out.
        legend: Whether to explain the bars.

    Returns:
        The axes drawn on.

    Raises:
        NoCompleteTrial, ValueError: As in `importance_data`. Nothing was drawn then.
    """
    check_axes(ax)
    table = importance_data(study, name=name)
    ax = axes_or_new(ax)
    _draw(ax, table)
    if legend:
        place_legend(ax, across=max(0.3, 1.0 - _beside(ax) / width(ax)))
    return ax


def ranking(output: Output, optimizer: Optimizer) -> list[str]:
    """The parameters that have more than one value, those that matter most first."""
    space, free, place = _free(optimizer)

    def mean(U: np.ndarray) -> np.ndarray:
        return output.mean(place(U))[None]

    if not free:
        return []
    order = np.argsort(-_order_by(_estimates(optimizer, free, mean)), kind="stable")
    return [space[free[j]] for j in order]


def _shares(optimizer: Optimizer, name: str | None) -> Table:
    """The table of an optimizer."""
    output = output_of(optimizer, name)
    need_complete(optimizer, optimizer.trials, "plot_importance")
    names, free, place = _free(optimizer)
    if not free:
        raise ValueError("every parameter has a single value: there is nothing to tell apart.")
    paths = _paths(output)

    def functions(U: np.ndarray) -> np.ndarray:
        X = place(U)
        return np.concatenate([output.mean(X)[None], paths(X)])

    found = _estimates(optimizer, free, functions)
    first, first_error = with_errors(found[0])
    if len(found) > 1:
        total, total_error = with_errors(found[1])
    else:
        total, total_error = np.full((2, len(free)), np.nan)
    order = np.argsort(-_order_by(found), kind="stable")
    known, unknown = known_space(optimizer.former.space)
    return Table(
        {
            "parameter": np.array([names[j] for j in free], dtype=object)[order],
            "first": first[order],
            "first_error": first_error[order],
            "total": total[order],
            "total_error": total_error[order],
        },
        name=output.name,
        constrained=bool(known.constraints),
        unknown=unknown,
        warped=output.warped,
    )


def _order_by(found: tuple[np.ndarray, ...]) -> np.ndarray:
    """What parameters are sorted by: the last kind of index there is, of the first function."""
    return found[-1][:, 0].mean(0)


def _free(
    optimizer: Optimizer,
) -> tuple[tuple[str, ...], list[int], Callable[[np.ndarray], np.ndarray]]:
    """All names, the columns that vary, and the map from rows of these to rows of the space."""
    former = optimizer.former
    space = former.space
    free = [j for j, c in enumerate(space.columns) if c.kind != "fixed" and j not in former.held]

    def place(U: np.ndarray) -> np.ndarray:
        X = np.full((len(U), len(space)), 0.5)
        X[:, list(former.held)] = list(former.held.values())
        X[:, free] = U
        return space.snap(X)

    return space.names, free, place


def _estimates(
    optimizer: Optimizer, free: list[int], functions: Functions
) -> tuple[np.ndarray, ...]:
    """First-order and, without constraints, total indices: each (replicates, s, k)."""
    generator = torch.Generator().manual_seed(0)
    space, _ = known_space(optimizer.former.space)
    if not space.constraints:
        return pick_freeze(functions, len(free), generator)
    region, rng = Region(Domain(space, optimizer.former.held)), np.random.default_rng(0)
    estimates = []
    for _ in range(REPLICATES):
        U = region.sample(_EVEN, generator)[:, free]
        estimates.append(by_rank(functions(U), U, rng))
    return (np.array(estimates),)


def _paths(output: Output) -> Functions:
    """Draws of the function from the posterior, in model units."""
    belief = output.belief
    n = len(belief.data.y)
    draws = torch.Generator().manual_seed(0)
    with threads_for(n):
        paths = belief.posterior.sample_paths(_PATHS, draws, _FEATURES)

    def functions(X: np.ndarray) -> np.ndarray:
        with torch.no_grad(), threads_for(n):
            return paths(belief.data.place(X)).cpu().numpy()

    return functions


# --------------------------------------------------------------------------------------
# Drawing
# --------------------------------------------------------------------------------------


def _draw(ax: Axes, table: Table) -> None:
    height = ax.get_window_extent().height / ax.figure.dpi * 72
    shown = min(table.rows, max(3, int(height / _LINE)))
    constrained = table.facts["constrained"]
    at = np.arange(shown)
    tidy(ax)
    ax.grid(False, axis="y")
    kinds = [("first", "by itself (first order)", SKY, 0.36, 0.0, 2.1)]
    if not constrained:
        kinds.append(("total", "with others (total)", BANDS[0], 0.72, -0.27, 2.0))
    most = 0.0
    for column, label, colour, thickness, offset, layer in kinds:
        # An index of 0 may be estimated as a little less.
        value = table[column][:shown].clip(min=0.0)
        error = table[f"{column}_error"][:shown]
        bars = {"height": thickness, "color": colour, "edgecolor": GREY, "linewidth": 0.6}
        ax.barh(at, value, **bars, label=label, zorder=layer)
        ends = np.stack([np.minimum(error, value), error])
        whiskers = ax.errorbar(
            value,
            at + offset,
            xerr=ends,
            fmt="none",
            ecolor=ink(ax),
            elinewidth=1.0,
            capsize=2.0,
            label="_nolegend_",
            zorder=2.2,
        )
        for part in whiskers.get_children():
            part.set_path_effects(halo(ax, 2.0))  # they lie on the bars and beside them
        most = max(most, float((value + error).max()))
    room = max(0, 3 - shown) / 2  # one bar alone would fill the picture
    ax.set_ylim(shown - 0.45 + room, -0.55 - room)
    ax.set_xlim(0.0, max(1.04 * most, 1e-3))
    most = min(24, max(8, int(_NAMES * width(ax) / (0.6 * letters(ax)))))
    ax.set_yticks(at, [plain(short(name, most)) for name in table["parameter"][:shown]])
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("share of the variance")
    title(
        ax,
        plain(f"What {short(table.facts['name'])} depends on"),
        note=_note(table, shown),
        beside=_beside(ax),
    )


def _beside(ax: Axes) -> float:
    """How much of the width the names will take, in points."""
    return 0.6 * letters(ax) * max(len(label.get_text()) for label in ax.get_yticklabels())


def _note(table: Table, shown: int) -> str:
    """What is to be known about the numbers, and what is not drawn."""
    notes = ["whiskers: one standard error"]
    if table.facts["warped"]:
        notes.append("variance of targets as the model warps them")
    if table.facts["constrained"]:
        notes.append("over points that meet the constraints")
        notes.append("what parameters share counts for each")
    if table.facts["unknown"]:
        notes.append(f"not stored, so not looked at: {', '.join(table.facts['unknown'])}")
    if shown < table.rows:
        column = table["first" if table.facts["constrained"] else "total"]
        notes.append(f"not shown: {table.rows - shown} more, up to {column[shown:].max():.2g}")
    return "\n".join(notes)
