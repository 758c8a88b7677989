"""Files of bars with mistakes in them, and what a user does with them: import, forecast, table, page and report."""

from __future__ import annotations

import traceback
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from hypothesis import strategies as st

from kronos.bars import BarsWarning
from kronos.config import SampleConfig
from kronos.predictor import KronosPredictor
from kronos.utils import USER_ERRORS
from tests.kronos.builders import make_bars, make_model, make_tokenizer

ROOT = Path(__file__).parents[2]
SAMPLING = SampleConfig(samples=2, seed=1)

NAMES = st.sampled_from(
    [
        "A",
        "SH600000",
        "BTC/USDT",
        "..",
        "../x",
        "=1+1",
        "<b>x</b>",
        "NUL",
        "nan",
        "",
        "0001",
        "é",
        "\u202eB",
        "a" * 300,
        "A\0B",
    ]
)
USUAL = st.sampled_from(["AAA", "SH600000", "600519", "AAPL", "BTC-USD", "^GSPC", "7203.T"])
TEXTS = st.sampled_from(
    ["", "nan", "NaN", "-", "--", "N/A", "null", "inf", "-inf", "1e400", "1e-400", "0", "-1", "1,234.5", "1.234,5",
     "$5", "=1+1", "١٢٣", "1 000", "0x10", "True", "abc", "5%", "1e9", "1e-9", "3.4e38", "1e39"]
)  # fmt: skip
DATES = st.sampled_from(
    ["", "nan", "2024-02-30", "31/12/2024", "12/31/2024", "20240105", "1704067200", "1704067200000", "0001-01-01",
     "9999-12-31", "2262-04-12", "1677-09-20", "2024-01-05T10:00:00+08:00", "2024-01-05 10:00", "Jan 5, 2024",
     "today", "2024-W01-1", "24:00", "2024-01-05 00:00:00.123456789"]
)  # fmt: skip
HEADS = st.sampled_from(
    ["datetime", "date", "Date", "time", "trade_date", "open", "Open", "o", "high", "low", "close", "Adj Close",
     "vol", "volume", "amount", "factor", "instrument", "symbol", "ticker", "开盘", "", "Unnamed: 0", "x", "close"]
)  # fmt: skip
FREQUENCIES = st.sampled_from(["B", "D", "h", "5min", "W", "MS", "7s"])


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A CSV file of plausible bars with some mistakes in it."""
    names = draw(st.lists(st.one_of(USUAL, USUAL, USUAL, NAMES), min_size=1, max_size=3))
    rows, freq = draw(st.one_of(st.integers(20, 40), st.integers(0, 40))), draw(FREQUENCIES)
    parts = [
        make_bars(rows, seed, freq=freq).reset_index().assign(instrument=name)
        for seed, name in enumerate(names)
    ]
    frame = pd.concat(parts).astype(object)
    if draw(st.integers(0, 5)) == 5:
        frame = frame.drop(columns=draw(st.lists(st.sampled_from(list(frame)), max_size=3, unique=True)))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 4]))):
        if frame.size:
            column = draw(st.integers(0, frame.shape[1] - 1))
            row = draw(st.integers(0, len(frame) - 1))
            text = draw(DATES if frame.columns[column] == "datetime" else st.one_of(TEXTS, NAMES))
            if draw(st.integers(0, 7)) < 7:
                frame.iloc[row, column] = text
            else:
                frame.isetitem(column, [text] * len(frame))
    columns = list(frame)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        if columns:
            columns[draw(st.integers(0, len(columns) - 1))] = draw(HEADS)
    frame.columns = columns
    if draw(st.integers(0, 3)) == 3:
        frame = frame.sample(frac=1, random_state=draw(st.integers(0, 9)))
    if draw(st.integers(0, 5)) == 5:
        frame = pd.concat([frame, frame.head(3)])
    text = frame.to_csv(index=draw(st.booleans()), sep=draw(st.sampled_from([",", ",", ",", ";", "\t", "|"])))
    content = text.encode(
        draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "gb18030"])), "replace"
    )
    if content and draw(st.integers(0, 7)) == 7:
        at = draw(st.integers(0, len(content) - 1))
        content = draw(
            st.sampled_from(
                [content[:at], content[:at] + b'\xff\x00"' + content[at:], content[at:], content + content]
            )
        )
    return content


@cache
def predictor() -> KronosPredictor:
    """Small random networks."""
    return KronosPredictor(make_model(), make_tokenizer(), "cpu", max_context=64)


def forecast(file: Path, folder: Path) -> None:
    """Do the work of `kronos forecast FILE --output --steps --plot`."""
    from kronos_strategies.forecast_view.inputs import read_forecast_bars
    from kronos_strategies.forecast_view.page import PageText, write_charts
    from kronos_strategies.forecast_view.run import forecast_bars
    from kronos_strategies.forecast_view.summary import forecast_steps, write_table

    bars = read_forecast_bars([file])
    made = forecast_bars(predictor(), bars, 3, None, SAMPLING)
    write_table(made.table, folder / "table.csv")
    write_table(forecast_steps(made.forecast, made.bars.held_back), folder / "steps.json")
    page = PageText((made.score,), made.warnings, made.table)
    written = write_charts(made.charts(1), folder / "page.html", page).read_text(encoding="utf-8")
    assert "<b>x</b>" not in written.replace("\\u003c", "<") or "&lt;b&gt;x" in written


def import_(file: Path, folder: Path) -> None:
    """Do the work of `kronos data import FILE`, and check the store that it reports."""
    from kronos_strategies.data.importer import import_bars
    from kronos_strategies.data.qlib_bins import FREQUENCIES as KNOWN
    from kronos_strategies.data.qlib_bins import read_bars
    from kronos_strategies.data.qlib_store import check_intact, write_store
    from kronos_strategies.data.validation import listing_spans

    bars, found = import_bars([file])
    frequency = found.frequency if found.frequency in KNOWN else "1day"
    membership = {"m": listing_spans(bars)}
    store = write_store(
        bars, folder / "store", membership=membership, source=found.as_dict(), frequency=frequency
    )
    check_intact(store.path)
    assert len(read_bars(store.path)) == found.rows_kept == store.rows
    outside = [path for path in folder.parent.rglob("*.bin") if not path.is_relative_to(store.path)]
    assert not outside


def report(file: Path, folder: Path) -> None:
    """Do the work of `kronos evaluate --data FILE`."""
    from kronos_strategies.checkpoint_evaluation import (
        EvaluationSettings,
        evaluate_checkpoint,
        read_evaluation_data,
    )
    from kronos_strategies.report.export import save_report
    from kronos_strategies.report.report import build_report

    data = read_evaluation_data([file])
    settings = EvaluationSettings(data.calendar[0], every=5, hold=2, lookback=5)
    artifacts = evaluate_checkpoint(predictor(), "fuzz", data, settings, SAMPLING)
    save_report(build_report(artifacts), folder / "report")


def fault(work: Any, file: Path, folder: Path) -> str | None:
    """The fault of some work on a file; None if it succeeds or is refused by one of our error messages."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BarsWarning)
            warnings.simplefilter("ignore", UserWarning)
            work(file, folder)
    except USER_ERRORS as error:
        where = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        ours = any(where.is_relative_to(ROOT / package) for package in ("kronos", "kronos_strategies"))
        if not ours:
            return "".join(traceback.format_exception(error))
        if (
            "\n" in str(error)
            or len(str(error)) > 1000
            or not str(error).rstrip().endswith((".", "?", ")", "'"))
        ):
            return f"not a sentence: {error!r}"
    except Exception as error:
        return "".join(traceback.format_exception(error))
    return None
