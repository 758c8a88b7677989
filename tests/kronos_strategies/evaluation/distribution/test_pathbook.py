"""A row a window is kept of the paths, and it is the same after a turn on disk."""

import weakref

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.distribution.pathbook import PathBook, keep_paths, scores_by_samples
from kronos_strategies.evaluation.distribution.volatility import qlike
from kronos_strategies.evaluation.scorecard import Market, score_forecasts, score_summaries
from kronos_strategies.signals import signals
from tests.kronos_strategies.evaluation.walks import AT, HORIZONS, PROVENANCE, market_of, tidy_bars, walks


@pytest.fixture(scope="module")
def market() -> Market:
    return market_of(tidy_bars())


@pytest.fixture(scope="module")
def kept(market) -> PathBook:
    return keep_paths(walks(market), market, HORIZONS, hold=2)[0]


def test_a_scorecard_of_what_is_kept_is_that_of_the_forecasts(market, kept):
    direct = score_forecasts(walks(market), market, HORIZONS)
    assert score_summaries(kept.said, PROVENANCE, market).as_dict() == direct.as_dict()


def test_the_score_of_all_paths_is_the_signals(market, kept):
    whole = pd.concat([signals(each, hold=2)["score"] for each in walks(market)])
    np.testing.assert_allclose(kept.by_samples[40], whole.loc[kept.by_samples.index], rtol=1e-12)
    assert list(kept.by_samples) == [1, 2, 4, 8, 16, 32, 40]


def test_the_score_of_k_paths_knows_only_the_first_k(market):
    one = next(iter(walks(market)))
    few = type(one)(one.paths[:, :4], one.keys, one.timestamps, one.last, one.provenance)
    np.testing.assert_allclose(scores_by_samples(one, 1)[4], scores_by_samples(few, 1)[4], rtol=1e-12)
    assert list(scores_by_samples(few, 1)) == [1, 2, 4]


def test_losses_are_the_rows_behind_the_scorecards_means(market, kept):
    losses = kept.losses(market)
    assert list(losses) == [f"{loss}_h{h}" for h in HORIZONS for loss in ("crps", "qlike")]
    card = score_summaries(kept.said, PROVENANCE, market)
    for score in card.distributions:
        if score.name == "model":
            mean = losses[f"crps_h{score.horizon}"].groupby("datetime").mean().mean()
            assert mean == pytest.approx(score.crps.mean, rel=1e-9)
    date, name = losses.index[17]
    came = market.variance(5)["closes"].loc[date, name]
    assert losses.loc[(date, name), "qlike_h5"] == pytest.approx(
        float(qlike(np.array(came), np.array(kept.said.loc[(date, name), (5, "variance")])))
    )


def test_it_is_the_same_after_a_turn_on_disk(kept, tmp_path):
    kept.write(tmp_path)
    read = PathBook.read(tmp_path)
    for name in ("said", "by_samples", "fans"):
        pd.testing.assert_frame_equal(
            getattr(read, name), getattr(kept, name), check_column_type=False, check_freq=False
        )


def test_paths_are_let_go_of_one_date_after_the_other(market):
    seen: list[weakref.ref] = []

    def watched():
        for at in AT[:5]:
            (made,) = walks(market, [at])
            assert sum(paths() is not None for paths in seen) <= 1
            seen.append(weakref.ref(made.paths))
            yield made
            del made

    keep_paths(watched(), market, (1,), hold=1)
    assert len(seen) == 5


def test_no_forecast_is_refused(market):
    with pytest.raises(ValueError, match="no forecasts"):
        keep_paths([], market, (1,), hold=1)
