"""The bundled checkpoint on the real Backtrader; calls of the model are counted, and then really made."""

from __future__ import annotations

import pytest

pytest.importorskip("backtrader")

import pandas as pd

from kronos.predictor import KronosPredictor
from kronos.windows import Windows


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Windows]:
    """The windows of each call of the model since the test began."""
    calls: list[Windows] = []
    honest = KronosPredictor.forecast

    def forecast(self, windows, sampling=None, progress=None, candles="valid"):
        calls.append(windows)
        return honest(self, windows, sampling, progress, candles)

    monkeypatch.setattr(KronosPredictor, "forecast", forecast)
    return calls


def dates(windows: Windows) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(windows.index.get_level_values("datetime"))
