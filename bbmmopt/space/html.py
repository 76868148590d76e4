"""A space as a table in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bbmmopt.notebook import Html, heading, joined, rounded, table
from bbmmopt.space.parameters import Categorical, Integer, Ordinal, Parameter, Real

if TYPE_CHECKING:
    from bbmmopt.space.space import Space

_MOST = 12  # choices that are listed


def space_html(space: Space) -> Html:
    """A heading over what `parameters_html` shows."""
    return joined(heading(f"Space of {counted(space)}"), parameters_html(space))


def counted(space: Space) -> str:
    """How many parameters there are, in words."""
    return f"{len(space)} parameter{'s' * (len(space) != 1)}"


def parameters_html(space: Space) -> Html:
    """A row for each parameter, then the constraints."""
    rows = [(name, *_described(parameter)) for name, parameter in space.parameters.items()]
    constraints = [(repr(constraint),) for constraint in space.constraints]
    return joined(
        table(("parameter", "kind", "range", "scale", "only if"), rows),
        table(("constraint",), constraints) if constraints else None,
    )


def _described(parameter: Parameter) -> tuple[str, str, str, str]:
    """Kind, range, scale and condition, in words."""
    kind, scale = type(parameter).__name__, ""
    if isinstance(parameter, Real | Integer):
        allowed = f"{rounded(parameter.low)} … {rounded(parameter.high)}"
        scale = "logarithmic" if parameter.log else "linear"
        if isinstance(parameter, Integer) and parameter.step != 1:
            allowed += f", step {parameter.step}"
    else:
        assert isinstance(parameter, Categorical | Ordinal)
        labels = [str(label) for label in parameter.labels[:_MOST]]
        more = len(parameter.labels) - len(labels)
        between = " < " if isinstance(parameter, Ordinal) else ", "
        allowed = between.join(labels) + (f" and {more} more" if more else "")
    if parameter.kind == "fixed":
        allowed, scale = rounded(parameter.from_unit(0.5)), "fixed"
    when = (
        f"{parent} is {' or '.join(map(str, values))}"
        for parent, values in (parameter.when or {}).items()
    )
    return kind, allowed, scale, " and ".join(when)
