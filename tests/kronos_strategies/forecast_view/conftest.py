"""A forecast of two instruments by small random networks, and the bars that follow."""

from __future__ import annotations

import pandas as pd
import pytest

from kronos.config import SampleConfig
from kronos.forecast import Forecast
from kronos.predictor import KronosPredictor
from tests.kronos.builders import make_model, make_panel, make_tokenizer

H = 5


@pytest.fixture(scope="session")
def panel() -> dict[str, pd.DataFrame]:
    return make_panel(60, "A", "B")


def make_forecast(panel: dict[str, pd.DataFrame]) -> Forecast:
    """A forecast as of the 50th bar, with 19 paths of 5 bars."""
    predictor = KronosPredictor(make_model(), make_tokenizer(), "cpu", max_context=64)
    known = {name: bars.iloc[:50] for name, bars in panel.items()}
    return predictor.forecast(known, SampleConfig(19, T=1.0, seed=2), horizon=H, lookback=30)


@pytest.fixture(scope="session")
def forecast(panel: dict[str, pd.DataFrame]) -> Forecast:
    return make_forecast(panel)


@pytest.fixture(scope="session")
def later(panel: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    return {"A": panel["A"].iloc[50:], "B": panel["B"].iloc[50:53]}
