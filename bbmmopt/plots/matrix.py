"""A matrix of panels: effects of parameters on the diagonal, surfaces of pairs below it."""

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
from matplotlib.axis import XAxis, YAxis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import (
    Affine2D,
    ScaledTranslation,
    Transform,
    blended_transform_factory,
)

from bbmmopt.former import Former
from bbmmopt.plots.axis import Axis
from bbmmopt.plots.dependence import Dependence
from bbmmopt.plots.outputs import Output
from bbmmopt.plots.regions import FORBIDDEN
from bbmmopt.plots.style import (
    BLACK,
    MARKS,
    fitted,
    halo,
    height,
    place_legend,
    plain,
    short,
    tidy,
    width,
)
from bbmmopt.plots.surface import Range, draw_bands
from bbmmopt.trial import Trial

Panels = Mapping[tuple[str, ...], Dependence]

_SIDE = 1.75  # inches of a panel in a new figure
_LARGEST = 1e200  # matplotlib's contours take 1e250 for infinity, and 1e-250 for 0
_LEVELS = 14  # about so many lines of equal value
_CUT = 0.1  # the share of the worst values, which may get one colour
_TEXT, _SMALLEST = 7.5, 5.5  # letters, in points
_SCALE = 0.75  # of lines and dots
_BAR = 42.0  # height of the colour bar with what is written there, in points
_NARROW = 80.0  # points
_EDGE = 0.06  # height of marks on the diagonal, as a fraction of the panel
_NOWHERE: dict[str, Any] = {"facecolor": "0.88", "edgecolor": "0.62", "hatch": "////"}
_SMALLER = 0.35  # area of marks, relative to a picture of one panel
_LETTER = 0.62  # width of a letter, relative to its height


@dataclass(frozen=True)
class Matrix:
    """The Axes of a matrix.

    Attributes:
        frame: The whole; itself not seen.
        panels: Shape (k, k), None above the diagonal; row and column of a pair are y and x.
        corner: The room above the diagonal, for what explains all panels; None of a single panel.
    """

    frame: Axes
    panels: np.ndarray
    corner: Axes | None

    @staticmethod
    def of(ax: Axes | None, k: int) -> Matrix:
        """Divide the place of an Axes, or a new figure, among k rows and k columns."""
        if ax is None:
            side = _SIDE * k + 1.0
            _, ax = plt.subplots(figsize=(max(side + 0.5, 4.5), side + 0.4), layout="constrained")
        figure, spec = ax.figure, ax.get_subplotspec()
        ax.set_axis_off()
        if spec is None:
            box = ax.get_position()
            ends = {"left": box.x0, "right": box.x1, "bottom": box.y0, "top": box.y1}
            spec = figure.add_gridspec(1, 1, **ends)[0]
        inner = spec.subgridspec(k, k, wspace=0.08, hspace=0.08)
        panels = np.full((k, k), None, dtype=object)
        for i in range(k):
            for j in range(i + 1):
                panels[i, j] = figure.add_subplot(inner[i, j])
        corner = None
        if k > 1:
            corner = figure.add_subplot(inner[0, max(1, k - 2) :])
            corner.set_axis_off()
        return Matrix(ax, panels, corner)

    def title(self, text: str, note: str) -> None:
        """Write a title and, smaller, a note, from the left edge on over all panels."""
        room = width(self.frame)
        lines = [
            part for line in note.splitlines() for part in textwrap.wrap(line, int(room / 4.2))
        ]
        size = 11.0 if room > 250 else 9.5
        heading = "\n".join(textwrap.wrap(text, int(room / (0.5 * size))))
        first, leading = self.panels[0, 0], 10.5
        pad = 7 + leading * len(lines)
        # A title that is wider than the panel would move the next one away: the height is kept free
        # by an empty one, and the words stand there.
        lines_above = heading.count("\n")
        first.set_title("\n" * lines_above + "\N{NO-BREAK SPACE}", fontsize=size, pad=pad)
        for words, up, look in (
            (heading, pad, {"fontsize": size}),
            ("\n".join(lines), 5.0, {"fontsize": 8.0, "alpha": 0.65, "linespacing": 1.13}),
        ):
            first.annotate(
                plain(words),
                (0.0, 1.0),
                xycoords="axes fraction",
                xytext=(0, up),
                textcoords="offset points",
                va="baseline" if words is heading else "bottom",
                annotation_clip=False,
                **look,
            ).set_in_layout(False)

    def draw(self, panels: Panels, output: Output) -> None:
        """Fill the panels, and put one colour bar above the diagonal."""
        names, k = _names(panels), len(self.panels)
        surfaces = [panel for panel in panels.values() if panel.y is not None]
        colours = _Colours.of(surfaces, good_is_low=output.good_is_low)
        view = _view([panels[(name,)] for name in names])
        for drawn, panel in panels.items():
            i, j = names.index(drawn[-1]), names.index(drawn[0])
            ax = self.panels[i, j]
            if panel.y is None:
                _draw_effect(ax, panel, view)
                if k > 1:
                    ax.yaxis.tick_right()
                    # All have the same scale: where there is little room, the last one is labelled.
                    ax.tick_params(axis="y", labelright=i == k - 1 or width(ax) > _NARROW)
                    ax.spines[["left", "right"]].set_visible(True)
                    _move_power(ax)
            else:
                colours.fill(ax, panel)
            _dress(ax, panel, bottom=i == k - 1, left=j == 0)
        if self.corner is None:
            first = self.panels[0, 0]
            first.set_ylabel(fitted(output.name, height(first), _TEXT + 1), fontsize=_TEXT + 1)
        else:
            colours.bar(self.corner, output.name)

    def mark(self, panels: Panels, kinds: Mapping[str, Sequence[Trial]], former: Former) -> None:
        """Mark the trials in each panel that has a place for them."""
        names = _names(panels)
        for drawn, panel in panels.items():
            ax = self.panels[names.index(drawn[-1]), names.index(drawn[0])]
            for kind, trials in kinds.items():
                shown = [t for t in trials if all(_shows(a, former, t) for a in panel.axes)]
                places = [
                    [axis.coordinate(t.params[axis.name], t.number) for t in shown]
                    for axis in panel.axes
                ]
                if panel.y is None:
                    places.append([_EDGE] * len(shown))
                mark = MARKS[kind]
                size = _SMALLER * mark.size * (1.6 if kind in ("best", "on the front") else 1.0)
                ax.scatter(
                    *places,
                    s=size * min(1.0, width(ax) / 100),
                    marker=mark.marker,
                    c=mark.face,
                    edgecolors=mark.edge,
                    linewidths=0.6,
                    zorder=mark.layer,
                    label=kind,
                    gid=kind,
                    clip_on=False,
                    transform=ax.transData if panel.y else ax.get_xaxis_transform(),
                )

    def legend(self, panels: Panels) -> None:
        """Explain the marks and bands: above the diagonal, or beside a single panel's lines."""
        first = self.panels[0, 0]
        handles, labels = first.get_legend_handles_labels()
        found: dict[str, Artist] = dict(zip(labels, handles, strict=True))
        bands = ("95 % band", "68 % band", "median")
        entries = {label: found[label] for label in (*bands, *found)}
        if any(np.isnan(panel.value).any() for panel in panels.values() if panel.y):
            entries[FORBIDDEN] = Patch(**_NOWHERE, linewidth=0.0)
        if self.corner is None:
            place_legend(first)
            return
        # Two rows less than there are at the most, where it is as wide as two panels.
        room = 1.1 * height(first) * max(2, len(self.panels) - 2) - _BAR
        drawn = self.corner.legend(
            entries.values(),
            entries.keys(),
            loc="upper right",
            bbox_to_anchor=(1.0, -_BAR),
            bbox_transform=_below_top(self.corner),
            borderaxespad=0.0,
            frameon=False,
            fontsize=max(_SMALLEST, min(_TEXT, room / (1.4 * len(entries)))),
            handlelength=1.4,
            handletextpad=0.4,
            labelspacing=0.35,
        )
        # It may go on below: from three rows on, nothing is there.
        drawn.set_in_layout(len(self.panels) == 2)


@dataclass(frozen=True)
class _Colours:
    """The colours of all surfaces.

    Attributes:
        limits: What they tell apart.
        unit: What values are divided by: matplotlib takes 1e250 for infinity.
        cmap: Their name; bright is good in both directions.
    """

    limits: Range
    unit: float
    cmap: str

    @staticmethod
    def of(surfaces: Sequence[Dependence], *, good_is_low: bool) -> _Colours:
        """For all values but the worst tenth, where that would take more than half of the scale."""
        values = np.concatenate([np.zeros(0), *(panel.value.ravel() for panel in surfaces)])
        values = values[np.isfinite(values)]
        values = values if len(values) else np.zeros(1)
        largest = float(np.abs(values).max())
        far = largest > _LARGEST or 0 < largest < 1 / _LARGEST
        unit = 10.0 ** math.floor(math.log10(largest)) if far else 1.0
        values = values / unit
        whole = Range.of(values)
        if good_is_low:
            cut = Range.of(values, high=float(np.quantile(values, 1 - _CUT)))
        else:
            cut = Range.of(values, low=float(np.quantile(values, _CUT)))
        limits = cut if cut.high - cut.low < 0.5 * (whole.high - whole.low) else whole
        return _Colours(limits, unit, "cividis_r" if good_is_low else "cividis")

    @property
    def _norm(self) -> Normalize:
        return Normalize(self.limits.low, self.limits.high)

    def fill(self, ax: Axes, panel: Dependence) -> None:
        """Contours between numbers; cells where a parameter has few values."""
        assert panel.y is not None
        ax.patch.set(**_NOWHERE)
        values = np.ma.masked_invalid(panel.value / self.unit)
        if panel.x.cells or panel.y.cells:
            ax.pcolormesh(
                panel.x.edges(),
                panel.y.edges(),
                values,
                cmap=self.cmap,
                norm=self._norm,
                rasterized=True,
            )
            return
        limits = self.limits
        levels = np.array(MaxNLocator(_LEVELS).tick_values(limits.low, limits.high))
        grid = panel.x.values, panel.y.values, values
        ends = {"cmap": self.cmap, "norm": self._norm, "extend": "both"}
        ax.contourf(*grid, levels=levels, **ends).set_edgecolor("face")
        ax.contour(*grid, levels=levels, colors=BLACK, linewidths=0.3, alpha=0.25)

    def bar(self, corner: Axes, name: str) -> None:
        """A colour bar in the upper part of the corner."""
        inset = corner.inset_axes((0.3, -22.0, 0.7, 8.0), transform=_below_top(corner))
        bar = corner.figure.colorbar(
            ScalarMappable(self._norm, self.cmap),
            cax=inset,
            orientation="horizontal",
            extend=self.limits.extend,
        )
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.ax.xaxis.set_major_locator(MaxNLocator(3))
        bar.ax.tick_params(labelsize=_TEXT, length=2, pad=1.5)
        words = short(name, 28) if self.unit == 1.0 else f"{short(name)} / {self.unit:.0e}"
        power = _power(bar.ax.xaxis)
        bar.ax.xaxis.offsetText.set_visible(False)
        words = f"{words} ({power})" if power else words
        inset.set_title(plain(words), fontsize=_TEXT + 1, pad=3)


def _power(axis: XAxis | YAxis) -> str:
    """What the tick labels of an axis are to be multiplied by, or added to, in words."""
    formatter = axis.get_major_formatter()
    formatter.set_locs(axis.get_majorticklocs().tolist())
    return formatter.get_offset()


def _move_power(ax: Axes) -> None:
    """Write what labels are multiplied by inside the panel: above it is the title."""
    ax.yaxis.offsetText.set_visible(False)
    if not (power := _power(ax.yaxis)):
        return
    ax.annotate(
        power,
        (0.97, 0.96),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=_TEXT - 1,
        path_effects=halo(ax, 2.0),
    )


def _below_top(ax: Axes) -> Transform:
    """Across, shares of the axes; upwards, points from their upper edge."""
    top = ScaledTranslation(0, 1, ax.transAxes)  # type: ignore[arg-type]
    upwards = Affine2D().scale(1 / 72) + ax.figure.dpi_scale_trans + top
    return blended_transform_factory(ax.transAxes, upwards)


def _names(panels: Panels) -> list[str]:
    return [drawn[0] for drawn in panels if len(drawn) == 1]


def _view(effects: Sequence[Dependence]) -> tuple[float, float]:
    """Limits that show all medians whole, and of wide bands a part."""
    low = min(float(np.nanmin(effect.value)) for effect in effects)
    high = max(float(np.nanmax(effect.value)) for effect in effects)
    ends = np.array([effect.outer for effect in effects if effect.outer], dtype=object)
    least = min(float(np.nanmin(lower)) for lower, _ in ends)
    most = max(float(np.nanmax(upper)) for _, upper in ends)
    span = 1.5 * (high - low) or max(most - least, 1e-3 * abs(high), 1e-300)
    low, high = max(least, low - span), min(most, high + span)
    if not low < high:
        low, high = low - span, high + span
    return low - 0.16 * (high - low), high + 0.05 * (high - low)


def _draw_effect(ax: Axes, effect: Dependence, view: tuple[float, float]) -> None:
    """The median within its bands, whiskers over categories."""
    tidy(ax)
    ax.set_ylim(*view)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    assert effect.inner is not None and effect.outer is not None
    draw_bands(ax, effect.x, effect.value, effect.inner, effect.outer, scale=_SCALE)


def _dress(ax: Axes, panel: Dependence, *, bottom: bool, left: bool) -> None:
    """Scales and ticks everywhere, labels on the outer edges alone, in small letters."""
    panel.x.dress(ax, "x")
    _fit_labels(ax, panel.x, "x")
    if panel.y is not None:
        panel.y.dress(ax, "y")
        _fit_labels(ax, panel.y, "y")
        ax.tick_params(axis="y", labelleft=left)
        ax.set_ylabel(ax.get_ylabel() if left else "", fontsize=_TEXT + 1)
        ax.tick_params(axis="y", pad=5 if panel.y.labels else 2)
    ax.tick_params(axis="x", pad=5 if panel.x.labels else 2)
    ax.tick_params(labelsize=_TEXT)
    ax.tick_params(axis="x", labelbottom=bottom)
    ax.set_xlabel(ax.get_xlabel() if bottom else "", fontsize=_TEXT + 1)
    for spine in ax.spines.values():
        spine.set_linewidth(0.6)


def _fit_labels(ax: Axes, axis: Axis, side: str) -> None:
    """Turn the names of choices upright where they would run into each other."""
    if axis.labels is None:
        return
    ticks = ax.xaxis if side == "x" else ax.yaxis
    texts = [plain(short(label, 12)) for label in axis.labels]
    room = width(ax) if side == "x" else height(ax)
    every = math.ceil(len(texts) * 1.2 * _TEXT / room)
    longest = max(map(len, texts)) * _LETTER * _TEXT
    upright = side == "x" and longest > room * every / len(texts)
    look: dict[str, Any] = {"rotation": 90 if upright else 0, "rotation_mode": "default"}
    look["ha"] = "center" if side == "x" else "right"
    ticks.set_ticks(np.arange(len(texts))[::every], texts[::every], **look)


def _shows(axis: Axis, former: Former, trial: Trial) -> bool:
    """Whether a trial has a value of the parameter that lies in the picture."""
    params = trial.params
    return former.has(axis.name, params) and 0 <= axis.parameter.to_unit(params[axis.name]) <= 1
