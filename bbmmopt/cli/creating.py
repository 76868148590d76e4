"""`bbmmopt create`: a study, from what a shell hands over."""

from __future__ import annotations

import warnings
from typing import Any, get_args

import click

from bbmmopt.cli.arguments import StudyCommand, on_storage
from bbmmopt.cli.errors import bad_input
from bbmmopt.cli.opening import storage_at, text_of
from bbmmopt.cli.output import print_json
from bbmmopt.cli.parsing import (
    former_from,
    numbers_from,
    prior_from,
    risk_from,
    rule_from,
    space_from,
)
from bbmmopt.early_stopping import RULES
from bbmmopt.explain import ACQUISITIONS, STRATEGIES
from bbmmopt.problem import Noise, Problem
from bbmmopt.study.extension import OldTrialsWarning


@click.command(cls=StudyCommand)
@click.option(
    "--space",
    required=True,
    metavar="FILE|-|JSON",
    type=click.Path(allow_dash=True),
    help="The parameters: a JSON file, - for stdin, or the JSON itself.",
)
@click.option("--minimize", multiple=True, metavar="NAME", help="Objective to make small.")
@click.option("--maximize", multiple=True, metavar="NAME", help="Objective to make large.")
@click.option(
    "--constraint",
    multiple=True,
    metavar="NAME|BOUND",
    help='A number told along: "latency <= 200", "accuracy >= 0.9"; a name alone is for <= 0.',
)
@click.option(
    "--noise",
    type=click.Choice(get_args(Noise)),
    default="unknown",
    show_default=True,
    help="none: results are exact. unknown: noise is learnt. noisy: and points may be repeated.",
)
@click.option("--seed", type=int, help="Any integer; drawn if left out.")
@click.option("--n-start", type=click.IntRange(1), help="Trials before the model takes over.")
@click.option("--budget", type=click.IntRange(1), help="How many trials are planned, if known.")
@click.option("--acquisition", type=click.Choice(list(ACQUISITIONS)), help="Default: auto.")
@click.option("--strategy", type=click.Choice(list(STRATEGIES)), help="Default: auto.")
@click.option(
    "--batches",
    type=click.Choice(["greedy", "joint"]),
    help="How several trials are found at once: one after another, or together. Default: greedy.",
)
@click.option(
    "--reference-point",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value of an objective that counts as worthless, where there are several. Repeatable.",
)
@click.option(
    "--prior",
    metavar="FILE|-|JSON",
    type=click.Path(allow_dash=True),
    help="Where you believe the optimum to be: see above.",
)
@click.option("--cost", type=click.Choice(["seconds"]), help="Prefer quick trials.")
@click.option(
    "--perturbation",
    multiple=True,
    metavar="NAME=STD",
    help="Standard deviation by which a parameter will vary in use. Repeatable.",
)
@click.option(
    "--risk",
    metavar="mean|NUMBER",
    help="What counts under perturbation: as 0.9, the mean over its worst tenth. Default: mean.",
)
@click.option(
    "--early-stopping",
    metavar="NAME|JSON",
    help=f"When a trial is not worth going on with: {', '.join(RULES)}, or JSON, see above.",
)
@click.option(
    "--warm-start",
    metavar="PATH[#STUDY]",
    help="Begin with the results of another study, of the same objectives.",
)
@click.option(
    "--former",
    multiple=True,
    metavar="NAME=VALUE",
    help="What a parameter was there that is only here; or at which value results count of one "
    "that is only there. Repeatable.",
)
@click.option("--study", default="default", show_default=True, metavar="NAME")
@on_storage
def create(
    where: str,
    space: str,
    minimize: tuple[str, ...],
    maximize: tuple[str, ...],
    constraint: tuple[str, ...],
    noise: Noise,
    reference_point: tuple[str, ...],
    prior: str | None,
    perturbation: tuple[str, ...],
    risk: str | None,
    early_stopping: str | None,
    warm_start: str | None,
    former: tuple[str, ...],
    study: str,
    **settings: Any,
) -> None:
    """Start a study, in a new file or a storage that is there.

    \b
    A space in JSON, each parameter as {type: range or choices, options}:
      {"C":      {"real": [0.001, 1000], "log": true},
       "kernel": {"categorical": ["rbf", "poly"]},
       "degree": {"integer": [2, 5], "when": {"kernel": "poly"}},
       "batch":  {"ordinal": [16, 32, 64]}}

    The form that Space.to_json() of the Python library writes is read too.

    A prior in JSON, of any of the parameters. Of a number or an ordinal, the most likely value and
    one standard deviation: a factor of a log parameter, else a spread in units of the parameter,
    which are places in the order of an ordinal. Of choices, weights; those left out weigh 1:

    \b
      {"C":      {"near": 1, "factor": 10},
       "degree": {"near": 3, "spread": 1},
       "kernel": {"weights": {"rbf": 2}}}

    A rule for early stopping in JSON, with its arguments:

    \b
      {"rule": "percentile", "percentile": 25, "start_trials": 5, "warmup_steps": 3, "interval": 1}
      {"rule": "halving", "min_steps": 3, "reduction": 4}
      {"rule": "hyperband", "min_steps": 1, "max_steps": 81, "reduction": 3}

    Prints the study's name and seed. Doing it twice with the same description is fine; "created" is
    false then.
    """
    from bbmmopt.study import Study, StudyDiffers

    with bad_input():
        if space == prior == "-":
            raise ValueError("--space and --prior cannot both be read from stdin.")
        problem = Problem.make(
            space_from(text_of(space)),
            list(minimize),
            list(maximize),
            noise,
            list(constraint),
            numbers_from([*minimize, *maximize], reference_point, "--reference-point") or None,
        )
        settings |= {
            "study": study,
            "prior": None if prior is None else prior_from(problem.space, text_of(prior)),
            "perturbation": numbers_from(problem.space.names, perturbation, "--perturbation")
            or None,
            "risk": None if risk is None else risk_from(risk),
            "early_stopping": None if early_stopping is None else rule_from(early_stopping),
        }
        earlier = (
            {}
            if warm_start is None
            else {"warm_start": warm_start, "former": former_from(problem.space, former)}
        )
        if former and warm_start is None:
            raise ValueError("--former goes with --warm-start.")
        # In memory: refuses what it has to before a file is there.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OldTrialsWarning)
            Study(problem, **settings, **earlier)
    with storage_at(where) as storage:
        is_new = storage.study(study) is None
        with bad_input():
            warnings.simplefilter("always", OldTrialsWarning)  # until the command ends
            try:
                opened = Study(problem, storage=storage, **settings, **earlier)
            except StudyDiffers as error:
                told = "In a shell: bbmmopt extend, --study NAME, --warm-start."
                raise ValueError(f"{error} {told}") from error
        print_json({"study": study, "seed": opened.seed, "created": is_new})
