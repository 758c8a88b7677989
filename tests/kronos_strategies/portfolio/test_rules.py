"""Selection, weighting and constraints of the rules: portfolios by hand, and properties for any input."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_strategies.portfolio import MarketInputs, PortfolioRules, parse_rules, rules_of, target_weights

from .test_target import NOTHING, PLAIN, held, ranked


def weights_of(signals, previous=NOTHING, tradable=None, market=None, **rules):
    made = PortfolioRules(**{**PLAIN, **rules})
    chosen = target_weights(signals, previous, made, tradable, market or MarketInputs())
    return pytest.approx(chosen.to_dict(), abs=1e-9)


# Selection


def test_at_most_n_drop_positions_are_replaced_and_the_worst_leave_first():
    signals = ranked(9, 8, 7, 3, 2, 1)
    current = held(D=1 / 3, E=1 / 3, F=1 / 3)
    assert set(weights_of(signals, current, topk=3, n_drop=1).expected) == set("ADE")
    assert set(weights_of(signals, current, topk=3, n_drop=2).expected) == set("ABD")
    assert set(weights_of(signals, current, topk=3).expected) == set("ABC")


def test_free_slots_are_filled_beyond_n_drop_and_instruments_without_a_score_are_sold_at_once():
    signals = ranked(9, 8, 7, 3, 2, np.nan)
    assert set(weights_of(signals, held(E=0.5, F=0.5), topk=4, n_drop=1).expected) == set("ABCD")
    assert set(weights_of(signals, held(D=0.5), topk=3, n_drop=1).expected) == set("ABC")


def test_n_drop_counts_from_the_end_of_the_rank_buffer():
    signals = ranked(9, 8, 7, 6, 5, 4)
    current = held(C=0.5, F=0.5)
    assert set(weights_of(signals, current, topk=2, rank_buffer=1, n_drop=1).expected) == set("AC")


def test_a_quantile_holds_its_share_of_the_ranked_on_each_side():
    signals = ranked(*range(10, 0, -1))
    book = weights_of(signals, quantile=0.2, side="long_short")
    assert book == {"A": 0.25, "B": 0.25, "I": -0.25, "J": -0.25}
    assert set(weights_of(ranked(3, 2, np.nan, 1), quantile=0.5).expected) == {"A"}  # a half of three ranked


def test_n_drop_holds_on_the_short_side_too():
    signals = ranked(6, 5, 4, 3, 2, 1)
    current = held(C=0.25, D=0.25, A=-0.25, B=-0.25)
    book = weights_of(signals, current, topk=2, n_drop=1, side="long_short").expected
    assert {name for name, weight in book.items() if weight < 0} <= {"B", "F", "E"}
    assert len(book) == 4


# Weighting


def test_score_weights_are_distances_from_the_median():
    assert weights_of(ranked(5, 3, 1, -1, -3), topk=2, weighting="score") == {"A": 2 / 3, "B": 1 / 3}
    book = weights_of(ranked(5, 3, 1, -1, -3), topk=2, weighting="score", side="long_short")
    assert book == {"A": 1 / 3, "B": 1 / 6, "D": -1 / 6, "E": -1 / 3}
    assert weights_of(ranked(2, 2, 2), topk=2, weighting="score") == {"A": 0.5, "B": 0.5}


def test_kelly_is_a_share_of_the_shrunk_mean_over_the_variance():
    # Mean .02 and deviation .1: full Kelly 2; half of it shrunk, and a quarter invested.
    signals = ranked(2, 1, 0, risk_adjusted=[0.2, 0.1, -0.1], deviation=[0.1, 0.2, 0.1])
    rules = {"weighting": "kelly", "topk": 3}
    assert weights_of(signals, **rules) == {"A": 0.25, "B": 0.0625}
    assert weights_of(signals, max_weight=0.1, **rules) == {"A": 0.1, "B": 0.0625}
    assert weights_of(signals, kelly_fraction=1.0, shrinkage=0.0, **rules) == {"A": 0.8, "B": 0.2}


def test_risk_parity_without_correlations_is_inverse_volatility():
    signals = ranked(3, 2, 1, volatility=[0.01, 0.02, 0.04])
    inverse = weights_of(signals, topk=3, weighting="inverse_volatility")
    assert weights_of(signals, topk=3, weighting="risk_parity") == inverse.expected


@pytest.mark.parametrize("side", ["long", "long_short"])
def test_risk_parity_gives_every_position_the_same_share_of_the_variance_of_its_side(side):
    rng = np.random.default_rng(3)
    names = [f"S{i}" for i in range(12)]
    factors = rng.normal(size=(12, 3))
    covariance = factors @ factors.T + np.diag(rng.uniform(0.2, 2, 12))
    deviation = np.sqrt(np.diag(covariance))
    correlations = pd.DataFrame(covariance / np.outer(deviation, deviation), names, names)
    signals = pd.DataFrame({"score": rng.normal(size=12), "volatility": deviation}, index=names)
    rules = PortfolioRules(topk=5, weighting="risk_parity", side=side, **PLAIN)
    book = target_weights(signals, NOTHING, rules, market=MarketInputs(correlations=correlations))
    wide = pd.DataFrame(covariance, names, names)
    for own in (book[book > 0], book[book < 0]):
        shares = own * (wide.loc[own.index, own.index] @ own)
        np.testing.assert_allclose(shares, shares.mean(), rtol=1e-8)


def test_correlations_that_cannot_be_are_refused():
    impossible = np.array([[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]])
    correlations = pd.DataFrame(impossible, list("ABC"), list("ABC"))
    signals = ranked(3, 2, 1, volatility=[0.01, 0.02, 0.03])
    with pytest.raises(ValueError, match="not positive semidefinite"):
        weights_of(signals, topk=3, weighting="risk_parity", market=MarketInputs(correlations=correlations))


def test_the_volatility_target_uses_the_correlations_given():
    signals = ranked(2, 1, volatility=[0.02, 0.02])
    perfect = pd.DataFrame(1.0, ["A", "B"], ["A", "B"])
    rules = {"weighting": "volatility_target", "topk": 2, "target_volatility": 0.1, "bars_per_year": 100}
    assert weights_of(signals, market=MarketInputs(correlations=perfect), **rules) == {"A": 0.25, "B": 0.25}
    none = perfect * np.eye(2)
    apart = weights_of(signals, market=MarketInputs(correlations=none), **rules)
    assert apart == {"A": 0.25 * 2**0.5, "B": 0.25 * 2**0.5}


# Constraints


def test_an_industry_over_its_cap_is_lowered_in_proportion_and_the_rest_stays_in_cash():
    market = MarketInputs(industries=pd.Series({"A": "banks", "B": "banks", "C": "steel"}))
    signals = ranked(4, 3, 2, 1)
    book = weights_of(signals, topk=4, max_industry_weight=0.4, market=market)
    assert book == {"A": 0.2, "B": 0.2, "C": 0.25, "D": 0.25}
    frozen = weights_of(
        signals, held(A=0.3), pd.Index(["B", "C", "D"]), market, topk=4, max_industry_weight=0.4
    )
    assert frozen.expected["A"] == 0.3
    assert frozen.expected["B"] == pytest.approx(0.1)


def test_turnover_is_shared_by_sales_and_purchases_and_the_largest_trades_come_first():
    book = weights_of(ranked(1, 2), held(A=1.0), topk=1, max_turnover=0.5)
    assert book == {"A": 0.75, "B": 0.25}
    signals = ranked(1, 2, 3, 4)
    book = weights_of(signals, held(A=0.6, B=0.4), topk=2, max_turnover=1.4)
    assert book == {"B": 0.3, "C": 0.5, "D": 0.2}


def test_participation_limits_trades_and_purchases_wait_for_the_cash_of_sales():
    signals, current = ranked(1, 2), held(A=1.0)
    market = MarketInputs(amounts=pd.Series({"A": 2.0, "B": 100.0}))
    book = weights_of(signals, current, topk=1, max_participation=0.1, market=market)
    assert book == {"A": 0.8, "B": 0.2}
    unknown = MarketInputs(amounts=pd.Series({"A": 2.0}))
    assert weights_of(signals, current, topk=1, max_participation=0.1, market=unknown) == {"A": 0.8}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"max_industry_weight": 0.3}, "max_industry_weight=0.3 needs the industry of each instrument"),
        ({"max_participation": 0.1}, "max_participation=0.1 needs traded amounts"),
    ],
)
def test_a_constraint_without_its_input_is_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        weights_of(ranked(1), **rules)


SHARES = st.floats(0, 1).map(lambda value: round(value, 3))


@st.composite
def cases(draw):
    count = draw(st.integers(2, 10))
    names = pd.Index([f"N{i:02d}" for i in range(count)], name="instrument")
    values = {
        name: draw(st.lists(number, min_size=count, max_size=count))
        for name, number in {
            "score": st.floats(-3, 3) | st.just(np.nan),
            "volatility": st.floats(0.005, 0.08),
            "risk_adjusted": st.floats(-1, 1),
            "deviation": st.floats(0.01, 0.2),
        }.items()
    }
    side = draw(st.sampled_from(["long", "long_short"]))
    raw = np.array(draw(st.lists(st.floats(-1, 1), min_size=count, max_size=count)))
    raw = np.where(np.abs(raw) < 1e-3, 0, np.abs(raw) if side == "long" else raw)
    previous = pd.Series(0.9 * raw / max(np.abs(raw).sum(), 1), names)
    rules = PortfolioRules(
        topk=draw(st.integers(1, 5)),
        quantile=draw(st.sampled_from([0.0, 0.2, 0.5])),
        rank_buffer=draw(st.integers(0, 2)),
        n_drop=draw(st.integers(0, 2)),
        side=side,
        weighting=draw(
            st.sampled_from(
                ["equal", "score", "inverse_volatility", "risk_parity", "volatility_target", "kelly"]
            )
        ),
        max_weight=draw(st.floats(0.05, 1)),
        max_industry_weight=draw(st.floats(0.1, 1)),
        max_turnover=draw(st.sampled_from([0.0, 0.05, 0.3, 1.0])),
        max_participation=draw(st.sampled_from([0.0, 0.1, 0.5])),
        cash_buffer=draw(st.floats(0, 0.3)),
        no_trade_band=0.0,
    )
    some = st.lists(st.sampled_from(list(names)), unique=True, min_size=1)
    tradable = pd.Index(draw(some | st.just(list(names))))
    loads = np.array(draw(st.lists(st.floats(-1, 1), min_size=count, max_size=count)))[:, None]
    matrix = loads @ loads.T + np.diag(1 - loads[:, 0] ** 2)
    market = MarketInputs(
        industries=pd.Series(draw(st.lists(st.sampled_from("XYZ"), min_size=count, max_size=count)), names),
        amounts=pd.Series(draw(st.lists(st.floats(0, 3), min_size=count, max_size=count)), names),
        correlations=pd.DataFrame(matrix, names, names),
    )
    return pd.DataFrame(values, names), previous, rules, tradable, market


def decided(case):
    signals, previous, rules, tradable, market = case
    book = target_weights(signals, previous, rules, tradable, market).reindex(signals.index, fill_value=0.0)
    return book, previous, rules, ~signals.index.isin(tradable), market


@settings(max_examples=200, deadline=None)
@given(cases())
def test_weights_add_up_to_what_is_invested_or_was_held(case):
    book, previous, rules, _, _ = decided(case)
    assert book.abs().sum() <= max(1 - rules.cash_buffer, previous.abs().sum()) + 1e-9
    if rules.side == "long":
        assert (book >= 0).all()


@settings(max_examples=200, deadline=None)
@given(cases())
def test_turnover_and_participation_are_never_exceeded(case):
    book, previous, rules, _, market = decided(case)
    moved = (book - previous).abs()
    if rules.max_turnover:
        assert moved.sum() <= rules.max_turnover + 1e-9
    if rules.max_participation:
        assert (moved <= rules.max_participation * market.amounts + 1e-9).all()


@settings(max_examples=200, deadline=None)
@given(cases())
def test_only_held_positions_exceed_a_cap_and_are_never_increased(case):
    book, previous, rules, frozen, market = decided(case)
    if case[0]["score"].isna().all():
        return
    grown = (book.abs() > previous.abs() + 1e-9) & (book.abs() > rules.max_weight + 1e-9)
    assert not grown.any()
    unlimited = not rules.max_turnover and not rules.max_participation
    if unlimited:
        assert (book.abs()[~frozen] <= rules.max_weight + 1e-9).all()
        if rules.max_industry_weight < 1:
            gross = book.abs().groupby(market.industries).sum()
            fixed = previous.abs().where(frozen, 0.0).groupby(market.industries).sum()
            assert (gross <= np.maximum(fixed, rules.max_industry_weight) + 1e-9).all()


@settings(max_examples=200, deadline=None)
@given(cases())
def test_an_instrument_that_cannot_be_traded_keeps_its_weight(case):
    book, previous, _, frozen, _ = decided(case)
    pd.testing.assert_series_equal(book[frozen], previous[frozen], check_names=False, check_exact=True)


@settings(max_examples=200, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_instruments_changes_nothing(case, random):
    signals, previous, rules, tradable, market = case
    rows, again = list(signals.index), list(signals.index)
    random.shuffle(rows)
    random.shuffle(again)
    other = MarketInputs(market.industries[again], market.amounts[rows], market.correlations.loc[again, rows])
    shuffled = target_weights(signals.loc[rows], previous[again], rules, tradable[::-1], other)
    pd.testing.assert_series_equal(shuffled, target_weights(*case), check_exact=True)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_no_more_than_n_drop_positions_leave_a_side_for_better_ones(case):
    book, previous, rules, frozen, _ = decided(case)
    ranked_now = case[0]["score"].notna() & ~frozen
    # Others also leave because what is frozen uses up the budget, or because their own size is 0.
    sized = rules.weighting not in ("kelly", "score") and not frozen.any()
    if not rules.n_drop or not sized or rules.side == "long_short":
        return
    left = (previous > 0) & (book == 0) & ranked_now
    assert left.sum() <= rules.n_drop


# Text


def test_rules_are_read_from_text():
    read = parse_rules("topk=20, rank_buffer=5,weighting=kelly,max_weight=.05,")
    assert read == PortfolioRules(topk=20, rank_buffer=5, weighting="kelly", max_weight=0.05)
    assert parse_rules("") == PortfolioRules()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top_k=5", "'top_k' is not a field of PortfolioRules. Did you mean 'topk'"),
        ("topk", "'topk' in 'topk' is not a rule. Write name=value"),
        ("topk=5,topk=6", "sets topk twice"),
        ("topk=many", "topk='many' is not a number"),
    ],
)
def test_text_that_is_not_a_rule_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_rules(text)


def test_unknown_fields_are_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"'zzz' is not a field of PortfolioRules. Choose among"):
        rules_of({"zzz": 1})
