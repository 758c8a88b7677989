"""However somebody's parquet file is laid out, its scores are the same."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.comparison.version import read_labels, read_version

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
    "others beside score": FRAME.assign(volatility=1.0, industry="banks"),
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
def test_what_is_unclear_is_refused(frame, reason, tmp_path):
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
