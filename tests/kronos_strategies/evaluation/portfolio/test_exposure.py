from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.portfolio.exposure import exposure_by_date, tilts_by_date


def test_gross_counts_shorts_and_net_takes_them_off(book, days):
    frame = exposure_by_date(book({"S0": 0.6, "S1": -0.25, "S2": 0.0}))
    assert frame.columns.tolist() == ["gross", "net", "positions"]
    assert frame.index.equals(days)
    np.testing.assert_allclose(frame, [[0.85, 0.35, 2]] * len(days))


def test_a_bar_that_holds_nothing_has_no_exposure(book, days):
    result = book({"S0": 0.5, "S1": 0.5})
    frame = exposure_by_date(replace(result, weights=result.weights.drop(days[7], level="datetime")))
    assert frame.loc[days[7]].tolist() == [0, 0, 0]
    assert frame.loc[days[8]].tolist() == [1, 1, 2]


def test_the_order_of_the_weights_does_not_matter(book, exposures):
    result = book({"S0": 0.6, "S1": -0.25})
    turned = replace(result, weights=result.weights.swaplevel().sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(exposure_by_date(turned), exposure_by_date(result))
    pd.testing.assert_frame_equal(tilts_by_date(turned, exposures), tilts_by_date(result, exposures))


def test_a_name_held_twice_on_a_date_is_refused(book):
    result = book({"S0": 0.5})
    with pytest.raises(ValueError, match=r"The weights have .* twice"):
        exposure_by_date(replace(result, weights=pd.concat([result.weights, result.weights[:1]])))


@pytest.mark.parametrize(
    ("weights", "tilt"),
    [
        ({"S7": 1.0}, 7.5 / 8),  # the largest of eight
        ({"S0": 0.2}, 0.5 / 8),
        ({"S6": 0.3, "S7": 0.1}, (0.75 * 6.5 + 0.25 * 7.5) / 8),
        ({f"S{i}": 0.125 for i in range(8)}, 0.5),
        ({"S0": 0.5, "S7": 0.5}, 0.5),
        ({"S0": -0.5, "S7": 0.5}, 7.5 / 8),  # long the largest and short the smallest
        ({"S7": -1.0}, 0.5 / 8),
    ],
)
def test_a_tilt_is_where_the_held_stand_among_all(book, exposures, weights, tilt):
    tilts = tilts_by_date(book(weights), exposures)
    assert tilts.columns.tolist() == ["size", "momentum"]
    np.testing.assert_allclose(tilts["size"], tilt)


def test_only_what_ranks_matters_to_a_tilt(book, exposures):
    tilts = tilts_by_date(book({"S1": 0.4, "S5": 0.6}), exposures.assign(size=np.exp(exposures["size"])))
    np.testing.assert_allclose(tilts["size"], (0.4 * 1.5 + 0.6 * 5.5) / 8)


def test_ties_share_their_percentile(book, exposures):
    tilts = tilts_by_date(book({"S7": 1.0}), exposures.assign(size=1.0))
    np.testing.assert_allclose(tilts["size"], 0.5)


@pytest.mark.parametrize("unknown", [np.nan, np.inf])
def test_a_name_whose_exposure_is_unknown_is_left_out(book, exposures, unknown):
    exposures = exposures.assign(size=exposures["size"].where(exposures["size"] > 1, unknown))
    tilts = tilts_by_date(book({"S0": 0.9, "S7": 0.1}), exposures)
    np.testing.assert_allclose(tilts["size"], 5.5 / 6)


def test_there_is_no_tilt_where_nothing_held_has_an_exposure(book, days, exposures):
    unknown = exposures.copy()
    unknown.loc[(days[3], "S7"), "size"] = np.nan
    tilts = tilts_by_date(book({"S7": 1.0}), unknown.drop(days[5], level="datetime"))
    assert tilts["size"].isna().tolist() == [day in (days[3], days[5]) for day in days]
    assert tilts_by_date(book({"S99": 1.0}), exposures).isna().all(axis=None)
    assert tilts_by_date(book({}), exposures).isna().all(axis=None)


def test_groups_have_no_percentile(book, exposures):
    tilts = tilts_by_date(book({"S7": 1.0}), exposures.assign(industry="banks"))
    assert tilts.columns.tolist() == ["size", "momentum"]


def test_dates_that_are_not_the_books_do_not_matter(book, exposures, days):
    result = book({"S7": 0.5, "S3": 0.5}, bars=20)
    tilts = tilts_by_date(result, exposures)
    assert tilts.index.equals(days[:20])
    pd.testing.assert_frame_equal(tilts, tilts_by_date(result, exposures.loc[days[0] : days[19]]))


def test_an_exposure_given_twice_is_refused(book, exposures):
    with pytest.raises(ValueError, match=r"The exposures have .* twice"):
        tilts_by_date(book({"S7": 1.0}), pd.concat([exposures, exposures[:1]]))
