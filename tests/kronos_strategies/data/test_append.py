"""Days that are added to a store."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.data.append import append_days, join_bars
from kronos_strategies.data.qlib_bins import read_bars, read_calendar, read_market
from kronos_strategies.data.qlib_store import read_summary, write_store
from kronos_strategies.data.validation import LISTING, listing_spans

DAYS = pd.bdate_range("2024-01-01", periods=40)


def bars(names=("AAA", "BBB"), days=DAYS, scale: float = 1.0, factor: float = 1.0) -> pd.DataFrame:
    parts = []
    for seed, name in enumerate(names):
        moves = np.random.default_rng(seed).normal(0, 0.01, len(DAYS))
        close = pd.Series(50 * np.exp(moves.cumsum()), DAYS).loc[days] * scale
        part = {
            "open": close,
            "high": close * 1.01,
            "low": close * 0.99,
            "close": close,
            "volume": 1000 / scale,
        }
        parts.append(
            pd.DataFrame(part).assign(instrument=name, factor=factor).rename_axis("datetime").reset_index()
        )
    return pd.concat(parts, ignore_index=True)


def store(folder, first=DAYS[:30], **more):
    old = bars(days=first)
    given = {"membership": {"m": listing_spans(old)}, "source": {"kind": "test", "membership": LISTING}}
    write_store(old, folder, **{**given, **more})
    return folder


def closes(frame: pd.DataFrame, name: str) -> pd.Series:
    rows = frame[frame["instrument"] == name].set_index("datetime")
    return rows["close"] * rows["factor"]


def test_new_days_continue_the_old_ones(tmp_path):
    folder = store(tmp_path / "store")
    new = append_days(folder, bars(days=DAYS[28:]), None, {"files": "new"})
    assert new.notes == ()
    whole = bars()
    for name in ("AAA", "BBB"):
        np.testing.assert_allclose(closes(new.bars, name), closes(whole, name), rtol=1e-6)
    write_store(new.bars, folder, membership=new.membership, source=new.source, overwrite=True)
    assert len(read_calendar(folder)) == 40
    assert read_market(folder, "m")["end"].tolist() == [DAYS[-1]] * 2
    assert read_summary(folder).source["appended"] == [{"files": "new"}]


def test_history_that_is_not_touched_keeps_its_bits(tmp_path):
    folder = store(tmp_path / "store")
    path = folder / "features" / "aaa" / "close.day.bin"
    before = path.read_bytes()
    new = append_days(folder, bars(days=DAYS[29:]), None, {})
    write_store(new.bars, folder, membership=new.membership, source=new.source, overwrite=True)
    assert path.read_bytes()[: len(before) - 4] == before[:-4]  # the last day is the new file's


@pytest.mark.parametrize(("scale", "factor"), [(0.5, 1.0), (1.0, 0.97), (0.5, 0.97)])
def test_readjusted_history_is_rescaled(tmp_path, scale, factor):
    """A split halves all prices of the vendor, a dividend lowers all factors before it."""
    folder = store(tmp_path / "store")
    new = append_days(folder, bars(days=DAYS[25:], scale=scale, factor=factor), None, {})
    (note,) = new.notes
    assert "rescaled: AAA, BBB" in note
    whole = bars(scale=scale, factor=factor)
    for name in ("AAA", "BBB"):
        np.testing.assert_allclose(closes(new.bars, name), closes(whole, name), rtol=1e-5)
    volume = new.bars[new.bars["instrument"] == "AAA"]["volume"]
    np.testing.assert_allclose(volume, 1000 / scale, rtol=1e-5)


def test_prices_without_a_common_ratio_are_refused(tmp_path):
    new = bars(days=DAYS[25:])
    new.loc[new["datetime"] == DAYS[27], ["open", "high", "low", "close"]] *= 1.1
    with pytest.raises(ValueError, match=r"AAA has other prices .* by 1.1 on 2024-02-07.*--overwrite"):
        append_days(store(tmp_path / "store"), new, None, {})


def unfinished(bars: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """Bars whose last day was read at noon: the same open, a narrower range, another close, half of the volume."""
    found = bars[bars["datetime"] <= day].copy()
    last = found["datetime"] == day
    found.loc[last, "close"] *= 0.995
    found.loc[last, ["high", "low"]] = found.loc[last, "close"].to_numpy()[:, None] * [1.006, 0.996]
    found.loc[last, "volume"] /= 2
    return found


@pytest.mark.parametrize("shared", [1, 3])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_last_day_that_was_not_over_is_replaced_and_moves_no_history(shared, scale):
    old = unfinished(bars(), DAYS[29])
    whole, notes = join_bars(old, bars(days=DAYS[30 - shared :], scale=scale))
    for name in ("AAA", "BBB"):
        np.testing.assert_allclose(closes(whole, name), closes(bars(scale=scale), name), rtol=1e-9)
    if scale == 1.0 or shared > 1:
        np.testing.assert_allclose(whole["volume"], 1000 / scale, rtol=1e-9)
    assert "were incomplete and are replaced: AAA, BBB" in notes[-1]
    assert len(notes) == (1 if scale == 1.0 else 2)


def test_a_day_with_a_wider_range_than_the_new_one_has_other_prices():
    old = bars(days=DAYS[:30])
    old.loc[old["datetime"] == DAYS[29], "high"] *= 1.05
    with pytest.raises(ValueError, match=r"AAA has other prices .* by 0.95\d* on 2024-02-09.*--overwrite"):
        join_bars(old, bars(days=DAYS[29:]))


def test_adjusted_prices_that_are_rounded_to_cents_are_joined_by_one_ratio():
    prices = ["open", "high", "low", "close"]
    old, new = bars(scale=0.05), bars(scale=0.05 * 0.93, days=DAYS[10:])
    old[prices], new[prices] = old[prices].round(2), new[prices].round(2)
    whole, _ = join_bars(old[old["datetime"] < DAYS[30]], new)
    np.testing.assert_allclose(closes(whole, "AAA"), closes(bars(scale=0.05 * 0.93), "AAA"), rtol=0.01)


def test_days_without_overlap_are_appended_and_reported_unless_prices_jump(tmp_path):
    folder = store(tmp_path / "store")
    new = append_days(folder, bars(days=DAYS[30:]), None, {})
    (note,) = new.notes
    assert "have no common day with the data directory" in note
    assert len(new.bars) == 80
    with pytest.raises(ValueError, match=r"AAA opens -5\d% from its last close .* repeat the last day"):
        append_days(folder, bars(days=DAYS[30:], scale=0.5), None, {})


def test_instruments_that_come_and_go_are_kept(tmp_path):
    new = append_days(store(tmp_path / "store"), bars(("BBB", "CCC"), days=DAYS[29:]), None, {})
    assert new.bars.groupby("instrument")["datetime"].agg(["min", "max"]).to_dict("index") == {
        "AAA": {"min": DAYS[0], "max": DAYS[29]},
        "BBB": {"min": DAYS[0], "max": DAYS[39]},
        "CCC": {"min": DAYS[29], "max": DAYS[39]},
    }
    ends = new.membership["m"].set_index("instrument")["end"]
    assert ends.to_dict() == {"AAA": DAYS[29], "BBB": DAYS[39], "CCC": DAYS[39]}


def test_dated_members_of_the_last_day_stay_and_that_is_reported(tmp_path):
    spans = pd.DataFrame({"instrument": ["AAA", "BBB"], "start": [DAYS[0]] * 2, "end": [DAYS[10], DAYS[29]]})
    folder = store(
        tmp_path / "store", membership={"m": spans}, source={"kind": "test", "membership": "a file"}
    )
    new = append_days(folder, bars(days=DAYS[29:]), None, {})
    assert new.membership["m"]["end"].tolist() == [DAYS[10], DAYS[39]]
    assert "stay until 2024-02-23" in new.notes[0]


def test_a_benchmark_that_the_new_days_lack_is_refused(tmp_path):
    folder = store(tmp_path / "store", benchmarks=bars(("IDX",), days=DAYS[:30]))
    with pytest.raises(ValueError, match=r"has the benchmark IDX, .*--benchmark"):
        append_days(folder, bars(days=DAYS[29:]), None, {})
    new = append_days(folder, bars(days=DAYS[29:]), bars(("IDX",), days=DAYS[29:]), {})
    assert len(new.benchmarks) == 40


def test_amounts_of_one_side_only_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"bars of the new files have no amount|bars of the data directory have no amount"
    ):
        join_bars(bars(days=DAYS[:30]), bars(days=DAYS[29:]).assign(amount=1.0))


def test_read_bars_keeps_what_append_writes(tmp_path):
    folder = store(tmp_path / "store")
    new = append_days(folder, bars(days=DAYS[29:], factor=0.97), None, {})
    write_store(new.bars, folder, membership=new.membership, source=new.source, overwrite=True)
    read = read_bars(folder)
    np.testing.assert_allclose(closes(read, "AAA"), closes(bars(factor=0.97), "AAA"), rtol=1e-5)
