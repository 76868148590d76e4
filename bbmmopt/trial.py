"""Trial: the record of one evaluation, and the JSON it is stored as.

The JSON is strict (RFC 8259): NaN and the infinities, which it cannot write, become
{"$float": "nan"}. Nothing is pickled.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Protocol

from bbmmopt.notebook import facts, folded, heading, joined, moment, rounded, verbatim
from bbmmopt.space.checks import no_number, shown


class TrialState(StrEnum):
    """Where a trial stands. Equal to the plain strings.

    waiting (enqueued, nobody has it) → running → complete, failed or pruned.
    """

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    PRUNED = "pruned"

    @property
    def finished(self) -> bool:
        """Whether this is an end state."""
        return self not in (TrialState.WAITING, TrialState.RUNNING)


class UnknownTrial(ValueError):
    """There is no trial of that number in the study."""


class TrialAlreadyTold(ValueError):
    """The trial has ended with another outcome than the one told now; the message names both."""


class TrialPruned(Exception):
    """Raised by an objective that gives up on a trial; the message says why.

        trial.report(epoch, loss)
        if trial.should_stop():
            raise TrialPruned

    What it reported until then stays.
    """


class Reporter(Protocol):
    """Where the reports of a study's trials go."""

    def report(self, number: int, step: int, value: float) -> None:
        """Keep a report."""
        ...

    def should_stop(self, number: int) -> str | None:
        """Why the trial should not go on; None if it should."""
        ...


@dataclass(frozen=True)
class Trial:
    """One evaluation of the objective: planned, running or done. Treat its dicts as read-only.

    Attributes:
        number: 0, 1, 2 … in the order of creation within the study.
        params: The point in the user's units, native types; labels where choices are objects.
        state: waiting, running, complete, failed or pruned.
        values: {objective: value} as told, in the user's sign; None unless complete.
        standard_errors: {objective: standard error}, None where it is not known.
        constraints: {constraint: value}, as told.
        reason: Why it failed; may hold a traceback.
        created: When it was written down, in seconds since 1970, as are the next two.
        started: When a worker took it.
        finished: When its outcome was told.
        attrs: The user's notes; any JSON.
        origin: How the point was chosen: phase, acquisition and so on; any JSON.
        worker: Who runs it or ran it.
        lease: Seconds without a sign of life after which another worker may take it over.
        lease_until: When that will be, by the storage's clock, as of the last change; None for
            never. A report renews it.
        arguments: What to call the objective with: params, objects in the place of labels.
        reporter: Where `report` goes; None if the trial was not handed out to be run.
    """

    number: int
    params: dict[str, Any]
    state: TrialState = TrialState.RUNNING
    values: dict[str, float] | None = None
    standard_errors: dict[str, float | None] = field(default_factory=dict)
    constraints: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    created: float | None = None
    started: float | None = None
    finished: float | None = None
    attrs: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    worker: str | None = None
    lease: float | None = None
    lease_until: float | None = None
    arguments: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    reporter: Reporter | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", TrialState(self.state))
        if not self.arguments:
            object.__setattr__(self, "arguments", self.params)

    @property
    def value(self) -> float | None:
        """The value of the only objective; None unless complete.

        Raises:
            ValueError: If there are several objectives.
        """
        if self.values is None:
            return None
        if len(self.values) != 1:
            raise ValueError(
                f"trial {self.number} has {len(self.values)} values; use trial.values[name] with "
                f"one of {', '.join(map(repr, self.values))}."
            )
        return next(iter(self.values.values()))

    @property
    def duration(self) -> float | None:
        """Seconds from start to end; None before the end."""
        if self.started is None or self.finished is None:
            return None
        return self.finished - self.started

    def report(self, step: int, value: float) -> None:
        """Say how far the trial has come: the objective after so many epochs, say.

        Kept in the storage; reports again at the same step, as after a restart, replace the first
        ones. Renews the trial's lease. Works in a worker process too, if the storage can be
        reached there.

        Args:
            step: 0, 1, 2 …; need not be reported in order, nor each of them.
            value: In the units and the sign of the objective. NaN and infinities are kept; to
                halving they are the worst, to the median rule they are no values.

        Raises:
            TypeError, ValueError: If the step is not an integer from 0 on, or value not a number.
            RuntimeError: If the trial was not handed out by `ask`, or its storage is the memory
                of another process.
        """
        self._reporter("report").report(self.number, step, value)

    def should_stop(self) -> bool:
        """Whether going on is not worth it, after the study's rule for early stopping.

        False for a study without such a rule. True too if the trial has ended already, because
        another worker took it over. Then raise TrialPruned, or tell(trial, pruned=…).
        """
        return self._reporter("should_stop").should_stop(self.number) is not None

    def _repr_html_(self) -> str:
        errors = {n: f" ± {rounded(e)}" for n, e in self.standard_errors.items() if e is not None}
        values = {n: rounded(v) + errors.get(n, "") for n, v in (self.values or {}).items()}
        told = values | {name: rounded(value) for name, value in self.constraints.items()}
        reason = (self.reason or "").strip()
        return joined(
            heading(f"Trial {self.number}", self.state),
            facts(self.params),
            facts(told),
            folded(reason.splitlines()[-1], verbatim(reason)) if "\n" in reason else None,
            facts(
                {
                    "reason": None if "\n" in reason else reason,
                    "chosen by": self.origin.get("phase"),
                    "worker": self.worker,
                    "started": moment(self.started),
                    "finished": moment(self.finished),
                    "seconds": None if self.duration is None else rounded(self.duration),
                    **self.attrs,
                }
            ),
        )

    def _reporter(self, what: str) -> Reporter:
        if self.reporter is None:
            raise RuntimeError(
                f"trial {self.number} is a record: {what}() is for trials that `ask` hands out, "
                f"or use the same method of the optimizer, with the trial's number."
            )
        return self.reporter

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON types that shares nothing with the trial.

        Raises:
            TypeError: If params, attrs or origin hold what JSON cannot, saying where.
        """
        return {name: to_json(getattr(self, name), f"trial.{name}") for name in _STORED}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Trial":
        """The trial that `to_json` wrote; it shares nothing with the dict.

        Raises:
            ValueError: If it is no such thing, naming the field.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"a trial must be a JSON object, {{…}}; got {shown(data)}.")
        for name in ("number", "params"):
            if name not in data:
                raise ValueError(f"trial.{name} is missing.")
        found = {}
        for name in _STORED:
            if name in data:
                try:
                    found[name] = from_json(data[name])
                except ValueError as error:
                    raise ValueError(f"trial.{name}: {error}") from None
        _check_kinds(found)
        return cls(**found)


_STORED = tuple(f.name for f in fields(Trial) if f.name not in ("arguments", "reporter"))

# What the fields hold in JSON.
_NONE = type(None)
_KINDS: dict[str, tuple[type, ...]] = {
    "number": (int,),
    "params": (dict,),
    "state": (str,),
    "values": (dict, _NONE),
    "standard_errors": (dict,),
    "constraints": (dict,),
    "reason": (str, _NONE),
    "attrs": (dict,),
    "origin": (dict,),
    "worker": (str, _NONE),
    **dict.fromkeys(
        ("created", "started", "finished", "lease", "lease_until"), (float, int, _NONE)
    ),
}


def _check_kinds(fields: Mapping[str, Any]) -> None:
    """Refuse fields of a trial that hold something else than they should, by name."""
    for name, value in fields.items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool) or _too_large(value):
            raise ValueError(f"trial.{name} cannot be {shown(value)}.")
    if fields.get("state", "running") not in list(TrialState):
        raise ValueError(f"trial.state must be one of {', '.join(TrialState)}.")
    for name in ("values", "standard_errors", "constraints"):
        for key, number in (fields.get(name) or {}).items():
            if number is None and name == "standard_errors":
                continue
            is_number = isinstance(number, float | int) and not isinstance(number, bool)
            if not is_number or _too_large(number):
                raise ValueError(f"trial.{name}[{key!r}] must be a number; got {shown(number)}.")


def _too_large(value: Any) -> bool:
    """Whether a number is beyond all doubles."""
    return isinstance(value, int) and value.bit_length() > 1023


_DEEPEST = 100  # levels of containers: any JSON reader can follow
_WIDEST = 14_000  # bits of an integer: Python reads back 4300 digits


def to_json(value: Any, where: str = "value") -> Any:
    """Write a value with nothing but strict JSON types; `from_json` reads it back.

    NaN, inf and -inf become {"$float": "nan"} and so on, and a user's key that begins with "$"
    gets a second one. Tuples become lists, numpy scalars plain numbers.

    Raises:
        TypeError: If something is not JSON, naming its place.
        ValueError: If it is an integer that could not be read back, or nested too deeply.
    """
    return _to_json(value, where, _DEEPEST)


def _to_json(value: Any, where: str, levels: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        if value.bit_length() > _WIDEST:
            raise ValueError(
                f"{where} is an integer of {value.bit_length()} bits; up to {_WIDEST} can be "
                f"stored. Use a string."
            )
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if not levels and isinstance(value, Mapping | list | tuple):
        raise ValueError(
            f"{where[:200]}… is nested too deeply, or holds itself: there may be {_DEEPEST} levels."
        )
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; JSON needs strings as keys.")
        return {
            ("$" + key if key.startswith("$") else str.__str__(key)): _to_json(
                v, f"{where}[{key!r}]", levels - 1
            )
            for key, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_to_json(item, f"{where}[{i}]", levels - 1) for i, item in enumerate(value)]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item") and not no_number(value):
        plain = value.item()  # a numpy scalar
        if not hasattr(plain, "item"):
            return _to_json(plain, where, levels)
    raise TypeError(
        f"{where} is {shown(value)} ({type(value).__name__}), which JSON cannot hold; use None, "
        f"booleans, numbers, strings, lists and dicts of these."
    )


def from_json(value: Any) -> Any:
    """Undo `to_json`. Builds new containers.

    Raises:
        ValueError: If it was not written by `to_json`.
    """
    if isinstance(value, dict):
        if len(value) == 1 and "$float" in value:
            number = value["$float"]
            if number not in ("nan", "inf", "-inf"):
                raise ValueError(
                    f'{{"$float": …}} must hold "nan", "inf" or "-inf"; got {shown(number)}.'
                )
            return float(number)
        return {key[1:] if key.startswith("$$") else key: from_json(v) for key, v in value.items()}
    return [from_json(item) for item in value] if isinstance(value, list) else value


def dumps(value: Any, where: str = "value") -> str:
    """A value as one line of strict JSON, in ASCII: so lone surrogates and NULs survive too."""
    return json.dumps(to_json(value, where), allow_nan=False, separators=(",", ":"))


def loads(text: str) -> Any:
    """Undo `dumps`.

    Raises:
        ValueError: If the text was not written by it.
    """
    try:
        value = json.loads(text)
        return from_json(value) if "$" in text else value
    except RecursionError:
        raise ValueError("the JSON is nested too deeply.") from None
