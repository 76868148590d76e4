"""From what a shell hands over, which is text, to spaces, points and values."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bbmmopt.early_stopping import StoppingRule, rule_from_json
from bbmmopt.prior import Near
from bbmmopt.problem import Problem
from bbmmopt.space import Categorical, Integer, Ordinal, Parameter, Space
from bbmmopt.space.checks import did_you_mean, listing, shown
from bbmmopt.space.reading import PARAMETERS

_SHORT = 'write {"real": [low, high]}, {"integer": [low, high]}, {"categorical": [a, b, …]} or '
_SHORT += '{"ordinal": [a, b, …]}, with "log", "step" and "when" beside it'
_BELIEF = 'write {"near": value, "spread": std}, "factor" for "spread" of a log parameter, or '
_BELIEF += '{"weights": {choice: weight, …}}'


def json_object(text: str, what: str) -> dict[str, Any]:
    """The object that a JSON text holds.

    Raises:
        ValueError: If it is not JSON, not an object, or has a key twice.
    """
    try:
        data = json.loads(text, object_pairs_hook=_without_doubles)
    except _TwiceError as error:
        raise ValueError(f"{what}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not JSON: {error}.") from None
    if not isinstance(data, dict):
        raise ValueError(f"{what} must be a JSON object, {{…}}; got {shown(data)}.")
    return data


class _TwiceError(Exception):
    """A key came twice in one object: json would keep the last and drop the others."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _TwiceError(f"{twice!r} came twice. Give each a name of its own.")
    return found


# --------------------------------------------------------------------------------------
# Spaces
# --------------------------------------------------------------------------------------


def space_from(text: str) -> Space:
    """The space a JSON text describes.

    Either what `Space.to_json` writes, {"parameters": [{"name": "C", "type": "real", …}, …]}, with
    "constraints" if there are any, or the short form without them,
    {"C": {"real": [0.001, 1000], "log": true}, …}.

    Raises:
        ValueError, TypeError: If it is not JSON, or not a space, naming the parameter.
    """
    data = json_object(text, "the space")
    listed = data.get("parameters")
    constraints: Any = []
    if set(data) <= {"parameters", "constraints"} and isinstance(listed, list):
        parameters = listed
        constraints = data.get("constraints", [])
    else:
        parameters = [_long_form(name, fields) for name, fields in data.items()]
    return Space.from_json({"parameters": parameters, "constraints": constraints})


def _long_form(name: str, fields: Any) -> dict[str, Any]:
    """{"real": [0, 1]} as {"type": "real", "low": 0, "high": 1}, with the name."""
    kinds = [kind for kind in PARAMETERS if isinstance(fields, dict) and kind in fields]
    if isinstance(fields, dict) and "type" in fields and not kinds:
        return {"name": name, **fields}
    if len(kinds) != 1:
        raise ValueError(f"parameter {name!r}: {_SHORT}; got {json.dumps(fields)}.")
    rest = {key: value for key, value in fields.items() if key != kinds[0]}
    given = fields[kinds[0]]
    if PARAMETERS[kinds[0]][0] != ("low", "high"):
        return {"name": name, "type": kinds[0], "choices": given, **rest}
    if not isinstance(given, list) or len(given) != 2:
        raise ValueError(f"parameter {name!r}: {_SHORT}; got {json.dumps(fields)}.")
    return {"name": name, "type": kinds[0], "low": given[0], "high": given[1], **rest}


# --------------------------------------------------------------------------------------
# What guides a search
# --------------------------------------------------------------------------------------


def prior_from(space: Space, text: str) -> dict[str, Near | dict[Any, Any]]:
    """The prior a JSON text describes, which the study still has to check.

    {"C": {"near": 1, "factor": 10}, "kernel": {"weights": {"rbf": 2}}, …}

    Raises:
        ValueError: If it is not JSON, or not a belief for each name, naming the parameter.
    """
    found: dict[str, Near | dict[Any, Any]] = {}
    for name, belief in json_object(text, "the prior").items():
        keys = belief.keys() if isinstance(belief, dict) else set()
        if "near" in keys and keys <= {"near", "factor", "spread"}:
            fields = dict(belief)
            found[name] = Near(fields.pop("near"), **fields)
        elif keys == {"weights"} and isinstance(belief["weights"], dict):
            labels = getattr(space.parameters.get(name), "labels", ())
            found[name] = _weights(name, labels, belief["weights"])
        else:
            raise ValueError(f"prior: parameter {name!r}: {_BELIEF}; got {json.dumps(belief)}.")
    return found


def _weights(name: str, labels: Sequence[Any], given: Mapping[str, Any]) -> dict[Any, Any]:
    """Weights by the choices that the keys, which JSON has as texts, read like."""
    found: dict[Any, Any] = {}
    for text, weight in given.items():
        label = _choice(labels, text)
        if label in found:
            raise ValueError(f"prior: parameter {name!r}: choice {label!r} came twice.")
        found[label] = weight
    return found


def risk_from(text: str) -> str | float:
    """ "mean", a number, or the text as it is: then the study will refuse it."""
    number = _float(text)
    return text if number is None else number


def rule_from(text: str) -> StoppingRule:
    """The stopping rule of a name, or of a JSON text such as {"rule": "halving", "min_steps": 3}.

    Raises:
        ValueError, TypeError: If there is no such rule, or its arguments make no sense.
    """
    is_name = not text.lstrip().startswith("{")
    return rule_from_json(text if is_name else json_object(text, "the stopping rule"))


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def numbers_from(names: Sequence[str], texts: Iterable[str], option: str) -> dict[str, float]:
    """{name: number} of texts like "x=0.5".

    Args:
        names: Those that are known, which may hold "=".
        texts: The texts.
        option: Where they were given, for messages.

    Raises:
        ValueError: If a text is no number with a name, or a name comes twice.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, number = _assignment(text, names)
        value = _float(number)
        if name is None or value is None:
            raise ValueError(f"{option} takes name=number; got {text!r}.")
        if name in found:
            raise ValueError(f"{option}: {name!r} was given twice.")
        found[name] = value
    return found


# --------------------------------------------------------------------------------------
# Points
# --------------------------------------------------------------------------------------


def point_from(space: Space, texts: Iterable[str], option: str) -> dict[str, Any]:
    """{name: value} of texts like "C=0.5"; the space still has to check the values.

    Args:
        space: Says how each text is to be read.
        texts: The texts.
        option: Where they were given, for messages.

    Raises:
        ValueError: If a text is no assignment, or a name is unknown or comes twice.
    """
    point: dict[str, Any] = {}
    for text in texts:
        name, value = _assignment(text, space.names)
        if name is None:
            raise ValueError(f"{option} takes name=value; got {text!r}.")
        if name not in space.parameters:
            hint = did_you_mean(name, space.names) or f" The space has {listing(space.names)}."
            raise ValueError(f"{option}: unknown parameter {name!r}.{hint}")
        if name in point:
            raise ValueError(f"{option}: parameter {name!r} was given twice.")
        point[name] = _value(space.parameters[name], value)
    return point


def former_from(space: Space, texts: Iterable[str]) -> dict[str, Any]:
    """{name: value} of texts like "C=0.5", of parameters of the space and of others.

    A value of one that the space does not have is read as JSON, or is the text itself.

    Raises:
        ValueError: If a text is no assignment, or a name comes twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, value = _assignment(text, space.names)
        if name is None:
            raise ValueError(f"--former takes name=value; got {text!r}.")
        if name in found:
            raise ValueError(f"--former: parameter {name!r} was given twice.")
        if name in space.parameters:
            found[name] = _value(space.parameters[name], value)
        else:
            found[name] = _plain(value)
    return found


def _plain(text: str) -> Any:
    """The number or boolean that a text reads like, or the text."""
    for read in (json.loads, float):
        try:
            value = read(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, bool | int | float | str):
            return value
    return text


def _assignment(text: str, names: Sequence[str]) -> tuple[str | None, str]:
    """Name and value of "name=value"; (None, text) if it is no such thing.

    A known name may itself hold "=".
    """
    for name in sorted(names, key=len, reverse=True):
        if text.startswith(f"{name}="):
            return name, text[len(name) + 1 :]
    name, equals, rest = text.partition("=")
    return (name, rest) if equals else (None, text)


def _value(parameter: Parameter, text: str) -> Any:
    """The text as a value of the parameter, or as it is: then the space will refuse it."""
    if isinstance(parameter, Categorical | Ordinal):
        return _choice(parameter.labels, text)
    for read in (int, float) if isinstance(parameter, Integer) else (float,):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _choice(labels: Sequence[Any], text: str) -> Any:
    """The choice that reads like the text.

    As JSON first, so that true and 1 can be told from "true" and "1" where both are choices;
    then as Python writes it; then as a number (16.0 for 16).
    """
    for write in (lambda label: json.dumps(label, ensure_ascii=False), str):
        for label in labels:
            if write(label) == text:
                return label
    number = _float(text)
    if number is None:
        return text
    numbers = (x for x in labels if isinstance(x, int | float) and not isinstance(x, bool))
    return next((label for label in numbers if label == number), text)


# --------------------------------------------------------------------------------------
# Results
# --------------------------------------------------------------------------------------


def number_from(text: str, what: str) -> float:
    """The number of a text, NaN and infinities included.

    Raises:
        ValueError: If it is none.
    """
    value = _float(text)
    if value is None:
        raise ValueError(f"{what} must be a number; got {text!r}.")
    return value


def notes_from(texts: Iterable[str]) -> dict[str, Any]:
    """{name: note} of texts like "operator=ann" and "batch=7".

    Raises:
        ValueError: If one is no assignment, begins like JSON and is none, or its name came twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, note = _assignment(text, ())
        if not name:
            raise ValueError(f"a note is NAME=VALUE; got {text!r}.")
        if name in found:
            raise ValueError(f"note {name!r} was given twice.")
        try:
            found[name] = json.loads(note, object_pairs_hook=_without_doubles)
        except _TwiceError as error:
            raise ValueError(f"note {name!r}: {error}") from None
        except (ValueError, RecursionError) as error:
            if note.lstrip().startswith(("{", "[", '"')):
                raise ValueError(f"note {name!r} begins like JSON, but is none: {error}.") from None
            found[name] = note
    return found


def outcome_from(
    problem: Problem, values: Sequence[str], errors: Sequence[str]
) -> dict[str, Any] | None:
    """{name: value} or {name: (value, standard error)}, for `tell`; None if there is nothing.

    Args:
        problem: Knows the names; a value without one belongs to the only objective.
        values: Texts like "0.5" or "error=0.5"; constraints by name.
        errors: The same, of standard errors.

    Raises:
        ValueError: If something is no number, has no name where it needs one, or comes twice.
    """
    if not values and not errors:
        return None
    told: Mapping[str, Any] = _numbers(problem, values, "VALUE")
    spread = _numbers(problem, errors, "--se")
    for name in spread:
        if name not in told:
            raise ValueError(f"--se: {name!r} has a standard error but no value.")
    return {
        name: (value, spread[name]) if name in spread else value for name, value in told.items()
    }


def _numbers(problem: Problem, texts: Sequence[str], what: str) -> dict[str, float]:
    first, *others = problem.names
    names = [first, *others, *(constraint.name for constraint in problem.constraints)]
    found: dict[str, float] = {}
    for text in texts:
        name, number = _assignment(text, names)
        value = _float(number)
        if value is None:
            raise ValueError(f"{what} must be a number or name=number; got {text!r}.")
        if name is None and others:
            example = " ".join(f"{name}=…" for name in problem.names)
            raise ValueError(f"{what} needs a name for each number: {example}; got {text!r}.")
        name = first if name is None else name
        if name in found:
            raise ValueError(f"{what}: {name!r} was given twice.")
        found[name] = value
    return found
