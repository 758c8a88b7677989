"""Quantile models find what was planted, learn from no later bar, and are text files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("lightgbm")

from kronos.config import SampleConfig
from kronos.windows import Windows
from kronos_strategies.forecasters import load_forecaster
from kronos_strategies.forecasters.fit_quantiles import QuantileFit, fit_quantiles, pinball_loss
from kronos_strategies.forecasters.lightgbm_quantiles import LightGBMQuantiles, unit_of_returns
from kronos_strategies.lookahead import check_causal, randomize_future
from kronos_strategies.signal import signals

from .markets import DAYS, panel_from, panel_of, tidy

SETTINGS = QuantileFit(DAYS[120], DAYS[165], steps=(1, 3), levels=(0.1, 0.5, 0.9), rounds=60)
SAMPLING = SampleConfig(samples=16)


def windows_of(panel: dict[str, pd.DataFrame], horizon: int = 1, **options: object) -> Windows:
    return Windows.rolling(panel, 61, horizon, "B", **options)


def fitted(panel: dict[str, pd.DataFrame], settings: QuantileFit = SETTINGS) -> LightGBMQuantiles:
    windows = windows_of(panel, end=settings.valid_until)
    return fit_quantiles(windows, panel, settings, lookback=61, markets=("made",))


def reversing() -> dict[str, pd.DataFrame]:
    """A market that gives back half of each day's return on the next."""
    random, panel = np.random.default_rng(5), {}
    for name, bars in panel_of(30).items():
        steps = random.normal(0, 0.02, len(bars))
        for i in range(1, len(steps)):
            steps[i] -= 0.5 * steps[i - 1]
        close = 50 * np.exp(np.cumsum(steps))
        panel[name] = bars.assign(
            open=close, high=close * 1.001, low=close * 0.999, close=close, amount=bars["volume"] * close
        )
    return panel


@pytest.fixture(scope="module")
def market() -> dict[str, pd.DataFrame]:
    return reversing()


@pytest.fixture(scope="module")
def model(market: dict[str, pd.DataFrame]) -> LightGBMQuantiles:
    return fitted(market)


@pytest.fixture
def folder(model: LightGBMQuantiles, tmp_path: Path) -> Path:
    return model.save(tmp_path / "quantiles")


def test_a_planted_effect_is_found_on_later_dates(market, model: LightGBMQuantiles) -> None:
    windows = windows_of(market, start=DAYS[170], end=DAYS[198])
    dates = pd.DatetimeIndex(windows.index.get_level_values("datetime"))
    forecast = model.forecast(windows, SAMPLING).log_returns()[..., 0].mean(axis=1)
    names = windows.index.get_level_values("instrument")
    followed = [
        float(
            np.log(market[name]["close"].iloc[(i := DAYS.get_loc(date)) + 1] / market[name]["close"].iloc[i])
        )
        for date, name in zip(dates, names, strict=True)
    ]
    assert np.corrcoef(forecast, followed)[0, 1] > 0.3


def test_the_validation_compares_with_constant_quantiles(model: LightGBMQuantiles) -> None:
    losses = model.info.pinball
    assert losses is not None
    assert losses["1"]["model"] < 0.95 * losses["1"]["constant"]


def test_quantiles_hold_as_many_returns_as_their_level_says(market, model: LightGBMQuantiles) -> None:
    windows = windows_of(market, start=DAYS[170], end=DAYS[198])
    quantiles = model.quantiles(windows)[:, 0]
    dates, names = (windows.index.get_level_values(level) for level in ("datetime", "instrument"))
    returns = {name: np.log(bars["close"]).diff().shift(-1) for name, bars in market.items()}
    followed = np.array([returns[name][date] for date, name in zip(dates, names, strict=True)])
    share = (followed[:, None] < quantiles).mean(axis=0)
    np.testing.assert_allclose(share, SETTINGS.levels, atol=0.07)


@pytest.mark.filterwarnings("ignore::kronos.bars.BarsWarning")  # of the randomized future
def test_no_later_bar_changes_a_forecast(market, model: LightGBMQuantiles) -> None:
    few = {name: market[name] for name in list(market)[:3]}

    def run(bars: pd.DataFrame) -> pd.DataFrame:
        windows = windows_of(panel_from(bars), horizon=3, start=DAYS[180], every=5)
        return signals(model.forecast(windows, SAMPLING), hold=2)

    check_causal(run, tidy(few), [DAYS[185], DAYS[190]])


def later_bars_randomized(panel: dict[str, pd.DataFrame], time: pd.Timestamp) -> dict[str, pd.DataFrame]:
    return panel_from(randomize_future(tidy(panel), time))


@pytest.mark.filterwarnings("ignore::kronos.bars.BarsWarning")
def test_no_bar_after_the_validation_changes_the_models(market, model: LightGBMQuantiles) -> None:
    assert fitted(later_bars_randomized(market, SETTINGS.valid_until)).trees == model.trees


@pytest.mark.filterwarnings("ignore::kronos.bars.BarsWarning")
def test_no_label_of_training_extends_past_its_end(market) -> None:
    # With one round, validation cannot choose the number of trees: they depend on training alone.
    once = replace(SETTINGS, rounds=1)
    assert fitted(later_bars_randomized(market, once.train_until), once).trees == fitted(market, once).trees


def test_saved_models_forecast_the_same_and_state_their_training_span(
    market, model: LightGBMQuantiles, folder: Path
) -> None:
    loaded = load_forecaster(f"lightgbm-quantiles:{folder}")
    windows = windows_of(market, horizon=3, start=DAYS[190])
    ours, theirs = (each.forecast(windows, SAMPLING) for each in (model, loaded))
    np.testing.assert_array_equal(ours.paths, theirs.paths)
    assert theirs.provenance.trained_until == f"{SETTINGS.valid_until:%Y-%m-%d}"
    assert theirs.provenance.weights_sha256 == model.weights_sha256
    assert {file.suffix for file in folder.iterdir()} == {".txt", ".json"}


def test_a_window_does_not_depend_on_the_others_of_a_call(market, model: LightGBMQuantiles) -> None:
    windows = windows_of(market, horizon=3, start=DAYS[198])
    whole = model.forecast(windows, SAMPLING).paths
    alone = [model.forecast(windows[i : i + 1], SAMPLING).paths for i in range(5)]
    np.testing.assert_array_equal(np.concatenate(alone), whole[:5])


def test_steps_between_two_fitted_ones_are_interpolated_in_units_of_volatility(
    market, model: LightGBMQuantiles
) -> None:
    windows = windows_of(market, horizon=3, start=DAYS[198])
    first, second, third = np.moveaxis(
        model.quantiles(windows) / unit_of_returns(windows, 3)[..., None], 1, 0
    )
    np.testing.assert_allclose(second, (first + third) / 2)


def test_a_horizon_beyond_the_fitted_steps_is_refused(market, model: LightGBMQuantiles) -> None:
    with pytest.raises(ValueError, match=r"horizon=4 is longer than the 3 bars.*--steps"):
        model.forecast(windows_of(market, horizon=4, start=DAYS[198]), SAMPLING)


def test_models_fitted_again_replace_the_earlier_ones(market, folder: Path) -> None:
    fitted(market, replace(SETTINGS, steps=(2,), rounds=1)).save(folder)
    assert sorted(file.name for file in folder.glob("*.txt")) == [
        f"quantile-2-{level}.txt" for level in SETTINGS.levels
    ]


def test_a_folder_without_models_says_how_to_fit_some(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no quantiles\.json.*kronos train quantiles"):
        load_forecaster(f"lightgbm-quantiles:{tmp_path}")


def test_a_folder_that_lacks_a_model_is_refused(folder: Path) -> None:
    (folder / "quantile-3-0.5.txt").unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of its models, the first quantile-3-0\.5\.txt"):
        load_forecaster(f"lightgbm-quantiles:{folder}")


def test_a_file_that_is_not_a_model_is_refused(folder: Path) -> None:
    (folder / "quantile-3-0.5.txt").write_text("tree\nno model\n")
    with pytest.raises(ValueError, match=r"step 3 and level 0\.5 is not a text of LightGBM"):
        load_forecaster(f"lightgbm-quantiles:{folder}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, "other features"),
        ({"features": ["KMID"]}, "other features"),
        ({"steps": [3, 1]}, r"steps=\[3, 1\] are not valid"),
        ({"levels": [0.5]}, r"levels=\[0.5\] are not valid"),
        ({"unknown": 1}, r"unknown keys \['unknown'\]"),
    ],
)
def test_a_description_of_other_models_is_refused(
    folder: Path, change: dict[str, object], message: str
) -> None:
    file = folder / "quantiles.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        load_forecaster(f"lightgbm-quantiles:{folder}")


def test_too_few_labels_are_refused_with_their_number(market) -> None:
    few = {name: market[name] for name in list(market)[:3]}
    with pytest.raises(ValueError, match=r"Training until .* has 1\d\d windows .*fewer than the 500"):
        fitted(few)


def test_a_validation_within_the_embargo_is_refused(market) -> None:
    with pytest.raises(ValueError, match=r"validation begins 4 bars later"):
        fitted(market, replace(SETTINGS, valid_until=DAYS[123]))


def test_the_pinball_loss_is_least_at_the_quantile() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    losses = [pinball_loss(values, quantile, 0.9) for quantile in (1.0, np.quantile(values, 0.9), 1.6)]
    assert losses[1] == min(losses)
