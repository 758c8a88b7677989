from __future__ import annotations

import warnings

import pandas as pd
import pytest
from cyclopts import App

from kronos import BarsWarning
from kronos.bars import PRICES, check_bars
from kronos.console import run_command
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.kronos.builders import make_bars, make_model, make_tokenizer


def split(bars: pd.DataFrame, row: int, factor: float) -> pd.DataFrame:
    bars = bars.copy()
    bars.iloc[row:, :4] *= factor
    return bars


@pytest.mark.parametrize(
    ("factor", "what"),
    [
        (0.5, r"open 5\d% below"),
        (2.0, r"open \d+% above"),
        (0.1, r"open 9\d% below"),
        (1 / 1.5, r"open 3\d% below"),
    ],
)
def test_an_unadjusted_split_is_named_with_instrument_and_date(factor: float, what: str) -> None:
    bars = split(make_bars(50), 30, factor)
    with pytest.warns(
        BarsWarning, match=rf"^bars of AAA {what} the previous close at {bars.index[30]:%Y-%m-%d}: "
    ) as seen:
        check_bars(bars, "bars of AAA")
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)


@pytest.mark.parametrize("columns", [PRICES, ("high",), ("close", "high"), ("low",), ("open", "high")])
@pytest.mark.parametrize("row", [20, 49])
def test_a_bad_print_of_ten_times_the_price_is_named(columns: tuple[str, ...], row: int) -> None:
    bars = make_bars(50)
    bars.loc[bars.index[row], list(columns)] *= 0.1 if columns == ("low",) else 10
    with pytest.warns(BarsWarning, match=rf"at {bars.index[row]:%Y-%m-%d}"):
        check_bars(bars)


def test_further_jumps_are_counted_in_the_same_line() -> None:
    bars = split(split(make_bars(60), 20, 0.5), 40, 0.5)
    with pytest.warns(BarsWarning, match=r"\(1 more such bar\)") as seen:
        check_bars(bars)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("freq", "factor", "warned"),
    [
        ("1min", 1.12, True),
        ("5min", 1.12, False),
        ("5min", 1.17, True),
        ("10min", 1.17, True),
        ("h", 1.17, False),
        ("h", 1.25, True),
        ("B", 1.25, False),
        ("B", 1.35, True),
        ("W", 1.35, False),
        ("MS", 1.35, False),
        ("MS", 1.6, True),
    ],
)
def test_the_limit_is_that_of_the_training_rules_for_the_bars_frequency(
    freq: str, factor: float, warned: bool
) -> None:
    flat = make_bars(60, freq=freq)
    flat.iloc[:, :4] = 50.0
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_bars(split(flat, 30, factor))
    assert bool(seen) == warned


def test_ordinary_bars_pass_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_bars(make_bars(200))
        check_bars(make_bars(200).reset_index(drop=True))  # no times, so no frequency
        check_bars(make_bars(1))


def test_windows_and_predict_warn_as_well() -> None:
    bars = split(make_bars(30), 20, 0.5)
    with pytest.warns(BarsWarning, match="bars of AAA open"):
        Windows.rolling({"AAA": bars}, 10, 2, "B")
    predictor = KronosPredictor(make_model(), make_tokenizer(), "cpu")
    future = pd.bdate_range(bars.index[-1], periods=3)[1:]
    with pytest.warns(BarsWarning, match=f"series 0 open .* at {bars.index[20]:%Y-%m-%d}"):
        predictor.predict(bars.reset_index(drop=True), bars.index, future, 2, verbose=False)


def test_a_command_prints_the_warning_as_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    app = App()

    @app.default
    def command() -> None:
        warnings.simplefilter("always")
        check_bars(split(make_bars(50), 30, 0.5), "bars of [AAA]")

    with warnings.catch_warnings():
        warnings.showwarning = usual = print  # pytest records warnings in a place of its own
        with pytest.raises(SystemExit, match="0"):
            run_command(app, [])
        assert warnings.showwarning is usual
    line = capsys.readouterr().err
    assert line.startswith("Warning: bars of [AAA] open")
    assert line.count("\n") == 1
