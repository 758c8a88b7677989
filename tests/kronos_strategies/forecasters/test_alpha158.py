"""Alpha158 features of windows: what pandas computes, from the past only; tests of Qlib compare its handler."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos.windows import Windows
from kronos_strategies.forecasters.alpha158 import BARS, NAMES, SPANS, alpha158

from .markets import DAYS, panel_of


def table_of(windows: Windows) -> pd.DataFrame:
    return pd.DataFrame(alpha158(windows), index=windows.index, columns=list(NAMES))


def windows_of(panel: dict[str, pd.DataFrame], lookback: int = 90, min_bars: int = 2) -> Windows:
    return Windows.rolling(panel, lookback, 1, "B", min_bars=min_bars)


def test_every_name_is_one_feature() -> None:
    assert len(set(NAMES)) == len(NAMES) == 12 + 29 * len(SPANS)


def test_a_feature_uses_no_later_bar() -> None:
    panel = panel_of()
    early = table_of(windows_of({name: bars.iloc[:120] for name, bars in panel.items()}))
    pd.testing.assert_frame_equal(table_of(windows_of(panel)).loc[early.index], early)


def test_a_window_longer_than_the_features_need_gives_the_same_ones() -> None:
    panel = panel_of(1)
    short = table_of(windows_of(panel, BARS, BARS))
    np.testing.assert_array_equal(table_of(windows_of(panel, 90, BARS)), short)


def test_features_have_no_unit_of_price() -> None:
    panel = panel_of(1)
    dearer = {
        name: bars.assign(**{p: bars[p] * 64 for p in ("open", "high", "low", "close")})
        for name, bars in panel.items()
    }
    pd.testing.assert_frame_equal(
        table_of(windows_of(dearer)), table_of(windows_of(panel)), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("bars", [7, 40, 100])
def test_features_are_what_pandas_computes_from_the_bars_that_there_are(bars: int) -> None:
    own = panel_of(1)["N00"].iloc[:bars].astype(np.float32).astype(float)
    close, volume, last = own["close"], own["volume"], own["close"].iloc[-1]
    found = table_of(windows_of({"N00": own})).iloc[-1]
    for span in SPANS:
        rolling, times = close.rolling(span, min_periods=1), np.arange(min(span, bars))
        recent = close.iloc[-span:]
        slope, start = np.polyfit(times, recent, 1)
        moves = close.diff().iloc[-span:].dropna()
        expected = {
            "MA": rolling.mean().iloc[-1] / last,
            "STD": rolling.std().iloc[-1] / last,
            "QTLU": rolling.quantile(0.8).iloc[-1] / last,
            "QTLD": rolling.quantile(0.2).iloc[-1] / last,
            "RANK": rolling.rank(pct=True).iloc[-1],
            "BETA": slope / last,
            "RSQR": np.corrcoef(times, recent)[0, 1] ** 2,
            "RESI": (last - slope * times[-1] - start) / last,
            "IMAX": (own["high"].iloc[-span:].to_numpy().argmax() + 1) / span,
            "CORR": np.log(volume + 1).iloc[-span:].corr(recent),
            "CNTP": (moves > 0).mean(),
            "SUMP": moves.clip(lower=0).sum() / moves.abs().sum(),
            "VMA": volume.iloc[-span:].mean() / volume.iloc[-1],
            "ROC": close.iloc[-1 - span] / last if bars > span else np.nan,
        }
        for name, value in expected.items():
            assert found[f"{name}{span}"] == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), name


def test_bars_without_volume_have_the_other_features() -> None:
    bars = panel_of(1)["N00"].assign(volume=0.0, amount=0.0)
    row = table_of(windows_of({"N00": bars})).iloc[-1]
    lacking = {name.rstrip("0123456789") for name in row.index[row.isna()]}
    assert lacking == {"CORR", "CORD", "VMA", "VSTD"}


def test_a_price_that_stays_has_no_fit_and_no_infinite_feature() -> None:
    bars = panel_of(1)["N00"]
    still = bars.assign(**dict.fromkeys(("open", "high", "low", "close"), 10.0))
    row = table_of(windows_of({"N00": still})).iloc[-1]
    assert not np.isinf(row).any()
    assert row[[f"RSQR{span}" for span in SPANS]].isna().all()
    assert row["MA60"] == 1.0


def test_the_last_bar_is_that_of_the_index() -> None:
    assert table_of(windows_of(panel_of(2))).index.get_level_values("datetime").max() == DAYS[-1]
