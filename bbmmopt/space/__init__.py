"""The points a study may try: parameters in the user's units, rows of [0, 1]^d inside."""

from bbmmopt.space.constraints import InputConstraint, Linear, Nonlinear, Simplex
from bbmmopt.space.parameters import Categorical, Integer, Kind, Ordinal, Parameter, Real
from bbmmopt.space.space import Column, Space

__all__ = [
    "Space",
    "Real",
    "Integer",
    "Categorical",
    "Ordinal",
    "Parameter",
    "Linear",
    "Simplex",
    "Nonlinear",
    "InputConstraint",
    "Column",
    "Kind",
]
