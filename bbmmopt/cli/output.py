"""What commands print: JSON lines for scripts, tables for people."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from bbmmopt.problem import Problem
from bbmmopt.storage import Event
from bbmmopt.storage.finding import Finding
from bbmmopt.trial import Trial, TrialState

if TYPE_CHECKING:
    # Imported where a table is printed: what a script reads need not wait for it.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_STYLES = {
    TrialState.WAITING: "cyan",
    TrialState.RUNNING: "yellow",
    TrialState.COMPLETE: "",
    TrialState.FAILED: "red",
    TrialState.PRUNED: "dim",
}


_LONGEST = 80  # letters of a detail in a table
_NOT_IN_NAMES = re.compile("[^A-Za-z0-9_]")


def print_json(data: Mapping[str, Any]) -> None:
    """One line of strict JSON, in ASCII: whatever the terminal's encoding, it can be read back."""
    click.echo(json_text(data))


def json_text(data: Any) -> str:
    """Strict JSON in ASCII."""
    return json.dumps(_strict(data), allow_nan=False)


def print_shell(data: Mapping[str, Any], *, dry: bool = False) -> None:
    """Lines that a POSIX shell can eval: name=value, quoted; unset name for None.

    A mapping within is for several: {"param": {"C": 1}} is param_C=1.

    Args:
        data: {name: value}.
        dry: Only check the names.

    Raises:
        ValueError: If two names are the same to a shell.
    """
    lines: dict[str, str] = {}
    for head, value in data.items():
        several = isinstance(value, Mapping)
        for name, one in value.items() if isinstance(value, Mapping) else ((head, value),):
            key = f"{head}_{_NOT_IN_NAMES.sub('_', name)}" if several else head
            if key in lines:
                raise ValueError(
                    f"--shell: two parameters would be called {key}, {name!r} among them; "
                    f"read the JSON instead."
                )
            lines[key] = f"unset {key}" if one is None else f"{key}={shlex.quote(_exact(one))}"
    if not dry:
        click.echo("\n".join(lines.values()))


def record(trial: Trial) -> dict[str, Any]:
    """Everything stored of a trial."""
    return {f.name: getattr(trial, f.name) for f in fields(trial) if f.compare}


def _strict(value: Any) -> Any:
    """The same with "nan", "inf" and "-inf" for the numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list | tuple) else value


def print_trials(trials: Sequence[Trial], problem: Problem, best: Trial | None) -> None:
    """One row per trial."""
    table = _table()
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
    from rich.table import Table

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
            console.print(_text(paragraph, but="\n\t"))


def print_text(text: str) -> None:
    """Sentences, wrapped in a terminal."""
    _console().print(_text(text, but="\n\t"))


def print_events(events: Iterable[Event]) -> None:
    """One row per event."""
    table = _table("revision", "time", "event", "trial", "worker", "detail")
    for event in events:
        detail = ", ".join(f"{name}: {_short(value)}" for name, value in event.detail.items())
        number = "" if event.number is None else str(event.number)
        cells = [str(event.revision), _when(event.time), event.kind, number, event.worker or ""]
        table.add_row(*map(_text, [*cells, detail]))
    _console().print(table)


def print_studies(studies: Iterable[Mapping[str, Any]]) -> None:
    """One row per study."""
    table = _table("study", "objectives", "parameters", *map(str, TrialState), "best", "created")
    for study in studies:
        best = study["best"]
        values = best and ", ".join(f"{name} = {_number(x)}" for name, x in best["values"].items())
        cells = [
            study["study"],
            ", ".join(f"{direction} {name}" for name, direction in study["objectives"].items()),
            str(len(study["parameters"])),
            *(str(study["trials"][str(state)]) for state in TrialState),
            f"{values} (trial {best['number']})" if best else "",
            _when(study["created"]),
        ]
        table.add_row(*map(_text, cells))
    _console().print(table)


def print_findings(findings: Iterable[Finding]) -> None:
    """One row for each thing that was looked at, in its colour."""
    table = _table("", "about", "found", "what to do")
    colours = {"ok": "green", "warning": "yellow", "problem": "bold red"}
    for finding in findings:
        cells = [finding.about, _last_line(finding.says), finding.advice]
        state = _text(finding.state)
        state.stylize(colours[finding.state])
        table.add_row(state, *map(_text, cells))
    _console().print(table)


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _short(value: Any) -> str:
    """The last line of it, of so many letters at most."""
    text = _last_line(_exact(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _console() -> Console:
    from rich.console import Console

    # In a pipe or a file lines may be as long as they need: nothing is wrapped there.
    width = None if sys.stdout.isatty() else 100_000
    return Console(width=width, highlight=False, markup=False, emoji=False)


def _text(text: str, but: str = "") -> Text:
    """Text as it is: what looks like markup is none."""
    from rich.text import Text

    return Text(_printable(text, but))


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
