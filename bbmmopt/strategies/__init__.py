"""Strategies: what to try next, given what is known."""

from bbmmopt.acquisition import Acquisition
from bbmmopt.explain import ACQUISITIONS, STRATEGIES
from bbmmopt.search import SpaceExhausted
from bbmmopt.strategies.auto import Chosen, choose_strategy
from bbmmopt.strategies.base import Past, Proposal, Request, Strategy, generator
from bbmmopt.strategies.default import Global
from bbmmopt.strategies.guide import Guide
from bbmmopt.strategies.rules import acquisition_for, make_acquisition, predict_risk
from bbmmopt.strategies.start import SpaceFilling
from bbmmopt.strategies.trust_region import TrustRegion

__all__ = [
    "ACQUISITIONS",
    "STRATEGIES",
    "Acquisition",
    "Chosen",
    "Global",
    "Guide",
    "Past",
    "Proposal",
    "Request",
    "SpaceExhausted",
    "SpaceFilling",
    "Strategy",
    "TrustRegion",
    "choose_strategy",
    "acquisition_for",
    "generator",
    "make_acquisition",
    "predict_risk",
]
