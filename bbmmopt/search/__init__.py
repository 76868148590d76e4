"""Maximise an acquisition function over a space."""

from bbmmopt.search.budget import Budget
from bbmmopt.search.domain import Domain, SpaceExhausted
from bbmmopt.search.gradient import Ascent, ascend
from bbmmopt.search.maximise import Found, Search, maximise
from bbmmopt.search.polytope import NoFeasiblePoint
from bbmmopt.search.region import Region
from bbmmopt.search.together import FoundBatch, maximise_together

__all__ = [
    "Ascent",
    "Budget",
    "Domain",
    "Found",
    "FoundBatch",
    "NoFeasiblePoint",
    "Region",
    "Search",
    "SpaceExhausted",
    "ascend",
    "maximise",
    "maximise_together",
]
