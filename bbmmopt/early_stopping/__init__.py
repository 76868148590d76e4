"""Rules that say when a trial under way is not worth going on with. Imports no torch."""

from bbmmopt.early_stopping.base import Curves, StoppingRule
from bbmmopt.early_stopping.forecast import Forecast, forecast
from bbmmopt.early_stopping.halving import Hyperband, SuccessiveHalving
from bbmmopt.early_stopping.named import RULES, checked_rule, rule_from_json
from bbmmopt.early_stopping.percentile import MedianStop, PercentileStop

__all__ = [
    "Curves",
    "Forecast",
    "Hyperband",
    "MedianStop",
    "PercentileStop",
    "RULES",
    "StoppingRule",
    "SuccessiveHalving",
    "checked_rule",
    "forecast",
    "rule_from_json",
]
