"""What commands print: JSON lines for scripts, tables for people."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bbmmopt.problem import Problem
from bbmmopt.trial import Trial, TrialState

_STYLES = {
    TrialState.WAITING: "cyan",
    TrialState.RUNNING: "yellow",
    TrialState.COMPLETE: "",
    TrialState.FAILED: "red",
    TrialState.PRUNED: "dim",
}


def print_json(data: Mapping[str, Any]) -> None:
    """One line of strict JSON, in ASCII: whatever the terminal's encoding, it can be read back."""
    click.echo(json.dumps(_strict(data), allow_nan=False))


def record(trial: Trial) -> dict[str, Any]:
    """Everything stored of a trial."""
    return {f.name: getattr(trial, f.name) for f in fields(trial) if f.name != "arguments"}


def _strict(value: Any) -> Any:
    """The same with "nan", "inf" and "-inf" for the numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list | tuple) else value


def print_trials(trials: Sequence[Trial], problem: Problem, best: Trial | None) -> None:
    """One row per trial."""
    table = Table(box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    table.add_column("state")
    for name in problem.space.names:
        table.add_column(_text(name), justify="right", overflow="fold")
    for objective in problem.objectives:
        table.add_column(_text(f"{objective.name} ({objective.direction})"), justify="right")
    for constraint in problem.constraints:
        table.add_column(_text(f"{constraint.name} ({constraint.limit})"), justify="right")
    table.add_column("seconds", justify="right")
    if any(trial.reason for trial in trials):
        table.add_column("reason", overflow="fold")
    for trial in trials:
        is_best = best is not None and trial.number == best.number
        cells = [str(trial.number), f"{trial.state}, best" if is_best else str(trial.state)]
        cells += [_number(trial.params.get(name)) for name in problem.space.names]
        cells += [_measured(trial, name) for name in problem.names]
        cells += [_number(trial.constraints.get(c.name)) for c in problem.constraints]
        cells += [_number(trial.duration), _last_line(trial.reason)]
        style = "bold green" if is_best else _STYLES[trial.state]
        table.add_row(*map(_text, cells[: len(table.columns)]), style=style)
    _console().print(table)


def print_trial(trial: Trial, problem: Problem, explanation: str) -> None:
    """Everything about one trial, a line each."""
    table = Table.grid(padding=(0, 2))

    def add(head: str, lines: Mapping[str, str]) -> None:
        for name, text in lines.items():
            table.add_row(_text(head), _text(name), _text(text))
            head = ""

    add("trial", {str(trial.number): str(trial.state)})
    add("parameters", {name: _exact(value) for name, value in trial.params.items()})
    if trial.values is not None:
        add("values", {name: _measured(trial, name, exact=True) for name in trial.values})
    add("constraints", {name: _exact(value) for name, value in trial.constraints.items()})
    times = {
        "created": _when(trial.created),
        "started": _when(trial.started),
        "finished": _when(trial.finished),
        "duration": "" if trial.duration is None else f"{trial.duration:.3f} s",
        "leased until": _when(trial.lease_until),
    }
    add("times", {name: text for name, text in times.items() if text})
    if trial.worker is not None:
        add("worker", {trial.worker: ""})
    add("notes", {name: json.dumps(value) for name, value in trial.attrs.items()})
    console = _console()
    console.print(table)
    for paragraph in (trial.reason and f"It failed: {trial.reason}", explanation):
        if paragraph:
            console.print()
            console.print(Text(_printable(paragraph, but="\n\t")))


def _console() -> Console:
    # In a pipe or a file lines may be as long as they need: nothing is wrapped there.
    width = None if sys.stdout.isatty() else 100_000
    return Console(width=width, highlight=False, markup=False, emoji=False)


def _text(text: str) -> Text:
    """Text as it is: what looks like markup is none."""
    return Text(_printable(text))


def _printable(text: str, but: str = "") -> str:
    """With control characters, which a terminal would obey, written out."""
    return "".join(c if c.isprintable() or c in but else ascii(c)[1:-1] for c in text)


def _number(value: Any) -> str:
    """Short: six digits. Nothing for what there is not."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else _exact(value)


def _exact(value: Any) -> str:
    """As the shell would have to write it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(_strict(value))


def _measured(trial: Trial, name: str, *, exact: bool = False) -> str:
    """0.52 ± 0.1"""
    write = _exact if exact else _number
    if trial.values is None or name not in trial.values:
        return ""
    error = trial.standard_errors.get(name)
    return write(trial.values[name]) + ("" if error is None else f" ± {write(error)}")


def _last_line(reason: str | None) -> str:
    """Of a traceback, the line that says what it was."""
    lines = (reason or "").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _when(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds).isoformat(sep=" ", timespec="seconds")
