from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kronos.training.bar_array import MappedBars
from kronos.training.config import Source
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.training import QlibBars
from tests.kronos.builders import make_bars

NAMES = ("AAA", "BBB", "CCC")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path):
    """Three names of 60 days: AAA splits, BBB joins market `two` late and CCC has a suspension."""
    series = {name: make_bars(60, seed) for seed, name in enumerate(NAMES)}
    frame = pd.concat(bars.reset_index().assign(instrument=name, factor=1.0) for name, bars in series.items())
    frame = frame.reset_index(drop=True)
    split = (frame["instrument"] == "AAA") & (frame["datetime"] >= "2024-02-01")
    frame.loc[split, ["open", "high", "low", "close"]] /= 2
    frame.loc[split, "volume"] *= 2
    frame.loc[split, "factor"] = 2.0
    frame = frame[(frame["instrument"] != "CCC") | ~frame["datetime"].between("2024-02-01", "2024-02-07")]
    stays = pd.DataFrame(
        {
            "instrument": ["AAA", "BBB"],
            "start": pd.to_datetime(["2024-01-02", "2024-02-15"]),
            "end": pd.to_datetime(["2024-03-01", "2024-03-20"]),
        }
    )
    return write_store(frame, tmp_path / "store", membership={"two": stays}, source={}).path


def series(store, **settings):
    return dict(QlibBars(Source(store, **settings)).series())


def test_prices_are_adjusted_and_a_split_is_not_a_gap(store):
    got, want = series(store)["AAA"], make_bars(60, 0)
    assert list(got.index) == list(want.index)
    for name in ("open", "high", "low", "close", "volume", "amount"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6)
    assert len(MappedBars.open(Source(store, instruments=("AAA",)), 60, QlibBars).bounds) == 2


def test_a_suspended_day_is_not_a_bar(store):
    got = series(store)["CCC"]
    assert len(got) == 55
    assert not got.index.to_series().between("2024-02-01", "2024-02-07").any()


@pytest.mark.parametrize("change", [{"volume": 0.0}, {"close": np.nan}], ids=str)
def test_days_without_a_trade_or_a_price_are_left_out(store, change):
    ((name, value),) = change.items()
    file = store / f"features/bbb/{name}.day.bin"
    column = np.fromfile(file, "<f4")
    column[6] = value  # the sixth day, after the head
    column.tofile(file)
    got = series(store)["BBB"]
    assert list(got.index) == list(make_bars(60).index.delete(5))


def test_a_store_without_volume_has_bars(store):
    for name in NAMES:
        (store / f"features/{name.lower()}/volume.day.bin").unlink()
    got = series(store)["BBB"]
    assert len(got) == 60
    assert "volume" not in got
    mapped = MappedBars.open(Source(store, instruments=("BBB",)), 60, QlibBars)
    assert (mapped.values[:, 4] == 0).all()


def test_members_are_read_with_their_bars_from_before_they_joined(store):
    got = series(store, market="two")
    assert list(got) == ["AAA", "BBB"]
    assert len(got["BBB"]) == 60


@pytest.mark.parametrize("setting", ["end", "validate_until"])
def test_instruments_that_joined_later_are_not_trained_on(store, setting):
    assert list(series(store, market="two", **{setting: "2024-02-14"})) == ["AAA"]
    assert list(series(store, market="two", **{setting: "2024-02-15"})) == ["AAA", "BBB"]
    # the earlier of the two counts
    dates = {"end": "2024-03-01", "validate_until": "2024-03-01"} | {setting: "2024-02-14"}
    assert list(series(store, market="two", **dates)) == ["AAA"]


def test_a_bar_array_is_rebuilt_for_other_members(store):
    source = Source(store, market="two")
    assert MappedBars.open(source, 20, QlibBars).info.instruments == 2
    assert MappedBars.open(replace(source, validate_until="2024-02-14"), 20, QlibBars).info.instruments == 1


def test_instruments_and_fields_are_chosen_by_name(store):
    assert list(series(store, instruments=("CCC", "AAA"))) == ["AAA", "CCC"]
    for name in NAMES:
        folder = store / "features" / name.lower()
        (folder / "amount.day.bin").rename(folder / "money.day.bin")
    got = series(store, fields={"amount": "money"})["BBB"]
    np.testing.assert_allclose(got["amount"], make_bars(60, 1)["amount"], rtol=1e-6)
    assert "amount" not in series(store)["BBB"]


def test_files_are_all_that_is_read(store):
    reader = QlibBars(Source(store, market="two"))
    names = {str(file.relative_to(store)) for file in reader.files()}
    fields = ("open", "high", "low", "close", "volume", "amount", "factor")
    bins = {f"features/{name}/{field}.day.bin" for name in ("aaa", "bbb") for field in fields}
    assert names == {"calendars/day.txt"} | bins


def test_without_a_source_there_is_the_simulated_market(tmp_path):
    reader = QlibBars(None)
    assert reader.store == tmp_path / "cache" / "kronos-strategies" / "simulated-v2"
    name, bars = next(iter(reader.series()))
    assert name.startswith("SH6090")
    assert len(bars) > 500


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"market": "csi300"}, r"has no market 'csi300'\. It has \['all', 'two'\]\."),
        ({"market": "two", "instruments": ("CCC",)}, r"Market 'two' of .* never had \['CCC'\]\."),
        (
            {"market": "two", "end": "2023-12-31"},
            r"Market 'two' of .* has no members by 2023-12-31\. Set a later",
        ),
    ],
    ids=["market", "instrument", "date"],
)
def test_settings_that_select_no_bars_are_refused(store, settings, says):
    with pytest.raises(ValueError, match=says):
        QlibBars(Source(store, **settings))


def test_a_market_without_members_is_refused(store):
    (store / "instruments" / "two.txt").write_text("")
    with pytest.raises(ValueError, match=r"Market 'two' of .* has no members\. Choose another\."):
        QlibBars(Source(store, market="two"))


def test_a_field_that_the_store_lacks_is_refused(store):
    with pytest.raises(ValueError, match=r"has no money\.day\.bin of 'AAA'"):
        series(store, fields={"amount": "money"})
