from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.heads.sources import bar_features
from kronos_strategies.lookahead import check_causal

from .markets import DAYS, keys_of, panel_of


def test_there_are_fifteen_features_without_missing_values_after_the_longest_span() -> None:
    panel = panel_of(3)
    found = bar_features(panel, keys_of(panel, first=61))
    assert found.shape == (3 * (len(DAYS) - 61), 15)
    assert np.isfinite(found.to_numpy()).all()
    close = panel["N01"].close
    row = found.loc[(DAYS[80], "N01")]
    assert row["return_5"] == pytest.approx(np.log(close.iloc[80] / close.iloc[75]))
    assert row["volatility_20"] == pytest.approx(np.log(close).diff().iloc[61:81].std())


def test_no_feature_uses_a_later_bar() -> None:
    panel = panel_of(3)
    parts = [bars.reset_index().assign(instrument=name) for name, bars in panel.items()]

    def run(bars: pd.DataFrame) -> pd.DataFrame:
        own = {str(name): each.set_index("datetime") for name, each in bars.groupby("instrument")}
        keys = pd.MultiIndex.from_frame(bars[["datetime", "instrument"]]).sort_values()
        return bar_features(own, keys)

    check_causal(run, pd.concat(parts, ignore_index=True), [DAYS[70], DAYS[120]], rtol=1e-9)
