"""A file of any layout gives the same scores; only rows that every version and the label have are compared."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.comparison.version import Version, align, read_labels, read_version

from .planted import drawn, rows

SCORE = drawn(rows(dates=4, names=3), 0).rename("score")
FRAME = SCORE.to_frame()


def write(frame: pd.DataFrame, tmp_path, name: str = "a.parquet"):
    frame.to_parquet(tmp_path / name)
    return tmp_path / name


LAYOUTS = {
    "as asked for": FRAME,
    "levels turned": FRAME.reorder_levels(["instrument", "datetime"]).sort_index(),
    "unnamed levels": FRAME.rename_axis([None, None]),
    "unnamed levels turned": FRAME.reorder_levels([1, 0]).rename_axis([None, None]),
    "other names": FRAME.rename_axis(["Date", "Symbol"]),
    "columns": FRAME.reset_index(),
    "columns of other names": FRAME.reset_index().set_axis(["timestamp", "code", "x"], axis=1),
    "one a level, one a column": FRAME.reset_index("instrument"),
    "unnamed dates": FRAME.reset_index("instrument").rename_axis(None),
    "filtered": FRAME.reset_index().set_index(pd.Index(range(5, 17))),
    "dates as text": FRAME.reset_index().assign(datetime=lambda t: t["datetime"].dt.strftime("%Y-%m-%d")),
    "dates as numbers": FRAME.reset_index().assign(
        datetime=lambda t: t["datetime"].dt.strftime("%Y%m%d").astype(int)
    ),
    "dates in a zone": FRAME.tz_localize("Asia/Shanghai", level="datetime"),
    "seconds": FRAME.reset_index().astype({"datetime": "datetime64[s]"}),
    "categories": FRAME.reset_index().astype({"instrument": "category"}),
    "others next to score": FRAME.assign(volatility=1.0, industry="banks"),
    "any name": FRAME.rename(columns={"score": "prediction"}),
    "no name": FRAME.set_axis([0], axis=1),
    "shuffled": FRAME.sample(frac=1, random_state=0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_are_read_from_any_clear_layout(layout, tmp_path):
    version = read_version(write(LAYOUTS[layout], tmp_path, "new model.parquet"))
    assert version.name == "new model"
    assert version.score.to_dict() == SCORE.to_dict()
    assert version.score.index.get_level_values("datetime").dtype == "datetime64[ns]"
    assert version.score.index.names == ["datetime", "instrument"]
    assert set(version.provenance) == {"file", "sha256"}


def test_codes_of_numbers_are_text(tmp_path):
    numbered = FRAME.reset_index().assign(instrument=lambda t: t["instrument"].str[1:].astype(int) + 600000)
    names = read_version(write(numbered, tmp_path)).score.index.get_level_values("instrument")
    assert sorted(set(names)) == ["600000", "600001", "600002"]


def test_integers_missing_values_and_halves_are_floats(tmp_path):
    for kind in ("Int64", "float32", "float64"):
        frame = pd.DataFrame(
            {"score": pd.Series([1, 2, None, *range(9)], dtype=kind).to_numpy(float, na_value=np.nan)},
            SCORE.index,
        )
        score = read_version(write(frame.astype(kind), tmp_path)).score
        assert score.dtype == np.float64
        assert score.isna().sum() == 1


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (
            FRAME.assign(other=1.0).rename(columns={"score": "one"}),
            r"2 columns of values, 'one', 'other'.*Keep one of them, or name .* 'score'",
        ),
        (SCORE.unstack(), r"no instrument.*'N000'"),
        (FRAME.reset_index("datetime", drop=True), r"no datetime: its index levels are \['instrument'\]"),
        (FRAME.reset_index(drop=True), r"no datetime and no instrument"),
        (FRAME[[]], r"only the columns datetime and instrument"),
        (FRAME.assign(score="high"), r"'score' that are not numbers"),
        (FRAME.reset_index().assign(datetime="spring"), r"not dates, the first 'spring'"),
        (FRAME.rename(index=str, level="datetime").rename_axis([None, None]), r"no datetime"),
    ],
)
def test_ambiguous_layouts_are_refused(frame, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        read_version(write(frame, tmp_path))


def test_no_file_and_no_parquet_file_have_errors_of_their_own(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.parquet is not a file"):
        read_version(tmp_path / "none.parquet")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        read_version(tmp_path)
    (tmp_path / "a.parquet").write_text("datetime,instrument,score\n")
    with pytest.raises(ValueError, match=r"a\.parquet is not a parquet file"):
        read_version(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["label", "LABEL0", "0", "5"])
def test_a_single_label_is_a_series(name, tmp_path):
    found = read_labels(write(SCORE.rename(name).to_frame(), tmp_path), label_horizon=5)
    assert isinstance(found, pd.Series)
    np.testing.assert_array_equal(found, SCORE)


@pytest.mark.parametrize("names", [["1", "5"], [1, 5], ["5", "1"]])
def test_columns_called_by_bars_are_horizons(names, tmp_path):
    found = read_labels(
        write(pd.DataFrame({name: SCORE * int(name) for name in names}), tmp_path), label_horizon=5
    )
    assert sorted(found.columns) == [1, 5]
    np.testing.assert_array_equal(found[5], SCORE * 5)


def test_a_column_called_label_is_the_label(tmp_path):
    found = read_labels(write(FRAME.assign(label=2.0), tmp_path), label_horizon=1)
    assert (found == 2).all()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["5", "10"], r"labels of 5, 10 bars, not of 1.*--label-horizon 5"),
        (["10"], r"labels of 10 bars, not of 1.*--label-horizon 10"),
        (["5", "ten"], r"2 columns of values, '5', 'ten'.*label"),
    ],
)
def test_labels_of_other_horizons_are_refused(names, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        read_labels(write(pd.DataFrame(dict.fromkeys(names, SCORE)), tmp_path), label_horizon=1)


INDEX = rows(dates=6, names=4, start="2024-01-01")


def part(*, drop=(), undefined=(), seed=0) -> pd.Series:
    """Scores on INDEX without some rows, and others NaN or infinite."""
    series = drawn(INDEX, seed)
    series.iloc[list(undefined)] = [np.nan, np.inf, -np.inf][: len(undefined)]
    return series.drop(INDEX[list(drop)])


def common(*scores, label=None, baselines=None):
    versions = [Version(name, score) for name, score in zip("abc", scores, strict=False)]
    label = drawn(INDEX, 9) if label is None else label
    return align(versions, {1: label}, 1, baselines)


def test_rows_are_those_that_all_have_with_a_finite_value():
    a, b = part(undefined=[0]), part(drop=[1], undefined=[2, 3], seed=1)
    label = part(drop=[5, 6], undefined=[4], seed=2)
    found = common(a, b, label=label)
    wide = np.isfinite(np.array([*found.scores.values(), found.labels[1]]))
    assert (wide == wide[0]).all()
    assert np.flatnonzero(~wide[0].ravel()).tolist() == [0, 1, 2]  # the first date lost all of its four names
    expected = [a.iloc[i] for i in (7, 8)]
    assert found.scores["a"][0, 3] == expected[0]
    assert found.scores["a"][1, 0] == expected[1]
    assert list(found.dates) == list(INDEX.levels[0][1:])


def test_sample_counts_count_every_row_of_any_version_once():
    found = common(
        part(undefined=[0]), part(drop=[0, 1], seed=1), part(undefined=[1, 2]), label=part(drop=[2, 3])
    )
    assert dict(found.sample_counts) == {
        "rows of any version": 24,
        "no score of 'a'": 1,
        "no score of 'b'": 1,
        "no score of 'c'": 1,
        "no label": 1,
        "compared": 20,
    }


def test_rows_that_only_one_has_change_nothing_and_are_counted():
    few = common(part(drop=range(8)), part(seed=1))
    more = common(part(), part(drop=range(8), seed=1))
    assert (few.sample_counts["no score of 'a'"], few.sample_counts["no score of 'b'"]) == (8, 0)
    assert (more.sample_counts["no score of 'a'"], more.sample_counts["no score of 'b'"]) == (0, 8)
    assert few.sample_counts["rows of any version"] == more.sample_counts["rows of any version"] == 24
    np.testing.assert_array_equal(few.scores["a"], more.scores["a"])
    np.testing.assert_array_equal(few.labels[1], more.labels[1])
    assert few.dates.equals(more.dates)


def test_neither_the_order_of_rows_nor_that_of_levels_matters():
    plain = common(part(), part(seed=1))
    shuffled = common(
        part().sample(frac=1, random_state=0),
        part(seed=1).reorder_levels(["instrument", "datetime"]).sort_index(),
    )
    for name in "ab":
        np.testing.assert_array_equal(plain.scores[name], shuffled.scores[name])


def test_dates_of_two_time_zones_are_refused():
    days, names = (INDEX.get_level_values(level) for level in ("datetime", "instrument"))
    zoned = pd.MultiIndex.from_arrays([days.tz_localize("Asia/Shanghai"), names], names=INDEX.names)
    with pytest.raises(ValueError, match=r"time zones .*Asia/Shanghai"):
        common(part(), part(seed=1).set_axis(zoned))


def test_instruments_may_be_categories_and_dates_of_another_unit():
    days, names = (INDEX.get_level_values(level) for level in ("datetime", "instrument"))
    other = pd.MultiIndex.from_arrays(
        [days.astype("datetime64[s]"), names.astype("category")], names=["datetime", "instrument"]
    )
    found = common(part(), part(seed=1).set_axis(other))
    np.testing.assert_array_equal(found.scores["b"], common(part(), part(seed=1)).scores["b"])


def test_losses_are_on_rows_finite_in_all_versions_and_an_incomplete_loss_is_named():
    losses = [pd.DataFrame({"qlike": drawn(INDEX, seed), "crps": drawn(INDEX, seed + 1)}) for seed in (3, 5)]
    losses[0].iloc[2, 0] = np.inf
    versions = [
        Version("a", part(), losses[0].sample(frac=1, random_state=0)),
        Version("b", part(seed=1), losses[1][["qlike"]].assign(mae=1.0)),
    ]
    found = align(versions, {1: drawn(INDEX, 9)}, 1, None)
    assert list(found.losses) == ["qlike"]
    for version, given in zip("ab", losses, strict=True):
        expected = given["qlike"].to_numpy().copy()
        expected[2] = np.nan
        np.testing.assert_array_equal(found.losses["qlike"][version].ravel(), expected)
    assert dict(found.missing_losses) == {"crps": "b", "mae": "a"}


def test_baselines_are_restricted_to_the_same_rows_and_may_lack_some():
    naive = pd.DataFrame({"momentum": part(drop=[5], seed=4)})
    found = common(part(drop=[8]), part(seed=1), baselines=naive)
    assert np.flatnonzero(np.isnan(found.baselines["momentum"].ravel())).tolist() == [5, 8]


def later(series: pd.Series, years: int) -> pd.Series:
    days, names = (series.index.get_level_values(level) for level in ("datetime", "instrument"))
    moved = [days + pd.DateOffset(years=years), names]
    return series.set_axis(pd.MultiIndex.from_arrays(moved, names=INDEX.names))


def at_three(series: pd.Series) -> pd.Series:
    days, names = (series.index.get_level_values(level) for level in ("datetime", "instrument"))
    return series.set_axis(
        pd.MultiIndex.from_arrays([days + pd.Timedelta(hours=15), names], names=INDEX.names)
    )


@pytest.mark.parametrize(
    ("scores", "label", "reason"),
    [
        (
            (part(), later(part(), 1)),
            None,
            r"no common date: 2024-01-01 to 2024-01-08 in the scores of 'a'; ",
        ),
        ((part(), later(part(), 1)), None, r"2025-01-01 to 2025-01-08 in the scores of 'b'"),
        ((part(), part()), later(part(), 1), r"2025-01-08 in the labels of 1 bars"),
        (
            (part(), at_three(part())),
            None,
            r"2024-01-08 in the scores of 'a'; 2024-01-01 15:00 to 2024-01-08 15:00 in the scores of 'b'",
        ),
        (
            (part(), part().rename(index=lambda name: f"SH{name}", level="instrument")),
            None,
            r"no common instrument: N000, ... in the scores of 'a'; SHN000",
        ),
        ((part(drop=range(12)), part(drop=[0, *range(12, 24)])), None, r"no common date"),
        ((part(drop=range(0, 24, 2)), part(drop=range(1, 24, 2))), None, r"no common instrument"),
        ((part(), part() * np.nan), None, r"scores of 'b' have no finite value in 24 rows"),
        ((part() * np.nan, part()), None, r"scores of 'a' have no finite value"),
        ((part(), part()), part() * np.inf, r"labels of 1 bars have no finite value"),
        ((part(), part().iloc[:0]), None, r"scores of 'b' have no rows"),
        ((part(), pd.concat([part(), part().iloc[[3]]])), None, r"scores of 'b' have .*'N003'\) twice"),
        ((part(), part().droplevel("datetime")), None, r"scores of 'b' lack the index level 'datetime'"),
    ],
)
def test_versions_that_cannot_be_aligned_are_refused_with_the_reason(scores, label, reason):
    with pytest.raises(ValueError, match=reason):
        common(*scores, label=label)


def test_gaps_that_leave_no_row_have_an_error_of_their_own():
    ones = part(drop=[i for i in range(24) if i not in (0, 5)])
    others = part(drop=[i for i in range(24) if i not in (1, 4)])
    with pytest.raises(
        ValueError, match=r"no row in which the scores of 'a', the scores of 'b', the labels of 1 bars"
    ):
        common(ones, others)
