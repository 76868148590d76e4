"""The program. Commands that only read, tell or list import no torch, and answer at once."""

from __future__ import annotations

import click

import bbmmopt
from bbmmopt.cli.creating import create
from bbmmopt.cli.dashboard import dashboard
from bbmmopt.cli.doctor import doctor
from bbmmopt.cli.errors import Commands, debug_option
from bbmmopt.cli.exporting import export
from bbmmopt.cli.extending import extend
from bbmmopt.cli.looking import best, events, explain, show, studies, trials
from bbmmopt.cli.plotting import plot
from bbmmopt.cli.running import add, ask, enqueue, note, renew, report, stop, tell


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

    STORAGE is the path of an SQLite file, or the URL of a PostgreSQL database,
    postgresql+psycopg://user@host/name. Only `create` makes a new one. It may be left out where
    BBMMOPT_STORAGE is set. A storage may hold several studies: --study says which, and may be left
    out while there is only one.

    Results go to stdout: one JSON object per line, or a table or sentences where a person reads
    (trials, show, explain, events, studies and doctor, unless --json is given). Errors and
    warnings go to stderr, a line each.

    \b
    Exit codes:
      0  done
      1  unexpected: a bug, a device that failed, or the reader of a pipe went away
      2  bad input: a wrong option, parameter, value or trial number; no --study of several
      3  the storage cannot be opened, or holds no such study
      4  nothing to give: no complete trial yet, or every point was tried
      5  the trial was told before, with another outcome; the first is kept
      6  renew: the trial is not this worker's any more
      7  doctor: there is a problem
    130  interrupted by Ctrl-C

    \b
    Completion of commands, options, studies, parameters and trials, in a file that the shell reads
    when it starts:
      bash, ~/.bashrc:  eval "$(_BBMMOPT_COMPLETE=bash_source bbmmopt)"
      zsh, ~/.zshrc:    eval "$(_BBMMOPT_COMPLETE=zsh_source bbmmopt)"
      fish, ~/.config/fish/completions/bbmmopt.fish:
                        _BBMMOPT_COMPLETE=fish_source bbmmopt | source
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (
    *(create, extend, ask, report, tell, add, enqueue, renew, note, stop),
    *(show, explain, best, trials, plot, dashboard, export, events, studies, doctor),
):
    main.add_command(_command)
