"""A panel of prices knows the returns that follow a date, and what was known on it."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.distribution.volatility import realized_variance
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.lookahead import randomize_future
from tests.kronos_strategies.evaluation.walks import AT, DAYS, NAMES, market_of, tidy_bars


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return tidy_bars()


@pytest.fixture(scope="module")
def market(bars) -> PricePanel:
    return market_of(bars)


@pytest.mark.parametrize("ahead", [1, 6])
def test_an_instrument_without_a_trade_on_both_ends_has_no_label(bars, market, ahead):
    at = AT[3]
    halted = bars[(bars["datetime"] != DAYS[at + ahead]) | (bars["instrument"] != NAMES[7])]
    found = market_of(halted).forward_return(5)
    assert np.isnan(found.loc[DAYS[at], NAMES[7]])
    assert np.isnan(found.to_numpy()[at]).sum() == 1
    assert (
        market_of(halted).historical_volatility.loc[DAYS[at + ahead]].notna().all()
    )  # the last known close stands in


def test_a_suspension_in_between_leaves_the_label_and_counts_its_move_once(bars, market):
    halted = bars[(bars["datetime"] != DAYS[50]) | (bars["instrument"] != "N07")]
    found = market_of(halted)
    for wide in (PricePanel.forward_return, PricePanel.log_return):
        assert wide(found, 5).loc[DAYS[47], "N07"] == wide(market, 5).loc[DAYS[47], "N07"]
    by_closes = found.variance(5)["close-to-close"].loc[DAYS[47], "N07"]
    assert by_closes == realized_variance(found.closes, 5).loc[DAYS[47], "N07"]
    assert np.isfinite(found.variance(5)["range-based"].loc[DAYS[47], "N07"])


def test_what_was_known_on_a_date_stays_when_all_that_follows_is_scrambled(bars, market):
    end = AT[10]
    other = market_of(randomize_future(bars, DAYS[end]))
    pd.testing.assert_frame_equal(
        market.historical_volatility.iloc[: end + 1], other.historical_volatility.iloc[: end + 1]
    )
    pd.testing.assert_frame_equal(market.ewma.iloc[: end + 1], other.ewma.iloc[: end + 1])
