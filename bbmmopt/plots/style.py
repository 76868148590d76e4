"""How our pictures look: colours, markers, titles, legends. Nothing global is changed.

Colours are those of Okabe & Ito (2008), https://jfly.uni-koeln.de/color/, and matplotlib's viridis
and cividis, which the colour-blind can tell apart too; marks differ in shape as well.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.transforms import Bbox, ScaledTranslation, TransformedBbox

BLACK, BLUE, SKY = "#1a1a1a", "#0072B2", "#56B4E9"
ORANGE, VERMILION = "#E69F00", "#D55E00"
GREEN, PURPLE = "#009E73", "#CC79A7"
GREY = "#767676"
BANDS = "#D6E7F3", "#A5CBE5"  # of 95 and 68 %; opaque, so that the legend shows what is seen

_SMALLEST = 7.0  # letters in points that we make no smaller
_LETTER = 0.62  # width of a letter, relative to its height
_CUT_INSIDE = 12  # characters from which on something is left of the end, too
_MOST_LINES = 3  # of held values under a title


@dataclass(frozen=True)
class Mark:
    """A kind of point.

    Attributes:
        marker: Its shape, as matplotlib calls it.
        size: Area in points squared.
        face, edge: Two colours far apart in lightness, so that it shows on any background.
        layer: What lies above what.
    """

    marker: str
    size: float
    face: str
    edge: str
    layer: float


MARKS = {
    "observed": Mark("o", 34, "white", BLACK, 4.0),
    "infeasible": Mark("s", 32, PURPLE, BLACK, 3.9),
    "stopped early": Mark("v", 50, "white", BLACK, 4.05),
    "failed": Mark("X", 72, BLACK, "white", 4.1),
    "pending": Mark("^", 62, ORANGE, BLACK, 4.2),
    "best": Mark("D", 58, SKY, BLACK, 4.3),
    "on the front": Mark("D", 46, SKY, BLACK, 4.3),
    "largest here": Mark("P", 80, "white", BLACK, 4.4),
    "next": Mark("*", 300, VERMILION, "white", 4.5),
}


# Legends list what they explain in this order.
_ORDER = (
    *("95 % band", "80 % band", "68 % band", "median", "expected front", "drawn from"),
    *("space-filling start", "value", "beyond the scale", "complete", "observed", "dominated"),
    *("infeasible", "failed", "went wrong", "lost"),
    *("stopped early", "forecast", "running", "pending", "on the front", "best so far", "best"),
    *("largest here", "next", "bound", "feasible", "cannot be tried", "faint"),
)

# How the labels of faint marks begin; matplotlib's own legend leaves out what begins with "_".
OFF_SLICE = "_off this slice: "


def scatter(
    ax: Axes,
    kind: str,
    coordinates: Sequence[Any],
    label: str,
    *,
    faint: bool = False,
    **options: Any,
) -> PathCollection:
    """Draw points of one kind.

    Args:
        ax: Where to draw.
        kind: One of MARKS.
        coordinates: x and y, each a number or an array.
        label: For the legend.
        faint: Small and half transparent, for points that lie off the slice.
        options: For `Axes.scatter`.
    """
    mark = MARKS[kind]
    x, y = coordinates
    drawn = ax.scatter(
        x,
        y,
        s=mark.size * scale(ax) ** 2 * (0.45 if faint else 1.0),
        marker=mark.marker,
        c=mark.face,
        edgecolors=mark.edge,
        linewidths=1.0,
        alpha=0.45 if faint else 1.0,
        zorder=mark.layer - (1 if faint else 0),
        label=OFF_SLICE + label if faint else label,
        gid=kind,
        **options,
    )
    # Points on the frame are shown whole.
    drawn.set_clip_box(TransformedBbox(Bbox.from_extents(-0.03, -0.04, 1.03, 1.04), ax.transAxes))
    return drawn


def axes_or_new(ax: Axes | None, wide: float = 7.0) -> Axes:
    """The Axes given, or that of a new figure, so many inches wide."""
    if ax is None:
        _, ax = plt.subplots(figsize=(wide, 5), layout="constrained")
    return ax


def check_axes(ax: Any) -> None:
    """Refuse what is not one Axes, before anything is computed."""
    if ax is not None and not isinstance(ax, Axes):
        raise TypeError(
            f"ax must be one matplotlib Axes, or None for a new figure; got "
            f"{type(ax).__name__}. Of an array of Axes, pass one element."
        )


def plain(text: object) -> str:
    """A name as text in a picture: a dollar sign in it does not begin a formula."""
    return str(text).replace("$", r"\$")


def short(value: Any, most: int = 24) -> str:
    """A value in few characters. Long names are cut in the middle: many differ at their ends."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).splitlines())
    if len(text) <= most:
        return text
    end = most // 3 if most >= _CUT_INSIDE else 0
    return f"{text[: most - 1 - end]}…{text[len(text) - end :]}"


def fitted(name: str, room: float, size: float) -> str:
    """A name as text in one line of so many points, in letters of a size."""
    return plain(short(name, max(8, int(room / (_LETTER * size)))))


def width(ax: Axes) -> float:
    """Width of the axes in points, before a layout engine has moved anything."""
    return ax.get_window_extent().width / ax.figure.dpi * 72


def height(ax: Axes) -> float:
    """Height of the axes in points, before a layout engine has moved anything."""
    return ax.get_window_extent().height / ax.figure.dpi * 72


def scale(ax: Axes) -> float:
    """By how much smaller letters and marks are than in a picture of its own.

    1, down to 3/4 in one that is as wide as a column of a paper.
    """
    return min(1.0, max(0.75, width(ax) / 300))


def fit_letters(ax: Axes) -> None:
    """Make tick labels and axis labels of small axes smaller, where they are not small already."""
    sizes = plt.rcParams["xtick.labelsize"], plt.rcParams["ytick.labelsize"]
    for axis, size in zip((ax.xaxis, ax.yaxis), sizes, strict=True):
        axis.set_tick_params(labelsize=letters(ax, size))
        axis.label.set_fontsize(letters(ax, plt.rcParams["axes.labelsize"]))


def letters(ax: Axes, size: float | str = "medium") -> float:
    """A size of letters, in points, for axes of this width."""
    points = FontProperties(size=size).get_size_in_points()
    return max(points * scale(ax), min(points, _SMALLEST))


def upright(ax: Axes, text: str) -> str:
    """A text for beside the axes, in lines that are not much longer than these are high."""
    most = max(24, int(height(ax) / (0.5 * letters(ax))))
    lines = [textwrap.wrap(line, most) for line in text.splitlines()]
    return plain("\n".join(part for parts in lines for part in parts))


def title(
    ax: Axes,
    text: str,
    *,
    held: Mapping[str, Any] | None = None,
    note: str = "",
    beside: float = 0.0,
) -> None:
    """Write a title and, smaller, what is held where.

    Args:
        ax: What it is over.
        text: The title.
        held: What is held, {name: value}.
        note: What else there is to say, in lines.
        beside: By how much labels beside the axes will make them narrower, in points.
    """
    fit_letters(ax)
    lines, room = _held_lines(ax, held or {}), width(ax) - beside
    for line in note.splitlines():
        lines += textwrap.wrap(line, max(30, int(room / (0.5 * letters(ax, 8.5)))))
    size = letters(ax, 8.5)
    leading = 1.35 * size
    # The last three words, as in "after 10 trials", stay together.
    text = "\N{NO-BREAK SPACE}".join(text.rsplit(" ", 2))
    text = "\n".join(textwrap.wrap(text, max(24, int(room / (0.54 * letters(ax, 11.5))))))
    text = text.replace("\N{NO-BREAK SPACE}", " ")
    ax.set_title(text, fontsize=letters(ax, 11.5), pad=7 + leading * len(lines))
    if lines:
        ax.annotate(
            plain("\n".join(lines)),
            (0.5, 1.0),
            xycoords="axes fraction",
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=size,
            alpha=0.65,
            linespacing=leading / size / 1.16,
            annotation_clip=False,
        )


def _held_lines(ax: Axes, held: Mapping[str, Any]) -> list[str]:
    """held: a = 1, b = 2 …, broken into lines that fit over the axes."""
    if not held:
        return []
    parts = [f"{short(name)} = {short(value)}" for name, value in held.items()]
    # Blanks within a part become no-break spaces: lines break between parts only.
    text = "held: " + ", ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts)
    lines = textwrap.wrap(
        text, max(30, int(width(ax) / (0.55 * letters(ax, 8.5)))), break_long_words=False
    )
    if len(lines) > _MOST_LINES:
        shown = ", ".join(lines[:_MOST_LINES]).count("=")
        lines = [
            *lines[: _MOST_LINES - 1],
            f"{lines[_MOST_LINES - 1]} and {len(parts) - shown} more",
        ]
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def place_legend(ax: Axes, *, below: float | None = None, across: float = 1.15) -> None:
    """Put one legend under the axes, where it hides nothing.

    Without a layout engine nobody makes room for it there: then it goes inside.

    Args:
        ax: The axes.
        below: How far below them, in points, so that it clears what is written there; left out,
            tick labels, which may be turned, and the label of the axis.
        across: How wide it may be, in widths of the axes: wider where there are labels on both
            sides, narrower where those on one side will take much of the width.
    """
    fit_letters(ax)
    entries = legend_entries(ax)
    if not entries:
        return
    options: dict[str, Any] = {
        "fontsize": letters(ax, 9.0),
        "handlelength": 1.6,
        "handletextpad": 0.5,
        "columnspacing": 1.3,
    }
    figure = ax.get_figure(root=True)
    if figure is None or figure.get_layout_engine() is None:
        ax.legend(entries.values(), entries.keys(), loc="best", framealpha=0.85, **options)
        return
    # A distance in points clears tick labels and the axis label, however small the axes are.
    points = 38.0 * scale(ax) + _hanging(ax) if below is None else below * scale(ax)
    shift = ScaledTranslation(0, -points / 72, figure.dpi_scale_trans)
    ax.legend(
        entries.values(),
        entries.keys(),
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        bbox_transform=ax.transAxes + shift,
        borderaxespad=0.0,
        frameon=False,
        ncols=_columns(ax, list(entries), across),
        **options,
    )


def steep(apart: float, size: float) -> int:
    """By how many degrees to turn letters of a size that begin so many points apart."""
    return next((a for a in (30, 60) if apart * math.sin(math.radians(a)) > 1.4 * size), 90)


def _hanging(ax: Axes) -> float:
    """How much further down turned tick labels reach than upright ones, in points."""
    return max(
        (
            math.sin(math.radians(text.get_rotation()))
            * _LETTER
            * float(text.get_fontsize())
            * len(text.get_text())
            for text in ax.get_xticklabels()
        ),
        default=0.0,
    )


def legend_entries(ax: Axes) -> dict[str, Artist]:
    """{label: handle}, each label once; faint marks are explained by one entry for all."""
    handles, labels = ax.get_legend_handles_labels()
    entries: dict[str, Artist] = dict(zip(labels, handles, strict=True))
    faint = [c for c in ax.collections if str(c.get_label()).startswith(OFF_SLICE)]
    for drawn in faint:
        label = str(drawn.get_label()).removeprefix(OFF_SLICE)
        entries.setdefault(label, _handle(ax, MARKS[drawn.get_gid() or "observed"]))
    if faint:
        entries["faint: off this slice"] = _handle(ax, MARKS["observed"], faint=True)
    return in_order(entries)


def in_order(entries: Mapping[str, Artist]) -> dict[str, Artist]:
    """Entries of a legend in the order in which all our legends have them."""

    def rank(label: str) -> int:
        return next((i for i, word in enumerate(_ORDER) if label.startswith(word)), len(_ORDER))

    return dict(sorted(entries.items(), key=lambda entry: rank(entry[0])))


def _handle(ax: Axes, mark: Mark, *, faint: bool = False) -> Line2D:
    return Line2D(
        [],
        [],
        linestyle="",
        marker=mark.marker,
        markersize=scale(ax) * (mark.size * (0.45 if faint else 1.0)) ** 0.5,
        markerfacecolor=mark.face,
        markeredgecolor=mark.edge,
        alpha=0.45 if faint else 1.0,
    )


def _columns(ax: Axes, labels: list[str], across: float) -> int:
    """Into how many columns a legend goes, which fills them one by one: as few rows as fit."""
    for rows in range(1, len(labels)):
        columns = [labels[i : i + rows] for i in range(0, len(labels), rows)]
        room = [3.4 + 0.53 * max(map(len, column)) for column in columns]
        if sum(room) * letters(ax, 9.0) <= across * width(ax):
            return len(columns)
    return 1


def line_look(i: int) -> dict[str, Any]:
    """How the i-th of several lines looks: they differ in colour, and more of them in dashes."""
    colours = (BLUE, VERMILION, GREEN, BLACK, PURPLE, ORANGE, SKY)
    dashes = ("-", "--", "-.", ":")
    style = dashes[(i % len(colours) + i // len(colours)) % len(dashes)]
    return {"color": colours[i % len(colours)], "linestyle": style, "linewidth": 1.8}


def far_worse(heights: np.ndarray, *, good_is_low: bool) -> np.ndarray:
    """Which values (n,) are so bad that the others would be squeezed: a fifth of them at most."""
    if len(heights) < 8:
        return np.zeros(len(heights), dtype=bool)
    cost = heights if good_is_low else -heights
    lower, upper, most = np.quantile(cost, [0.25, 0.75, 0.8])
    return cost > max(upper + 1.5 * (upper - lower), most)


def ink(ax: Axes) -> str:
    """What is drawn with on the background of these axes: dark, or light on a dark one."""
    red, green, blue, _ = to_rgba(ax.get_facecolor())
    return BLACK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "0.93"


def halo(ax: Axes, wide: float = 2.5) -> list[AbstractPathEffect]:
    """A border of so many points around what is drawn, in the colour of the background."""
    return [withStroke(linewidth=wide, foreground=to_rgba(ax.get_facecolor()))]


def tidy(ax: Axes) -> None:
    """A light frame and grid, for curves."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color=ink(ax), alpha=0.11, linewidth=0.8)
    ax.set_axisbelow(True)
