"""Strategies: what to try next, given what is known."""

from bbmmopt.acquisition import Acquisition
from bbmmopt.explain import ACQUISITIONS, STRATEGIES
from bbmmopt.search import Budget, SpaceExhausted
from bbmmopt.strategies.asking import Asking
from bbmmopt.strategies.auto import Chosen, choose_strategy
from bbmmopt.strategies.base import Past, Proposal, Request, Strategy, generator
from bbmmopt.strategies.default import Global
from bbmmopt.strategies.guide import Guide
from bbmmopt.strategies.joint import propose_together
from bbmmopt.strategies.portfolio import Portfolio
from bbmmopt.strategies.remaining import remaining_improvement
from bbmmopt.strategies.risk import predict_risk
from bbmmopt.strategies.rules import acquisition_for, choose, make_acquisition
from bbmmopt.strategies.start import SpaceFilling
from bbmmopt.strategies.told import Told
from bbmmopt.strategies.trust_region import TrustRegion

__all__ = [
    "ACQUISITIONS",
    "STRATEGIES",
    "Acquisition",
    "Asking",
    "Budget",
    "Chosen",
    "Global",
    "Guide",
    "Past",
    "Portfolio",
    "Proposal",
    "Request",
    "SpaceExhausted",
    "SpaceFilling",
    "Strategy",
    "Told",
    "TrustRegion",
    "choose",
    "choose_strategy",
    "acquisition_for",
    "generator",
    "make_acquisition",
    "predict_risk",
    "propose_together",
    "remaining_improvement",
]
