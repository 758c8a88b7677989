"""Fan charts show history, sampled bands and outcomes, of instruments and dates chosen without later bars."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.distribution.fan_chart import (
    DATES,
    FAN_LEVELS,
    HISTORY,
    INSTRUMENTS,
    FanChartData,
)
from kronos_strategies.evaluation.panel import PricePanel
from tests.kronos_strategies.evaluation.walks import AT, DAYS, forecast, market_of, tidy_bars, walks
from tests.kronos_strategies.evaluation.walks import NAMES as ALL


@pytest.fixture(scope="module")
def market() -> PricePanel:
    return market_of(tidy_bars())


def fans_of(forecasts, market: PricePanel) -> pd.DataFrame:
    fans = FanChartData(market)
    for each in forecasts:
        fans.update(each)
    return fans.frame()


@pytest.fixture(scope="module")
def frame(market) -> pd.DataFrame:
    return fans_of(walks(market), market)


def test_a_few_instruments_and_dates_are_kept_and_the_last_date_is_one_of_them(frame):
    assert frame["instrument"].nunique() == INSTRUMENTS
    assert DATES <= frame["datetime"].nunique() <= 2 * DATES
    assert frame["datetime"].max() == DAYS[AT[-1]]


def test_dates_lie_evenly_however_many_there_are(market):
    for count in (1, 5, 12, 13, 60):
        at = list(AT[:count])
        kept = fans_of(walks(market, at), market)["datetime"].unique()
        assert len(kept) <= 2 * DATES
        steps = np.diff(DAYS.get_indexer(pd.DatetimeIndex(kept)))[
            :-1
        ]  # up to the last, which is always there
        assert len(set(steps)) <= 1
        assert len(kept) >= min(count, DATES)


def test_bars_seen_end_with_step_0_and_have_no_band(frame, market):
    date, name = frame.loc[0, ["datetime", "instrument"]]
    fan = frame[(frame["datetime"] == date) & (frame["instrument"] == name)].set_index("step")
    assert list(fan.index) == list(range(1 - min(HISTORY, AT[0] + 1), 7))
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
    traded.loc[: DAYS[AT[0]], ALL[7 : 7 + INSTRUMENTS]] *= 1000
    traded.loc[DAYS[AT[0] + 1] :, ALL[:INSTRUMENTS]] *= 1_000_000  # nobody knows of these yet
    other = PricePanel(market.opens, market.closes, traded, market.range_variance)
    assert sorted(fans_of(walks(market), other)["instrument"].unique()) == sorted(ALL[7 : 7 + INSTRUMENTS])


def test_what_has_not_come_yet_is_missing(market):
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


def test_no_forecast_has_no_fan(market):
    assert FanChartData(market).frame().empty
