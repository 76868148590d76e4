"""Strategies: what to try next, given what is known."""

from bbmmopt.acquisition import Acquisition
from bbmmopt.explain import ACQUISITIONS
from bbmmopt.search import SpaceExhausted
from bbmmopt.strategies.base import Proposal, Request, Strategy, generator
from bbmmopt.strategies.default import Global
from bbmmopt.strategies.rules import make_acquisition
from bbmmopt.strategies.start import SpaceFilling

__all__ = [
    "ACQUISITIONS",
    "Acquisition",
    "Global",
    "Proposal",
    "Request",
    "SpaceExhausted",
    "SpaceFilling",
    "Strategy",
    "generator",
    "make_acquisition",
]
