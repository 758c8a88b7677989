"""The paths are summarized in one row per window, which is read back from disk unchanged."""

import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kronos.calibration import Calibration, CalibrationFit, PathAdjustment
from kronos.paths import POOL
from kronos.postprocessing import Postprocessing
from kronos_strategies.evaluation.distribution.metrics import qlike
from kronos_strategies.evaluation.distribution.path_summary import (
    FAN_DATES,
    FAN_HISTORY,
    FAN_INSTRUMENTS,
    FAN_LEVELS,
    LEVELS,
    FanChartData,
    PathSummary,
    scores_by_num_paths,
    summarize_forecasts,
)
from kronos_strategies.evaluation.distribution.scores import evaluations_by_horizon, score_distributions
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.signal import signals
from tests.kronos_strategies.evaluation.walks import (
    AT,
    DAYS,
    HORIZONS,
    PROVENANCE,
    forecast,
    market_of,
    tidy_bars,
    walks,
)
from tests.kronos_strategies.evaluation.walks import NAMES as ALL


@pytest.fixture(scope="module")
def market() -> PricePanel:
    return market_of(tidy_bars())


@pytest.fixture(scope="module")
def kept(market) -> PathSummary:
    return summarize_forecasts(walks(market), market, HORIZONS, hold=2)[0]


def test_the_score_of_all_paths_is_the_signals(market, kept):
    whole = pd.concat([signals(each, hold=2)["score"] for each in walks(market)])
    np.testing.assert_allclose(
        kept.score_by_num_paths[40], whole.loc[kept.score_by_num_paths.index], rtol=1e-12
    )
    assert list(kept.score_by_num_paths) == [1, 2, 4, 8, 16, 32, 40]


def test_the_score_of_k_paths_uses_the_first_k_only(market):
    one = next(iter(walks(market)))
    few = type(one)(one.paths[:, :4], one.index, one.timestamps, one.last_bar, one.provenance)
    np.testing.assert_allclose(scores_by_num_paths(one, 1)[4], scores_by_num_paths(few, 1)[4], rtol=1e-12)
    assert list(scores_by_num_paths(few, 1)) == [1, 2, 4]


def test_losses_are_the_rows_that_the_means_are_of(market, kept):
    losses = kept.losses(market)
    assert list(losses) == [f"{loss}_h{h}" for h in HORIZONS for loss in ("crps", "qlike")]
    for rows in evaluations_by_horizon(kept.summary, market):
        for score in score_distributions(rows, LEVELS)[:1]:
            mean = losses[f"crps_h{score.horizon}"].groupby("datetime").mean().mean()
            assert mean == pytest.approx(score.crps.mean, rel=1e-9)
    date, name = losses.index[17]
    realized = market.variance(5)["close-to-close"].loc[date, name]
    assert losses.loc[(date, name), "qlike_h5"] == pytest.approx(
        float(qlike(np.array(realized), np.array(kept.summary.loc[(date, name), (5, "variance")])))
    )


def test_a_summary_is_read_back_from_disk_unchanged(kept, tmp_path):
    kept.write(tmp_path)
    read = PathSummary.read(tmp_path)
    for name in ("summary", "score_by_num_paths", "fan_charts"):
        pd.testing.assert_frame_equal(
            getattr(read, name), getattr(kept, name), check_column_type=False, check_freq=False
        )


def test_paths_of_one_date_are_freed_before_the_next(market):
    seen: list[weakref.ref] = []

    def watched():
        for at in AT[:5]:
            (made,) = walks(market, [at])
            assert sum(paths() is not None for paths in seen) <= 1
            seen.append(weakref.ref(made.paths))
            yield made
            del made

    summarize_forecasts(watched(), market, (1,), hold=1)
    assert len(seen) == 5


def test_a_summary_of_no_forecast_is_refused(market):
    with pytest.raises(ValueError, match="no forecasts"):
        summarize_forecasts([], market, (1,), hold=1)


# What was done to the paths before they were read


def narrow(market: PricePanel):
    """Walks of half the true deviation, with an invalid candle on every other path."""
    for each in walks(market):
        last = each.last_bar[:, None, None, 3:4]
        paths = np.ones_like(each.paths)
        paths[..., :4] = last * np.sqrt(each.paths[..., :4] / last)
        paths[:, ::2, :, 1] *= 0.99  # the high
        known = replace(each.provenance, weights_sha256="d" * 64)
        yield replace(each, paths=paths, provenance=known)


@pytest.fixture(scope="module")
def doubled() -> Postprocessing:
    row = (1.0,) * 6
    moves = PathAdjustment(row, tuple(np.log(2) * np.array(row)), (0.0,) * 6)
    fit = CalibrationFit("2023-01-31", "2022-01-03", 99, 99, {POOL: moves}, (), {}, {})
    s = PROVENANCE.sampling
    sampling = (s.T, s.top_p, s.top_k, 40)
    made = Calibration("t", "d" * 64, *sampling, PROVENANCE.anchor, 6, 86400.0, "walks", 20, "none", (fit,))
    return Postprocessing(made)


def test_a_summary_has_calibrated_paths_and_those_as_sampled(market, doubled, tmp_path):
    raw, _ = summarize_forecasts(narrow(market), market, HORIZONS, hold=2)
    kept, known = summarize_forecasts(narrow(market), market, HORIZONS, hold=2, post=doubled)
    pd.testing.assert_frame_equal(kept.uncalibrated, raw.summary)
    assert raw.uncalibrated is None
    assert (known.calibration, known.candles) == (doubled.calibration.id, "valid")
    for h in HORIZONS:
        assert kept.uncalibrated[h, "covered_90"].mean() < 0.7
        assert kept.summary[h, "covered_90"].mean() == pytest.approx(0.9, abs=0.03)
        assert kept.summary[h, "crps"].mean() < kept.uncalibrated[h, "crps"].mean()
    kept.write(tmp_path)
    back = PathSummary.read(tmp_path)
    pd.testing.assert_frame_equal(back.uncalibrated, kept.uncalibrated)
    pd.testing.assert_frame_equal(back.checks, kept.checks)


def test_invalid_sampled_bars_are_counted_before_their_repair(market, doubled):
    kept, _ = summarize_forecasts(narrow(market), market, HORIZONS, hold=2, post=doubled)
    checks = kept.checks["value"]
    assert checks["outside"] == checks["paths_outside"] == 0.5
    assert checks["crossed"] == 0.5  # open, low and close of these paths are equal
    assert checks["negative_volume"] == 0
    opens = [each.path("open")[:, :, 0] / each.last_bar[:, None, 3] for each in narrow(market)]
    assert checks["gap_sampled"] == pytest.approx(np.abs(np.log(np.concatenate(opens))).mean(), rel=1e-5)
    gaps = np.log(market.opens.shift(-1) / market.closes).iloc[list(AT)].abs()
    assert checks["gap_realized"] == pytest.approx(gaps.to_numpy().mean(), rel=1e-9)


def fans_of(forecasts, market: PricePanel) -> pd.DataFrame:
    fans = FanChartData(market)
    for each in forecasts:
        fans.update(each)
    return fans.frame()


@pytest.fixture(scope="module")
def frame(market) -> pd.DataFrame:
    return fans_of(walks(market), market)


def test_a_few_instruments_and_dates_are_kept_and_the_last_date_is_one_of_them(frame):
    assert frame["instrument"].nunique() == FAN_INSTRUMENTS
    assert FAN_DATES <= frame["datetime"].nunique() <= 2 * FAN_DATES
    assert frame["datetime"].max() == DAYS[AT[-1]]


def test_chosen_dates_are_evenly_spaced_for_any_number_of_dates(market):
    for count in (1, 5, 12, 13, 60):
        at = list(AT[:count])
        kept = fans_of(walks(market, at), market)["datetime"].unique()
        assert len(kept) <= 2 * FAN_DATES
        steps = np.diff(DAYS.get_indexer(pd.DatetimeIndex(kept)))[
            :-1
        ]  # up to the last, which is always there
        assert len(set(steps)) <= 1
        assert len(kept) >= min(count, FAN_DATES)


def test_bars_seen_end_with_step_0_and_have_no_band(frame, market):
    date, name = frame.loc[0, ["datetime", "instrument"]]
    fan = frame[(frame["datetime"] == date) & (frame["instrument"] == name)].set_index("step")
    assert list(fan.index) == list(range(1 - min(FAN_HISTORY, AT[0] + 1), 7))
    assert fan.loc[0, "timestamp"] == date
    assert fan.loc[:0, list(FAN_LEVELS)].isna().all().all()
    assert fan.loc[1:, list(FAN_LEVELS)].notna().all().all()
    np.testing.assert_allclose(fan["close"], market.closes[name].reindex(fan["timestamp"]))


def test_bands_are_quantiles_of_the_sampled_closes(frame, market):
    date, name = frame.loc[0, ["datetime", "instrument"]]
    at = int(DAYS.get_loc(date))
    made = next(iter(walks(market, [at])))
    closes = made.path("close")[ALL.index(name)]
    fan = frame[(frame["datetime"] == date) & (frame["instrument"] == name) & (frame["step"] > 0)]
    for column, level in FAN_LEVELS.items():
        np.testing.assert_allclose(
            fan[column], np.quantile(closes, level, axis=0, method="weibull"), rtol=1e-6
        )


def test_the_most_traded_instruments_before_the_first_forecast_are_chosen(market):
    traded = market.amounts.copy()
    traded.loc[: DAYS[AT[0]], ALL[7 : 7 + FAN_INSTRUMENTS]] *= 1000
    traded.loc[DAYS[AT[0] + 1] :, ALL[:FAN_INSTRUMENTS]] *= 1_000_000  # not known on the date
    other = PricePanel(market.opens, market.closes, traded, market.range_variance)
    assert sorted(fans_of(walks(market), other)["instrument"].unique()) == sorted(
        ALL[7 : 7 + FAN_INSTRUMENTS]
    )


def test_closes_after_the_last_bar_are_missing(market):
    last = len(DAYS) - 3
    ahead = np.zeros((len(ALL), 4, 2))
    near = fans_of([forecast(last, market.closes.iloc[last].to_numpy(), ahead)], market)
    assert near.loc[near["step"] > 0, "close"].notna().all()
    early = PricePanel(
        *(getattr(market, name).iloc[: last + 1] for name in ("opens", "closes", "amounts", "range_variance"))
    )
    near = fans_of([forecast(last, market.closes.iloc[last].to_numpy(), ahead)], early)
    assert near.loc[near["step"] > 0, "close"].isna().all()
    assert near.loc[near["step"] <= 0, "close"].notna().all()


def test_without_forecasts_there_is_no_fan_chart(market):
    assert FanChartData(market).frame().empty
