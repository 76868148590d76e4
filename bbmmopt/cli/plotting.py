"""`bbmmopt plot`: pictures of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bbmmopt.cli.arguments import StudyCommand, fixed_option, on_study
from bbmmopt.cli.errors import BAD_INPUT, NOTHING, Failure, bad_input
from bbmmopt.cli.opening import optimizer_of
from bbmmopt.cli.parsing import point_from
from bbmmopt.explain import ACQUISITIONS

# Each plot, and the options it takes.
_PLOTS = {
    "acquisition": ("x", "y", "fixed", "acquisition"),
    "posterior": ("x", "y", "fixed"),
    "history": (),
}


@click.command(cls=StudyCommand)
@click.argument("kind", metavar="|".join(_PLOTS), type=click.Choice(list(_PLOTS)))
@on_study
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    help="Where to; the ending says which format: png, pdf, svg.",
)
@click.option("-x", metavar="NAME", help="Parameter along the x axis.")
@click.option("-y", metavar="NAME", help="Parameter along the y axis.")
@fixed_option("Where to cut through a parameter that is not on an axis. Repeatable.")
@click.option("--acquisition", type=click.Choice(list(ACQUISITIONS)), help="Default: the study's.")
def plot(
    kind: str,
    where: str,
    study: str | None,
    output: str,
    x: str | None,
    y: str | None,
    fixed: tuple[str, ...],
    acquisition: str | None,
) -> None:
    """Draw the acquisition surface, the model's posterior, or the history of best values.

    \b
      bbmmopt plot acquisition study.db -x C -y gamma --fixed kernel=rbf -o surface.png
    """
    given: dict[str, Any] = {"x": x, "y": y, "fixed": fixed or None, "acquisition": acquisition}
    for name, value in given.items():
        if value is not None and name not in _PLOTS[kind]:
            option = f"-{name}" if len(name) == 1 else f"--{name}"
            raise click.UsageError(f"{option} does not go with {kind}.")
    with optimizer_of(where, study) as optimizer:
        from matplotlib.figure import Figure

        from bbmmopt import plots
        from bbmmopt.optimizer import NoCompleteTrial

        figure = Figure(figsize=(8, 5.5), layout="constrained")  # no pyplot: no display needed
        formats = figure.canvas.get_supported_filetypes()
        if Path(output).suffix.lower().removeprefix(".") not in formats:
            listed = ", ".join(formats)
            raise Failure(
                f"{output}: the name must end in a format of pictures: {listed}.", BAD_INPUT
            )
        with bad_input():
            given["fixed"] = point_from(optimizer.space, fixed, "--fixed") or None
            options = {name: given[name] for name in _PLOTS[kind]}
            try:
                getattr(plots, f"plot_{kind}")(optimizer, **options, ax=figure.add_subplot())
            except NoCompleteTrial as error:
                raise Failure(str(error), NOTHING) from error
        try:
            figure.savefig(output, dpi=150)
        except OSError as error:
            raise Failure(f"{output} cannot be written: {error.strerror}.", BAD_INPUT) from error
