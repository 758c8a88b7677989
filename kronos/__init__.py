"""Kronos, a foundation model for OHLCV bars: bars -> windows -> tokens -> sampled paths -> forecast.

Names load on first use, so that `import kronos` is fast and loads torch only when a network is needed.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kronos.bars import FEATURES, BarsWarning, adjust_bars, bars_from_closes, check_bars, repair_bars
    from kronos.config import ModelConfig, SampleConfig, TokenizerConfig
    from kronos.forecast import Forecast, Provenance
    from kronos.future import future_timestamps
    from kronos.head import ReturnHead
    from kronos.model import Kronos
    from kronos.paths import PriceLimits
    from kronos.predictor import KronosPredictor
    from kronos.tokenizer import KronosTokenizer
    from kronos.windows import Windows

_HOMES = {
    "BarsWarning": "kronos.bars",
    "FEATURES": "kronos.bars",
    "Forecast": "kronos.forecast",
    "Kronos": "kronos.model",
    "KronosPredictor": "kronos.predictor",
    "KronosTokenizer": "kronos.tokenizer",
    "ModelConfig": "kronos.config",
    "PriceLimits": "kronos.paths",
    "Provenance": "kronos.forecast",
    "ReturnHead": "kronos.head",
    "SampleConfig": "kronos.config",
    "TokenizerConfig": "kronos.config",
    "Windows": "kronos.windows",
    "adjust_bars": "kronos.bars",
    "bars_from_closes": "kronos.bars",
    "check_bars": "kronos.bars",
    "future_timestamps": "kronos.future",
    "repair_bars": "kronos.bars",
}

__all__ = [
    "FEATURES",
    "BarsWarning",
    "Forecast",
    "Kronos",
    "KronosPredictor",
    "KronosTokenizer",
    "ModelConfig",
    "PriceLimits",
    "Provenance",
    "ReturnHead",
    "SampleConfig",
    "TokenizerConfig",
    "Windows",
    "adjust_bars",
    "bars_from_closes",
    "check_bars",
    "future_timestamps",
    "repair_bars",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        return version("kronos-strategies")
    raise AttributeError(
        f"module 'kronos' has no attribute '{name}'; it has {__all__}, and upstream's calls are in kronos.compat"
    )


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
