"""One figure a date and version: those of the studies of a single score."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.comparison.align import align
from kronos_strategies.evaluation.comparison.metrics import metrics_by_date, score_metrics_by_date
from kronos_strategies.evaluation.comparison.version import Version
from kronos_strategies.evaluation.signal.ic import information_coefficients

from .planted import drawn, rows, version


def test_ic_and_rank_ic_are_those_of_the_score_alone_on_complete_rows():
    index = rows(dates=20)
    label = drawn(index, 0)
    versions = [version("a", label, 0.3, 1), version("b", label, -0.2, 2)]
    found = metrics_by_date(align(versions, {1: label}, 1, None), 1)
    for each in versions:
        expected = information_coefficients(each.score, label)
        for metric in ("ic", "rank_ic"):
            np.testing.assert_allclose(found[metric][each.name], expected[metric], atol=1e-14)


@pytest.mark.parametrize(("names", "part"), [(30, 0.2), (200, 0.1)])
def test_spread_is_top_minus_bottom_decile_or_quintile_of_few_instruments(names, part):
    rng = np.random.default_rng(0)
    score, label = rng.standard_normal((2, 5, names))
    dates = pd.bdate_range("2024-01-01", periods=5)
    found = score_metrics_by_date({"a": score}, label, dates)["spread"]["a"]
    size = int(names * part)
    order = np.argsort(score, axis=1)
    ends = (
        np.take_along_axis(label, order[:, chosen], axis=1).mean(axis=1)
        for chosen in (slice(-size, None), slice(size))
    )
    top, bottom = ends
    np.testing.assert_allclose(found, top - bottom)


def test_a_loss_is_the_mean_over_the_rows_of_a_date():
    index = rows(dates=3, names=12)
    losses = [pd.DataFrame({"crps": drawn(index, seed)}) for seed in (1, 2)]
    losses[1].iloc[12:24] = np.nan
    versions = [Version(name, drawn(index, 5), of) for name, of in zip("ab", losses, strict=True)]
    found = metrics_by_date(align(versions, {1: drawn(index, 0)}, 1, None), 1)["crps"]
    expected = losses[0]["crps"].groupby(level="datetime").mean().to_numpy()
    np.testing.assert_allclose(found["a"], [expected[0], np.nan, expected[2]])
    assert np.isnan(found["b"].iloc[1])


def test_a_constant_score_and_a_date_of_few_instruments_rank_nothing():
    rng = np.random.default_rng(0)
    score, label = rng.standard_normal((2, 3, 30))
    score[1], label[2, 9:] = 0.1, np.nan
    dates = pd.bdate_range("2024-01-01", periods=3)
    for figures in score_metrics_by_date({"a": score}, label, dates).values():
        assert np.isfinite(figures["a"]).tolist()[:2] == [True, False]
    assert np.isnan(score_metrics_by_date({"a": score}, label, dates)["rank_ic"]["a"].iloc[2])


def test_a_loss_named_like_a_metric_of_the_score_is_refused():
    index = rows(dates=2, names=12)
    versions = [Version(name, drawn(index, 1), pd.DataFrame({"ic": drawn(index, 2)})) for name in "ab"]
    with pytest.raises(ValueError, match="A loss is called 'ic'"):
        metrics_by_date(align(versions, {1: drawn(index, 0)}, 1, None), 1)
