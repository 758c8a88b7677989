"""A store of random walks of a simulated market, forecast without a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from kronos.bars import CLOSE, FEATURES, adjust_bars
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance
from kronos.windows import Windows
from kronos_strategies.store import WindowSpec
from tests.kronos_strategies.evaluation.walks import PROVENANCE

SPEC = WindowSpec("csi300", lookback=20, horizon=7, min_bars=20)


class RandomWalks:
    """Forecasts random walks from the last closes; the instrument and the date are the seed."""

    sampling = SampleConfig(samples=8)

    def forecast(self, windows: Windows, sampling=None, progress=None, candles="valid") -> Forecast:
        last = windows.last_bar[:, CLOSE].astype(float)
        steps = np.stack(
            [
                np.random.default_rng([date.value // 10**9, int(name[-4:])]).normal(0, 0.02, (8, 7))
                for date, name in windows.index
            ]
        )
        paths = np.ones((*steps.shape, len(FEATURES)), np.float32)
        paths[..., :4] = (last[:, None, None] * np.exp(steps.cumsum(axis=2)))[..., None]
        known = self.provenance(sampling, windows.digest())
        return Forecast(paths, windows.index, windows.future, windows.last_bar, known)

    def provenance(self, sampling: SampleConfig, data_sha256: str) -> Provenance:
        return replace(PROVENANCE, sampling=sampling, data_sha256=data_sha256, weights_sha256="a" * 64)


def windows_of(market) -> Windows:
    bars = adjust_bars(market.bars.set_index(["datetime", "instrument"]).sort_index())
    panel = {name: own.droplevel("instrument") for name, own in bars.groupby(level="instrument")}
    calendar = pd.DatetimeIndex(bars.index.get_level_values("datetime").unique())
    return Windows.rolling(panel, SPEC.lookback, SPEC.horizon, calendar, start="2022-12-01", end="2023-02-28")
