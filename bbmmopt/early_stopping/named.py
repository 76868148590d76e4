"""Rules by their names: in JSON, as studies store them, and on a command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from bbmmopt.early_stopping.base import StoppingRule
from bbmmopt.early_stopping.halving import Hyperband, SuccessiveHalving
from bbmmopt.early_stopping.percentile import MedianStop, PercentileStop

# The names that rules go by.
RULES = {
    "median": MedianStop,
    "percentile": PercentileStop,
    "halving": SuccessiveHalving,
    "hyperband": Hyperband,
}


def rule_from_json(data: str | Mapping[str, Any]) -> StoppingRule:
    """A rule by its name, or from {"rule": name, argument: value}, arguments left out at defaults.

    Raises:
        ValueError: If there is no such rule or argument, or a value is not allowed.
        TypeError: If it is neither a name nor such a mapping.
    """
    if isinstance(data, str):
        data = {"rule": data}
    if not isinstance(data, Mapping):
        raise TypeError(
            f'a stopping rule is a name, such as "median", or {{"rule": name, …}}; got {data!r}.'
        )
    name = data.get("rule")
    if not isinstance(name, str) or name not in RULES:
        raise ValueError(f"a stopping rule is one of {', '.join(RULES)}; got {name!r}.")
    rule, given = RULES[name], {k: v for k, v in data.items() if k != "rule"}
    known = [field.name for field in fields(rule)]
    unknown = [key for key in given if key not in known]
    missing = [f.name for f in fields(rule) if f.default is MISSING and f.name not in given]
    if unknown or missing:
        raise ValueError(
            f"stopping rule {name!r} takes {', '.join(known)}."
            + f" Missing: {', '.join(missing)}." * bool(missing)
            + f" Unknown: {', '.join(map(repr, unknown))}." * bool(unknown)
        )
    return rule(**given)


def checked_rule(given: StoppingRule | str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A rule, its name or its JSON as JSON with all arguments; None for none.

    Raises:
        TypeError, ValueError: As in `rule_from_json`.
    """
    if given is None:
        return None
    if isinstance(given, MedianStop | PercentileStop | SuccessiveHalving | Hyperband):
        return given.to_json()
    if not isinstance(given, str | Mapping):
        raise TypeError(
            f'early_stopping takes a rule, such as MedianStop(), or a name, such as "median"; '
            f"got {given!r}."
        )
    return rule_from_json(given).to_json()
