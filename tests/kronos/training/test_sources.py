from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos.bars import FEATURES, check_bars
from kronos.training.config import Source
from kronos.training.sources import (
    REASONS,
    RULES,
    CleaningReport,
    CleaningRule,
    FileReader,
    clean_segments,
    is_qlib_directory,
    nearest_rule,
    open_reader,
)
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.training import QlibBars
from kronos_strategies.data.validation import listing_spans
from tests.kronos.builders import make_bars
from tests.kronos.training.builders import tidy, write_bars


def read(path: Path, **settings: object) -> dict[str, pd.DataFrame]:
    """The series of files, by instrument."""
    series = list(open_reader(Source(path, **settings)).series())
    assert len({name for name, _ in series}) == len(series)
    return dict(series)


def assert_bars(got: pd.DataFrame, want: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        got[list(FEATURES)], want[list(FEATURES)], check_freq=False, check_index_type=False
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_file_with_an_instrument_column_contains_several(suffix: str, tmp_path: Path) -> None:
    series = make_bars(30, 0), make_bars(20, 1)
    got = read(write_bars(tmp_path / f"bars{suffix}", *series))
    assert list(got) == ["I0", "I1"]
    for bars, want in zip(got.values(), series, strict=True):
        assert_bars(bars, want)


def test_a_file_without_an_instrument_column_contains_the_one_in_its_name(tmp_path: Path) -> None:
    make_bars(30).reset_index().to_csv(tmp_path / "SH600000.day.csv.gz", index=False)
    got = read(tmp_path / "SH600000.day.csv.gz")
    assert list(got) == ["SH600000"]
    assert_bars(got["SH600000"], make_bars(30))


def test_a_folder_includes_the_files_in_it_and_below_sorted_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "bars"
    (folder / "deep").mkdir(parents=True)
    make_bars(30, 1).reset_index().to_parquet(folder / "B.parquet")
    make_bars(30, 0).reset_index().to_csv(folder / "A.csv", index=False)
    make_bars(30, 2).to_parquet(folder / "deep" / "C.PQ")
    (folder / "notes.txt").write_text("no bars")
    reader = open_reader(Source(folder))
    assert [file.name for file in reader.files()] == ["A.csv", "B.parquet", "C.PQ"]
    assert [name for name, _ in reader.series()] == ["A", "B", "C"]
    for seed, (_, bars) in enumerate(reader.series()):
        assert_bars(bars, make_bars(30, seed))


def test_rows_may_come_in_any_order_and_the_last_of_two_bars_of_a_time_counts(tmp_path: Path) -> None:
    frame = tidy(make_bars(30, 0), make_bars(20, 1))
    wrong = frame.iloc[[3, 40]].assign(close=frame["high"].iloc[[3, 40]])
    pd.concat([wrong, frame.sample(frac=1, random_state=0)]).to_parquet(tmp_path / "bars.parquet")
    got = read(tmp_path / "bars.parquet")
    for seed, (name, count) in enumerate((("I0", 30), ("I1", 20))):
        assert_bars(got[name], make_bars(count, seed))


def test_fields_say_what_the_file_calls_a_feature(tmp_path: Path) -> None:
    frame = tidy(make_bars(30)).rename(columns={"amount": "Money", "instrument": "stk", "close": "last"})
    frame.assign(stk="000001").to_csv(tmp_path / "bars.csv", index=False)
    got = read(tmp_path / "bars.csv", fields={"amount": "Money", "instrument": "stk", "close": "last"})
    assert list(got) == ["000001"]  # codes stay text
    assert_bars(got["000001"], make_bars(30))


def test_fields_also_name_a_time_apart_and_an_adjusted_close(tmp_path: Path) -> None:
    frame = make_bars(30).reset_index().assign(clock="09:30", adj=lambda bars: bars["close"] / 2)
    frame.to_csv(tmp_path / "A.csv", index=False)
    got = read(tmp_path / "A.csv", fields={"time": "clock", "adj_close": "adj"})["A"]
    np.testing.assert_allclose(got["close"], make_bars(30)["close"] / 2)


def test_usual_names_need_no_fields(tmp_path: Path) -> None:
    plain = {"instrument": "Ticker", "datetime": "Date", "volume": "vol", "close": "Close"}
    tidy(make_bars(30)).rename(columns=plain).to_csv(tmp_path / "bars.csv", index=False)
    assert_bars(read(tmp_path / "bars.csv")["I0"], make_bars(30))


def test_volume_and_amount_may_be_absent(tmp_path: Path) -> None:
    write_bars(tmp_path / "bars.parquet", make_bars(30).drop(columns=["volume", "amount"]))
    assert list(read(tmp_path / "bars.parquet")["I0"].columns) == list(FEATURES[:4])


def test_a_reader_notes_how_it_interpreted_each_file(tmp_path: Path) -> None:
    yahoo = make_bars(30).rename(columns=str.title).assign(**{"Adj Close": make_bars(30)["close"] / 2})
    yahoo.drop(columns="Amount").to_csv(tmp_path / "AAA.csv", index_label="Date")
    reader = FileReader(Source(tmp_path))
    bars = dict(reader.series())["AAA"]
    np.testing.assert_allclose(bars["close"], make_bars(30)["close"] / 2)
    assert [line.partition(",")[0] for line in reader.notes()] == ["AAA.csv: Yahoo; AAA; 30 bars of 1day"]


def test_only_the_requested_instruments_are_read(tmp_path: Path) -> None:
    file = write_bars(tmp_path / "bars.parquet", make_bars(30, 0), make_bars(20, 1), make_bars(25, 2))
    got = read(file, instruments=("I2", "I0"))
    assert list(got) == ["I0", "I2"]
    assert_bars(got["I2"], make_bars(25, 2))


def test_a_pattern_stands_for_all_instruments_that_it_matches(tmp_path: Path) -> None:
    frame = tidy(*(make_bars(30, seed) for seed in range(4)))
    names = {"I0": "EURUSD@1d", "I1": "EURUSD@1h", "I2": "BTCUSD@1d", "I3": "[SPX"}
    frame.assign(instrument=frame["instrument"].map(names)).to_parquet(tmp_path / "bars.parquet")
    assert list(read(tmp_path / "bars.parquet", instruments=("*@1d",))) == ["BTCUSD@1d", "EURUSD@1d"]
    assert list(read(tmp_path / "bars.parquet", instruments=("[SPX", "EUR*@1?"))) == [
        "EURUSD@1d",
        "EURUSD@1h",
        "[SPX",
    ]
    with pytest.raises(ValueError, match=r"does not contain \['\*@4h'\]\. Check the instruments\."):
        read(tmp_path / "bars.parquet", instruments=("*@1d", "*@4h"))


@pytest.mark.parametrize("column", ["factor", "factor_est"])
def test_prices_are_multiplied_by_a_factor_and_volume_is_divided_by_it(column: str, tmp_path: Path) -> None:
    factor = np.linspace(1, 2, 30)
    write_bars(tmp_path / "bars.parquet", make_bars(30).assign(**{column: factor}))
    got, raw = read(tmp_path / "bars.parquet")["I0"], make_bars(30)
    np.testing.assert_allclose(got["close"], raw["close"] * factor)
    np.testing.assert_allclose(got["volume"], raw["volume"] / factor)
    np.testing.assert_allclose(got["amount"], raw["amount"])


def test_of_two_factors_the_exact_one_counts(tmp_path: Path) -> None:
    write_bars(tmp_path / "bars.parquet", make_bars(30).assign(factor=2.0, factor_est=3.0))
    np.testing.assert_allclose(read(tmp_path / "bars.parquet")["I0"]["close"], 2 * make_bars(30)["close"])


def test_a_qlib_directory_is_read_by_its_reader(tmp_path: Path) -> None:
    bars = tidy(make_bars(30, 0), make_bars(20, 1))
    write_store(bars, tmp_path / "store", membership={"m": listing_spans(bars)}, source={})
    reader = open_reader(Source(tmp_path / "store"), QlibBars)
    assert is_qlib_directory(tmp_path / "store")
    assert isinstance(reader, QlibBars)
    assert [name for name, _ in reader.series()] == ["I0", "I1"]
    (tmp_path / "store" / "calendars" / "day.txt").rename(tmp_path / "day.txt")
    (tmp_path / "store" / "calendars" / "day_future.txt").unlink()
    (tmp_path / "store" / "calendars").rmdir()
    assert not is_qlib_directory(tmp_path / "store")


def test_without_a_source_the_simulated_market_is_read() -> None:
    reader = open_reader(None, QlibBars)
    assert isinstance(reader, QlibBars)
    assert len(list(reader.files())) > 400


def test_without_a_reader_for_qlib_directories_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^The simulated market cannot be read .* Use `kronos train`"):
        open_reader(None)
    bars = make_bars(30).reset_index().assign(instrument="I0")
    write_store(bars, tmp_path / "store", membership={"m": listing_spans(bars)}, source={})
    with pytest.raises(ValueError, match=r"^The Qlib data directory .*store cannot be read"):
        open_reader(Source(tmp_path / "store"))
    file = write_bars(tmp_path / "bars.parquet", make_bars(30))
    assert isinstance(open_reader(Source(file)), FileReader)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("nowhere", {}, r"nowhere is neither a file nor a folder of bars\. Check the path\."),
        ("empty", {}, r"empty contains no file of bars\. Pass files of the types \['\.parquet'"),
        ("bars.csv", {"fields": {"amount": "money"}}, r"bars\.csv lacks the columns \['money'\]; it has \["),
        (
            "bars.csv",
            {"instruments": ("I0", "I9")},
            r"bars\.csv does not contain \['I9'\]\. Check the instruments\.",
        ),
        (
            "late.csv",
            {},
            r"late\.csv has 30 values in 'datetime' that are not dates, the first 'soon' in row 1",
        ),
        ("close.csv", {}, r"close\.csv lacks the columns \['close'\]; it has"),
        ("bars.xlsx", {}, r"bars\.xlsx is neither \.csv nor \.parquet\. Convert it first\."),
        ("bars.csv", {"timezone": "Mars/Base"}, r"timezone=Mars/Base is not a time zone\. Pass that"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_sources_are_refused_in_one_sentence(
    name: str, settings: dict[str, object], says: str, tmp_path: Path
) -> None:
    bars = tidy(make_bars(30))
    (tmp_path / "empty").mkdir()
    bars.to_csv(tmp_path / "bars.csv", index=False)
    bars.assign(datetime="soon").to_csv(tmp_path / "late.csv", index=False)
    bars.drop(columns="close").to_csv(tmp_path / "close.csv", index=False)
    (tmp_path / "bars.xlsx").write_text("x")
    with pytest.raises((ValueError, OSError), match=says):
        read(tmp_path / name, **settings)


RULE = CleaningRule(max_gap=0.30, max_illiquid=1, max_stagnant=3)


def flat(closes: list[float], volumes: list[float] | None = None) -> pd.DataFrame:
    """Bars of one price each, that open where they close."""
    prices = np.array(closes, float)
    volume = np.ones(len(prices)) if volumes is None else np.array(volumes, float)
    values = [prices, prices, prices, prices, volume, volume * prices]
    index = pd.bdate_range("2024-01-01", periods=len(prices))
    return pd.DataFrame(dict(zip(FEATURES, values, strict=True)), index=index)


def segments(bars: pd.DataFrame, rule: CleaningRule = RULE, min_bars: int = 1) -> list[pd.DataFrame]:
    """The clean stretches alone."""
    return clean_segments(bars, rule, min_bars).segments


def positions(bars: pd.DataFrame, rule: CleaningRule = RULE, min_bars: int = 1) -> list[list[int]]:
    """Positions of the bars of each segment."""
    return [bars.index.get_indexer(part.index).tolist() for part in segments(bars, rule, min_bars)]


def walk(count: int) -> list[float]:
    """Closes that never stand still and never jump."""
    return [10 + 0.1 * (i % 7) for i in range(count)]


def test_a_series_without_fault_stays_one_and_whole() -> None:
    bars = make_bars(40)
    (segment,) = segments(bars, RULE, min_bars=10)
    pd.testing.assert_frame_equal(segment, bars)


@pytest.mark.parametrize(("factor", "cut"), [(1.29, False), (1.31, True), (0.71, False), (0.69, True)])
def test_a_series_is_cut_where_it_opens_too_far_from_the_last_close(factor: float, cut: bool) -> None:
    closes = np.array(walk(10))
    closes[5:] *= closes[4] / closes[5] * factor  # bar 5 opens at `factor` times the close before
    assert positions(flat(closes.tolist())) == (
        [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]] if cut else [list(range(10))]
    )


def test_the_gap_is_from_close_to_open_not_within_a_bar() -> None:
    bars = flat(walk(10))
    bars.iloc[5, 1] *= 2  # a high far away
    bars.iloc[5, 3] *= 1.25  # a close far from its own open
    bars.iloc[6:, :4] *= 1.25
    assert positions(bars) == [list(range(10))]


@pytest.mark.parametrize(("unchanged", "dropped"), [(3, False), (4, True)])
def test_a_close_that_stands_still_too_long_is_dropped_and_splits(unchanged: int, dropped: bool) -> None:
    # Bar 4 sets the close; `unchanged` bars after it repeat it.
    closes = [*walk(5), *[walk(5)[-1]] * unchanged, *[x + 0.05 for x in walk(4)]]
    whole = list(range(len(closes)))
    want = [whole[:5], whole[5 + unchanged :]] if dropped else [whole]
    assert positions(flat(closes)) == want


@pytest.mark.parametrize("volume", [0.0, np.nan])
@pytest.mark.parametrize(("idle", "dropped"), [(1, False), (2, True)])
def test_bars_without_volume_too_long_are_dropped_and_split(idle: int, dropped: bool, volume: float) -> None:
    bars = flat(walk(10), [1] * 4 + [volume] * idle + [1] * (6 - idle))
    want = [[0, 1, 2, 3], list(range(4 + idle, 10))] if dropped else [list(range(10))]
    assert positions(bars) == want


def test_without_a_volume_column_nothing_is_illiquid() -> None:
    bars = flat(walk(10)).drop(columns=["volume", "amount"])
    (segment,) = segments(bars, RULE, min_bars=1)
    assert len(segment) == 10
    assert (segment[["volume", "amount"]] == 0).all(axis=None)


@pytest.mark.parametrize("column", ["open", "high", "low", "close"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_a_bar_without_a_price_is_dropped_and_splits(column: str, value: float) -> None:
    bars = flat(walk(10))
    bars.loc[bars.index[4], column] = value
    assert positions(bars) == [[0, 1, 2, 3], [5, 6, 7, 8, 9]]


@pytest.mark.parametrize("volume", [0.0, np.nan, -1.0])
def test_a_volume_that_was_never_recorded_drops_nothing(volume: float) -> None:
    bars = flat(walk(10), [volume] * 10)
    (segment,) = segments(bars)
    assert len(segment) == 10
    assert (segment[["volume", "amount"]] == 0).all(axis=None)


def test_a_missing_volume_or_amount_counts_as_zero() -> None:
    bars = flat(walk(6))
    bars.iloc[2, 4] = bars.iloc[3, 5] = np.nan
    (segment,) = segments(bars, RULE, min_bars=1)
    assert segment.iloc[2]["volume"] == 0
    assert segment.iloc[3]["amount"] == 0
    assert segment.iloc[3]["volume"] == 1


def test_segments_shorter_than_asked_are_dropped() -> None:
    closes = np.array(walk(12))
    closes[3:] *= 2  # 3 bars, then 9
    assert positions(flat(closes.tolist()), min_bars=3) == [[0, 1, 2], list(range(3, 12))]
    assert positions(flat(closes.tolist()), min_bars=4) == [list(range(3, 12))]
    assert positions(flat(closes.tolist()), min_bars=10) == []


def test_the_report_counts_each_dropped_bar_once_and_by_its_first_reason() -> None:
    closes = np.array([*walk(6), np.nan, *walk(20)])
    volumes = np.ones(27)
    volumes[[6, 7, 8]] = 0  # one of them has no price either
    closes[12:17] = closes[11]  # five unchanged
    closes[22:] *= 2  # a gap, with five bars after it
    cleaned = clean_segments(flat(closes.tolist(), volumes.tolist()), RULE, min_bars=5)
    assert [len(part) for part in cleaned.segments] == [6, 5, 5]
    report = cleaned.report
    assert report.places == {"no price": 1, "illiquid": 1, "stagnant": 1, "gap": 1, "short": 1}
    assert report.bars == {"no price": 1, "illiquid": 2, "stagnant": 5, "short": 3}
    assert report.longest == 6


@pytest.mark.parametrize(
    ("cause", "lost"),
    [("gap", {"gap": 4}), ("pause", {"pause": 4}), ("no price", {"no price": 4}), ("none", {"short": 10})],
)
def test_bars_of_a_short_segment_are_counted_under_the_rule_that_cut_it_off(
    cause: str, lost: dict[str, int]
) -> None:
    bars = flat(walk(10))
    if cause == "gap":
        bars.iloc[6:, :4] *= 2
    elif cause == "pause":
        bars.index = bars.index[:6].append(bars.index[6:] + pd.Timedelta(days=30))
    elif cause == "no price":
        bars.iloc[6, 0] = np.nan
    cleaned = clean_segments(bars, RULE, min_bars=5 if cause != "none" else 11)
    assert cleaned.report.lost == lost
    assert cleaned.report.bars["short"] == {"no price": 3, "none": 10}.get(cause, 4)
    if cause != "none":  # a stretch at the beginning is cut off by what comes after it
        assert clean_segments(bars[2:], RULE, min_bars=5).report.lost[cause] == 8


def test_reports_add_up() -> None:
    one = CleaningReport({"gap": 1}, {"short": 3}, {"gap": 3}, 20)
    two = CleaningReport({"gap": 2, "pause": 1}, {"short": 1}, {"pause": 1}, 9)
    both = CleaningReport({"gap": 3, "pause": 1}, {"short": 4}, {"gap": 3, "pause": 1}, 20)
    assert one + two == two + one == both
    assert one + CleaningReport() == one


@pytest.mark.parametrize(
    ("step", "rule"),
    [
        ("10s", "1min"),
        ("3min", "5min"),
        ("10min", "15min"),
        ("20min", "15min"),
        ("2h", "4h"),  # as the paper has it
        ("12h", "1day"),
        ("31D", "1week"),
    ]
    + [(name.replace("day", "D").replace("1week", "7D"), name) for name in RULES],
)
def test_a_frequency_without_a_rule_takes_the_nearest(step: str, rule: str) -> None:
    assert nearest_rule(pd.Timedelta(step)) == rule


def test_slow_bars_may_have_longer_pauses() -> None:
    bars = flat(walk(10))
    bars.index = pd.date_range("2020-01-31", periods=10, freq="ME")
    assert len(segments(bars)) == 10
    (segment,) = clean_segments(bars, RULE, 1, pd.Timedelta(days=62)).segments
    assert len(segment) == 10


def test_the_order_of_the_rows_does_not_matter() -> None:
    bars = make_bars(20)
    (segment,) = segments(bars.sample(frac=1, random_state=0), RULE, min_bars=1)
    pd.testing.assert_frame_equal(segment, bars, check_freq=False)


@settings(deadline=None, max_examples=50)
@given(
    closes=st.lists(st.sampled_from([9.0, 10.0, 11.0, 10.0, 20.0, np.nan]), min_size=1, max_size=25),
    volumes=st.lists(st.sampled_from([0.0, 1.0, 1.0, np.nan]), min_size=25, max_size=25),
)
def test_every_segment_is_an_unbroken_stretch_that_keeps_every_rule(
    closes: list[float], volumes: list[float]
) -> None:
    bars = flat(closes, volumes[: len(closes)])
    taken: list[int] = []
    for segment in segments(bars, RULE, min_bars=2):
        rows = bars.index.get_indexer(segment.index)
        assert (np.diff(rows) == 1).all()
        taken.extend(rows)
        check_bars(segment)
        assert tuple(segment.columns) == FEATURES
        assert (segment["open"] / segment["close"].shift() - 1).abs().max() <= RULE.max_gap
        assert longest((segment["close"].diff() == 0).tolist()) <= RULE.max_stagnant
        if (bars["volume"] > 0).any():  # else it was never recorded
            assert longest((segment["volume"] == 0).tolist()) <= RULE.max_illiquid
    assert taken == sorted(set(taken))
    report = clean_segments(bars, RULE, min_bars=2).report
    assert sum(report.bars.values()) == sum(report.lost.values()) == len(bars) - len(taken)
    assert {*report.places, *report.bars, *report.lost} <= set(REASONS)


def longest(flags: list[bool]) -> int:
    """Length of the longest run of True."""
    runs = "".join("x" if flag else " " for flag in flags).split()
    return max((len(run) for run in runs), default=0)


@pytest.mark.parametrize(("days", "cut"), [(11, False), (15, False), (16, True), (430, True)])
def test_a_long_pause_separates_segments(days: int, cut: bool) -> None:
    bars = flat(walk(10))
    late = bars.index[5:] + (bars.index[4] - bars.index[5]) + pd.Timedelta(days=days)
    bars.index = bars.index[:5].append(late)
    assert positions(bars) == ([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]] if cut else [list(range(10))])


def test_limits_are_the_papers() -> None:
    assert {name: tuple(rule) for name, rule in RULES.items()} == {
        "1min": (0.10, 15, 45),
        "5min": (0.15, 3, 10),
        "15min": (0.15, 2, 5),
        "30min": (0.20, 1, 3),
        "60min": (0.20, 1, 3),
        "4h": (0.25, 1, 3),
        "1day": (0.30, 1, 3),
        "1week": (0.50, 1, 3),
    }


@pytest.mark.parametrize(
    ("frequency", "gap"), [("30min", 0.20), ("60min", 0.20), ("4h", 0.25), ("1day", 0.30), ("1week", 0.50)]
)
def test_each_frequency_cuts_at_its_own_gap(frequency: str, gap: float) -> None:
    for jump, segments in ((gap - 0.01, 1), (gap + 0.01, 2)):
        closes = np.array(walk(10))
        closes[5:] *= closes[4] / closes[5] * (1 + jump)
        assert len(positions(flat(closes.tolist()), RULES[frequency])) == segments
