"""animate_acquisition: how a run went on, frame by frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbmmopt.plots.acquisition import draw_worth
from bbmmopt.plots.believed import Believed, believed_of
from bbmmopt.plots.gif import GifWriter
from bbmmopt.plots.outputs import output_of
from bbmmopt.plots.posterior import draw_believed, view
from bbmmopt.plots.replay import Replay
from bbmmopt.plots.slices import Slice, make_slice, need_complete
from bbmmopt.plots.source import Source, modelled
from bbmmopt.plots.style import in_order, legend_entries, plain, short, title
from bbmmopt.plots.surface import Range
from bbmmopt.plots.worth import Worth, floor_of, worth_of
from bbmmopt.space.checks import is_integer

_POINTS = 61  # along an axis of a surface: a frame is small
_MOST_FRAMES = 100
_STAYS = 1.5  # seconds that the last frame stays


def animate_acquisition(
    study: Source,
    x: str | None = None,
    y: str | None = None,
    *,
    fixed: Mapping[str, Any] | None = None,
    acquisition: str | None = None,
    name: str | None = None,
    trials: Iterable[int] | None = None,
    path: str | PathLike[str] | None = None,
    fps: float = 4.0,
) -> FuncAnimation:
    """Show the posterior and the acquisition function as they were whenever a trial was suggested.

        animate_acquisition("study.db", path="run.gif")

    A frame shows what was known at that moment, and no more: the study is replayed in memory, by
    its log of events, and its models are fitted again. The star is where the trial was put. The
    slice is the same in all frames: it goes through what is the best trial in the end. So are the
    axes and the colours: of an acquisition function in logs, which falls in the course of a run,
    the difference to its largest value on the slice is drawn.

    Args:
        study: As in `plot_acquisition`.
        x, y, fixed, acquisition: What to draw and what to hold: as there.
        name: Of which objective or constraint the posterior is; the first objective's if left out.
        trials: Numbers of the trials whose suggestion to show; left out, of all from the first
            one on for which a result was there, but at most 100, evenly over the run. The last
            frame is how the study stands now.
        path: Where to write the animation as well, a file that ends in ".gif".
        fps: Frames per second of that, and of the animation when it is shown.

    Returns:
        The animation, in a figure of its own: to be shown in a notebook by `to_jshtml()`, or saved
        by another of matplotlib's writers.

    Raises:
        NoCompleteTrial: If no trial is complete.
        ValueError, TypeError: As `plot_acquisition`; or if `trials` are none that were suggested
            after a result was there.
    """
    _check(path, fps)
    frames = frames_of(study, x, y, fixed, acquisition, name, trials)
    film = Film(frames)
    animation = FuncAnimation(
        film.figure, film.draw, len(frames), interval=1000 / fps, repeat_delay=1000 * _STAYS
    )
    if path is not None:
        animation.save(fspath(path), writer=GifWriter(float(fps), _STAYS))
    return animation


@dataclass(frozen=True)
class Frame:
    """A moment of a run.

    Attributes:
        number: Of the trial that was suggested; None for the end.
        believed: The posterior then.
        worth: The acquisition function then, less its largest value if it is one in logs.
    """

    number: int | None
    believed: Believed
    worth: Worth


def _check(path: Any, fps: Any) -> None:
    if not isinstance(path, str | PathLike | None):
        raise TypeError(f"path must be the name of a file that ends in .gif; got {path!r}.")
    if path is not None and Path(fspath(path)).suffix.lower() != ".gif":
        raise ValueError(
            f"path must end in .gif; got {fspath(path)!r}. For other formats, save the animation "
            f"that is returned by one of matplotlib's writers."
        )
    if isinstance(fps, bool) or not isinstance(fps, int | float | np.number) or not 0 < fps <= 100:
        raise ValueError(f"fps must be a number of frames per second, up to 100; got {fps!r}.")


def frames_of(
    study: Source,
    x: str | None,
    y: str | None,
    fixed: Mapping[str, Any] | None,
    acquisition: str | None,
    name: str | None,
    trials: Iterable[int] | None,
) -> list[Frame]:
    """What `animate_acquisition` shows, by its arguments."""
    with modelled(study) as optimizer:
        need_complete(optimizer, optimizer.trials, "animate_acquisition")
        output = output_of(optimizer, optimizer.problem.names[0] if name is None else name)
        lengthscales = optimizer.beliefs().first.lengthscales.numpy()
        where = make_slice(optimizer, lengthscales, x, y, fixed, optimizer.trials, surface=_POINTS)
        replay = Replay(optimizer)
        numbers = _checked(trials, list(replay.moments))
        return [_frame(replay, number, where, output.name, acquisition) for number in numbers]


def _checked(trials: Iterable[int] | None, moments: Sequence[int]) -> list[int | None]:
    """The trials whose suggestion is shown, in the order in which they were made, and the end."""
    if trials is None:
        some = np.linspace(0, len(moments) - 1, min(len(moments), _MOST_FRAMES - 1)).round()
        return [*(moments[int(i)] for i in some), None]
    if isinstance(trials, str) or not isinstance(trials, Iterable):
        raise TypeError(f"trials must be a list of numbers of trials; got {trials!r}.")
    wanted = list(trials)
    for number in wanted:
        if not is_integer(number) or number not in moments:
            raise ValueError(
                f"trials must be numbers of trials that were suggested after a result was there: "
                f"{f'{moments[0]} to {moments[-1]}' if moments else 'there is none'}; got "
                f"{number!r}."
            )
    return [*(number for number in moments if number in set(wanted)), None]


def _frame(
    replay: Replay, number: int | None, where: Slice, name: str, acquisition: str | None
) -> Frame:
    """What was known when a trial was suggested, or in the end."""
    optimizer = replay.before(math.inf if number is None else replay.moments[number])
    worth = worth_of(optimizer, where, acquisition)
    if worth.falls:
        most = float(where.possible(worth.values).max())
        words = f"{worth.words},\nless the largest"
        worth = replace(worth, values=worth.values - most, height=worth.height - most, words=words)
    believed = believed_of(optimizer, output_of(optimizer, name), where)
    return Frame(number, believed, worth)


class Film:
    """The frames in one figure: layout, axes, colours and legend are those of all of them.

    Attributes:
        figure: Where they are drawn.
    """

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames
        self._curve = frames[0].worth.where.y is None
        worths, beliefs = [f.worth for f in frames], [f.believed for f in frames]
        values = np.concatenate([w.where.possible(w.values) for w in worths])
        floor = floor_of(values, curve=self._curve) if worths[0].falls else -np.inf
        self._worth = Range.of(values, low=floor)
        if self._curve:
            views = np.array([view(believed) for believed in beliefs])  # (frames, 2)
            self._believed = Range(float(views[:, 0].min()), float(views[:, 1].max()), "neither")
        else:
            each = [believed.limits() for believed in beliefs]
            low, high = min(r.low for r in each), max(r.high for r in each)
            medians = np.concatenate([b.where.possible(b.middle) for b in beliefs])
            self._believed = Range.of(medians, low=low, high=high)
        size = (7.0, 6.4) if self._curve else (10.0, 5.2)
        self.figure: Figure = plt.figure(figsize=size, layout="constrained")
        self._entries: dict[str, Artist] = {}
        self._boxes: list[Any] = []
        self._lay_out()

    def _lay_out(self) -> None:
        """Draw all frames once for their legends, the last one for where everything goes."""
        for k in range(len(self._frames)):
            self.figure.clear()
            for ax in self._panels(k):
                self._entries |= legend_entries(ax)
        self._legend()
        self.figure.draw_without_rendering()
        self._boxes = [ax.get_position() for ax in self.figure.axes]

    def draw(self, k: int) -> list[Artist]:
        """Draw a frame."""
        self.figure.clear()
        # As when it was laid out, or letters would be of another size.
        self.figure.set_layout_engine("constrained")
        self._panels(k)
        self._legend()
        self.figure.set_layout_engine("none")
        for ax, box in zip(self.figure.axes, self._boxes, strict=True):
            ax.set_position(box)
        return []

    def _panels(self, k: int) -> list[Axes]:
        """The posterior and the acquisition function."""
        frame = self._frames[k]
        believed, worth, where = frame.believed, frame.worth, frame.worth.where
        rows, columns = (2, 1) if self._curve else (1, 2)
        left, right = self.figure.subplots(rows, columns)
        draw_believed(left, believed, limits=self._believed)
        draw_worth(right, worth, limits=self._worth)
        if self._curve:
            left.set_xlabel("")
        when = "now" if frame.number is None else f"when trial {frame.number} was suggested"
        count = f"{worth.count} trial{'s' * (worth.count != 1)}"
        self.figure.suptitle(f"{count} known {when}", fontsize=11.5)
        title(left, plain(f"Posterior of {short(believed.output.name)}"), held=where.held)
        title(right, worth.title, note="\n".join([*worth.notes, *where.notes]))
        return [left, right]

    def _legend(self) -> None:
        entries = in_order(self._entries)
        self.figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside lower center" if not self._boxes else "lower center",
            ncols=5,
            frameon=False,
            fontsize=9.0,
        )
