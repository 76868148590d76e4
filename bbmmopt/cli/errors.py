"""What a command says when it fails: one line on stderr, and an exit code that means something."""

import errno
import io
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from bbmmopt.devices import DeviceError
from bbmmopt.storage import StorageError
from bbmmopt.trial import TrialAlreadyTold, UnknownTrial

UNEXPECTED, BAD_INPUT, NO_STUDY, NOTHING, ALREADY_TOLD, NOT_YOURS, UNWELL = range(1, 8)

_DEBUG = "bbmmopt.debug"


class Failure(click.ClickException):
    """A command that cannot do what it was asked.

    Args:
        message: What was expected, what came, what to do. Shown as one line.
        code: The exit code, one of those above.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def bad_input() -> Iterator[None]:
    """What the library refuses at its doors, as the user's mistake.

    Only around the doors: a ValueError from further inside is ours.
    """
    try:
        yield
    except TrialAlreadyTold:
        raise
    except (TypeError, ValueError) as error:
        raise Failure(str(error), BAD_INPUT) from error


class Commands(click.Group):
    """A group of commands whose errors are one line each, without a traceback."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run the command of the arguments and end the process with its exit code."""
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A name that the terminal's encoding does not have is no reason to lose a result.
                stream.reconfigure(errors="backslashreplace")
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except click.Abort:
            click.echo("Interrupted.", err=True)
            sys.exit(130)  # 128 + SIGINT, as shells have it
        except click.UsageError as error:
            where = f" Try '{error.ctx.command_path} --help'." if error.ctx else ""
            click.echo(f"Error: {_one_line(error.format_message())}{where}", err=True)
            sys.exit(error.exit_code)
        except click.ClickException as error:
            click.echo(f"Error: {_one_line(error.format_message())}", err=True)
            sys.exit(error.code if isinstance(error, Failure) else error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn whatever it raises into a Failure."""
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except (click.exceptions.Exit, click.Abort):
                raise
            except Exception as error:
                if isinstance(error, OSError) and error.errno == errno.EPIPE:
                    raise  # whoever read our output has seen enough; click ends quietly
                if ctx.meta.get(_DEBUG):
                    traceback.print_exc()
                if isinstance(error, click.ClickException):
                    raise
                raise _failure(error) from error


def debug_option(command: Any) -> Any:
    """Add --debug to a command."""
    return click.option(
        "--debug",
        is_flag=True,
        envvar="BBMMOPT_DEBUG",
        expose_value=False,
        callback=lambda ctx, _, on: ctx.meta.update({_DEBUG: True}) if on else None,
        help="Show tracebacks (also: BBMMOPT_DEBUG=1).",
    )(command)


def _failure(error: Exception) -> Failure:
    if isinstance(error, TrialAlreadyTold):
        return Failure(str(error), ALREADY_TOLD)
    if isinstance(error, UnknownTrial):
        return Failure(str(error), BAD_INPUT)
    if isinstance(error, StorageError):
        return Failure(str(error), NO_STUDY)
    if isinstance(error, DeviceError):
        return Failure(str(error), UNEXPECTED)
    return Failure(f"unexpected {type(error).__name__}: {error} (--debug shows where).", UNEXPECTED)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {_one_line(str(message))}", err=True)


def _one_line(text: str) -> str:
    text = re.sub(r"\s*\n\s*|\t", " ", text.strip())
    # What a terminal would obey, or could not show, is written out.
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
