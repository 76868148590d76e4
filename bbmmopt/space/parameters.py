"""The kinds of parameters a space is made of: Real, Integer, Categorical, Ordinal.

A parameter is a description and does not know its name. `Space` asks it for a `checked` copy in
native Python types and puts the name in front of whatever that raises; every text here is
therefore written to follow "parameter 'C': ".
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from bbmmopt.space.checks import (
    Value,
    checked_choices,
    checked_when,
    did_you_mean,
    finite,
    integral,
    listing,
    native,
    shown,
    to_float,
)
from bbmmopt.space.scales import Lattice, LinearScale, LogLattice, LogScale

Kind = Literal["continuous", "ordered", "categorical", "fixed"]

# Levels are counted in 64-bit integers, with some room for sums.
_MOST_LEVELS = 2**62


class Parameter(ABC):
    """One column of a space: which values there are, and where each lies in [0, 1].

    Two parameters are equal when their JSON forms are. A parameter with a single value is fixed:
    it is the constant ½ in the encoded row.
    """

    when: Mapping[str, Any] | None

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """continuous, ordered, categorical, or fixed when there is only one value."""

    @cached_property
    @abstractmethod
    def lattice(self) -> Lattice | LogLattice | None:
        """Places the levels of a discrete parameter; None for a Real, also when fixed."""

    @property
    @abstractmethod
    def expected(self) -> str:
        """The allowed values in words, for messages."""

    @abstractmethod
    def checked(self) -> Self:
        """A copy in native types; ValueError or TypeError when the description makes no sense."""

    @abstractmethod
    def check(self, value: Any, *, outside: bool = False) -> Value:
        """The value in its native type; ValueError or TypeError unless it is an allowed one.

        Args:
            value: What the user gave; numpy scalars and arrays without dimensions are unpacked.
            outside: Also accept numbers beyond the bounds, where they can be placed.
        """

    @abstractmethod
    def to_unit(self, value: Any) -> float:
        """Position of a checked value: in [0, 1], or outside for a value beyond the bounds."""

    @abstractmethod
    def from_unit(self, u: float) -> Value:
        """The value at u, clipped to [0, 1], in its native type."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A dict of JSON types, with the class under "type"."""

    @property
    def levels(self) -> int | None:
        """Number of values; None for a continuous parameter."""
        return 1 if self.kind == "fixed" else self.lattice.size if self.lattice else None

    def _when_json(self) -> dict[str, Any]:
        if self.when is None:
            return {}
        return {"when": {parent: list(values) for parent, values in self.when.items()}}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parameter) and _text(self) == _text(other)

    def __hash__(self) -> int:
        return hash(_text(self))


@dataclass(frozen=True, eq=False, repr=False)
class Real(Parameter):
    """A real number in [low, high].

    Values handed out are decimals of about 12 digits relative to the range (log: 12 significant
    digits), so that encoding and decoding gives back the same number. low == high fixes it.

    Args:
        low: Lower bound, inclusive.
        high: Upper bound, inclusive.
        log: Spread values by their logarithm; low must be positive.
        when: Active only where each named parent has (one of) the given values.
    """

    low: float
    high: float
    _: KW_ONLY
    log: bool = False
    when: Mapping[str, Any] | None = None

    @property
    def kind(self) -> Kind:
        return "fixed" if self.low == self.high else "continuous"

    @cached_property
    def lattice(self) -> None:
        return None

    @cached_property
    def _scale(self) -> LinearScale | LogScale:
        return LogScale(self.low, self.high) if self.log else LinearScale(self.low, self.high)

    @property
    def expected(self) -> str:
        return f"a number in [{self.low!r}, {self.high!r}]"

    def checked(self) -> Self:
        low, high = finite("low", self.low), finite("high", self.high)
        _check_bounds(low, high, self.log)
        if not math.isfinite(high - low):
            raise ValueError(
                f"high - low must not overflow; got low={low!r}, high={high!r}. "
                f"Tune a scaled-down parameter, or its logarithm."
            )
        if self.log and low <= 0:
            raise ValueError(
                f"log=True needs low > 0; got low={low!r}. Raise low, or use log=False."
            )
        return replace(self, low=low, high=high, when=checked_when(self.when))

    def check(self, value: Any, *, outside: bool = False) -> float:
        number = native(value)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError(
                f"expected {self.expected}; got {shown(value)} ({type(value).__name__})."
            )
        x = to_float(number)
        if not math.isfinite(x):
            raise ValueError(f"expected {self.expected}; got {shown(number)}.")
        if not self.low <= x <= self.high:
            if not outside or self.kind == "fixed":  # a fixed one has no scale to go on
                raise ValueError(f"{shown(number)} is outside [{self.low!r}, {self.high!r}].")
            if self.log and x <= 0:
                raise ValueError(f"{number!r} has no place on a log scale: it must be positive.")
        return x + 0.0

    def to_unit(self, value: float) -> float:
        return 0.5 if self.low == self.high else self._scale.to_unit(value)

    def from_unit(self, u: float) -> float:
        return self.low if self.low == self.high else self._scale.from_unit(u)

    def to_json(self) -> dict[str, Any]:
        return {"type": "real", "low": self.low, "high": self.high, "log": self.log} | (
            self._when_json()
        )

    def __repr__(self) -> str:
        options = _unless(False, log=self.log) | _unless(None, when=self.when)
        return _call(self, self.low, self.high, **options)


@dataclass(frozen=True, eq=False, repr=False)
class Integer(Parameter):
    """An integer in low, low + step, …, high. Never enumerated, exact up to the largest double.

    Lattices of over 2**52 integers (2**40 with log) are encoded to the nearest place a double
    has. low == high fixes it.

    Args:
        low: Smallest value.
        high: Largest value; low plus a multiple of step.
        log: Spread values by their logarithm; low must be at least 1 and step 1.
        step: Distance between values.
        when: Active only where each named parent has (one of) the given values.
    """

    low: int
    high: int
    _: KW_ONLY
    log: bool = False
    step: int = 1
    when: Mapping[str, Any] | None = None

    @property
    def kind(self) -> Kind:
        return "fixed" if self.low == self.high else "ordered"

    @cached_property
    def lattice(self) -> Lattice | LogLattice:
        if self.log and self.low < self.high:
            return LogLattice(self.low, self.high)
        return Lattice((self.high - self.low) // self.step + 1)

    @property
    def expected(self) -> str:
        if self.step == 1:
            return f"an integer in [{self.low}, {self.high}]"
        return f"an integer in {self.low}, {self.low + self.step}, …, {self.high}"

    def checked(self) -> Self:
        low, high, step = (integral(name, getattr(self, name)) for name in ("low", "high", "step"))
        _check_bounds(low, high, self.log)
        if step < 1:
            raise ValueError(f"step must be at least 1; got {step}.")
        if self.log and low < 1:
            raise ValueError(f"log=True needs low >= 1; got low={low}. Raise low, or log=False.")
        if self.log and step > 1:
            raise ValueError(f"log=True goes with step=1 only; got step={step}. Drop one of them.")
        if (high - low) % step:
            below = high - (high - low) % step
            raise ValueError(
                f"high must be low plus a multiple of step; got low={low}, high={high}, "
                f"step={step}. Use high={below} or high={below + step}."
            )
        if (high - low) // step >= _MOST_LEVELS:
            raise ValueError(
                f"at most 2**62 values are possible; got low={low}, high={high}, step={step}. "
                f"Tune the logarithm, or use a larger step."
            )
        return replace(self, low=low, high=high, step=step, when=checked_when(self.when))

    def check(self, value: Any, *, outside: bool = False) -> int:
        number = native(value)
        if isinstance(number, float) and number.is_integer():
            number = int(number)  # 3.0, as JSON and pandas write it
        if isinstance(number, float):
            raise ValueError(f"expected {self.expected}; got {shown(number)}.")
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(
                f"expected {self.expected}; got {shown(value)} ({type(value).__name__})."
            )
        if not self.low <= number <= self.high:
            if not outside or self.kind == "fixed":
                raise ValueError(f"{shown(number)} is outside [{self.low}, {self.high}].")
            if self.log and number < 1:
                raise ValueError(
                    f"{shown(number)} has no place on a log scale: it must be at least 1."
                )
        if (number - self.low) % self.step:
            raise ValueError(
                f"expected {self.expected}; got {shown(number)}, which the steps skip."
            )
        return number

    def to_unit(self, value: int) -> float:
        try:
            return self.lattice.position((value - self.low) // self.step)
        except OverflowError:  # told from outside, and beyond all doubles
            return math.inf if value > 0 else -math.inf

    def from_unit(self, u: float) -> int:
        return self.low + self.step * self.lattice.level(u)

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "integer",
            "low": self.low,
            "high": self.high,
            "log": self.log,
            "step": self.step,
        } | self._when_json()

    def __repr__(self) -> str:
        options = _unless(False, log=self.log) | _unless(1, step=self.step)
        return _call(self, self.low, self.high, **options, **_unless(None, when=self.when))


class _Choices(Parameter):
    """What Categorical and Ordinal share: a list of values, looked up by equality."""

    choices: Any
    _kind: ClassVar[Kind]

    @property
    def kind(self) -> Kind:
        return "fixed" if len(self.labels) == 1 else self._kind

    @cached_property
    def labels(self) -> tuple[Value, ...]:
        """The values, in order; of choices that stand for objects, the labels."""
        return tuple(self.choices)

    @cached_property
    def lattice(self) -> Lattice:
        return Lattice(len(self.labels))

    @cached_property
    def _index(self) -> dict[Value, int]:
        return {label: i for i, label in enumerate(self.labels)}

    @property
    def expected(self) -> str:
        return f"one of {listing(self.labels)}"

    def check(self, value: Any, *, outside: bool = False) -> Value:
        choice = native(value)
        if not isinstance(choice, Value):
            raise TypeError(
                f"expected {self.expected}; got {shown(value)} ({type(value).__name__})."
            )
        index = self._index.get(choice)
        # True == 1 in Python; as a choice it is another thing.
        if index is None or isinstance(self.labels[index], bool) != isinstance(choice, bool):
            hint = _same_text(choice, self.labels) or did_you_mean(choice, self.labels)
            raise ValueError(f"expected {self.expected}; got {shown(choice)}.{hint}")
        return self.labels[index]

    def to_unit(self, value: Value) -> float:
        return self.lattice.position(self._index[value])

    def from_unit(self, u: float) -> Value:
        return self.labels[self.lattice.level(u)]


@dataclass(frozen=True, eq=False, repr=False)
class Categorical(_Choices):
    """One of several values without an order.

    Args:
        choices: Strings, numbers or booleans; or {label: object} for anything else: the label is
            stored and shown, the object is what the objective is called with.
        when: Active only where each named parent has (one of) the given values.
    """

    choices: Sequence[Value] | Mapping[str, Any]
    _: KW_ONLY
    when: Mapping[str, Any] | None = None
    _kind: ClassVar[Kind] = "categorical"

    @property
    def objects(self) -> Mapping[str, Any] | None:
        """{label: object} when the choices stand for objects, else None."""
        return self.choices if isinstance(self.choices, Mapping) else None

    def checked(self) -> Self:
        if isinstance(self.choices, Mapping):
            for label in self.choices:
                if not isinstance(label, str) or not label:
                    raise TypeError(f"labels of choices must be non-empty strings; got {label!r}.")
            checked_choices(list(self.choices), "Categorical({'label': object, …})")
            choices: Any = {str.__str__(label): item for label, item in self.choices.items()}
        else:
            choices = checked_choices(self.choices, "Categorical({'label': object, …})")
        return replace(self, choices=choices, when=checked_when(self.when))

    def to_json(self) -> dict[str, Any]:
        return {"type": "categorical", "choices": list(self.labels)} | self._when_json()

    def __repr__(self) -> str:
        return _call(self, self.choices, **_unless(None, when=self.when))


@dataclass(frozen=True, eq=False, repr=False)
class Ordinal(_Choices):
    """One of several values in the order given: sizes, grades, powers of two.

    Args:
        choices: Numbers or strings, from one end to the other. Only the order counts, not the
            distance between numbers.
        when: Active only where each named parent has (one of) the given values.
    """

    choices: Sequence[int | float | str]
    _: KW_ONLY
    when: Mapping[str, Any] | None = None
    _kind: ClassVar[Kind] = "ordered"

    def checked(self) -> Self:
        choices = checked_choices(self.choices, "Categorical({'label': object, …})")
        for choice in choices:
            if isinstance(choice, bool):
                raise TypeError(f"choices of Ordinal must be numbers or strings; got {choice!r}.")
        return replace(self, choices=choices, when=checked_when(self.when))

    def to_json(self) -> dict[str, Any]:
        return {"type": "ordinal", "choices": list(self.labels)} | self._when_json()

    def __repr__(self) -> str:
        return _call(self, self.choices, **_unless(None, when=self.when))


def parameter_from_json(data: Mapping[str, Any], objects: Mapping[str, Any] | None) -> Parameter:
    """Build a parameter from its JSON form.

    Args:
        data: What `to_json` returned, with the fields of its type.
        objects: {label: object} of a Categorical whose choices stand for objects; without it the
            labels are choices of their own.

    Raises:
        ValueError: If objects do not have the stored labels.
    """
    fields = {name: value for name, value in data.items() if name not in ("name", "type")}
    kinds = {"real": Real, "integer": Integer, "categorical": Categorical, "ordinal": Ordinal}
    kind = kinds[data["type"]]
    if objects is not None:
        if kind is not Categorical or _texts(objects) != _texts(fields["choices"]):
            raise ValueError(
                f"objects must have the labels {fields.get('choices')}; got {list(objects)}."
            )
        fields["choices"] = {label: objects[label] for label in fields["choices"]}
    return kind(**fields)


def _texts(labels: Iterable[Any]) -> list[str]:
    return sorted(map(repr, labels))  # of labels of several types, too


def _same_text(choice: Value, labels: Sequence[Value]) -> str:
    text = choice if isinstance(choice, str) else shown(choice)
    twins = [label for label in labels if str(label) == text]
    if not twins:
        return ""
    return f" The choice is {twins[0]!r}, a {type(twins[0]).__name__}."


def _call(parameter: Parameter, *arguments: Any, **options: Any) -> str:
    """The source of a parameter. Must work before `checked`, as messages quote it."""
    parts = [repr(list(item) if isinstance(item, tuple) else item) for item in arguments]
    parts += [f"{name}={value!r}" for name, value in options.items()]
    return f"{type(parameter).__name__}({', '.join(parts)})"


def _unless(default: Any, **options: Any) -> dict[str, Any]:
    """The options that differ from their default."""
    return {name: value for name, value in options.items() if value != default}


def _text(parameter: Parameter) -> str:
    return json.dumps(parameter.to_json(), sort_keys=True)  # as text, because 1 == 1.0 == True


def _check_bounds(low: float, high: float, log: object) -> None:
    if low > high:
        raise ValueError(f"low must not exceed high; got low={low!r}, high={high!r}. Swap them.")
    if not isinstance(log, bool):
        raise TypeError(f"log must be True or False; got {log!r}.")
