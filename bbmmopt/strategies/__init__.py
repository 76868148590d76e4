"""Strategies: what to try next, given what is known."""

from bbmmopt.strategies.base import Proposal, Request, Strategy, generator
from bbmmopt.strategies.default import ACQUISITIONS, Global, make_acquisition
from bbmmopt.strategies.start import SpaceFilling

__all__ = [
    "ACQUISITIONS",
    "Global",
    "Proposal",
    "Request",
    "SpaceFilling",
    "Strategy",
    "generator",
    "make_acquisition",
]
