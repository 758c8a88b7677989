"""A model's forecasts on data it never saw, beside naive ones. Torch-free, engine-free."""

from kronos_strategies.evaluation.scorecard.card import Scorecard, score_forecasts
from kronos_strategies.evaluation.scorecard.market import Market

__all__ = ["Market", "Scorecard", "score_forecasts"]
