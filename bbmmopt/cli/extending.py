"""`bbmmopt extend`: a study that is there goes on with another space or other settings."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast, get_args

import click

from bbmmopt.cli.arguments import StudyCommand, on_study
from bbmmopt.cli.errors import bad_input
from bbmmopt.cli.opening import existing_study, text_of, trials_of
from bbmmopt.cli.output import print_json
from bbmmopt.cli.parsing import former_from, rule_from, space_from
from bbmmopt.early_stopping import RULES
from bbmmopt.explain import ACQUISITIONS, STRATEGIES
from bbmmopt.problem import Noise, Objective, Problem
from bbmmopt.space import Space


@click.command(cls=StudyCommand)
@click.option(
    "--space",
    metavar="FILE|-|JSON",
    type=click.Path(allow_dash=True),
    help="The parameters from now on, as in create. Left out: as they are.",
)
@click.option(
    "--former",
    multiple=True,
    metavar="NAME=VALUE",
    help="What a new parameter was in the trials so far; or the value at which those count that "
    "have a parameter that is gone. Repeatable.",
)
@click.option(
    "--constraint",
    multiple=True,
    metavar="NAME|BOUND",
    help="Instead of the constraints on results that there are: as in create. Repeatable.",
)
@click.option("--noise", type=click.Choice(get_args(Noise)), help="As in create.")
@click.option("--n-start", type=click.IntRange(1), help="Trials before the model takes over.")
@click.option("--budget", type=click.IntRange(1), help="How many trials are planned, in all.")
@click.option("--acquisition", type=click.Choice(list(ACQUISITIONS)))
@click.option("--strategy", type=click.Choice(list(STRATEGIES)))
@click.option("--early-stopping", metavar="NAME|JSON", help=f"{', '.join(RULES)}, or JSON.")
@click.option("--dry-run", is_flag=True, help="Change nothing, only say what would change.")
@on_study
def extend(
    where: str,
    study: str | None,
    space: str | None,
    former: tuple[str, ...],
    constraint: tuple[str, ...],
    noise: Noise | None,
    early_stopping: str | None,
    dry_run: bool,
    **settings: Any,
) -> None:
    """Go on with a study after changing its space, constraints, noise or settings.

    \b
      bbmmopt extend study.db --space '{"x": {"real": [-9, 9]}, "y": {"real": [0, 1]}}' \\
          --former y=0.5 --dry-run

    The trials stay as they are, and train the model wherever they have a place in the new space,
    be it outside its bounds. What runs can be told as before; programs that have the study open
    have to open it again before they ask.

    Prints what differs and what becomes of the trials: {"study": "default", "extended": true,
    "generation": 1, "differences": ["…"], "trials": 20, "training": 18, "concerns": ["…"]}.
    "trials" are all but those that wait; "training" those of them that the model learns from, or
    will once they are told.
    """
    from bbmmopt.study import Study
    from bbmmopt.study.extension import OldTrialsWarning, plan

    with existing_study(where, study) as (storage, record), bad_input():
        stored = Problem.from_json(record.problem)
        wanted = stored.space if space is None else space_from(text_of(space))
        problem = Problem.make(
            wanted,
            [o.name for o in stored.objectives if o.direction == "minimize"],
            [o.name for o in stored.objectives if o.direction == "maximize"],
            noise or {o.name: o.noise for o in stored.objectives},
            list(constraint or stored.constraints),
            stored.reference_point,
        )
        # `make` puts those to be minimised first.
        made = {o.name: o for o in problem.objectives}
        ordered: Iterable[Objective] = (made[name] for name in stored.names)
        problem = replace(problem, objectives=tuple(ordered))
        settings["early_stopping"] = None if early_stopping is None else rule_from(early_stopping)
        given = former_from(_either(wanted, stored.space), former) or None
        checked = Study(problem, **settings)  # in memory: refuses what makes no sense
        changes = {
            name: checked.settings[name] for name, value in settings.items() if value is not None
        }
        planned = plan(
            record,
            trials_of(storage, record.name),
            problem,
            seed=None,
            settings=changes,
            former=given,
        )
        if planned.differences and not dry_run:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OldTrialsWarning)  # they are printed below
                Study(
                    problem,
                    storage=storage,
                    study=record.name,
                    mode="extend",
                    former=given,
                    **settings,
                )
        now = storage.study(record.name) or record
        print_json(
            {
                "study": record.name,
                "extended": now.generation > record.generation,
                "generation": now.generation,
                "differences": planned.differences,
                "trials": planned.trials,
                "training": planned.training,
                "concerns": planned.concerns,
            }
        )


def _either(now: Space, before: Space) -> Space:
    """The parameters of both spaces, those of now first, to read values by."""
    both = dict(before.parameters) | dict(now.parameters)
    free: dict[str, Any] = {name: replace(cast(Any, p), when=None) for name, p in both.items()}
    return Space(free)
