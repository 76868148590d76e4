"""Which points of a space may be tried: linear constraints, mixtures, functions of the parameters.

A constraint is a description, like a parameter: `Space` asks it for a `checked` copy and puts its
source in front of whatever that raises. Outcomes that must be at most 0 are something else: those
are measured, these are known beforehand.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

from bbmmopt.space.checks import Value, did_you_mean, finite, listing, native
from bbmmopt.space.parameters import Integer, Parameter, Real


class InputConstraint(ABC):
    """A condition on the points of a space. Two are equal when their JSON forms are."""

    @abstractmethod
    def checked(self, parameters: Mapping[str, Parameter]) -> Self:
        """A copy in native types; ValueError or TypeError if it makes no sense for these."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A dict of JSON types, with the class under "type"."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InputConstraint) and self._text() == other._text()

    def __hash__(self) -> int:
        return hash(self._text())

    def _text(self) -> str:
        return json.dumps(self.to_json(), sort_keys=True)


@dataclass(frozen=True, eq=False, repr=False)
class Linear(InputConstraint):
    """A limit on a sum: Σ coefficient · value, in the user's units.

        Linear({"a": 1.0, "b": 2.0}, at_most=3.0)

    Rounding may take a sum beyond a limit by 1e-9 of the term of the widest range; `equals` is
    met to 1e-6 of it, so that points may be entered by hand.

    Args:
        coefficients: {parameter: coefficient}, of Real and Integer parameters, log ones included,
            that are always active.
        at_most: Upper limit.
        at_least: Lower limit.
        equals: What the sum must be, instead of limits.
    """

    coefficients: Mapping[str, float]
    _: KW_ONLY
    at_most: float | None = None
    at_least: float | None = None
    equals: float | None = None

    def checked(self, parameters: Mapping[str, Parameter]) -> Self:
        if not isinstance(self.coefficients, Mapping) or not self.coefficients:
            raise TypeError(
                f"coefficients must be {{parameter: coefficient}}; got {self.coefficients!r}."
            )
        coefficients = {}
        for name, given in self.coefficients.items():
            _check_summand(name, parameters)
            coefficients[str(name)] = finite(f"the coefficient of {name!r}", given)
            if not coefficients[name]:
                raise ValueError(f"the coefficient of {name!r} is 0. Leave {name!r} out.")
        limits = {
            which: None if limit is None else finite(which, limit)
            for which, limit in self._limits().items()
        }
        low, high, equals = limits["at_least"], limits["at_most"], limits["equals"]
        if (low is None and high is None) == (equals is None):
            raise ValueError("give at_most=, at_least= or both, or else equals= alone.")
        if low is not None and high is not None and low > high:
            raise ValueError(
                f"at_least must not exceed at_most; got at_least={low!r}, at_most={high!r}."
            )
        return replace(self, coefficients=coefficients, **limits)

    def _limits(self) -> dict[str, float | None]:
        return {"at_most": self.at_most, "at_least": self.at_least, "equals": self.equals}

    def to_json(self) -> dict[str, Any]:
        limits = {which: limit for which, limit in self._limits().items() if limit is not None}
        return {"type": "linear", "coefficients": dict(self.coefficients)} | limits

    def __repr__(self) -> str:
        limits = [f"{which}={v!r}" for which, v in self._limits().items() if v is not None]
        return f"Linear({', '.join([repr(self.coefficients), *limits])})"


@dataclass(frozen=True, eq=False, repr=False)
class Simplex(InputConstraint):
    """A mixture: parameters that sum to a total, each within its own bounds.

        Simplex(["water", "acid", "salt"], total=1.0)

    Proposed points miss the total by the rounding of their decimals alone (about 1e-12 of it);
    points that are entered may miss it by 1e-6 of the widest range.

    Args:
        names: Two or more Real or Integer parameters that are always active.
        total: Their sum, in the user's units.
    """

    names: Sequence[str]
    _: KW_ONLY
    total: float = 1.0

    def checked(self, parameters: Mapping[str, Parameter]) -> Self:
        if isinstance(self.names, str) or not isinstance(self.names, Sequence):
            raise TypeError(f"names must be a list of parameters; got {self.names!r}.")
        if len(self.names) < 2:
            raise ValueError(f"a mixture has two or more parameters; got {list(self.names)!r}.")
        for name in self.names:
            _check_summand(name, parameters)
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"names must differ; got {listing(self.names)}.")
        names = tuple(str(name) for name in self.names)
        return replace(self, names=names, total=finite("total", self.total))

    def to_json(self) -> dict[str, Any]:
        return {"type": "simplex", "names": list(self.names), "total": self.total}

    def __repr__(self) -> str:
        names = list(self.names) if isinstance(self.names, tuple) else self.names
        return f"Simplex({names!r}, total={self.total!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Nonlinear(InputConstraint):
    """A function that must be at least 0 where a point may be tried.

        Nonlinear("disc", lambda params: 1 - params["x"] ** 2 - params["y"] ** 2)

    The search evaluates it thousands of times and follows its slope: it should take microseconds
    and be smooth where it can be. Nan counts as not allowed. Functions cannot be stored: a study
    keeps the name, and has to be opened again with a space that has a function of that name.

    Args:
        name: What to call it.
        function: Maps {parameter: value}, active ones only, in the user's units, to a number.
    """

    name: str
    function: Callable[[dict[str, Any]], Any]

    def checked(self, parameters: Mapping[str, Parameter]) -> Self:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"a name must be a non-empty string; got {self.name!r}.")
        if not callable(self.function):
            raise TypeError(
                f"expected a function of {{parameter: value}}; got {self.function!r}. "
                f'Write Nonlinear("{self.name}", lambda params: …).'
            )
        return self

    @property
    def is_known(self) -> bool:
        """Whether the function is here: one that came back from a storage is a name alone."""
        return not isinstance(self.function, _NotStored)

    def value(self, params: Mapping[str, Value]) -> float:
        """What the function says of a point."""
        try:
            told = native(self.function(dict(params)))
            if isinstance(told, bool) or not isinstance(told, int | float):
                raise TypeError(
                    f"must return a number, at least 0 where a point is allowed; got {told!r}."
                )
        except Exception as error:
            error.add_note(f"In the constraint {self.name!r} of the space, at {dict(params)}.")
            raise
        return float(told)

    def to_json(self) -> dict[str, Any]:
        return {"type": "nonlinear", "name": self.name}

    def __repr__(self) -> str:
        return f"Nonlinear({self.name!r}, …)"


def constraint_from_json(data: Mapping[str, Any]) -> InputConstraint:
    """The constraint that `to_json` wrote; of a function, one that says so when it is needed.

    Args:
        data: What `to_json` returned, with the fields of its type.
    """
    fields = {name: value for name, value in data.items() if name != "type"}
    if data["type"] == "nonlinear":
        return Nonlinear(fields["name"], _NotStored(fields["name"]))
    kind = {"linear": Linear, "simplex": Simplex}[data["type"]]
    return kind(**fields)


@dataclass(frozen=True)
class _NotStored:
    """Stands for a function that was not stored."""

    name: str

    def __call__(self, params: Mapping[str, Any]) -> float:
        raise ValueError(
            f"constraint {self.name!r} is a function, and functions are not stored. Open the study "
            f"with the space that has it: Optimizer(space, …), its constraints= with "
            f"Nonlinear({self.name!r}, function)."
        )


def _check_summand(name: Any, parameters: Mapping[str, Parameter]) -> None:
    if name not in parameters:
        raise ValueError(
            f"it names {name!r}, which is not in the space; it has "
            f"{listing(parameters)}.{did_you_mean(name, list(parameters))}"
        )
    if not isinstance(parameters[name], Real | Integer):
        raise ValueError(
            f"it names {name!r}, which is {type(parameters[name]).__name__}; only Real and Integer "
            f"parameters can be summed. Use Nonlinear for others."
        )
    if not _always_active(name, parameters):
        raise ValueError(
            f"it names {name!r}, which is active only under a condition, when="
            f"{dict(parameters[name].when or {})!r}. Use Nonlinear, whose function sees which "
            f"parameters are there."
        )


def _always_active(name: str, parameters: Mapping[str, Parameter]) -> bool:
    """Whether the conditions of a parameter are met by every value of its parents."""
    above, seen = [name], {name}
    while above:
        for parent, values in (parameters[above.pop()].when or {}).items():
            if len(values) != parameters[parent].levels:
                return False
            if parent not in seen:
                seen.add(parent)
                above.append(parent)
    return True
