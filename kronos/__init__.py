"""Kronos: candlesticks as a language. bars -> windows -> tokens -> sampled paths -> forecast.

Names load on first use, so that `import kronos` costs nothing and needs no torch until a network is touched.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kronos.bars import FEATURES, adjust_bars, check_bars, repair_bars
    from kronos.candles import PriceLimits
    from kronos.config import ModelConfig, SampleConfig, TokenizerConfig
    from kronos.forecast import Forecast, Provenance
    from kronos.head import ReturnHead
    from kronos.jumps import BarsWarning
    from kronos.model import Kronos
    from kronos.predictor import KronosPredictor
    from kronos.tokenizer import KronosTokenizer
    from kronos.windows import Windows

_HOMES = {
    "BarsWarning": "kronos.jumps",
    "FEATURES": "kronos.bars",
    "Forecast": "kronos.forecast",
    "Kronos": "kronos.model",
    "KronosPredictor": "kronos.predictor",
    "KronosTokenizer": "kronos.tokenizer",
    "ModelConfig": "kronos.config",
    "PriceLimits": "kronos.candles",
    "Provenance": "kronos.forecast",
    "ReturnHead": "kronos.head",
    "SampleConfig": "kronos.config",
    "TokenizerConfig": "kronos.config",
    "Windows": "kronos.windows",
    "adjust_bars": "kronos.bars",
    "check_bars": "kronos.bars",
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
    "check_bars",
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
