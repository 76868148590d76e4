"""`bbmmopt plot`: pictures of a study, and the numbers behind them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bbmmopt.cli.arguments import StudyCommand, fixed_option, on_study
from bbmmopt.cli.errors import BAD_INPUT, NOTHING, Failure, bad_input
from bbmmopt.cli.exporting import target, write_rows
from bbmmopt.cli.opening import study_of
from bbmmopt.cli.output import json_text
from bbmmopt.cli.parsing import point_from
from bbmmopt.explain import ACQUISITIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bbmmopt.plots import Table
    from bbmmopt.study import StoredStudy


@dataclass(frozen=True)
class _Kind:
    """A picture that can be asked for.

    Attributes:
        takes: The options of the function that draws it.
        only_drawn: Those of them that make no difference to the numbers behind it.
        size: Width and height in inches, unless others are asked for.
    """

    takes: tuple[str, ...] = ()
    only_drawn: tuple[str, ...] = ()
    size: tuple[float, float] = (8.0, 5.5)


_SLICE = ("x", "y", "fixed")
_KINDS = {
    "acquisition": _Kind((*_SLICE, "acquisition")),
    "posterior": _Kind((*_SLICE, "name", "quantity", "samples"), ("quantity",)),
    "contours": _Kind(("parameters", "name", "at", "fixed"), size=(9.0, 8.0)),
    "history": _Kind(("name", "optimum", "by", "compare")),
    "pareto": _Kind(("objectives", "belief")),
    "parallel": _Kind(("parameters", "name")),
    "importance": _Kind(("name",)),
    "calibration": _Kind(("name",)),
    "timeline": _Kind(),
    "edf": _Kind(("name", "compare")),
    "curves": _Kind(("log",), ("log",)),
    "animation": _Kind((*_SLICE, "acquisition", "name", "fps")),
}
_OPTIONS = {"parameters": "--parameter", "objectives": "--objective"}  # else as they are called
_FILM = "animation"  # no picture, but many
_SIZE = ("width", "height", "dpi")
_DOTS = 1e8  # of a picture at most: 400 MB in memory
_CSV_OR_JSON = (".csv", ".json")


@click.command(cls=StudyCommand)
@click.argument("kind", metavar="KIND", type=click.Choice(list(_KINDS)))
@on_study
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    help="Where to; the ending says which format: png, pdf, svg; gif for an animation.",
)
@click.option(
    "--data",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    help="Write the numbers behind the picture instead: .csv, or .json with what is held.",
)
@click.option("-x", metavar="NAME", help="Parameter along the x axis.")
@click.option("-y", metavar="NAME", help="Parameter along the y axis.")
@fixed_option("Where to cut through a parameter that is not on an axis. Repeatable.")
@click.option("--acquisition", type=click.Choice(list(ACQUISITIONS)), help="Default: the study's.")
@click.option("--name", metavar="NAME", help="Which objective, of several.")
@click.option("--quantity", type=click.Choice(["mean", "std"]), help="Of a posterior: which.")
@click.option(
    "--samples", type=click.IntRange(min=1), metavar="N", help="Functions to draw from a posterior."
)
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME",
    help="One to draw, in contours or parallel coordinates. Repeatable.",
)
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="NAME",
    help="One to draw, of a Pareto front. Repeatable.",
)
@click.option("--at", metavar="WHERE", help="Where contours hold other parameters: average, best.")
@click.option("--belief", is_flag=True, help="Of a Pareto front: what the model expects, too.")
@click.option("--optimum", type=float, metavar="NUMBER", help="Best value possible: draws regret.")
@click.option("--by", type=click.Choice(["trial", "seconds"]), help="What a history goes along.")
@click.option(
    "--compare",
    multiple=True,
    metavar="STUDY",
    help="Another study in the same picture: a storage, storage#study, or #study. Repeatable.",
)
@click.option("--log", is_flag=True, help="A logarithmic scale for learning curves.")
@click.option("--fps", type=click.FloatRange(0.1, 100), help="Pictures a second of an animation.")
@click.option("--width", type=click.FloatRange(1, 50), metavar="INCHES", help="Of the picture.")
@click.option("--height", type=click.FloatRange(1, 50), metavar="INCHES", help="Of the picture.")
@click.option("--dpi", type=click.IntRange(30, 1200), help="Dots an inch; 150 if left out.")
def plot(
    kind: str,
    where: str,
    study: str | None,
    output: str | None,
    data: str | None,
    **options: Any,
) -> None:
    """Draw a study, or write the numbers behind a picture of it.

    \b
      acquisition  how much each point promises, and where to go next: -x -y --fixed --acquisition
      posterior    what the model believes: -x -y --fixed --name --quantity --samples
      contours     all pairs of parameters: --parameter --name --at --fixed
      history      values and the best so far: --name --optimum --by --compare
      pareto       the trade-off of several objectives: --objective --belief
      parallel     a line for each trial through its parameters: --parameter --name
      importance   which parameters matter: --name
      calibration  whether the model predicts trials left out: --name
      timeline     who worked when
      edf          how many trials found values this good: --name --compare
      curves       what trials reported on their way: --log
      animation    the model over the run: -x -y --fixed --acquisition --name --fps

    \b
      bbmmopt plot acquisition study.db -x C -y gamma --fixed kernel=rbf -o surface.png
      bbmmopt plot history study.db --compare other.db -o history.pdf --width 3.4 --height 2.6
      bbmmopt plot timeline study.db --data timeline.csv
    """
    left_out = (None, False, ())  # by identity: 0 equals False
    given = {k: v for k, v in options.items() if not any(v is nothing for nothing in left_out)}
    _check_options(kind, given, output, data)
    with study_of(where, study) as found:
        from bbmmopt.study import NoCompleteTrial

        with bad_input():
            try:
                source, arguments = _arguments(found, where, study, given)
                if data is not None:
                    _write_data(data, kind, source, arguments)
                elif output is not None:
                    _draw(kind, output, source, arguments)
            except NoCompleteTrial as error:
                raise Failure(str(error), NOTHING) from error


def _check_options(
    kind: str, given: Mapping[str, Any], output: str | None, data: str | None
) -> None:
    """Refuse options that do not go with the kind of picture, or with one another."""
    if (output is None) == (data is None):
        raise click.UsageError(
            "Missing option '-o', for a picture, or '--data', for its numbers."
            if output is None
            else "-o and --data are two outputs: give one of them."
        )
    is_film = kind == _FILM
    for name in given:
        option = _OPTIONS.get(name, f"-{name}" if len(name) == 1 else f"--{name}")
        if name not in (*_KINDS[kind].takes, *(() if is_film else _SIZE)):
            raise click.UsageError(f"{option} does not go with {kind}.")
        if data is not None and name in (*_KINDS[kind].only_drawn, *_SIZE):
            raise click.UsageError(f"{option} makes no difference to --data; leave it out.")
    if data is not None and is_film:
        raise click.UsageError(f"--data does not go with {kind}.")
    if data is not None and Path(data).suffix.lower() not in _CSV_OR_JSON:
        raise Failure(f"{data}: the name must end in .csv or .json.", BAD_INPUT)


def _arguments(
    study: StoredStudy, where: str, name: str | None, given: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """What to draw, one study or several, and how."""
    arguments = dict(given)
    others = arguments.pop("compare", ())
    source: Any = study
    if others:
        first = where if name is None else f"{where}#{name}"
        source = [first, *(f"{where}{o}" if o.startswith("#") else o for o in others)]
    if "fixed" in arguments:
        arguments["fixed"] = point_from(study.space, arguments["fixed"], "--fixed")
    return source, arguments


def _draw(kind: str, output: str, source: Any, arguments: dict[str, Any]) -> None:
    """Draw a picture, or an animation, into a file."""
    from bbmmopt import plots

    with _writing(output):
        if kind == _FILM:
            plots.animate_acquisition(source, **arguments, path=output)
            return
    figure, dpi = _figure(kind, output, arguments)
    getattr(plots, f"plot_{kind}")(source, **arguments, ax=figure.add_subplot())
    with _writing(output):
        figure.savefig(output, dpi=dpi)


def _figure(kind: str, output: str, arguments: dict[str, Any]) -> tuple[Figure, int]:
    """An empty figure, and how many dots an inch of it has; their options are taken out."""
    from matplotlib.figure import Figure

    width, height = (arguments.pop(key, None) for key in _SIZE[:2])
    size = width or _KINDS[kind].size[0], height or _KINDS[kind].size[1]
    dpi = arguments.pop("dpi", 150)
    if size[0] * size[1] * dpi**2 > _DOTS:
        raise Failure(
            f"{size[0]:g} by {size[1]:g} inches of {dpi} dots each are too large a picture; "
            f"give less --width, --height or --dpi.",
            BAD_INPUT,
        )
    figure = Figure(figsize=size, layout="constrained")  # no pyplot: no display needed
    formats = figure.canvas.get_supported_filetypes()
    if Path(output).suffix.lower().removeprefix(".") not in formats:
        listed = ", ".join(formats)
        raise Failure(f"{output}: the name must end in a format of pictures: {listed}.", BAD_INPUT)
    return figure, dpi


@contextmanager
def _writing(output: str) -> Iterator[None]:
    """A file that cannot be written, as the user's mistake."""
    try:
        yield
    except OSError as error:
        raise Failure(f"{output} cannot be written: {error.strerror}.", BAD_INPUT) from error


def _write_data(output: str, kind: str, source: Any, arguments: dict[str, Any]) -> None:
    """Write the table behind a picture: rows as CSV, or rows and facts as JSON.

    What is not there, or does not matter, is empty in CSV and null in JSON.
    """
    from bbmmopt import plots

    belief = "_belief" if arguments.pop("belief", False) else ""
    table: Table = getattr(plots, f"{kind}{belief}_data")(source, **arguments)
    columns = {name: [_known(value) for value in table[name].tolist()] for name in table}
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    with target(output) as file:
        if output.lower().endswith(".csv"):
            write_rows(file, "csv", list(columns), rows)
        else:
            facts = {name: _plain(value) for name, value in table.facts.items()}
            file.write(json_text({"facts": facts, "rows": list(rows)}) + "\n")


def _known(value: Any) -> Any:
    """None for NaN, which in a table is what is not there."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _plain(value: Any) -> Any:
    """A fact in JSON types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())  # an array, or a number of one
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
