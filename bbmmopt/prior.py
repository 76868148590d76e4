"""What a user believes of where the optimum is, before any trial.

Imports no torch: a prior is a description, in the user's units, that is stored with its study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

from bbmmopt.space import Categorical, Integer, Ordinal, Parameter, Real, Space
from bbmmopt.space.checks import did_you_mean, listing, naming, shown, to_float

Prior = Mapping[str, "Near | Mapping[Any, float]"]


@dataclass(frozen=True)
class Near:
    """The optimum is near this value: a normal distribution, cut off at the bounds.

        Near(1e-3, factor=3)    of a log parameter: 68 % between a third and three times it
        Near(6, spread=2)       of any other: 68 % between 4 and 8
        Near("medium", spread=1)    of an Ordinal: in places of its order

    Attributes:
        value: Where it is most likely, in the user's units.
        factor: One standard deviation of a log parameter, as a factor > 1.
        spread: One standard deviation of any other parameter, in its units.
    """

    value: Any
    _: KW_ONLY
    factor: float | None = None
    spread: float | None = None


class Bell(NamedTuple):
    """A normal distribution in a column of [0, 1]."""

    mean: float
    std: float


def prior_to_json(prior: Prior, space: Space) -> dict[str, Any]:
    """A prior in JSON types, checked.

    Raises:
        TypeError, ValueError: If it names an unknown parameter, or does not suit one.
    """
    if not isinstance(prior, Mapping):
        raise TypeError(
            f"prior must be {{parameter: Near(value, …) or {{choice: weight}}}}; got {prior!r}."
        )
    found = {}
    for name, belief in prior.items():
        if name not in space.parameters:
            hint = did_you_mean(name, space.names) or f" The space has {listing(space.names)}."
            raise ValueError(f"prior: unknown parameter {name!r}.{hint}")
        with naming(f"prior: parameter {name!r}: "):
            found[name] = _checked(space.parameters[name], belief)
    return {name: found[name] for name in space.names if name in found}


def prior_from_json(data: Any, space: Space) -> dict[str, Near | dict[Any, Any]]:
    """Undo `prior_to_json`; the result still has to be checked.

    Raises:
        ValueError: If it is no such thing, naming the parameter.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"prior must be a JSON object, {{…}}; got {shown(data)}.")
    found: dict[str, Near | dict[Any, Any]] = {}
    for name, belief in data.items():
        keys = set(belief) if isinstance(belief, Mapping) else set()
        labels = getattr(space.parameters.get(name), "labels", ())
        if "near" in keys and keys <= {"near", "factor", "spread"}:
            width = {key: value for key, value in belief.items() if key != "near"}
            found[name] = Near(belief["near"], **width)
        elif keys == {"weights"} and _are_of(belief["weights"], labels):
            found[name] = dict(zip(labels, belief["weights"], strict=True))
        else:
            raise ValueError(f"prior: parameter {name!r}: {shown(belief)} cannot be read.")
    return found


def _are_of(weights: Any, labels: Sequence[Any]) -> bool:
    return isinstance(weights, list) and len(weights) == len(labels)


def columns_of(prior: Mapping[str, Any], space: Space) -> dict[int, Bell | list[float]]:
    """By column, what `prior_to_json` wrote: a bell, or a weight for each of k levels.

    Columns of a single value are left out.
    """
    return {
        space.names.index(name): _column(space.parameters[name], belief)
        for name, belief in prior.items()
        if space.parameters[name].kind != "fixed"
    }


def _checked(parameter: Parameter, belief: Any) -> dict[str, Any]:
    if isinstance(belief, Near):
        if isinstance(parameter, Categorical):
            raise TypeError(
                f"choices without an order have no distances: give {{choice: weight}}; "
                f"got {belief!r}."
            )
        wanted, other = ("factor", "spread") if _is_log(parameter) else ("spread", "factor")
        width, least = getattr(belief, wanted), 1.0 if wanted == "factor" else 0.0
        if width is None or getattr(belief, other) is not None:
            raise ValueError(
                f"Near needs {wanted}= here, one standard deviation "
                f"{'as a factor' if least else 'in units of the parameter'}, and no {other}=; "
                f"got {belief!r}."
            )
        return {"near": parameter.check(belief.value), wanted: _above(wanted, width, least)}
    if not isinstance(belief, Mapping):
        raise TypeError(f"expected Near(value, …) or {{choice: weight}}; got {belief!r}.")
    if not isinstance(parameter, Categorical | Ordinal):
        raise TypeError(f"a number takes Near(value, …); got {belief!r}.")
    weights = {parameter.check(label): weight for label, weight in belief.items()}
    if not weights:
        raise ValueError("{} says nothing: give {choice: weight}, or leave the parameter out.")
    return {
        "weights": [
            _above(f"weight of {label!r}", weights.get(label, 1.0), 0.0)
            for label in parameter.labels
        ]
    }


def _above(what: str, number: Any, least: float) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeError(f"{what} must be a number; got {number!r}.")
    if not least < to_float(number) < math.inf:
        hint = " To rule a choice out, leave it out of the space." if "weight" in what else ""
        raise ValueError(f"{what} must be finite and above {least:g}; got {shown(number)}.{hint}")
    return float(number)


def _is_log(parameter: Parameter) -> bool:
    return isinstance(parameter, Real | Integer) and parameter.log


def _column(parameter: Parameter, belief: Mapping[str, Any]) -> Bell | list[float]:
    if "weights" in belief:
        return list(belief["weights"])
    mean = parameter.to_unit(belief["near"])
    if isinstance(parameter, Ordinal):
        ends, whole = (parameter.labels[0], parameter.labels[-1]), len(parameter.labels) - 1.0
    else:
        assert isinstance(parameter, Real | Integer)
        ends = parameter.low, parameter.high
        whole = _decades(*ends) if parameter.log else float(ends[1] - ends[0])
    width = math.log(belief["factor"]) if "factor" in belief else belief["spread"]
    return Bell(mean, width / whole * (_unit(parameter, ends[1]) - _unit(parameter, ends[0])))


def _decades(low: float, high: float) -> float:
    """log(high / low), also where that is beyond all doubles."""
    ratio = high / low
    return math.log(ratio) if ratio < math.inf else math.log(high) - math.log(low)


def _unit(parameter: Any, value: Any) -> float:
    return parameter.to_unit(value)
