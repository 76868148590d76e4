"""A picture of what benchmarks/gpu.py measured: a panel for each d and t, and one of the fits."""

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator

from benchmarks.gpu_table import rows_of

# Everybody the same colour and mark in every panel: ours in blue, the peers in warm colours.
_STYLES: dict[str, tuple[str, str, Any]] = {
    "fused float32": ("#0b5394", "o", "-"),
    "fused float64": ("#3d85c6", "s", "-"),
    "torch tiles": ("#76a5d8", "D", "-"),
    "ours": ("#0b5394", "o", "-"),
    "plain torch": ("#7f7f7f", "x", "--"),
    "keops": ("#e69138", "^", "--"),
    "gpytorch": ("#cc4125", "v", "--"),
    "botorch": ("#8e44ad", "P", "--"),
}
_NAMES = {
    "ours": "bbmmopt",
    "fused float32": "bbmmopt, fused, float32",
    "fused float64": "bbmmopt, fused, float64",
    "torch tiles": "bbmmopt, by torch, float64",
    "plain torch": "plain torch, float32",
    "keops": "KeOps, float32",
    "gpytorch": "GPyTorch, float32",
    "botorch": "BoTorch",
}


def draw(content: dict, figure: Path) -> None:
    """Write a PNG."""
    timed = [r for w in ("product", "pullback") for r in rows_of(content, what=w)]
    timed = [row for row in timed if "ps_per_pair" in row and "columns" not in row]
    dims = sorted({row["d"] for row in timed})
    columns = sorted({row["t"] for row in timed})
    height = 1.7 * max(len(columns), 1)
    drawing = plt.figure(figsize=(12.5, height + 4.6), layout="constrained")
    drawing.suptitle(f"Matérn-5/2 on {content['device']}")
    top, bottom = _parts(drawing.subfigures(2, 1, height_ratios=[height + 0.8, 3.0]))
    if timed:
        left, right = _parts(top.subfigures(1, 2))
        values = [math.log10(row["ps_per_pair"]) for row in timed]
        limits = (10 ** math.floor(min(values)), 10 ** (math.floor(max(values)) + 1))
        for part, what in ((left, "product"), (right, "pullback")):
            some = [row for row in timed if row["what"] == what]
            _panels(part, f"{what}s", some, dims, columns, limits)
    _fits(bottom, content, list(dict.fromkeys(row["library"] for row in timed)))
    drawing.savefig(figure, dpi=120)
    plt.close(drawing)


def _parts(made: Any) -> tuple[SubFigure, SubFigure]:
    """Two of a figure, as an array of objects has them."""
    one, two = made
    return one, two


def _panels(
    part: SubFigure,
    title: str,
    rows: list[dict],
    dims: list[int],
    columns: list[int],
    limits: tuple[float, float],
) -> None:
    part.suptitle(title, fontsize=11)
    grid = part.subplots(len(columns), len(dims), sharex=True, sharey=True, squeeze=False)
    for i, t in enumerate(columns):
        for j, d in enumerate(dims):
            axes: Axes = grid[i, j]
            some = [row for row in rows if (row["d"], row["t"]) == (d, t)]
            _lines(axes, some, "ps_per_pair")
            axes.set(ylim=limits)
            axes.grid(True, alpha=0.25)
            _ticks(axes, {row["n"] for row in rows})
            axes.set_title(f"d = {d}, t = {t}", fontsize=8, pad=3)
    for axes in grid[-1]:
        axes.set_xlabel("points n", fontsize=8)
    part.supylabel("picoseconds per pair of points", fontsize=8)


def _lines(axes: Axes, rows: list[dict], field: str) -> None:
    axes.set(xscale="log", yscale="log")
    for name, (colour, mark, line) in _STYLES.items():
        own = [row for row in rows if row["library"] == name]
        curve = sorted({row["n"]: row[field] for row in reversed(own)}.items())
        if curve:
            x, y = zip(*curve, strict=True)
            axes.plot(x, y, line, color=colour, marker=mark, markersize=5, linewidth=1.3)


def _ticks(axes: Axes, sizes: set[int]) -> None:
    """At the n that there are, but not where two labels would touch: 0.5k, 10k, 1M."""
    apart: list[int] = []
    for n in sorted(sizes):
        if not apart or n > 1.4 * apart[-1]:
            apart.append(n)
    words = [f"{n // 10**6}M" if n % 10**6 == 0 else f"{n / 1000:g}k" for n in apart]
    axes.set_xticks(apart, words)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=8)


def _fits(part: SubFigure, content: dict, timed: list[str]) -> None:
    seconds, gaps, words = part.subplots(1, 3, width_ratios=[1.1, 1.1, 0.7])
    fits = [row for row in rows_of(content, what="fit") if "seconds" in row]
    asks = [row for row in rows_of(content, what="ask") if "seconds" in row]
    _lines(seconds, fits, "seconds")
    for first, style in ((True, ":"), (False, "-.")):
        curve = _asked(asks, first=first)
        if curve:
            x, y = zip(*curve, strict=True)
            seconds.plot(x, y, color="#38761d", marker="o" if first else ".", linestyle=style)
    seconds.set(xlabel="observations n", ylabel="seconds")
    seconds.set_title("fits, and suggestions", fontsize=10)
    _likelihoods(gaps, fits, rows_of(content, what="judged"))
    for axes in (seconds, gaps):
        axes.grid(True, alpha=0.25)
        _ticks(axes, {row["n"] for row in (*fits, *asks)})
    names = [name for name in _STYLES if name in {*timed, *(row["library"] for row in fits)}]
    marks = [
        Line2D([], [], color=c, marker=m, linestyle=s, label=_NAMES[name])
        for name, (c, m, s) in _STYLES.items()
        if name in names
    ]
    if asks:
        green: dict[str, Any] = {"color": "#38761d"}
        marks += [
            Line2D([], [], marker="o", linestyle=":", label="bbmmopt, first ask (fits)", **green),
            Line2D([], [], marker=".", linestyle="-.", label="bbmmopt, later asks", **green),
        ]
    words.axis("off")
    words.legend(handles=marks, loc="center left", fontsize=8, frameon=False)


def _asked(asks: list[dict], *, first: bool) -> list[tuple[int, float]]:
    """The first ask, or the median of the later ones, by n."""
    found = []
    for n in sorted({row["n"] for row in asks}):
        some = sorted(r["seconds"] for r in asks if r["n"] == n and (r["count"] == 0) == first)
        if some:
            found.append((n, some[len(some) // 2]))
    return found


def _likelihoods(axes: Axes, fits: list[dict], judged: list[dict]) -> None:
    """How much each fit found at each n, per observation, below the best that anyone found."""
    values = {(r["library"], r["n"]): r["log_likelihood"] for r in fits if "log_likelihood" in r}
    values |= {(r["library"], r["n"]): r["log_likelihood"] for r in judged if "log_likelihood" in r}
    shared = {n for _, n in values if len({name for name, m in values if m == n}) > 1}
    rows = []
    for (name, n), value in values.items():
        if n in shared:
            best = max(v for (_, m), v in values.items() if m == n)
            rows.append({"library": name, "n": n, "gap": max(best - value, 1e-6)})
    _lines(axes, rows, "gap")
    axes.set(xlabel="observations n", ylabel="nats per observation")
    axes.set_title("log p(y) below the best found (at least 1e-6)", fontsize=10)
    if not rows:
        axes.text(0.5, 0.5, "no fits of two\nat the same n", ha="center", transform=axes.transAxes)
