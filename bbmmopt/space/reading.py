"""The JSON of a space: which fields its parts have, looked at before anything is built of them."""

from collections.abc import Iterable, Mapping
from typing import Any

from bbmmopt.space.checks import did_you_mean, listing, shown

# By type, the fields that must be there and those that may.
PARAMETERS = {
    "real": (("low", "high"), ("log", "when")),
    "integer": (("low", "high"), ("log", "step", "when")),
    "categorical": (("choices",), ("when",)),
    "ordinal": (("choices",), ("when",)),
}
_CONSTRAINTS = {
    "linear": (("coefficients",), ("at_most", "at_least", "equals")),
    "simplex": (("names",), ("total",)),
    "nonlinear": (("name",), ()),
}

_Fields = Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]


def parts_of(data: Any) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The parameters and the constraints of a space, each with the fields of its type.

    Raises:
        ValueError: If something is missing, unknown or there twice, naming its place.
    """
    data = fields_of(data, "a space", ("parameters",), ("constraints",))
    parameters, constraints = data["parameters"], data.get("constraints", [])
    if not isinstance(parameters, list):
        raise ValueError(f"parameters must be a list, as Space.to_json writes; got {parameters!r}.")
    for part in parameters:
        if not isinstance(part, Mapping) or not isinstance(part.get("name"), str):
            raise ValueError(f'each parameter must be {{"name": "…", …}}; got {shown(part)}.')
        _check_fields(part, f"parameter {part['name']!r}", PARAMETERS, also=("name",))
        if "choices" in part and not isinstance(part["choices"], list):
            raise ValueError(
                f"parameter {part['name']!r}: choices must be a list; got {shown(part['choices'])}."
            )
    names = [part["name"] for part in parameters]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"the space has {listing(twice)} twice. Give each a name of its own.")
    if not isinstance(constraints, list) or not all(isinstance(c, Mapping) for c in constraints):
        raise ValueError(
            f"constraints must be a list of JSON objects, as Space.to_json writes; "
            f"got {shown(constraints)}."
        )
    for part in constraints:
        _check_fields(part, f"constraint {shown(part)}", _CONSTRAINTS)
    return parameters, constraints


def fields_of(
    data: Any, what: str, required: Iterable[str], optional: Iterable[str] = ()
) -> Mapping[str, Any]:
    """The data, if it is a JSON object with these fields and no others.

    Raises:
        ValueError: If it is not, naming the field.
    """
    required, optional = tuple(required), tuple(optional)
    if not isinstance(data, Mapping):
        raise ValueError(f"{what} must be a JSON object, {{…}}; got {shown(data)}.")
    for field in data:
        if field not in (*required, *optional):
            hint = did_you_mean(field, (*required, *optional))
            raise ValueError(
                f"{what}: unknown field {field!r}; it has {listing((*required, *optional))}.{hint}"
            )
    for field in required:
        if field not in data:
            raise ValueError(f"{what}: {field!r} is missing.")
    return data


def _check_fields(
    part: Mapping[str, Any], what: str, kinds: _Fields, also: tuple[str, ...] = ()
) -> None:
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(
            f"{what}: unknown type {shown(kind)}; known: {listing(kinds)}."
            f"{did_you_mean(kind, list(kinds))}"
        )
    required, optional = kinds[kind]
    rest = {field: value for field, value in part.items() if field not in ("type", *also)}
    fields_of(rest, what, required, optional)
