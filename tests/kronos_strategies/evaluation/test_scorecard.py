"""Planted forecasts get the marks they deserve, on labels that can be traded, and no bar from too far on counts."""

import json
import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kronos.forecast import Forecast
from kronos_strategies.causal import scramble_after
from kronos_strategies.evaluation.baselines import reversal_5
from kronos_strategies.evaluation.distribution.calibration import normal_crps
from kronos_strategies.evaluation.distribution.volatility import realised_variance
from kronos_strategies.evaluation.scorecard import Market, Scorecard, score_forecasts
from kronos_strategies.evaluation.scorecard.distributions import RANDOM_WALK, DistributionScore
from kronos_strategies.evaluation.scorecard.rankings import PERSISTENCE, RankingScore
from kronos_strategies.evaluation.scorecard.rows import MODEL
from kronos_strategies.evaluation.scorecard.tables import grid, tables
from kronos_strategies.evaluation.scorecard.volatilities import HISTORICAL, VolatilityScore
from kronos_strategies.evaluation.signal.ic import coefficients
from kronos_strategies.signals import signals
from tests.kronos_strategies.evaluation.walks import (
    AT,
    DAYS,
    HORIZONS,
    NAMES,
    forecast,
    market_of,
    oracles,
    tidy_bars,
    walks,
)


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return tidy_bars()


@pytest.fixture(scope="module")
def market(bars) -> Market:
    return market_of(bars)


@pytest.fixture(scope="module")
def card(market) -> Scorecard:
    return score_forecasts(walks(market), market, HORIZONS)


def ranking(card: Scorecard, name: str, horizon: int = 1) -> RankingScore:
    return next(s for s in card.rankings if (s.name, s.horizon) == (name, horizon))


def volatility(card: Scorecard, name: str, measure: str = "closes", horizon: int = 5) -> VolatilityScore:
    return next(s for s in card.volatilities if (s.name, s.measure, s.horizon) == (name, measure, horizon))


def distribution(card: Scorecard, name: str, horizon: int = 5) -> DistributionScore:
    return next(s for s in card.distributions if (s.name, s.horizon) == (name, horizon))


@pytest.mark.parametrize("horizon", HORIZONS)
def test_who_knows_the_future_ranks_it_without_fault(market, horizon):
    card = score_forecasts(oracles(market), market, HORIZONS)
    assert ranking(card, MODEL, horizon).rank_ic.mean == pytest.approx(1, abs=1e-3)
    assert ranking(card, "5-day reversal", horizon).lead.low > 0.5
    assert volatility(card, MODEL, horizon=horizon).rank_ic.mean == pytest.approx(1, abs=1e-3)
    assert distribution(card, MODEL, horizon).crps.mean == pytest.approx(0, abs=1e-5)


def test_who_only_knows_tomorrow_earns_nothing_for_a_signal_trades_at_the_next_close(market):
    def tomorrow() -> Iterator[Forecast]:
        for each in oracles(market):
            paths = each.paths.copy()
            paths[:, :, 1:] = paths[:, :, :1]
            yield replace(each, paths=paths)

    found = ranking(score_forecasts(tomorrow(), market, (1,)), MODEL)
    assert (found.rank_ic.dates, found.rank_ic.undefined) == (0, len(AT))


@pytest.mark.parametrize("horizon", HORIZONS)
def test_rank_ic_is_that_of_the_projects_signal_and_label(market, card, horizon):
    score = pd.concat([signals(each, hold=horizon)["score"] for each in walks(market)])
    label = (market.closes.shift(-1 - horizon) / market.closes.shift(-1) - 1).stack()
    expected = coefficients(score, label)["rank_ic"]
    pd.testing.assert_series_equal(
        ranking(card, MODEL, horizon).by_date["rank_ic"], expected, check_freq=False
    )
    naive = coefficients(reversal_5(market.closes).iloc[AT].stack(), label)["rank_ic"]
    pd.testing.assert_series_equal(
        ranking(card, "5-day reversal", horizon).by_date["rank_ic"], naive, check_freq=False
    )


def test_no_skill_is_not_distinguished_from_none_and_persistence_ranks_nothing(card):
    for horizon in HORIZONS:
        found = ranking(card, MODEL, horizon).rank_ic
        assert found.low < 0 < found.high
        assert ranking(card, PERSISTENCE, horizon).rank_ic.dates == 0


def test_a_score_of_calm_names_has_nothing_left_once_neutral(market):
    def calm() -> Iterator[Forecast]:
        for t in AT:
            quiet = -market.deviation.iloc[t].to_numpy()[:, None, None]
            yield forecast(t, market.closes.iloc[t].to_numpy(), np.tile(quiet, (1, 2, 3)))

    found = ranking(score_forecasts(calm(), market, (1,)), MODEL)
    assert found.rank_ic.dates == len(AT)
    assert found.neutral.dates == 0


def test_true_volatility_beats_that_of_the_last_20_days(card):
    for measure in ("closes", "ranges"):
        naive = volatility(card, HISTORICAL, measure)
        assert naive.lead.low > 0
        assert volatility(card, MODEL, measure).rank_ic.mean - naive.rank_ic.mean == pytest.approx(
            naive.lead.mean
        )
    assert volatility(card, HISTORICAL).excess.high < 0


def test_a_true_distribution_is_calibrated_and_beats_the_random_walk(card):
    found = distribution(card, MODEL)
    assert found.coverage[0.8].mean == pytest.approx(0.8, abs=0.03)
    assert found.coverage[0.9].mean == pytest.approx(0.9, abs=0.03)
    assert found.pit_mean == pytest.approx(0.5, abs=0.06)
    assert found.pit_deviation == pytest.approx(0.289, abs=0.02)
    assert found.skill > found.ensemble_skill
    assert distribution(card, RANDOM_WALK).skill == 0
    assert distribution(card, RANDOM_WALK).excess.mean < 0


@pytest.mark.parametrize("horizon", HORIZONS)
def test_the_random_walk_is_normal_with_the_deviation_of_20_days_times_the_root_of_the_horizon(
    market, card, horizon
):
    came = np.log(market.closes.shift(-horizon) / market.closes)
    scale = market.closes.pct_change().rolling(20).std() * np.sqrt(horizon)
    within = [(came.abs() <= z * scale).iloc[AT].to_numpy().mean() for z in (1.2815516, 1.6448536)]
    found = distribution(card, RANDOM_WALK, horizon)
    assert [found.coverage[level].mean for level in (0.8, 0.9)] == pytest.approx(within)
    assert within == pytest.approx([0.8, 0.9], abs=0.05)
    crps = normal_crps(np.zeros(came.shape), scale.to_numpy(), came.to_numpy())[AT]
    assert found.crps.mean == found.ensemble_crps.mean == pytest.approx(crps.mean())


def test_paths_that_are_too_calm_are_called_so(market):
    def halved() -> Iterator[Forecast]:
        for each in walks(market):
            start = each.last_bar[:, None, None, :1]
            yield replace(each, paths=start * np.sqrt(each.paths / start))

    found = score_forecasts(halved(), market, (5,))
    assert distribution(found, MODEL).coverage[0.9].mean < 0.7
    assert distribution(found, MODEL).pit_deviation > 0.33
    assert volatility(found, HISTORICAL).excess.low > 0


def test_a_band_that_the_samples_cannot_reach_is_left_out(market):
    found = distribution(score_forecasts(walks(market, samples=10), market, (5,)), MODEL)
    assert found.coverage[0.9] is None
    assert found.coverage[0.8].mean == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(("every", "overlap"), [(1, 5), (2, 3), (5, 1), (7, 1)])
def test_thinned_dates_overlap_less(market, card, every, overlap):
    thin = score_forecasts(walks(market, AT[::every]), market, HORIZONS)
    found = ranking(thin, MODEL, 5)
    assert found.rank_ic.overlap == found.newey_west.overlap == overlap
    assert volatility(thin, MODEL).qlike.overlap == distribution(thin, MODEL).crps.overlap == overlap
    pd.testing.assert_frame_equal(
        found.by_date, ranking(card, MODEL, 5).by_date.iloc[::every], check_freq=False
    )


@pytest.mark.parametrize("ahead", [1, 6])
def test_who_cannot_be_traded_on_both_ends_has_no_label(bars, market, ahead):
    at = AT[3]
    halted = bars[(bars["datetime"] != DAYS[at + ahead]) | (bars["instrument"] != NAMES[7])]
    found = market_of(halted).earned(5)
    assert np.isnan(found.loc[DAYS[at], NAMES[7]])
    assert np.isnan(found.to_numpy()[at]).sum() == 1
    assert market_of(halted).deviation.loc[DAYS[at + ahead]].notna().all()  # the last known close stands in


def test_a_suspension_in_between_leaves_the_label_and_counts_its_move_once(bars, market):
    halted = bars[(bars["datetime"] != DAYS[50]) | (bars["instrument"] != "N07")]
    found = market_of(halted)
    for wide in (Market.earned, Market.moved):
        assert wide(found, 5).loc[DAYS[47], "N07"] == wide(market, 5).loc[DAYS[47], "N07"]
    by_closes = found.variance(5)["closes"].loc[DAYS[47], "N07"]
    assert by_closes == realised_variance(found.closes, 5).loc[DAYS[47], "N07"]
    assert np.isfinite(found.variance(5)["ranges"].loc[DAYS[47], "N07"])


def test_a_lead_is_over_the_names_that_both_have(bars):
    late = bars[(bars["datetime"] >= DAYS[AT[0] - 2]) | ~bars["instrument"].isin(NAMES[:5])]
    market = market_of(late)

    def every_name() -> Iterator[Forecast]:
        for t in (AT[0], AT[1]):
            steps = np.random.default_rng(t).standard_normal((len(NAMES), 20, 3)) * 0.01
            yield forecast(t, market.closes.iloc[t].to_numpy(), steps)

    found = score_forecasts(every_name(), market, (1,))
    score = pd.concat([signals(each)["score"] for each in every_name()])
    label = market.at(market.earned(1), score.index)
    old = ~score.index.get_level_values("instrument").isin(NAMES[:5])
    common = coefficients(score[old], label[old])["rank_ic"]
    naive = ranking(found, "5-day reversal")
    assert naive.lead.mean == pytest.approx((common - naive.by_date["rank_ic"]).mean())
    assert naive.lead.mean != pytest.approx(
        (ranking(found, MODEL).by_date["rank_ic"] - naive.by_date["rank_ic"]).mean()
    )


def test_bars_beyond_the_label_change_nothing(bars, market):
    forecasts = list(walks(market))
    one = score_forecasts(forecasts, market, HORIZONS).by_date()
    end = AT[-1] - 20
    other = score_forecasts(forecasts, market_of(scramble_after(bars, DAYS[end])), HORIZONS).by_date()
    settled = one["datetime"] <= DAYS[end - max(HORIZONS) - 1]
    assert 0 < settled.sum() < len(one)
    pd.testing.assert_frame_equal(one[settled], other[settled])
    assert not one[~settled].equals(other[~settled])


def test_what_was_known_on_a_date_stays_when_all_that_follows_is_scrambled(bars, market):
    end = AT[10]
    other = market_of(scramble_after(bars, DAYS[end]))
    pd.testing.assert_frame_equal(market.deviation.iloc[: end + 1], other.deviation.iloc[: end + 1])
    for name, wide in market.naive.items():
        pd.testing.assert_frame_equal(wide.iloc[: end + 1], other.naive[name].iloc[: end + 1])


def test_dates_without_a_label_yet_are_undefined(bars):
    market = market_of(bars[bars["datetime"] <= DAYS[AT[-1]]])
    found = score_forecasts(walks(market), market, HORIZONS)
    assert ranking(found, MODEL, 5).rank_ic.undefined == 6
    assert distribution(found, MODEL, 5).crps.undefined == 5
    assert distribution(found, MODEL, 1).crps.undefined == 1


def test_paths_are_let_go_of_as_soon_as_they_are_summarised(market):
    alive: list[weakref.ref[np.ndarray]] = []

    def watched() -> Iterator[Forecast]:
        for each in walks(market):
            alive.append(weakref.ref(each.paths))
            assert sum(paths() is not None for paths in alive) <= 3
            yield each

    score_forecasts(watched(), market, (1,))
    assert len(alive) == len(AT)


def test_no_path_through_zero_spoils_a_figure(market):
    def violent() -> Iterator[Forecast]:
        for each in walks(market):
            each.paths[0, 0, 2:] = -1
            yield each

    found = score_forecasts(violent(), market, HORIZONS)
    assert distribution(found, MODEL).outcomes == len(AT) * len(NAMES)
    assert ranking(found, MODEL, 5).rank_ic.dates == len(AT)


def test_paths_of_another_market_are_refused(market):
    stranger = forecast(AT[0], np.ones(1), np.zeros((1, 2, 2)), ["OTHER"])
    with pytest.raises(ValueError, match=r"1 forecasts are of no date or name .*'OTHER'"):
        score_forecasts([stranger], market, (1,))


def test_paths_that_are_too_short_are_refused(market):
    with pytest.raises(ValueError, match="Forecast 7 bars"):
        score_forecasts(walks(market), market, (1, 6))


def test_no_forecasts_are_refused(market):
    with pytest.raises(ValueError, match="no forecasts"):
        score_forecasts([], market)


def test_a_card_says_what_it_is_of_and_is_json(card):
    plain = json.loads(json.dumps(card.as_dict(), allow_nan=False))
    assert (plain["first"], plain["dates"], plain["windows"]) == ("2023-02-13", 60, 60 * 40)
    assert plain["rankings"][1]["rank_ic"]["mean"] is None  # persistence
    assert (
        plain["distributions"][0]["coverage"]["0.8"]["mean"]
        == distribution(card, MODEL, 1).coverage[0.8].mean
    )


def test_series_by_date_are_those_that_the_means_are_of(card):
    long = card.by_date()
    assert list(long.columns) == ["datetime", "horizon", "of", "name", "measure", "value"]
    assert not long.duplicated(["datetime", "horizon", "of", "name", "measure"]).any()
    some = long.query(
        "horizon == 5 and of == 'volatility by ranges' and name == @HISTORICAL and measure == 'qlike'"
    )
    assert some["value"].mean() == pytest.approx(volatility(card, HISTORICAL, "ranges").qlike.mean)


def test_tables_are_markdown_with_a_row_a_score(card):
    for table, scores in zip(
        tables(card, "nano"), (card.rankings, card.volatilities, card.distributions), strict=True
    ):
        assert len(table.rows) == len(scores)
        assert {row[1] for row in table.rows} == {"nano" if s.name == MODEL else s.name for s in scores}
        lines = [line for line in table.markdown().splitlines() if line.startswith("|")]
        assert {line.count("|") for line in lines} == {len(table.columns) + 1}
        assert "nan" not in table.markdown().replace("nano", "")


def test_a_grid_has_a_row_a_setting_and_horizon(card):
    table = grid({"T=1": card, "T=2": card})
    assert [row[:2] for row in table.rows] == [("1", "T=1"), ("1", "T=2"), ("5", "T=1"), ("5", "T=2")]
    assert f"{ranking(card, MODEL, 5).rank_ic.mean:+.4f}" in table.rows[2][2]
