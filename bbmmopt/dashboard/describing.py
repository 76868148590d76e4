"""What the page must know of a study to draw it and to ask for points of its space."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bbmmopt.dashboard.live import Live
from bbmmopt.explain import ACQUISITIONS
from bbmmopt.problem import Problem
from bbmmopt.space.parameters import Parameter
from bbmmopt.study import Study


def described(live: Live) -> dict[str, Any]:
    """A study in JSON types: its problem, its settings, and which pictures there are."""
    study, record = live.study, live.record
    problem = study.problem
    return {
        "name": study.study,
        "created": record.created,
        "version": record.version,
        "generation": record.generation,
        "seed": str(study.seed),
        "settings": record.settings,
        "objectives": [asdict(objective) for objective in problem.objectives],
        "constraints": [{"name": c.name, "limit": c.limit} for c in problem.constraints],
        "reference_point": problem.reference_point,
        "parameters": [_parameter(name, p) for name, p in problem.space.parameters.items()],
        "rules": [repr(constraint) for constraint in problem.space.constraints],
        "acquisitions": _acquisitions(problem),
    }


def _parameter(name: str, parameter: Parameter) -> dict[str, Any]:
    """A parameter as it is stored, with what it is told to be and where its middle is."""
    fields = {"name": name, "kind": parameter.kind, "when": None} | parameter.to_json()
    levels = parameter.levels
    return fields | {
        "expected": parameter.expected,
        "levels": levels,
        "middle": parameter.from_unit(0.5),
    }


def _acquisitions(problem: Problem) -> dict[str, str]:
    """Those to choose from; what cannot be used in a study is refused when it is chosen."""
    several = len(problem.objectives) > 1
    only_several = ("log_ehvi", "scalarised")
    return {
        name: words for name, words in ACQUISITIONS.items() if several or name not in only_several
    }


def value_from(parameter: Parameter, given: Any) -> Any:
    """A value as the page sends it, which may be a text: the space still has to check it."""
    labels = getattr(parameter, "labels", None)
    if labels is not None:
        # Large integers came to the page as texts.
        same = (label for label in labels if not isinstance(label, str) and str(label) == given)
        return given if given in labels else next(same, given)
    if not isinstance(given, str):
        return given
    for read in (int, float):
        try:
            return read(given)
        except ValueError:
            continue
    return given


def point_from(study: Study, given: dict[str, Any]) -> dict[str, Any]:
    """A point as the page sends it; the space still has to check it."""
    known = study.space.parameters
    return {
        name: value_from(known[name], value) if name in known else value
        for name, value in given.items()
    }
