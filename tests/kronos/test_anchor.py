"""Where paths start: at the true last close, though the model continues the tokenizer's reading of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kronos.bars import CLOSE
from kronos.config import SampleConfig
from kronos.forecast import Forecast
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.kronos.builders import make_bars, make_model, make_panel, make_tokenizer

SAMPLING = SampleConfig(samples=4, T=1.0, top_p=1.0)


def small(anchor: str) -> KronosPredictor:
    return KronosPredictor(make_model(), make_tokenizer(), "cpu", max_context=16, anchor=anchor)


@pytest.fixture(scope="module")
def windows() -> Windows:
    """Lookbacks from 3 to 12 bars, some of which outgrow the context within the horizon."""
    panel = make_panel(20, "A", "B", "C")
    panel["B"] = panel["B"].iloc[6:]
    return Windows.rolling(panel, 12, 6, "B", start=panel["A"].index[8], min_bars=3)


@pytest.fixture(scope="module")
def raw(windows: Windows) -> Forecast:
    return small("decoded_close").forecast(windows, SAMPLING)


@pytest.fixture(scope="module")
def anchored(windows: Windows) -> Forecast:
    return small("last_close").forecast(windows, SAMPLING)


@torch.no_grad()
def test_the_decoded_close_is_what_the_tokenizer_makes_of_the_last_bar(
    windows: Windows, raw: Forecast
) -> None:
    tokenizer, scale = make_tokenizer(), windows.scale()
    normalized = scale.apply(windows.values, 5)
    for i, length in enumerate(windows.lengths):
        seen = tokenizer.encode(torch.from_numpy(normalized[i : i + 1, :length]))
        kept = type(seen)(
            *(half[:, -(16 - 6) :] for half in seen)
        )  # six sampled bars share the context of 16
        close = (
            tokenizer.decode(kept)[0, -1, CLOSE].item() * scale.width[i, 0, CLOSE] + scale.mean[i, 0, CLOSE]
        )
        assert raw.decoded_close[i] == pytest.approx(close, rel=1e-4)


def test_anchored_paths_are_the_raw_ones_scaled_to_the_true_last_close(
    windows: Windows, raw: Forecast, anchored: Forecast
) -> None:
    np.testing.assert_array_equal(anchored.decoded_close, raw.decoded_close)
    ratio = windows.last_bar[:, CLOSE] / raw.decoded_close
    assert (ratio < 2).all()
    assert (ratio > 0).all()
    assert np.abs(np.log(ratio)).max() > 0.01
    scaled = raw.paths[..., :4] * ratio[:, None, None, None]
    np.testing.assert_allclose(anchored.paths[..., :4], scaled, rtol=1e-6)
    np.testing.assert_array_equal(anchored.paths[..., 4:], raw.paths[..., 4:])


def test_a_forecast_says_where_its_paths_start(raw: Forecast, anchored: Forecast) -> None:
    assert (raw.provenance.anchor, anchored.provenance.anchor) == ("decoded_close", "last_close")


def test_paths_start_at_the_true_close_by_default() -> None:
    assert KronosPredictor(make_model(), make_tokenizer(), "cpu").anchor == "last_close"


def test_upstreams_predict_is_not_anchored() -> None:
    bars = make_bars(20)
    x, y = bars.index[:14], bars.index[14:]
    raw, anchored = (
        small(anchor).predict(bars[:14], x, y, len(y), sample_count=2, seed=0, verbose=False)
        for anchor in ("decoded_close", "last_close")
    )
    np.testing.assert_array_equal(raw.to_numpy(), anchored.to_numpy())


# A market without effect: 80 independent random walks, read by the bundled checkpoint


@pytest.fixture(scope="module")
def market() -> Windows:
    panel = {f"N{i:02d}": make_bars(100, seed=i) for i in range(80)}
    return Windows.rolling(panel, 90, 1, "B", start=make_bars(100).index[-4])


@pytest.fixture(scope="module")
def forecasts(market: Windows) -> dict[str, Forecast]:
    """Forecasts by anchor, 320 windows of 16 paths."""
    return {
        anchor: KronosPredictor.from_pretrained(device="cpu", anchor=anchor).forecast(
            market, SampleConfig(samples=16, T=1.0, top_p=1.0)
        )
        for anchor in ("decoded_close", "last_close")
    }


def expected_return(forecast: Forecast) -> np.ndarray:
    """(N,) mean log return over one bar, as a user measures it: from the true last close."""
    closes = forecast.path("close")[:, :, 0].astype(float)
    return np.log(closes / forecast.last_bar[:, None, CLOSE]).mean(axis=1)


def test_expected_returns_exclude_the_quantization_error_of_the_last_close(
    forecasts: dict[str, Forecast],
) -> None:
    rounding = np.log(
        forecasts["last_close"].decoded_close / forecasts["last_close"].last_bar[:, CLOSE].astype(float)
    )
    raw, corrected = (
        np.corrcoef(expected_return(forecasts[anchor]), rounding)[0, 1]
        for anchor in ("decoded_close", "last_close")
    )
    assert raw > 0.3
    # Of 320 independent pairs, a correlation of nothing has a deviation of .056.
    assert abs(corrected) < 3 * 0.056


def test_a_fake_reversal_of_todays_return_shrinks(
    market: Windows, forecasts: dict[str, Forecast], record_property: pytest.RecordProperty
) -> None:
    closes = market.values[:, -2:, CLOSE].astype(float)
    today = np.log(closes[:, 1] / closes[:, 0])
    raw, corrected = (
        float(np.corrcoef(expected_return(forecasts[anchor]), today)[0, 1])
        for anchor in ("decoded_close", "last_close")
    )
    record_property("correlation with today's return, raw", round(raw, 3))
    record_property("correlation with today's return, corrected", round(corrected, 3))
    assert abs(corrected) < abs(raw)
