"""The commands. Those that only read or list import no torch, and answer at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import bbmmopt
from bbmmopt.cli.creating import create
from bbmmopt.cli.errors import BAD_INPUT, NOTHING, Commands, Failure, bad_input, debug_option
from bbmmopt.cli.opening import optimizer_of, stored, study_of, text_of, trials_of
from bbmmopt.cli.output import print_json, print_trial, print_trials, record
from bbmmopt.cli.parsing import json_object, outcome_from, point_from
from bbmmopt.explain import ACQUISITIONS, explain
from bbmmopt.trial import TrialState

# So that -0.5 is a value and not an unknown option.
_NEGATIVE_NUMBERS = {"ignore_unknown_options": True}

# Each plot, and the options it takes.
_PLOTS = {
    "acquisition": ("x", "y", "fixed", "acquisition"),
    "posterior": ("x", "y", "fixed"),
    "history": (),
}


@click.group(cls=Commands, invoke_without_command=True)
@click.version_option(bbmmopt.__version__, prog_name="bbmmopt")
@debug_option
@click.pass_context
def main(context: click.Context) -> None:
    """Bayesian optimisation from the shell: ask what to try, tell what came out.

    \b
      bbmmopt create study.db --space '{"x": {"real": [-5, 5]}}' --minimize loss
      bbmmopt ask study.db                       # {"number": 0, "params": {"x": 0.0}}
      bbmmopt tell study.db 0 1.25
      bbmmopt best study.db
      bbmmopt trials study.db

    STORAGE is the path of an SQLite file. Only `create` makes a new one. A storage may hold several
    studies: --study says which, and may be left out while there is only one.

    Results go to stdout: one JSON object per line, or a table where a person reads (trials and
    show, unless --json is given). Errors and warnings go to stderr, a line each.

    \b
    Exit codes:
      0  done
      1  unexpected: a bug, or the reader of a pipe went away
      2  bad input: a wrong option, parameter, value or trial number; no --study of several
      3  the storage cannot be opened, or holds no such study
      4  nothing to give: no complete trial yet, or every point was tried
      5  the trial was told before, with another outcome; the first is kept
    130  interrupted by Ctrl-C

    \b
    Completion: eval "$(_BBMMOPT_COMPLETE=bash_source bbmmopt)"     # or zsh_source, fish_source
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _on_study(command: Callable[..., None]) -> Callable[..., None]:
    """The STORAGE argument and the options of every command."""
    study = click.option(
        "--study", metavar="NAME", help="Which study. Left out: the only one of the storage."
    )
    storage = click.argument("where", metavar="STORAGE", type=click.Path())
    return storage(study(debug_option(command)))


main.add_command(create)


@main.command()
@_on_study
@click.option("-n", type=click.IntRange(1), default=1, help="How many trials.")
@click.option(
    "--fixed",
    multiple=True,
    metavar="NAME=VALUE",
    help="A value that a parameter must have this time. Repeatable.",
)
@click.option(
    "--worker",
    metavar="NAME",
    help="Who will run it. First gets the trials again that it was given and never told.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="For all of them: after that the best points found so far are taken.",
)
def ask(
    where: str,
    study: str | None,
    n: int,
    fixed: tuple[str, ...],
    worker: str | None,
    timeout: float | None,
) -> None:
    """Say what to try next: {"number": 3, "params": {"C": 1.0}}, a line per trial.

    The trial is running from now on; parameters that do not matter this time are left out.
    """
    with optimizer_of(where, study) as optimizer:
        from bbmmopt.search import Budget, NoFeasiblePoint, SpaceExhausted

        with bad_input():
            point = point_from(optimizer.space, fixed, "--fixed")
            point = optimizer.space.validate_partial(point, where="--fixed")
        try:
            budget = Budget(timeout)
            # One by one, if they may be: what was asked for before an error is shown.
            some = n if optimizer.settings["batches"] == "joint" else 1
            for k in range(0, n, some):
                seconds = budget.seconds_of((n - k) // some)
                for trial in optimizer.ask(some, fixed=point, worker=worker, timeout=seconds):
                    print_json({"number": trial.number, "params": trial.params})
        except (SpaceExhausted, NoFeasiblePoint) as error:
            raise Failure(str(error), NOTHING) from error


@main.command(context_settings=_NEGATIVE_NUMBERS)
@_on_study
@click.argument("number", type=click.IntRange(0))
@click.argument("values", metavar="VALUE...", nargs=-1)
@click.option("--failed", metavar="REASON", help="There is no value, and this is why.")
@click.option(
    "--se", multiple=True, metavar="NUMBER", help="Standard error of the value. Repeatable."
)
def tell(
    where: str,
    study: str | None,
    number: int,
    values: tuple[str, ...],
    failed: str | None,
    se: tuple[str, ...],
) -> None:
    """Record what came out of trial NUMBER, and print the trial.

    VALUE is a number; with several objectives or constraints one for each, as in error=0.1
    weight=-2, and --se error=0.02. NaN records the trial as failed. Telling the same again is
    fine; telling something else is exit code 5.
    """
    with study_of(where, study) as opened:
        with bad_input():
            told = outcome_from(opened.problem, values, se)
            if told is None and failed is None:
                raise ValueError(f'trial {number}: give a VALUE, or --failed "reason".')
            trial = opened.tell(number, told, failed=failed)
        print_json(record(trial))


@main.command(context_settings=_NEGATIVE_NUMBERS)
@_on_study
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
@click.option(
    "--params", metavar="JSON", help='The point: {"C": 1.0, …}, a file of it, or - for stdin.'
)
@click.option("--param", multiple=True, metavar="NAME=VALUE", help="One of them. Repeatable.")
@click.option(
    "--se", multiple=True, metavar="NUMBER", help="Standard error of the value. Repeatable."
)
@click.option("--outside", is_flag=True, help="Accept numbers beyond the bounds.")
def add(
    where: str,
    study: str | None,
    values: tuple[str, ...],
    params: str | None,
    param: tuple[str, ...],
    se: tuple[str, ...],
    outside: bool,
) -> None:
    """Record a result that was not asked for, and print its trial.

    \b
      bbmmopt add study.db 0.12 --param C=10 --param kernel=rbf
      bbmmopt add study.db 0.12 --params '{"C": 10, "kernel": "rbf"}'

    VALUE is as in `tell`.
    """
    with study_of(where, study) as opened:
        with bad_input():
            point = {} if params is None else json_object(text_of(params), "--params")
            for name, value in point_from(opened.space, param, "--param").items():
                if name in point:
                    raise ValueError(f"parameter {name!r} is in --params and in --param.")
                point[name] = value
            told = outcome_from(opened.problem, values, se)
            trial = opened.add_trial(point, told, outside=outside)
        print_json(record(trial))


@main.command()
@_on_study
@click.argument("number", type=click.IntRange(0))
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
def show(where: str, study: str | None, number: int, as_json: bool) -> None:
    """Everything about trial NUMBER, and why its point was chosen."""
    with stored(where, study) as (storage, name, problem):
        trial = storage.trial(name, number)
    explanation = explain(trial, problem)
    if as_json:
        print_json({**record(trial), "explanation": explanation})
    else:
        print_trial(trial, problem, explanation)


@main.command()
@_on_study
def best(where: str, study: str | None) -> None:
    """Print the complete, feasible trial with the best value, as JSON."""
    with stored(where, study) as (storage, name, problem):
        trials = trials_of(storage, name)
    with bad_input():
        trial = problem.best_of(trials)
    if trial is None:
        raise Failure(
            "there is no complete trial yet, so none is the best: tell a result first.", NOTHING
        )
    print_json(record(trial))


@main.command()
@_on_study
@click.option("--json", "as_json", is_flag=True, help="One line of JSON per trial.")
@click.option(
    "--state",
    multiple=True,
    type=click.Choice([str(state) for state in TrialState]),
    help="Only trials in this state. Repeatable.",
)
def trials(where: str, study: str | None, as_json: bool, state: tuple[str, ...]) -> None:
    """List the trials, as a table."""
    with stored(where, study) as (storage, name, problem):
        found = trials_of(storage, name)
    wanted = [trial for trial in found if not state or trial.state in state]
    if as_json:
        for trial in wanted:
            print_json(record(trial))
    elif wanted:
        best = problem.best_of(found) if len(problem.objectives) == 1 else None
        print_trials(wanted, problem, best)
    else:
        click.echo(f"Study {name!r} has no {'such ' * bool(found)}trials.", err=True)


@main.command()
@click.argument("kind", metavar="|".join(_PLOTS), type=click.Choice(list(_PLOTS)))
@_on_study
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
@click.option(
    "--fixed",
    multiple=True,
    metavar="NAME=VALUE",
    help="Where to cut through a parameter that is not on an axis. Repeatable.",
)
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
