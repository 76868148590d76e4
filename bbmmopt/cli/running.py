"""The commands of a loop: ask, report, tell, and what else changes a study."""

from __future__ import annotations

import click

from bbmmopt.cli.arguments import (
    NEGATIVE_NUMBERS,
    Seconds,
    StudyCommand,
    Whole,
    fixed_option,
    given_point,
    number_argument,
    on_study,
    point_options,
)
from bbmmopt.cli.errors import NOT_YOURS, NOTHING, Failure, bad_input
from bbmmopt.cli.opening import existing_study, optimizer_of, study_of
from bbmmopt.cli.output import print_json, print_shell, record
from bbmmopt.cli.parsing import notes_from, number_from, outcome_from, point_from
from bbmmopt.trial import TrialState

_RUNNING = TrialState.RUNNING
_shell_option = click.option(
    "--shell", "as_shell", is_flag=True, help="NAME=VALUE lines for eval, instead of JSON."
)


@click.command(cls=StudyCommand)
@on_study
@click.option("-n", type=click.IntRange(1), default=1, help="How many trials.")
@fixed_option("A value that a parameter must have this time. Repeatable.")
@click.option(
    "--worker",
    metavar="NAME",
    help="Who will run it. First gets the trials again that it was given and never told.",
)
@click.option(
    "--lease",
    type=Seconds(),
    metavar="SECONDS",
    help="Without a report or renew for so long, it goes to whoever asks next. Default: never.",
)
@click.option(
    "--timeout",
    type=Seconds(),
    metavar="SECONDS",
    help="For all of them: after that the best points found so far are taken.",
)
@click.option(
    "--device",
    metavar="DEVICE",
    default="cpu",
    help="Where to compute: cpu, the default; cuda, a GPU; auto, a GPU if there is one.",
)
@_shell_option
def ask(
    where: str,
    study: str | None,
    n: int,
    fixed: tuple[str, ...],
    worker: str | None,
    lease: float | None,
    timeout: float | None,
    device: str,
    as_shell: bool,
) -> None:
    """Say what to try next: {"number": 3, "params": {"C": 1.0}}, a line per trial.

    The trial is running from now on; parameters that do not matter this time are left out.

    With --shell, for bash and the like: number=3 and param_C=1.0, quoted so that eval is safe, and
    "unset" for parameters that do not matter. What cannot be in a name of the shell is _ there.

    \b
      asked=$(bbmmopt ask study.db --shell) || exit
      eval "$asked"
      bbmmopt tell study.db "$number" "$(measure "$param_C")"
    """
    if as_shell and n > 1:
        raise click.UsageError("--shell is for one trial; leave out -n.")
    with optimizer_of(where, study, device) as optimizer:
        from bbmmopt.search import Budget, NoFeasiblePoint, SpaceExhausted

        with bad_input():
            point = point_from(optimizer.space, fixed, "--fixed")
            point = optimizer.space.validate_partial(point, where="--fixed")
            if as_shell:
                print_shell({"param": dict.fromkeys(optimizer.space.names)}, dry=True)
        try:
            budget = Budget(timeout)
            # One by one, if they may be: what was asked for before an error is shown.
            some = n if optimizer.settings["batches"] == "joint" else 1
            for k in range(0, n, some):
                seconds = budget.seconds_of((n - k) // some)
                for trial in optimizer.ask(
                    some, fixed=point, worker=worker, lease=lease, timeout=seconds
                ):
                    if as_shell:
                        params = dict.fromkeys(optimizer.space.names) | trial.params
                        print_shell({"number": trial.number, "param": params})
                    else:
                        print_json({"number": trial.number, "params": trial.params})
        except (SpaceExhausted, NoFeasiblePoint) as error:
            raise Failure(str(error), NOTHING) from error


@click.command(cls=StudyCommand, context_settings=NEGATIVE_NUMBERS)
@on_study
@number_argument(_RUNNING, TrialState.WAITING)
@click.argument("values", metavar="VALUE...", nargs=-1)
@click.option("--failed", metavar="REASON", help="There is no value, and this is why.")
@click.option("--pruned", metavar="REASON", help="It was given up on its way, and this is why.")
@click.option(
    "--se", multiple=True, metavar="NUMBER", help="Standard error of the value. Repeatable."
)
def tell(
    where: str,
    study: str | None,
    number: int,
    values: tuple[str, ...],
    failed: str | None,
    pruned: str | None,
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
            if told is None and failed is None and pruned is None:
                raise ValueError(
                    f'trial {number}: give a VALUE, or --failed "reason", or --pruned "reason".'
                )
            trial = opened.tell(number, told, failed=failed, pruned=pruned)
        print_json(record(trial))


@click.command(cls=StudyCommand, context_settings=NEGATIVE_NUMBERS)
@on_study
@number_argument(_RUNNING)
@click.argument("step", type=Whole())
@click.argument("value")
@_shell_option
def report(
    where: str, study: str | None, number: int, step: int, value: str, as_shell: bool
) -> None:
    """Say how far trial NUMBER has come, and hear whether it should go on.

    STEP counts from 0: epochs, minutes, cycles. VALUE is what the objective is there. Renews the
    trial's lease. Prints {"number": 3, "step": 10, "value": 0.5, "should_stop": false, "reason":
    null}; a trial that should stop is to be told --pruned, with that reason. With --shell:
    should_stop=false and reason=''.
    """
    with existing_study(where, study) as (storage, found):
        from bbmmopt.study.reporting import StudyReporter

        reporter = StudyReporter(storage, found)
        with bad_input():
            measured = number_from(value, "VALUE")
            reporter.report(number, step, measured)
        reason = reporter.should_stop(number)
    said = {"should_stop": reason is not None, "reason": reason}
    if as_shell:
        print_shell(said | {"reason": reason or ""})
    else:
        print_json({"number": number, "step": step, "value": measured} | said)


@click.command(cls=StudyCommand)
@on_study
@number_argument(_RUNNING)
@click.option("--worker", metavar="NAME", help="Who runs it, as told to ask.")
def renew(where: str, study: str | None, number: int, worker: str | None) -> None:
    """Let the lease of trial NUMBER begin anew: it is still being worked on.

    Exit code 6 if it is not this worker's any more: it has ended, or somebody took it over. Its
    result may be told all the same, and counts if it is the first.
    """
    with existing_study(where, study) as (storage, found):
        if not storage.renew(found.name, number, worker=worker):
            trial = storage.trial(found.name, number)
            by = "nobody by name" if trial.worker is None else f"worker {trial.worker!r}"
            how = f"run by {by}" if trial.state == _RUNNING else str(trial.state)
            raise Failure(f"trial {number} is not yours to renew: it is {how}.", NOT_YOURS)
        trial = storage.trial(found.name, number)
    print_json({"number": number, "worker": trial.worker, "lease": trial.lease})


@click.command(cls=StudyCommand)
@on_study
@point_options
def enqueue(where: str, study: str | None, params: str | None, param: tuple[str, ...]) -> None:
    """Put a point of yours in line: the next ask gives it out first. Prints its trial's number.

    \b
      bbmmopt enqueue study.db --param C=10 --param kernel=rbf
      bbmmopt enqueue study.db --params '{"C": 10, "kernel": "rbf"}'
    """
    with study_of(where, study) as opened:
        with bad_input():
            trial = opened.enqueue(given_point(opened.space, params, param))
        print_json({"number": trial.number, "params": trial.params})


@click.command(cls=StudyCommand, context_settings=NEGATIVE_NUMBERS)
@on_study
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
@point_options
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
            point = given_point(opened.space, params, param)
            told = outcome_from(opened.problem, values, se)
            trial = opened.add_trial(point, told, outside=outside)
        print_json(record(trial))


@click.command(cls=StudyCommand)
@on_study
@number_argument()
@click.argument("notes", metavar="NAME=VALUE...", nargs=-1, required=True)
def note(where: str, study: str | None, number: int, notes: tuple[str, ...]) -> None:
    """Add notes to trial NUMBER, in whichever state, and print it.

    \b
      bbmmopt note study.db 3 operator=ann batch=7 'temperatures=[20.5, 21]'

    A VALUE that begins like JSON ({, [ or ") must be JSON; numbers, true, false and null are taken
    as such; anything else is text. A note of the same NAME is replaced.
    """
    with existing_study(where, study) as (storage, found):
        with bad_input():
            attrs = notes_from(notes)
            trial = storage.set_attrs(found.name, number, attrs)
        print_json(record(trial))


@click.command(cls=StudyCommand)
@on_study
@click.option(
    "--reason",
    metavar="TEXT",
    default="no more is needed",
    help="For the log, and for whoever started the runs.",
)
def stop(where: str, study: str | None, reason: str) -> None:
    """Have the runs of a study end, on whichever machine: they finish what they began.

    \b
      bbmmopt stop study.db --reason "the reactor is down"

    Nothing is locked: `ask` works as before, and a run that begins later begins as always.
    """
    with study_of(where, study) as opened:
        with bad_input():
            opened.stop(reason)
        print_json({"study": opened.study, "stopped": reason})
