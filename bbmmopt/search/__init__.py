"""Maximise an acquisition function over a space."""

from bbmmopt.search.domain import Domain, SpaceExhausted
from bbmmopt.search.gradient import Ascent, ascend
from bbmmopt.search.maximise import Found, Search, maximise
from bbmmopt.search.polytope import NoFeasiblePoint
from bbmmopt.search.region import Region

__all__ = [
    "Ascent",
    "Domain",
    "Found",
    "NoFeasiblePoint",
    "Region",
    "Search",
    "SpaceExhausted",
    "ascend",
    "maximise",
]
