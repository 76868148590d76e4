"""What commands share on their command lines: STORAGE, --study, NUMBER, --param."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import click

from bbmmopt.cli.completing import assignments, storages, study_names, trial_numbers
from bbmmopt.cli.errors import debug_option
from bbmmopt.cli.opening import VARIABLE, is_no_path, text_of
from bbmmopt.cli.parsing import json_object, point_from
from bbmmopt.space import Space
from bbmmopt.trial import TrialState

# So that -0.5 is a value and not an unknown option.
NEGATIVE_NUMBERS = {"ignore_unknown_options": True}


class StudyCommand(click.Command):
    """A command on a study. STORAGE may be left out where BBMMOPT_STORAGE is set.

    A number, or NAME=VALUE, in its place then is the argument after it. A file of such a name is
    still to be had, as ./3.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        default = os.environ.get(VARIABLE)
        first, *others = [p.name for p in self.params if isinstance(p, click.Argument)]
        if default and first == "where" and others:
            found = self.make_parser(ctx).parse_args(list(args))[0].get("where")
            if isinstance(found, str) and is_no_path(found):
                args = [default, *args]
        return super().parse_args(ctx, args)


class Whole(click.IntRange):
    """An integer from 0 on: the number of a trial, a step."""

    name = "integer"  # as messages call it

    def __init__(self) -> None:
        super().__init__(min=0)


class Seconds(click.FloatRange):
    """A time: positive and finite."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return seconds


def on_study(command: Callable[..., None]) -> Callable[..., None]:
    """The STORAGE argument and the options of every command on a study."""
    study = click.option(
        "--study",
        metavar="NAME",
        shell_complete=study_names,
        help="Which study. Left out: the only one of the storage.",
    )
    return on_storage(study(command))


def on_storage(command: Callable[..., None]) -> Callable[..., None]:
    """The STORAGE argument."""
    storage = click.argument(
        "where",
        metavar="STORAGE",
        type=click.Path(readable=False),  # what cannot be read is told by who opens it
        envvar=VARIABLE,
        shell_complete=storages,
    )
    return storage(debug_option(command))


def number_argument(*states: TrialState) -> Callable[[Any], Any]:
    """The number of a trial; those of trials in these states are offered for completion."""
    return click.argument(
        "number", type=Whole(), shell_complete=trial_numbers(states or tuple(TrialState))
    )


def fixed_option(text: str) -> Callable[[Any], Any]:
    """--fixed, repeatable."""
    return click.option(
        "--fixed", multiple=True, metavar="NAME=VALUE", shell_complete=assignments, help=text
    )


def point_options(command: Callable[..., None]) -> Callable[..., None]:
    """--params and --param; `given_point` makes a point of them."""
    text = 'The point: {"C": 1.0, …}, a file of it, or - for stdin.'
    params = click.option("--params", metavar="JSON", help=text)
    param = click.option(
        "--param",
        multiple=True,
        metavar="NAME=VALUE",
        shell_complete=assignments,
        help="One of them. Repeatable.",
    )
    return params(param(command))


def given_point(space: Space, params: str | None, param: tuple[str, ...]) -> dict[str, Any]:
    """The point of both options together, which the space still has to check.

    Raises:
        ValueError: If a text cannot be read, or a parameter is in both.
    """
    point = {} if params is None else json_object(text_of(params), "--params")
    for name, value in point_from(space, param, "--param").items():
        if name in point:
            raise ValueError(f"parameter {name!r} is in --params and in --param.")
        point[name] = value
    return point
