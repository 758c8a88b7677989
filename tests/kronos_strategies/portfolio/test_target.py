"""target_weights: portfolios computed by hand, and properties for any input."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kronos_strategies.portfolio import PortfolioRules, rank_signals, target_weights

PLAIN = {"no_trade_band": 0.0, "cash_buffer": 0.0}
NOTHING = pd.Series(dtype=float)


def ranked(*scores: float, **columns: list[float]) -> pd.DataFrame:
    """Names A, B, C ... with these scores."""
    names = pd.Index([chr(ord("A") + i) for i in range(len(scores))], name="instrument")
    return pd.DataFrame({"score": scores, **columns}, index=names, dtype=float)


def held(**weights: float) -> pd.Series:
    return pd.Series(weights, dtype=float)


def weights_of(
    signals: pd.DataFrame, previous: pd.Series = NOTHING, tradable=None, **rules
) -> dict[str, float]:
    chosen = target_weights(signals, previous, PortfolioRules(**{**PLAIN, **rules}), tradable)
    return pytest.approx(chosen.to_dict(), abs=1e-12)


# What is chosen


def test_the_best_share_equity_equally_and_cash_is_kept():
    assert weights_of(ranked(1, 4, 3, 2), topk=2, cash_buffer=0.1) == {"B": 0.45, "C": 0.45}


def test_an_unfilled_slot_stays_in_cash():
    assert weights_of(ranked(1, 2), topk=4) == {"A": 0.25, "B": 0.25}


def test_an_instrument_without_a_score_is_never_bought_and_is_sold_if_held():
    signals = ranked(np.nan, 1, np.inf, -np.inf, 2)
    assert weights_of(signals, held(A=0.5, Z=0.5), topk=4) == {"B": 0.25, "E": 0.25}


def test_a_date_without_a_ranked_instrument_trades_nothing():
    assert weights_of(ranked(np.nan, np.inf), held(B=0.4, A=0.5, Z=0.2), topk=1) == {
        "A": 0.5,
        "B": 0.4,
        "Z": 0.2,
    }


def test_an_instrument_enters_among_the_best_and_leaves_after_the_rank_buffer():
    signals = ranked(9, 8, 7, 6, 5, 4)
    assert set(weights_of(signals, held(C=0.3, D=0.3, E=0.3), topk=2, rank_buffer=2).expected) == set("ABCD")


def test_at_most_n_drop_are_replaced_and_a_side_that_holds_too_many_is_not_refilled():
    signals = ranked(9, 8, 7, 6, 5, 4, 3)
    few = weights_of(signals, held(D=0.3, F=0.3, G=0.3), topk=3, n_drop=1)
    assert set(few.expected) == set("ADF"), "the best enters, the worst leaves"
    many = weights_of(signals, held(B=0.2, D=0.2, E=0.2, F=0.2, G=0.2), topk=3, n_drop=2)
    assert set(many.expected) == set("BDE"), "two too many: both leave, and nothing enters"
    two = weights_of(signals, held(B=0.2, D=0.2, E=0.2, G=0.2), topk=3, n_drop=2)
    assert set(two.expected) == set("ABD"), "one too many: two leave, and one enters"


def test_without_ties_in_the_score_nothing_else_decides():
    signals = ranked(1, 2, expected_return=[9, 1], volatility=[1, 1])
    assert weights_of(signals, topk=1) == {"B": 1.0}


def test_ties_go_to_the_better_mean_per_volatility_and_then_to_the_first_name():
    signals = ranked(5, 5, 5, 5, expected_return=[1, 3, 3, np.nan], volatility=[1, 2, 2, 1])
    assert weights_of(signals, topk=1) == {"B": 1.0}
    assert set(weights_of(signals, topk=3).expected) == set("ABC")


def test_another_column_can_rank():
    signals = ranked(1, 2, prob_up=[0.9, 0.1])
    assert weights_of(signals, topk=1, rank_by="prob_up") == {"A": 1.0}


def test_long_short_holds_half_of_its_gross_on_each_side():
    signals = ranked(6, 5, 4, 3, 2, 1)
    book = weights_of(signals, topk=2, side="long_short", cash_buffer=0.2)
    assert book == {"A": 0.2, "B": 0.2, "E": -0.2, "F": -0.2}


def test_a_market_of_too_few_instruments_is_never_held_long_and_short_at_once():
    assert weights_of(ranked(3, 2, 1), topk=5, side="long_short") == {"A": 0.1, "C": -0.1}


def test_a_held_instrument_that_has_become_the_worst_changes_sides():
    previous = held(D=0.5, A=-0.5)
    book = weights_of(ranked(4, 3, 2, 1), previous, topk=1, rank_buffer=9, side="long_short")
    assert book == {"A": 0.5, "D": -0.5}


def test_a_short_position_in_a_long_portfolio_is_bought_back():
    assert weights_of(ranked(2, 1), held(B=-0.3), topk=1) == {"A": 1.0}


# How it is sized


def test_inverse_volatility_weights_all_take_the_same_risk():
    signals = ranked(3, 2, 1, volatility=[0.01, 0.02, 0.05])
    assert weights_of(signals, topk=2, weighting="inverse_volatility") == {"A": 2 / 3, "B": 1 / 3}


def test_an_instrument_without_a_volatility_gets_no_weight():
    signals = ranked(5, 4, 3, 2, 1, volatility=[np.nan, 0, -1, np.inf, 0.01])
    assert weights_of(signals, topk=1, weighting="inverse_volatility") == {"E": 1.0}
    assert weights_of(signals, topk=1) == {"A": 1.0}


@pytest.mark.parametrize("side", ["long", "long_short"])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_the_target_volatility_is_that_of_correlated_simulated_returns(side, correlation):
    volatility = [0.01, 0.02, 0.03, 0.04]
    rules = PortfolioRules(
        topk=2, side=side, weighting="volatility_target", target_volatility=0.02, correlation=correlation,
        bars_per_year=250, **PLAIN,
    )  # fmt: skip
    book = target_weights(ranked(4, 3, 2, 1, volatility=volatility), NOTHING, rules)
    w = book.reindex(list("ABCD"), fill_value=0).to_numpy()
    covariance = np.outer(volatility, volatility) * (correlation + (1 - correlation) * np.eye(4))
    annual = np.sqrt(w @ covariance @ w * 250)
    assert annual == pytest.approx(0.02)


def test_low_volatility_does_not_lead_to_leverage():
    signals = ranked(2, 1, volatility=[1e-4, 1e-4])
    book = target_weights(signals, NOTHING, PortfolioRules(topk=2, weighting="volatility_target"))
    assert book.sum() == pytest.approx(0.98)


def test_a_cap_cuts_one_instrument_and_leaves_the_rest_in_cash():
    signals = ranked(2, 1, volatility=[0.01, 0.09])
    book = weights_of(signals, topk=2, weighting="inverse_volatility", max_weight=0.5)
    assert book == {"A": 0.5, "B": 0.1}


# What is not traded


def test_an_instrument_that_cannot_be_traded_keeps_its_weight_and_its_slot():
    signals = ranked(5, 4, 3, 2, np.nan)
    book = weights_of(signals, held(E=0.4, D=0.3), tradable=pd.Index(list("ABCD")), topk=3)
    assert book == {"E": 0.4, "A": 0.3, "B": 0.3}


def test_an_instrument_that_cannot_be_traded_is_not_bought():
    assert weights_of(ranked(3, 2, 1), tradable=pd.Index(["B", "C"]), topk=1) == {"B": 1.0}


def test_a_frozen_side_leaves_the_other_less_than_its_half():
    book = weights_of(
        ranked(4, 3, 2, 1), held(A=0.8), tradable=pd.Index(list("BCD")), topk=1, side="long_short"
    )
    assert book == {"A": 0.8, "D": -0.2}


def test_a_change_below_the_band_is_not_traded_but_entries_and_exits_are():
    previous = held(A=0.248, B=0.256, C=0.2, E=0.001)
    book = weights_of(ranked(9, 8, 7, 6, 0), previous, topk=4, no_trade_band=0.005)
    assert book == {"A": 0.248, "B": 0.25, "C": 0.25, "D": 0.25}


def test_a_small_weight_is_bought_regardless_of_the_no_trade_band():
    assert weights_of(ranked(2, 1), topk=1000, no_trade_band=0.1) == {"A": 0.001, "B": 0.001}


def test_where_the_no_trade_band_would_use_the_cash_buffer_only_the_most_overweight_are_sold():
    previous = held(A=0.324, B=0.328, C=0.327)  # targets are 0.98 / 3 = 0.32667 each; the sum is 0.979
    rules = PortfolioRules(topk=3)
    pd.testing.assert_series_equal(
        target_weights(ranked(3, 2, 1), previous, rules), previous, check_names=False, check_exact=True
    )
    drifted = held(A=0.327, B=0.328, C=0.3265)  # the sum is 0.9815
    book = target_weights(ranked(3, 2, 1), drifted, rules)
    assert book["A"] == pytest.approx(0.98 / 3)
    assert book["B"] == pytest.approx(0.98 / 3)
    assert book["C"] == 0.3265


# Whatever the input

ENTRY = st.one_of(st.floats(-0.1, 0.1), st.sampled_from([np.nan, np.inf, -np.inf, 0.0]))


@st.composite
def cases(draw):
    count = draw(st.integers(1, 12))
    names = pd.Index([f"N{i:02d}" for i in range(count)], name="instrument")
    column = st.lists(ENTRY, min_size=count, max_size=count)
    signals = pd.DataFrame(
        {"score": draw(column), "expected_return": draw(column), "volatility": draw(column)}, index=names
    )
    raw = draw(st.lists(st.floats(-1, 1).filter(lambda w: abs(w) > 1e-6), max_size=count))
    side = draw(st.sampled_from(["long", "long_short"]))
    owned = draw(st.permutations([*names, "OUT"]))[: len(raw)]
    previous = pd.Series(np.array(raw) / max(sum(map(abs, raw)), 1), index=list(owned), dtype=float)
    if side == "long":
        previous = previous.abs()
    rules = PortfolioRules(
        topk=draw(st.integers(1, 6)),
        rank_buffer=draw(st.integers(0, 3)),
        side=side,
        weighting=draw(st.sampled_from(["equal", "inverse_volatility", "volatility_target"])),
        target_volatility=draw(st.floats(0.01, 1)),
        max_weight=draw(st.floats(0.05, 1)),
        cash_buffer=draw(st.floats(0, 0.5)),
        no_trade_band=draw(st.floats(0, 0.1)),
    )
    tradable = pd.Index(draw(st.lists(st.sampled_from([*names, "OUT"]), unique=True)))
    return signals, previous, rules, tradable


@settings(max_examples=150, deadline=None)
@given(cases())
def test_the_portfolio_fits_into_its_cash_or_into_what_cannot_be_traded(case):
    signals, previous, rules, tradable = case
    assume(np.isfinite(signals[rules.rank_by]).any())  # without any signal nothing is traded
    book = target_weights(*case)
    frozen = previous[~previous.index.isin(tradable)].abs().sum()
    assert book.abs().sum() <= max(1 - rules.cash_buffer, frozen) + 1e-9
    assert (book != 0).all()
    if rules.side == "long":
        assert (book > 0).all()


@settings(max_examples=150, deadline=None)
@given(cases())
def test_only_tradable_instruments_with_a_finite_score_are_bought(case):
    signals, previous, _, tradable = case
    book = target_weights(*case)
    before = previous.reindex(book.index, fill_value=0.0)
    frozen = ~book.index.isin(tradable)
    assert (book[frozen] == before[frozen]).all()
    scored = signals.index[np.isfinite(signals["score"])]
    able = scored.intersection(tradable) if len(scored) else previous.index
    assert set(book.index[~frozen]) <= set(able)
    assert set(previous.index[~previous.index.isin(tradable) & previous.ne(0)]) <= set(book.index)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_a_move_smaller_than_the_band_is_only_ever_made_for_cash(case):
    _, previous, rules, _ = case
    book = target_weights(*case)
    before = previous.reindex(book.index, fill_value=0.0)
    moved = book[(before * book > 0) & (book != before)]
    small = moved[(moved - before[moved.index]).abs() < rules.no_trade_band]
    assert (small.abs() < before[small.index].abs()).all()
    if len(small):  # without these sales the book would not fit
        without = book.abs().sum() + (before[small.index].abs() - small.abs()).sum()
        assert without > 1 - rules.cash_buffer


@settings(max_examples=150, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(case, random):
    signals, previous, rules, tradable = case
    rows, owned = list(signals.index), list(previous.index)
    random.shuffle(rows)
    random.shuffle(owned)
    shuffled = target_weights(signals.loc[rows], previous.loc[owned], rules, tradable[::-1])
    pd.testing.assert_series_equal(shuffled, target_weights(*case), check_exact=True)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_each_side_holds_at_most_its_slots_and_its_rank_buffer(case):
    signals, previous, rules, tradable = case
    book = target_weights(*case)
    if not np.isfinite(
        signals["score"]
    ).any():  # nothing to rank by: every position stays, however many they are
        assert set(book.index) == set(previous.index[previous != 0])
        return
    traded = book[book.index.isin(tradable)]
    for sign in (1, -1):
        assert (sign * traded > 0).sum() <= rules.topk + rules.rank_buffer
    assert len(traded[~traded.index.isin(previous.index)]) <= rules.topk * 2


# What is refused


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"side": "short"}, "side='short' is unknown. Choose one of long, long_short"),
        ({"weighting": "markowitz"}, "inverse_volatility"),
        ({"topk": 0}, "topk=0"),
        ({"topk": 2.5}, "whole number"),
        ({"rank_buffer": -1}, "rank_buffer=-1"),
        ({"cash_buffer": 1.0}, "cash_buffer"),
        ({"no_trade_band": np.nan}, "no_trade_band=nan"),
        ({"max_weight": 0}, "max_weight"),
        ({"target_volatility": 0}, "target_volatility"),
        ({"correlation": 1.5}, "correlation"),
        ({"bars_per_year": 0}, "bars_per_year"),
    ],
)
def test_invalid_rules_are_refused_with_the_remedy(rules, message):
    with pytest.raises(ValueError, match=message):
        PortfolioRules(**rules)


def test_a_missing_column_is_named_with_those_that_are_there():
    with pytest.raises(ValueError, match=r"no column 'prob_up'.*\['score'\]"):
        target_weights(ranked(1), NOTHING, PortfolioRules(rank_by="prob_up"))
    with pytest.raises(ValueError, match="no column 'volatility'"):
        target_weights(ranked(1), NOTHING, PortfolioRules(weighting="inverse_volatility"))


def test_a_repeated_instrument_is_refused():
    twice = pd.concat([ranked(1), ranked(2)])
    with pytest.raises(ValueError, match="signals have 'A' twice"):
        target_weights(twice, NOTHING, PortfolioRules())
    with pytest.raises(ValueError, match="previous weights have 'A' twice"):
        target_weights(ranked(1), pd.concat([held(A=0.1), held(A=0.1)]), PortfolioRules())


def test_a_previous_weight_without_a_value_is_refused():
    with pytest.raises(ValueError, match="previous weight of 'A' is nan"):
        target_weights(ranked(1), held(A=np.nan), PortfolioRules())


# Ranks


def test_ranks_are_those_that_weights_follow_with_ties_broken_alike():
    signals = ranked(1, 3, 3, np.nan, 2, expected_return=[0, 1, 2, 9, 0], volatility=[1, 1, 1, 1, 1])
    rules = PortfolioRules(topk=2, rank_buffer=0)
    ranks = rank_signals(signals[::-1], rules)
    assert ranks.dropna().to_dict() == {"C": 1, "B": 2, "E": 3, "A": 4}
    assert ranks.index[ranks.isna()].tolist() == ["D"]
    assert set(target_weights(signals, NOTHING, rules).index) == set(ranks.index[ranks <= 2])


def test_an_instrument_without_volatility_has_no_rank_where_weights_need_one():
    signals = ranked(2, 1, volatility=[0, 0.1])
    assert rank_signals(signals, PortfolioRules()).to_dict() == {"A": 1, "B": 2}
    ranks = rank_signals(signals, PortfolioRules(weighting="inverse_volatility"))
    assert ranks.dropna().to_dict() == {"B": 1}
