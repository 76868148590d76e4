"""Maximise an acquisition function over a space."""

from bbmmopt.search.domain import Domain, SpaceExhausted
from bbmmopt.search.gradient import Ascent, ascend
from bbmmopt.search.maximise import Found, Search, maximise

__all__ = ["Ascent", "Domain", "Found", "Search", "SpaceExhausted", "ascend", "maximise"]
