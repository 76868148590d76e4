"""plot_calibration: whether the model knows what it does not know."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from scipy.special import ndtri

from bbmmopt.former import FARTHEST
from bbmmopt.modelling import threads_for
from bbmmopt.optimizer import Optimizer
from bbmmopt.plots.marks import forecasts
from bbmmopt.plots.outputs import Output, output_of
from bbmmopt.plots.slices import need_complete
from bbmmopt.plots.source import Source, modelled
from bbmmopt.plots.style import (
    BLACK,
    BLUE,
    GREY,
    SKY,
    VERMILION,
    axes_or_new,
    check_axes,
    fitted,
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
from bbmmopt.study import NoCompleteTrial
from bbmmopt.trial import TrialState

_INNER, _OUTER = 0.68, 0.95
_ALL, _SOME = 2000, 512  # up to so many trials all are left out, of more so many
_AT_ONCE = 128  # columns of the inverse
_MOST_NAMED = 12  # trials that get their number written beside them
_SMALL = 250.0  # points of width, below which marks are smaller
_INSET_FROM = 170.0  # points of width, below which there is no room for the coverage curve


def calibration_data(study: Source, *, name: str | None = None) -> Table:
    """What `plot_calibration` draws: "trial", "observed", "predicted", bands, "z", "counts".

    `predicted` is the median of what the model says of a trial when it is not told that trial;
    "low_68", "high_68", "low_95" and "high_95" are the ends of the central bands for a measurement,
    noise included; `z` is (observed - mean) / standard deviation in the model's units, larger being
    better. `counts` says whether the trial is in the facts below: not where its value is so bad
    that the model cuts it off.

    Args:
        study: As in `plot_calibration`.
        name: As there.

    Returns:
        A table; of its facts, `coverage_68` and `coverage_95` are the shares of trials within the
        bands, `rmse` is in the user's units, `nlpd` the mean negative log density of the observed
        values, per user's unit, in nats; `n` is how many trials count, `of` how many there are,
        `name` the output.

    Raises:
        NoCompleteTrial: If no trial is complete.
        ValueError: If `name` is no output.
    """
    with modelled(study) as optimizer:
        return _left_out(optimizer, name)


def plot_calibration(
    study: Source, *, name: str | None = None, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw what the model predicts of each trial from all others, against what came out.

    A model that knows what it does not know has 68 % of the trials within the thick bars and 95 %
    within the thin ones; the inset shows that for every level, and in grey where 95 % of such
    models would be. Trials beyond 95 % are numbered. Bars hold a measurement, noise included.

    Nothing is fitted again: parameters are those found with all trials, which flatters a little.
    Of more than 2000 trials, 512 are left out in turn, spread evenly over the run. Trials that were
    stopped early have no value to compare with, and values so bad that the model cuts them off do
    not count.

    Args:
        study: An Optimizer, a Study, or where one is stored; at least one trial is complete.
        name: Which objective or constraint, if there are several.
        ax: Where to draw; a new figure if left out.
        legend: Whether to explain the marks.

    Returns:
        The axes drawn on; the inset is among its `child_axes`.

    Raises:
        NoCompleteTrial, ValueError: As in `calibration_data`. Nothing was drawn then.
    """
    check_axes(ax)
    table = calibration_data(study, name=name)
    ax = axes_or_new(ax)
    _draw(ax, table)
    if legend:
        place_legend(ax)
    return ax


def _left_out(optimizer: Optimizer, name: str | None) -> Table:
    """The table of an optimizer."""
    output = output_of(optimizer, name)
    need_complete(optimizer, optimizer.trials, "plot_calibration")
    numbers, rows = _rows(optimizer, output)
    if not len(rows):
        raise NoCompleteTrial(
            f"plot_calibration needs a complete trial that the model of {output.name!r} learns "
            f"from; study {optimizer.study!r} has none."
        )
    every = len(rows)
    if len(output.belief.data.y) > _ALL:
        some = np.unique(np.linspace(0, every - 1, min(every, _SOME)).round().astype(int))
        numbers, rows = numbers[some], rows[some]
    mean, std, target = _leave_one_out(output, rows)
    y, transform = output.belief.data.y[rows], output.belief.transform
    z = (target - mean) / std
    counts = y >= getattr(transform, "low", -np.inf)
    observed, predicted = output.offset + output.sign * y, output.in_user_units(mean)
    inner, outer = (output.ends(mean, std, _half(level)) for level in (_INNER, _OUTER))
    log_density = -0.5 * (z**2 + np.log(2 * np.pi)) - np.log(std) + transform.log_slope(y)
    away = np.abs(z[counts])
    return Table(
        {
            "trial": numbers,
            "observed": observed,
            "predicted": predicted,
            "low_68": inner[0],
            "high_68": inner[1],
            "low_95": outer[0],
            "high_95": outer[1],
            "z": z,
            "counts": counts,
        },
        name=output.name,
        n=len(away),
        of=every,
        coverage_68=float((away <= _half(_INNER)).mean()),
        coverage_95=float((away <= _half(_OUTER)).mean()),
        rmse=_rmse(predicted[counts], observed[counts]),
        nlpd=float(-log_density[counts].mean()),
    )


def _rows(optimizer: Optimizer, output: Output) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the complete trials that have a value of the output, and their rows in the data.

    The data hold these in order of number, and forecasts of trials that were stopped early. Another
    process may have told a trial since the model looked: what is not in the data is passed over.
    """
    data, trials = output.belief.data, optimizer.trials
    foretold = forecasts(optimizer, trials)
    numbers, rows, k = [], [], 0
    for trial in trials:
        is_complete = trial.state == TrialState.COMPLETE
        row = optimizer.former.row(trial.params)
        if row is None or not (is_complete or trial.number in foretold) or k == len(data.y):
            continue
        told = output.observed(trial)
        same = np.array_equal(data.X[k], row.clip(-FARTHEST, 1 + FARTHEST))
        if is_complete and not output.is_constraint:
            same &= told == output.sign * data.y[k]
        if not same:
            continue
        if is_complete and told is not None:
            numbers.append(trial.number)
            rows.append(k)
        k += 1
    return np.array(numbers, dtype=int), np.array(rows, dtype=int)


def _leave_one_out(output: Output, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation and value of some rows, in model units, each by all other rows.

        μ_i = y_i - α_i / [K̂⁻¹]_ii,    s_i² = 1 / [K̂⁻¹]_ii

    Source: Rasmussen & Williams (2006), eq. 5.12. All at once where they are few; else column by
    column of the inverse, for the rows asked for.
    """
    posterior, data = output.belief.posterior, output.belief.data
    n = len(posterior.y)
    y = posterior.y.cpu().numpy()[rows]
    with torch.no_grad(), threads_for(n):
        if n <= _ALL:
            mean, std = posterior.leave_one_out()
            return mean.cpu().numpy()[rows], std.cpu().numpy()[rows], y
        residual = (posterior.y - posterior.model.constant).unsqueeze(-1)
        alpha = posterior.solve(residual).squeeze(-1)[data.place(rows)]
        precision = []
        for some in torch.from_numpy(rows).split(_AT_ONCE):
            unit = residual.new_zeros(n, len(some))
            columns = torch.arange(len(some), device=unit.device)
            unit[some.to(unit.device), columns] = 1.0
            precision.append(posterior.solve(unit)[some.to(unit.device), columns])
        p = torch.cat(precision)
        return y - (alpha / p).cpu().numpy(), p.rsqrt().cpu().numpy(), y


def _half(level: float) -> float:
    """Standard deviations from the middle to an end of the central band of this probability."""
    return float(ndtri(0.5 + 0.5 * level))


def _rmse(predicted: np.ndarray, observed: np.ndarray) -> float:
    """Root mean square of the differences, which may be near 1e300."""
    error = 0.5 * predicted - 0.5 * observed
    largest = float(np.abs(error).max(initial=0.0))
    if not largest:
        return 0.0
    return 2 * largest * float(np.sqrt(((error / largest) ** 2).mean()))


# --------------------------------------------------------------------------------------
# Drawing
# --------------------------------------------------------------------------------------


def _draw(ax: Axes, table: Table) -> None:
    tidy(ax)
    counts = table["counts"]
    beyond = np.abs(table["z"]) > _half(_OUTER)
    small = width(ax) < _SMALL or table.rows > 150
    view = _view(table)
    ax.set(xlim=view, ylim=view)
    ax.plot(
        view,
        view,
        color=GREY,
        linewidth=1.0,
        linestyle="--",
        label="predicted = observed",
        zorder=1.5,
    )
    x = table["observed"].clip(*view)
    for ends, thickness, label in (("95", 0.9, "95 % band"), ("68", 2.6, "68 % band")):
        ax.vlines(
            x[counts],
            table[f"low_{ends}"][counts],
            table[f"high_{ends}"][counts],
            color=BLUE if ends == "95" else SKY,
            linewidth=thickness * (0.7 if small else 1.0),
            label=label,
            zorder=2.0,
        )
    for label, marker, face, which in (
        ("within 95 %", "o", "white", counts & ~beyond),
        ("beyond 95 %", "s", VERMILION, counts & beyond),
        ("cut off by the model", "X", "0.7", ~counts),
    ):
        if which.any():
            ax.scatter(
                x[which],
                table["predicted"][which],
                s=12 if small else 26,
                marker=marker,
                c=face,
                edgecolors=BLACK,
                linewidths=0.6 if small else 0.8,
                label=label,
                zorder=3.0,
                clip_on=False,
            )
    _name(ax, table, x, (counts & beyond))
    ax.set_xlabel(fitted(f"observed {table.facts['name']}", width(ax), letters(ax)))
    ax.set_ylabel("predicted without it")
    _explain(ax, table)
    if width(ax) >= _INSET_FROM:
        _draw_coverage(ax, table, x)


def _view(table: Table) -> tuple[float, float]:
    """The same limits for both axes: values that count and predictions whole, bands in part."""
    counts = table["counts"] if table["counts"].any() else np.ones(table.rows, dtype=bool)
    points = np.concatenate([table[name][counts] for name in ("observed", "predicted")])
    low, high = float(points.min()), float(points.max())
    span = (high - low) or float(np.median(table["high_95"] - table["low_95"])) or abs(high) or 1.0
    low = max(low - 0.5 * span, min(low, float(table["low_95"][counts].min())))
    high = min(high + 0.5 * span, max(high, float(table["high_95"][counts].max())))
    return low - 0.04 * span, high + 0.04 * span


def _name(ax: Axes, table: Table, x: np.ndarray, which: np.ndarray) -> None:
    """Write their numbers beside the trials farthest out."""
    away = np.where(which, np.abs(table["z"]), -np.inf)
    for i in np.argsort(-away, kind="stable")[: min(_MOST_NAMED, int(which.sum()))]:
        ax.annotate(
            str(table["trial"][i]),
            (x[i], table["predicted"][i]),
            xytext=(5, 3),
            textcoords="offset points",
            fontsize=8 if width(ax) >= _SMALL else 6.5,
            color=ink(ax),
            zorder=4,
            path_effects=halo(ax, 2.0),
        )


def _explain(ax: Axes, table: Table) -> None:
    """The title, and the numbers under it."""
    facts, z = table.facts, table["z"][table["counts"]]
    several = f"{facts['of']} trial{'s' * (facts['of'] != 1)}"
    count = several if facts["n"] == facts["of"] else f"{facts['n']} of {several}"
    inner, outer = (f"{100 * facts[f'coverage_{level}']:.0f} %" for level in (68, 95))
    rmse, nlpd, mean = (
        # A minus, and none before a zero.
        f"{x:.3g}".replace("-", "\N{MINUS SIGN}")
        for x in (facts["rmse"], facts["nlpd"], round(z.mean(), 2) + 0.0)
    )
    notes = (
        f"68 % bands hold {inner}, 95 % bands {outer} of {count}\n"
        f"RMSE {rmse}, NLPD {nlpd}, z-scores {mean} ± {z.std():.2f}"
    )
    heading = f"Each {short(facts['name'])} predicted from all others"
    title(ax, plain(heading), note=notes)


def _draw_coverage(ax: Axes, table: Table, x: np.ndarray) -> None:
    """How many trials the central bands of every level hold, in the emptier corner."""
    z = np.abs(table["z"][table["counts"]])
    low, high = ax.get_xlim()
    x, lower, upper = ((v - low) / (high - low) for v in (x, table["low_95"], table["high_95"]))
    upper_left, lower_right = (x < 0.4) & (upper > 0.6), (x > 0.6) & (lower < 0.45)
    left = upper_left.sum() <= lower_right.sum()
    inset = ax.inset_axes((0.03, 0.64, 0.3, 0.28) if left else (0.67, 0.1, 0.3, 0.28))
    if left:
        inset.yaxis.tick_right()
    levels = np.linspace(0.0, 1.0, 101)
    share = (z[:, None] <= [_half(level) for level in levels]).mean(0)
    spread = _half(0.95) * np.sqrt(levels * (1 - levels) / max(len(z), 1))
    inset.fill_between(
        levels,
        (levels - spread).clip(0),
        (levels + spread).clip(max=1),
        color=ink(ax),
        alpha=0.13,
        linewidth=0,
    )
    inset.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    inset.plot(levels, share, color=BLUE, linewidth=1.4)
    inset.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    inset.tick_params(labelsize=6.5, length=2, pad=1.5)
    inset.set_title("coverage by level", fontsize=7, pad=2.5)
    inset.patch.set_alpha(0.9)
