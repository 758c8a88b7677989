"""A model's forecasts on data it never saw, beside naive ones. Torch-free, engine-free."""

from kronos_strategies.evaluation.scorecard.card import LEVELS, Scorecard, score_forecasts, score_summaries
from kronos_strategies.evaluation.scorecard.market import Market
from kronos_strategies.evaluation.scorecard.paths import summarise_paths

__all__ = ["LEVELS", "Market", "Scorecard", "score_forecasts", "score_summaries", "summarise_paths"]
