"""Picks as of a date on the small simulated market: those of a backtest, and blind to every later bar."""

import shutil

import numpy as np
import pandas as pd
import pytest
from qlib.backtest import backtest

from kronos.bars import PRICES
from kronos.predictor import KronosPredictor
from kronos_strategies.lookahead import randomize_future
from kronos_strategies.picks import RANKS, Picks
from kronos_strategies.portfolio import PortfolioRules, rank_signals, target_weights
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.qlib.picks import find_dates, make_picks
from kronos_strategies.qlib.strategy import KronosWeightStrategy
from kronos_strategies.signal import SIGNALS
from tests.kronos.builders import headed_pair

from .conftest import TINY, store_of, use_store

CASH = pd.Series(dtype=float)
RULES = {"topk": 5, "rank_buffer": 2, "weighting": "inverse_volatility", "no_trade_band": 0.01}
LIMIT = 0.095  # of the simulated exchange
SPAN = ("2023-03-01", "2023-03-24")
# Dates of the backtest, each after the trading date before: with closes at both limits, and across a weekend.
CHECKED = [
    (pd.Timestamp(f"2023-03-{before}"), pd.Timestamp(f"2023-03-{day}"))
    for before, day in (("01", "02"), ("06", "07"), ("17", "20"), ("21", "22"))
]


def model(**changes) -> KronosModel:
    return KronosModel(**{"checkpoint": str(TINY), "samples": 3, "device": "cpu", **changes})


def picks(
    as_of: str, previous: pd.Series = CASH, kronos: KronosModel | None = None, hold: int = 2, **rules
) -> Picks:
    return make_picks(
        kronos or model(), "csi300", find_dates("csi300", as_of), PortfolioRules(**{**RULES, **rules}), previous,
        LIMIT, lookback=30, hold=hold,
    )  # fmt: skip


def table(as_of: str, *rest, **more) -> pd.DataFrame:
    return picks(as_of, *rest, **more).table.droplevel("datetime")


class Recording(KronosWeightStrategy):
    """Keeps what it decided from, by the date of the signal."""

    def __init__(self, **arguments) -> None:
        super().__init__(**arguments)
        self.decided: dict[pd.Timestamp, tuple[pd.DataFrame, pd.Series, pd.Series]] = {}

    def weights(self, signals, previous, tradable):
        chosen = super().weights(signals, previous, tradable)
        self.decided[self.trade_calendar.get_step_time(shift=1)[0]] = (signals, previous, chosen)
        return chosen


def run_backtest(strategy: KronosWeightStrategy) -> None:
    executor = {
        "class": "SimulatorExecutor",
        "module_path": "qlib.backtest.executor",
        "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
    }
    costs = {"open_cost": 0.0005, "close_cost": 0.0015, "min_cost": 5}
    backtest(
        *SPAN, strategy, executor, "SH000300", 1e8,
        {"freq": "day", "deal_price": "close", "limit_threshold": LIMIT, **costs},
    )  # fmt: skip


@pytest.mark.parametrize("head", [False, True], ids=["paths", "head"])
def test_as_of_each_past_date_they_are_exactly_what_the_backtest_decided(
    in_store, tmp_path, monkeypatch, head
):
    pair = headed_pair(TINY, tmp_path / "headed", 48, lookback=30) if head else TINY
    kronos = model(checkpoint=str(pair), store=str(tmp_path / "store"))
    hold = 5 if head else 2
    predicted = kronos.signals(KronosDataset({"test": SPAN}, lookback=30, hold=hold))
    strategy = Recording(signal=predicted, rules=RULES)
    run_backtest(strategy)
    monkeypatch.setattr(KronosPredictor, "forecast", None)  # everything is stored
    flags = set()
    for before, day in CHECKED:
        seen, previous, chosen = strategy.decided[day]
        found = table(f"{day:%Y-%m-%d}", previous, kronos, hold)
        flags |= set(found["flags"])
        expected = seen.sort_index()
        pd.testing.assert_frame_equal(
            found.loc[expected.index, list(SIGNALS)], expected, check_exact=True, check_names=False
        )
        target = found["target_weight"]
        pd.testing.assert_series_equal(
            target[target != 0].sort_index(), chosen.sort_index(), check_exact=True, check_names=False
        )
        earlier = rank_signals(strategy.decided[before][0], PortfolioRules(**RULES))
        ranks = found.loc[found["rank"].notna(), "previous_rank"].dropna()
        pd.testing.assert_series_equal(ranks.astype(float), earlier[ranks.index], check_names=False)
    assert {"limit up", "limit down"} <= flags


def test_a_forecast_made_for_one_date_alone_is_the_one_of_the_backtest(in_store):
    predicted = model().signals(KronosDataset({"test": SPAN}, lookback=30, hold=2))
    found = picks("2023-03-10").table
    expected = predicted.xs(pd.Timestamp("2023-03-10"), level="datetime", drop_level=False)
    np.testing.assert_allclose(found.loc[expected.index, list(SIGNALS)], expected, rtol=1e-4, atol=1e-6)


def test_later_bars_change_nothing_whether_they_are_randomized_or_do_not_exist_yet(small_market, tmp_path):
    date, held = "2023-03-10", pd.Series({"SH609001": 0.3, "SZ009006": 0.2})
    full = store_of(small_market, small_market.bars, tmp_path / "full")
    use_store(full)
    expected = table(date, held)
    other = store_of(
        small_market, randomize_future(small_market.bars, pd.Timestamp(date)), tmp_path / "random"
    )
    use_store(other)
    pd.testing.assert_frame_equal(table(date, held), expected, check_exact=True)
    known = small_market.bars[small_market.bars["datetime"] <= date]
    short = store_of(small_market, known, tmp_path / "short")
    shutil.copy(full / "calendars" / "day_future.txt", short / "calendars")  # known in advance
    use_store(short)
    last = picks(None, held)
    assert f"{last.date:%Y-%m-%d}" == date
    pd.testing.assert_frame_equal(last.table.droplevel("datetime"), expected, check_exact=True)


def test_the_members_are_those_of_the_date(in_store):
    before, after = table("2023-06-27"), table("2023-06-28")
    assert "SH609011" in before.index
    assert "SH609003" not in before.index
    assert "SH609011" not in after.index
    assert after.loc["SH609003", "previous_rank"] is pd.NA  # it was not a member the day before
    assert after.loc["SH609003", "rank"] >= 1


def test_flags_say_what_keeps_an_instrument_from_being_traded(in_store):
    held = pd.Series({"SH609012": 0.1, "SH609003": 0.1, "sz009001": 0.1, "ACME": 0.05})
    found = table("2023-02-24", held)
    assert found.loc[["SH609001", "SH609012", "SH609003", "ACME"], "flags"].to_dict() == {
        "SH609001": "suspended",
        "SH609012": "suspended, not a member",  # delisted
        "SH609003": "not a member",
        "ACME": "unknown",
    }
    assert "SZ009001" in found.index  # as the data spell it
    assert "sz009001" not in found.index
    assert found.loc["SH609001", "trade"] == 0
    assert found.loc[["SH609012", "ACME"], "target_weight"].tolist() == [0.1, 0.05]  # cannot be sold
    assert found.loc["SH609003", "target_weight"] == 0
    assert table("2023-03-01").loc["SH609001", "flags"] == "limit up"
    assert table("2023-03-20").loc["SH609001", "flags"] == "limit down"


def test_one_instrument_checked_number_by_number_against_its_bars_and_paths(in_store, small_market, tmp_path):
    kronos, name, date = model(store=str(tmp_path)), "SH609001", pd.Timestamp("2023-03-09")
    held = pd.Series({name: 0.25})
    made = picks(f"{date:%Y-%m-%d}", held, kronos)
    row = made.table.loc[(date, name)]
    dataset = KronosDataset({"test": (date, date)}, lookback=30, hold=2)
    (forecast,) = map(kronos.postprocessing, kronos.forecasts(dataset.windows(), dataset.spec))
    paths = forecast.path("close")[forecast.index.get_loc((date, name))]  # 3 paths of 3 days
    bars = small_market.bars[small_market.bars["instrument"] == name].set_index("datetime").loc[:date]
    last = bars["close"].iloc[-1]
    assert row["close"] == pytest.approx(last)
    assert row["score"] == pytest.approx((paths[:, 2] / paths[:, 0] - 1).mean(), rel=1e-4)
    adjusted = last * bars["factor"].iloc[-1]
    assert row["expected_return"] == pytest.approx((paths[:, 2] / adjusted - 1).mean(), rel=1e-4)
    assert row["prob_up"] == (paths[:, 2] > paths[:, 0]).mean()
    steps = np.diff(np.log(np.column_stack([np.full(3, adjusted), paths])), axis=1)
    assert row["volatility"] == pytest.approx(np.sqrt((steps**2).mean()), rel=1e-4)
    days = sorted(small_market.bars["datetime"].unique())
    window = days[days.index(date) - 19 : days.index(date) + 1]
    amount = bars["amount"].reindex(window)
    assert amount.isna().any()  # it was suspended in February
    assert row["traded_value"] == pytest.approx(amount.sum() / 20, rel=1e-5)
    signals = made.table.droplevel("datetime")[list(SIGNALS)].dropna()
    assert row["rank"] == 1 + (signals["score"] > row["score"]).sum()
    chosen = target_weights(signals, held, made.rules)
    assert row["target_weight"] == pytest.approx(chosen.get(name, 0.0))
    assert row["trade"] == pytest.approx(row["target_weight"] - 0.25)


def test_ranks_may_follow_any_signal(in_store, tmp_path):
    found = table("2023-03-09", kronos=model(store=str(tmp_path)), rank_by="q05")
    assert found["q05"].dropna().is_monotonic_decreasing
    assert found["rank"].dropna().tolist() == list(range(1, found["rank"].notna().sum() + 1))


def test_without_samples_the_head_ranks_alone(in_store, tmp_path):
    pair = headed_pair(TINY, tmp_path / "headed", 48, lookback=30)
    made = picks("2023-03-09", kronos=model(checkpoint=str(pair), samples=0), hold=5, weighting="equal")
    assert made.table["score"].notna().any()
    assert made.table["prob_up"].isna().all()
    assert (made.table["target_weight"] > 0).sum() == 5
    assert not [line for line in made.settings if line.startswith("calibration")]


def test_the_first_date_with_forecasts_has_ranks_but_none_before(in_store, small_market):
    days = sorted(small_market.bars["datetime"].unique())
    found = table(f"{pd.Timestamp(days[29]):%Y-%m-%d}")  # the first with 30 bars
    assert found["rank"].notna().any()
    assert found[list(RANKS[1:])].isna().all(axis=None)
    assert (found.loc[found["rank"].isna(), "flags"] != "").all()


def test_a_date_between_trading_days_is_the_one_before_and_a_sentence_says_so(in_store):
    friday, sunday = find_dates("csi300", "2023-03-10"), find_dates("csi300", "2023-03-12")
    assert friday.note is None
    assert (sunday.date, sunday.previous) == (friday.date, friday.previous)
    assert "2023-03-12 is not a trading day" in sunday.note
    assert "the last one before, 2023-03-10" in sunday.note
    assert find_dates("csi300", "20300101").date == find_dates("csi300").date == pd.Timestamp("2023-06-30")
    assert find_dates("csi300", "2022-01-03").previous is None


@pytest.mark.parametrize(
    ("market", "as_of", "says"),
    [
        ("csi301", None, r"no market 'csi301'. It has \['all', 'csi300'"),
        ("csi300", "2021-12-31", r"--as-of 2021-12-31 is before the first bar of .*, 2022-01-03"),
        ("csi300", "soon", r"--as-of='soon' is not a date"),
        ("csi300", "2023-03-10 10:00", r"--as-of 2023-03-10 10:00 has a time, but bars are daily"),
    ],
)
def test_a_market_or_date_that_the_data_do_not_have_is_refused(in_store, market, as_of, says):
    with pytest.raises(ValueError, match=says):
        find_dates(market, as_of)


def test_a_market_whose_membership_has_ended_is_refused(small_market, tmp_path):
    folder = store_of(small_market, small_market.bars, tmp_path / "store")
    (folder / "instruments" / "old.txt").write_text("SH609001\t2022-01-03\t2022-06-30\n")
    use_store(folder)
    with pytest.raises(
        ValueError, match=r"'old' has no member on 2023-06-30, only from 2022-01-03 to 2022-06-30"
    ):
        find_dates("old")


def test_holdings_that_differ_in_case_only_are_refused(in_store):
    with pytest.raises(ValueError, match=r"SH609001 is held twice, under different spellings"):
        picks("2023-03-09", pd.Series({"SH609001": 0.1, "sh609001": 0.1}))


def test_a_market_with_too_few_bars_is_refused(in_store):
    with pytest.raises(ValueError, match=r"No instrument has a window of 30 bars"):
        picks("2022-01-10")


def test_prices_are_those_of_the_screen_also_after_a_split(in_store, small_market):
    split = small_market.bars.set_index(["instrument", "datetime"]).loc["SZ009009"]
    assert split["factor"].iloc[-1] == 2
    found = table("2023-06-30")
    assert found.loc["SZ009009", "close"] == pytest.approx(split[PRICES[3]].iloc[-1])
