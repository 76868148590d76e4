"""The commands that look at a study. None of them waits for torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import click

from bbmmopt.cli.arguments import StudyCommand, number_argument, on_storage, on_study
from bbmmopt.cli.errors import NOTHING, Failure, bad_input
from bbmmopt.cli.opening import existing_storage, stored, trials_of
from bbmmopt.cli.output import (
    print_events,
    print_json,
    print_studies,
    print_text,
    print_trial,
    print_trials,
    record,
)
from bbmmopt.explain import explain as explained
from bbmmopt.problem import Problem
from bbmmopt.storage import Storage, StudyRecord
from bbmmopt.study.extension import problem_of
from bbmmopt.study.tables import each_event, each_trial
from bbmmopt.trial import Trial, TrialState

_json_option = click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
_json_each_option = click.option("--json", "as_json", is_flag=True, help="A line of JSON for each.")


@click.command(cls=StudyCommand)
@on_study
@number_argument()
@_json_option
def show(where: str, study: str | None, number: int, as_json: bool) -> None:
    """Everything about trial NUMBER, and why its point was chosen."""
    with stored(where, study) as (storage, name, problem):
        trial = storage.trial(name, number)
        explanation = explained(trial, problem_of(storage, name, number, problem))
    if as_json:
        print_json({**record(trial), "explanation": explanation})
    else:
        print_trial(trial, problem, explanation)


@click.command(cls=StudyCommand)
@on_study
@number_argument()
@_json_option
def explain(where: str, study: str | None, number: int, as_json: bool) -> None:
    """Why the point of trial NUMBER was chosen: by which phase, model and acquisition value."""
    with stored(where, study) as (storage, name, problem):
        trial = storage.trial(name, number)
        explanation = explained(trial, problem_of(storage, name, number, problem))
    if as_json:
        print_json({"number": number, "explanation": explanation, "origin": trial.origin})
    else:
        print_text(explanation)


@click.command(cls=StudyCommand)
@on_study
def best(where: str, study: str | None) -> None:
    """Print the complete, feasible trial with the best value, as JSON."""
    with stored(where, study) as (storage, name, problem):
        with bad_input():
            problem.best_of(())  # of several objectives there is none
        trial = problem.best_of(each_trial(storage, name))
    if trial is None:
        raise Failure(
            "there is no complete trial yet, so none is the best: tell a result first.", NOTHING
        )
    print_json(record(trial))


@click.command(cls=StudyCommand)
@on_study
@_json_each_option
@click.option(
    "--state",
    multiple=True,
    type=click.Choice([str(state) for state in TrialState]),
    help="Only trials in this state. Repeatable.",
)
def trials(where: str, study: str | None, as_json: bool, state: tuple[str, ...]) -> None:
    """List the trials, as a table."""
    with stored(where, study) as (storage, name, problem):
        if as_json:
            for trial in each_trial(storage, name, [TrialState(s) for s in state or TrialState]):
                print_json(record(trial))
            return
        found = trials_of(storage, name)
    wanted = [trial for trial in found if not state or trial.state in state]
    if wanted:
        best = problem.best_of(found) if len(problem.objectives) == 1 else None
        print_trials(wanted, problem, best)
    else:
        click.echo(f"Study {name!r} has no {'such ' * bool(found)}trials.", err=True)


@click.command(cls=StudyCommand)
@on_study
@_json_each_option
@click.option("--trial", "number", type=click.IntRange(0), help="Only what happened to this one.")
@click.option(
    "--since", type=click.IntRange(0, 2**62), default=0, help="Only what came after this revision."
)
def events(where: str, study: str | None, as_json: bool, number: int | None, since: int) -> None:
    """The log of a study: who did what when, oldest first. Nothing ever leaves it."""
    with stored(where, study) as (storage, name, _):
        found = (
            event
            for event in each_event(storage, name, since)
            if number is None or event.number == number
        )
        if as_json:
            for event in found:
                print_json(vars(event))
        else:
            print_events(found)


@click.command(cls=StudyCommand)
@on_storage
@_json_each_option
def studies(where: str, as_json: bool) -> None:
    """The studies in a storage: how many trials in which state, and the best value."""
    with existing_storage(where) as storage:
        records = [storage.study(name) for name in storage.studies()]
        found = [_summary(storage, record) for record in records if record is not None]
    if as_json:
        for summary in found:
            print_json(summary)
    elif found:
        print_studies(found)
    else:
        click.echo("Study storage without a study yet: bbmmopt create makes one.", err=True)


def _summary(storage: Storage, found: StudyRecord) -> dict[str, object]:
    """What `studies` says of one."""
    problem = Problem.from_json(found.problem)
    counts = Counter(dict.fromkeys(map(str, TrialState), 0))
    best = _best(_counted(each_trial(storage, found.name), counts), problem)
    return {
        "study": found.name,
        "objectives": {o.name: o.direction for o in problem.objectives},
        "parameters": list(problem.space.names),
        "created": found.created,
        "trials": dict(counts),
        "best": None if best is None else {"number": best.number, "values": best.values},
    }


def _counted(trials: Iterable[Trial], counts: Counter[str]) -> Iterable[Trial]:
    for trial in trials:
        counts[str(trial.state)] += 1
        yield trial


def _best(trials: Iterable[Trial], problem: Problem) -> Trial | None:
    """None too where there are several objectives; goes through all trials in any case."""
    if len(problem.objectives) == 1:
        return problem.best_of(trials)
    for _ in trials:
        pass
    return None
