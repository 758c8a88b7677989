"""A study of planted scores finds what was planted, in any order of rows, and turnover agrees with alphalens."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.signal.evaluation import (
    SignalEvaluation,
    evaluate_signal,
    rank_autocorrelation,
    top_turnover,
)
from kronos_strategies.evaluation.signal.metrics import assign_quantiles, information_coefficients
from kronos_strategies.evaluation.significance import mean_test

DAYS, NAMES = pd.bdate_range("2022-11-01", periods=120), [f"N{i:02d}" for i in range(50)]
INDEX = pd.MultiIndex.from_product([DAYS, NAMES], names=["datetime", "instrument"])
KEYS = [
    *("ic", "icir", "rank_ic", "rank_ic_low", "rank_ic_high", "rank_icir", "rank_ic_t", "rank_ic_p"),
    *("rank_ic_t_newey_west", "rank_ic_positive", "spread", "spread_low", "spread_high", "spread_t"),
    *("monotonicity", "top_hit_rate", "top_turnover", "rank_autocorrelation"),
    *(
        "rank_ic_neutral_volatility",
        "rank_ic_neutral_industry",
        "rank_ic_neutral",
        "dates",
        "undefined_dates",
    ),
]


def drawn(seed: int) -> pd.Series:
    return pd.Series(np.random.default_rng(seed).standard_normal(len(INDEX)), INDEX)


@pytest.fixture
def scores() -> pd.DataFrame:
    return pd.DataFrame({"own": drawn(0), "naive": drawn(1), "persistence": 0.0})


@pytest.fixture
def labels(scores) -> pd.DataFrame:
    """The own score moves the first bar only; the last five dates have no label of five bars."""
    first = 0.005 * scores["own"] + 0.01 * drawn(2)
    five = first + 0.02 * drawn(3)
    return pd.DataFrame({1: first, 5: five.where(INDEX.get_level_values("datetime") < DAYS[-5])})


@pytest.fixture
def exposures() -> pd.DataFrame:
    industry = np.tile(["bank", "tech"], len(INDEX) // 2)
    return pd.DataFrame({"volatility": drawn(4).abs(), "industry": industry}, INDEX)


@pytest.fixture
def study(scores, labels, exposures) -> SignalEvaluation:
    return evaluate_signal(scores, labels, 5, exposures)


def test_the_headline_is_the_mean_of_coefficients_by_date(study, scores, labels):
    expected = information_coefficients(scores["own"], labels[5])
    pd.testing.assert_frame_equal(study.by_date["own"], expected)
    assert study.rank_ic == mean_test(expected["rank_ic"], 5)
    assert study.ic.mean == pytest.approx(expected["ic"].mean())
    assert study.rank_ic_newey_west.mean == study.rank_ic.mean
    assert "Newey-West" in study.rank_ic_newey_west.method
    assert (study.name, study.hold, study.overlap) == ("own", 5, 5)


def test_coefficients_agree_with_alphalens(study, scores, labels):
    alphalens = pytest.importorskip("alphalens")
    index = INDEX.set_names(["date", "asset"])
    data = pd.DataFrame({"1D": labels[5].to_numpy(), "factor": scores["own"].to_numpy()}, index).dropna()
    expected = alphalens.performance.factor_information_coefficient(data)["1D"]
    np.testing.assert_allclose(study.by_date["own"]["rank_ic"].dropna(), expected, atol=1e-12)


def test_dates_without_a_label_are_counted_and_are_not_zeros(study):
    figures = study.metrics()
    assert (figures["dates"], figures["undefined_dates"]) == (115, 5)
    assert study.by_date["own"]["rank_ic"].tail(5).isna().all()
    assert study.quantiles.top_minus_bottom.undefined == 5
    assert study.table.loc["persistence", "undefined"] == 120


def test_the_planted_effect_is_found_where_it_was_planted(study):
    figures = study.metrics()
    assert figures["rank_ic_low"] > 0.1
    assert figures["spread_low"] > 0
    assert figures["monotonicity"] > 0.8
    assert figures["top_hit_rate"] > 0.55
    assert figures["rank_ic_neutral"] == pytest.approx(figures["rank_ic"], abs=0.03)
    assert study.table["rank_ic_difference_low"]["naive"] > 0
    own = study.decay[study.decay["score"] == "own"].set_index("horizon")
    assert own["rank_ic"][1] > own["rank_ic"][5] + 0.1
    assert list(own["dates"]) == [115, 115]
    assert study.lags["rank_ic"].drop(0).abs().max() < 0.05 < study.lags["rank_ic"][0]
    assert list(study.by_year.index) == [2022, 2023]
    assert list(study.by_group["group"]) == ["low", "middle", "high", "bank", "tech"]
    assert list(study.neutral.index) == ["none", "volatility", "industry", "all"]
    assert study.turnover.notna().sum() == study.autocorrelation.notna().sum() == 119


def test_metrics_are_those_of_the_parts(study):
    figures = study.metrics()
    assert sorted(figures) == sorted(KEYS)
    assert all(isinstance(value, float | int) for value in figures.values())
    own = study.table.loc["own"]
    assert figures["rank_ic"] == own["rank_ic"] == study.rank_ic.mean
    assert figures["rank_icir"] == own["rank_icir"]
    assert figures["rank_ic_neutral_industry"] == study.neutral["rank_ic"]["industry"]
    assert figures["rank_ic_neutral"] == study.neutral["rank_ic"]["all"]
    assert figures["top_turnover"] == study.turnover.mean()
    assert np.isfinite(list(figures.values())).all()


def test_rows_may_come_in_any_order(study, scores, labels, exposures):
    order = np.random.default_rng(5).permutation(len(INDEX))
    shuffled = evaluate_signal(scores.iloc[order], labels.iloc[order], 5, exposures.iloc[order])
    assert shuffled.metrics() == study.metrics()
    pd.testing.assert_frame_equal(shuffled.table, study.table)
    pd.testing.assert_frame_equal(shuffled.by_group, study.by_group)


def test_only_the_order_of_scores_matters_to_ranks(study, scores, labels, exposures):
    warped = evaluate_signal(scores.assign(own=np.exp(scores["own"])), labels, 5, exposures).metrics()
    of_values = {"ic", "icir"}
    assert {k: v for k, v in warped.items() if k not in of_values} == {
        k: v for k, v in study.metrics().items() if k not in of_values
    }


def test_skill_of_noise_is_within_its_interval(scores, labels, exposures):
    figures = evaluate_signal(scores[["naive"]], labels, 5, exposures).metrics()
    assert figures["rank_ic_low"] < 0 < figures["rank_ic_high"]
    assert figures["spread_low"] < 0 < figures["spread_high"]


def test_bars_between_dates_shorten_the_overlap(scores, labels, exposures):
    assert evaluate_signal(scores, labels, 5, exposures, bars_between=2).rank_ic.overlap == 3
    assert evaluate_signal(scores, labels, 5, exposures, bars_between=9).overlap == 1


def test_a_later_label_does_not_move_an_earlier_date(study, scores, labels, exposures):
    cut = labels.copy()
    cut.loc[DAYS[60] :] = np.nan
    before = evaluate_signal(scores, cut, 5, exposures)
    pd.testing.assert_frame_equal(before.by_date["own"].iloc[:60], study.by_date["own"].iloc[:60])
    pd.testing.assert_frame_equal(before.quantiles.by_date.iloc[:60], study.quantiles.by_date.iloc[:60])


def test_without_exposures_there_is_nothing_to_be_neutral_to(scores, labels):
    study = evaluate_signal(scores, labels, 5, pd.DataFrame(index=INDEX))
    assert list(study.neutral.index) == ["none"]
    assert study.by_group.empty
    assert not [name for name in study.metrics() if "neutral" in name]


def test_invalid_columns_make_undefined_rows_and_do_not_change_others(study, scores, labels, exposures):
    bad = scores.assign(empty=np.nan, infinite=np.inf)
    found = evaluate_signal(bad, labels.assign(**{"60": np.nan}).rename(columns={"60": 60}), 5, exposures)
    pd.testing.assert_frame_equal(found.table.iloc[:3], study.table)
    assert found.table.loc[["empty", "infinite"], "dates"].eq(0).all()
    assert found.decay.loc[found.decay["horizon"] == 60, "dates"].eq(0).all()
    unknown = evaluate_signal(scores, labels, 5, exposures.assign(size=np.nan))
    assert np.isnan(unknown.metrics()["rank_ic_neutral_size"])
    assert unknown.metrics()["rank_ic_neutral"] == study.metrics()["rank_ic_neutral"]


@pytest.mark.parametrize("names", [1, 9])
def test_a_market_of_few_instruments_is_undefined_throughout(scores, labels, exposures, names):
    few = INDEX.get_level_values("instrument").isin(NAMES[:names])
    figures = evaluate_signal(scores[few], labels[few], 5, exposures[few]).metrics()
    assert (figures.pop("dates"), figures.pop("undefined_dates")) == (0, 120)
    assert np.isnan(list(figures.values())).all()


def test_a_score_that_is_constant_on_one_date_is_undefined_there(study, scores, labels, exposures):
    scores.loc[DAYS[7], "own"] = 0.1
    found = evaluate_signal(scores, labels, 5, exposures)
    assert found.metrics()["dates"] == 114
    kept = np.delete(np.arange(120), 7)
    pd.testing.assert_frame_equal(found.by_date["own"].iloc[kept], study.by_date["own"].iloc[kept])
    assert list(np.flatnonzero(found.turnover.isna())) == [0, 7, 8]


def test_a_single_date_has_a_mean_and_no_interval(scores, labels, exposures):
    figures = evaluate_signal(
        scores.loc[[DAYS[0]]], labels.loc[[DAYS[0]]], 5, exposures.loc[[DAYS[0]]]
    ).metrics()
    assert np.isfinite(figures["rank_ic"])
    assert np.isnan([figures["rank_ic_low"], figures["rank_ic_t"], figures["top_turnover"]]).all()
    assert figures["dates"] == 1


@pytest.mark.parametrize("what", ["labels", "exposures"])
def test_indices_that_differ_are_refused_with_the_remedy(scores, labels, exposures, what):
    frames = {"labels": labels, "exposures": exposures}
    frames[what] = frames[what].iloc[::-1]
    with pytest.raises(ValueError, match=rf"The index of the {what} .* {what}\.reindex\(scores\.index\)"):
        evaluate_signal(scores, frames["labels"], 5, frames["exposures"])


def test_keys_that_occur_twice_are_refused(scores, labels, exposures):
    twice = [pd.concat([frame, frame.iloc[:1]]) for frame in (scores, labels, exposures)]
    with pytest.raises(ValueError, match=r"N00.* twice"):
        evaluate_signal(twice[0], twice[1], 5, twice[2])


def test_other_bad_input_is_refused(scores, labels, exposures):
    with pytest.raises(ValueError, match=r"labels span \[1, 5\] bars, none of them 3"):
        evaluate_signal(scores, labels, 3, exposures)
    with pytest.raises(ValueError, match="No row has both a score 'own' and a label of 5 bars"):
        evaluate_signal(scores.assign(own=np.nan), labels, 5, exposures)
    with pytest.raises(ValueError, match="scores have the column 'own' twice"):
        evaluate_signal(scores[["own", "own"]], labels, 5, exposures)
    with pytest.raises(ValueError, match="scores have no column"):
        evaluate_signal(scores[[]], labels, 5, exposures)
    with pytest.raises(ValueError, match="'all' is a reserved name"):
        evaluate_signal(scores, labels, 5, exposures.rename(columns={"industry": "all"}))
    with pytest.raises(ValueError, match="A lag of -1 dates would use a score before it is known"):
        evaluate_signal(scores, labels, 5, exposures, lags=(0, -1))
    with pytest.raises(ValueError, match="bars_between must be at least 1 bar, got 0"):
        evaluate_signal(scores, labels, 5, exposures, bars_between=0)


def test_a_small_universe_is_undefined_unless_fewer_instruments_are_enough():
    rng = np.random.default_rng(0)
    keys = pd.MultiIndex.from_product(
        [pd.bdate_range("2024-01-01", periods=80), list("ABCDEF")], names=["datetime", "instrument"]
    )
    scores = pd.DataFrame({"own": rng.standard_normal(480), "naive": rng.standard_normal(480)}, keys)
    labels = pd.DataFrame({1: scores["own"] + rng.standard_normal(480)}, keys)
    exposures = pd.DataFrame({"size": rng.standard_normal(480)}, keys)
    few, enough = (evaluate_signal(scores, labels, 1, exposures, min_instruments=names) for names in (10, 5))
    assert (few.rank_ic.dates, few.rank_ic.undefined) == (0, 80)
    assert enough.rank_ic.dates == 80
    assert enough.rank_ic.low > 0.3
    assert enough.table.loc["naive", "rank_ic_difference_low"] > 0
    assert (enough.neutral["dates"] == 80).all()
    assert enough.lags.loc[0, "rank_ic"] == pytest.approx(enough.rank_ic.mean, abs=0.05)
    assert enough.autocorrelation.notna().sum() == 79
    assert few.autocorrelation.notna().sum() == 0


@pytest.fixture
def score() -> np.ndarray:
    """12 dates x 50 names that remember half of themselves."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((12, 50))
    for date in range(1, 12):
        values[date] += 0.8 * values[date - 1]
    return values


@pytest.fixture
def alphalens_data(score) -> pd.DataFrame:
    index = pd.MultiIndex.from_product(
        [pd.date_range("2024-01-01", periods=12, freq="D"), range(50)], names=["date", "asset"]
    )
    return pd.DataFrame(
        {"factor": score.ravel(), "factor_quantile": assign_quantiles(score, 5).ravel()}, index
    )


def test_turnover_agrees_with_alphalens(score, alphalens_data):
    performance = pytest.importorskip("alphalens.performance")
    expected = performance.quantile_turnover(alphalens_data["factor_quantile"], 5, 1)
    np.testing.assert_allclose(top_turnover(score, 5), expected.reindex(alphalens_data.index.levels[0]))


def test_autocorrelation_agrees_with_alphalens(score, alphalens_data):
    performance = pytest.importorskip("alphalens.performance")
    expected = performance.factor_rank_autocorrelation(alphalens_data, 1)
    np.testing.assert_allclose(rank_autocorrelation(score), expected, atol=1e-12)


def test_a_score_that_stays_is_never_traded(score):
    still = np.repeat(score[:1], 12, axis=0)
    np.testing.assert_array_equal(top_turnover(still, 5), [np.nan] + [0.0] * 11)
    np.testing.assert_allclose(rank_autocorrelation(still)[1:], 1)


def test_a_score_that_turns_over_is_traded_in_full(score):
    turned = np.repeat(score[:1], 2, axis=0) * [[1], [-1]]
    assert top_turnover(turned, 5)[1] == 1
    assert rank_autocorrelation(turned)[1] == pytest.approx(-1)


def test_an_instrument_new_to_the_universe_is_new_to_the_top(score):
    still = np.repeat(score[:1], 2, axis=0)
    still[0, score[0].argmax()] = np.nan
    assert top_turnover(still, 5)[1] > 0
    assert rank_autocorrelation(still)[1] == pytest.approx(1)  # names that have both say nothing of it


def test_dates_without_a_top_are_undefined_and_so_is_the_date_after(score):
    score[4], score[8, 9:] = 1.0, np.nan
    undefined = [0, 4, 5, 8, 9]
    assert list(np.flatnonzero(np.isnan(top_turnover(score, 5)))) == undefined
    assert list(np.flatnonzero(np.isnan(rank_autocorrelation(score)))) == undefined


@pytest.mark.parametrize("dates", [0, 1])
def test_a_single_date_has_no_turnover(score, dates):
    assert len(top_turnover(score[:dates], 5)) == len(rank_autocorrelation(score[:dates])) == dates
    assert np.isnan(top_turnover(score[:dates], 5)).all()
    assert np.isnan(rank_autocorrelation(score[:dates])).all()
