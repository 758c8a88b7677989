import numpy as np
import pandas as pd
import pytest
from qlib.data import D

from kronos_strategies.causal import check_causal
from kronos_strategies.evaluation.baselines import BASELINES
from kronos_strategies.qlib.market import equal_weight, naive_scores, traded_bars

from .conftest import store_of, use_store

SPAN = ("2023-05-03", "2023-05-12")


def members() -> pd.MultiIndex:
    frame = D.features(D.instruments("csi300"), ["$close"], *SPAN)
    return frame.index.reorder_levels(["datetime", "instrument"]).sort_values()


def test_naive_scores_cover_the_rows_asked_for_and_no_others(in_store):
    rows = members()
    scores = naive_scores(rows)
    assert list(scores) == list(BASELINES)
    for score in scores.values():
        assert score.index.equals(rows)
        assert score.notna().mean() > 0.9


def test_reversal_is_minus_the_adjusted_return_of_five_calendar_days(in_store):
    score = naive_scores(members())["5-day reversal"]
    date, name = score.dropna().index[7]
    closes = D.features([name], ["$close"], end_time=date)["$close"].droplevel("instrument").ffill()
    assert score[date, name] == pytest.approx(1 - closes.iloc[-1] / closes.iloc[-6], rel=1e-5)


def test_scrambling_all_bars_after_t_changes_no_naive_score_up_to_t(small_market, tmp_path):
    runs = iter(range(100))

    def run(bars: pd.DataFrame) -> pd.DataFrame:
        use_store(store_of(small_market, bars, tmp_path / f"store{next(runs)}"))
        return pd.DataFrame(naive_scores(members()))

    check_causal(run, small_market.bars, ["2023-05-08"])


def test_equal_weight_is_the_mean_return_of_the_members_that_traded(in_store, small_market):
    dates = pd.DatetimeIndex(D.calendar(*SPAN))
    returns = equal_weight("csi300", dates)
    date = dates[3]
    names = members()[members().get_level_values("datetime") == date].get_level_values("instrument")
    closes = pd.DataFrame({n: bars["close"] for n, bars in traded_bars(sorted(names), date).items()})
    calendar = pd.DatetimeIndex(D.calendar())
    day, before = closes.reindex(calendar).loc[date], closes.reindex(calendar).loc[dates[2]]
    assert returns[date] == pytest.approx(np.nanmean(day / before - 1), abs=1e-7)


def test_bars_end_with_the_date_asked_for(in_store):
    panel = traded_bars(["SH609001"], pd.Timestamp("2023-03-15"))
    assert panel["SH609001"].index[-1] <= pd.Timestamp("2023-03-15")
    assert np.isfinite(panel["SH609001"].to_numpy()).all()
