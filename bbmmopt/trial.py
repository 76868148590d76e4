"""Trial: the record of one evaluation, and the JSON it is stored as.

The JSON is strict (RFC 8259): NaN and the infinities, which it cannot write, become
{"$float": "nan"}. Nothing is pickled.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any


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
        lease_until: When another worker may take it over; None for never.
        arguments: What to call the objective with: params, objects in the place of labels.
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
    lease_until: float | None = None
    arguments: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

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

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON types that shares nothing with the trial.

        Raises:
            TypeError: If params, attrs or origin hold what JSON cannot, saying where.
        """
        return {name: to_json(getattr(self, name), f"trial.{name}") for name in _STORED}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Trial":
        """The trial that `to_json` wrote; it shares nothing with the dict."""
        return cls(**{name: from_json(data[name]) for name in _STORED if name in data})


_STORED = tuple(f.name for f in fields(Trial) if f.name != "arguments")


def to_json(value: Any, where: str = "value") -> Any:
    """Write a value with nothing but strict JSON types; `from_json` reads it back.

    NaN, inf and -inf become {"$float": "nan"} and so on, and a user's key that begins with "$"
    gets a second one. Tuples become lists, numpy scalars plain numbers.

    Raises:
        TypeError: If something is not JSON, naming its place.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; JSON needs strings as keys.")
        return {
            ("$" + key if key.startswith("$") else str.__str__(key)): to_json(
                v, f"{where}[{key!r}]"
            )
            for key, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [to_json(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        plain = value.item()  # a numpy scalar
        if not hasattr(plain, "item"):
            return to_json(plain, where)
    raise TypeError(
        f"{where} is {value!r} ({type(value).__name__}), which JSON cannot hold; use None, "
        f"booleans, numbers, strings, lists and dicts of these."
    )


def from_json(value: Any) -> Any:
    """Undo `to_json`. Builds new containers."""
    if isinstance(value, dict):
        if len(value) == 1 and "$float" in value:
            return float(value["$float"])
        return {key[1:] if key.startswith("$$") else key: from_json(v) for key, v in value.items()}
    return [from_json(item) for item in value] if isinstance(value, list) else value


def dumps(value: Any, where: str = "value") -> str:
    """A value as one line of strict JSON, in ASCII: so lone surrogates and NULs survive too."""
    return json.dumps(to_json(value, where), allow_nan=False, separators=(",", ":"))


def loads(text: str) -> Any:
    """Undo `dumps`."""
    value = json.loads(text)
    return from_json(value) if "$" in text else value
