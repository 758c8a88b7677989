from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos.training.clean import CleaningReport
from kronos.training.config import Source
from kronos.training.ledger import Ledger, cleaning_sentence, cleaning_table, frequency_text
from kronos.training.tape import BarTape
from tests.kronos.builders import make_bars
from tests.kronos.training.builders import write_bars

REPORT = CleaningReport(
    places={"no price": 3, "illiquid": 2, "stagnant": 4, "pause": 1, "gap": 2, "short": 9},
    bars={"no price": 3, "illiquid": 1200, "stagnant": 52, "short": 410},
)
LEDGER = Ledger("five_min", 1, 12, 13152, 11487, "2024-01-02", "2024-06-28", "0" * 64, "5min", "5min", REPORT)


def test_the_table_has_a_line_for_each_rule_that_took_or_cut_something() -> None:
    assert cleaning_table(LEDGER, 101, 8000, 1900).splitlines() == [
        "five_min, 2024-01-02 to 2024-06-28: bars of 5min by their timestamps, cleaned by the rule for 5min",
        "                                          places    bars",
        "  read                                            13,152",
        "  no positive price                            3      -3",
        "  no volume for more than 3 bars               2  -1,200",
        "  unchanged close for more than 10 bars        4     -52",
        "  pause of more than 15 days                   1     cut",
        "  open more than 15% from the last close       2     cut",
        "  stretch of fewer than 101 bars               9    -410",
        "  left (1 instrument)                         12  11,487",
        "  training windows                                 8,000",
        "  validation windows                               1,900",
    ]


@pytest.mark.parametrize(
    ("used", "inferred", "ends"),
    [
        ("5min", "5min", "by their timestamps, cleaned by the rule for 5min"),
        ("1day", "5min", "bars of 5min by their timestamps, cleaned by the rule for 1day, as given"),
        ("4h", "2h", "bars of 2h by their timestamps, cleaned by the rule for 4h (there is none for 2h)"),
    ],
)
def test_both_frequencies_are_said(used: str, inferred: str, ends: str) -> None:
    assert frequency_text(used, inferred).endswith(ends)


def test_a_card_says_in_one_sentence_what_cleaning_took() -> None:
    assert cleaning_sentence(asdict(LEDGER)) == (
        "five_min: bars of 5min by their timestamps, cleaned by the rule for 5min. 13,152 bars read; dropped: "
        "no price 3, illiquid 1,200, stagnant 52, short 410; cut at: pauses 1, gaps 2; 12 stretches left."
    )
    assert cleaning_sentence({"name": "an old record"}) is None


def test_a_cached_tape_tells_the_same_as_the_one_that_made_it(tmp_path: Path) -> None:
    bars = make_bars(120)
    bars.iloc[60:, :4] *= 2
    bars.iloc[30, 0] = np.nan
    source = Source(write_bars(tmp_path / "bars.parquet", bars))
    made, found = (BarTape.open(source, 20).ledger for _ in range(2))
    assert made == found
    assert made.cleaning.places == {"no price": 1, "gap": 1}
    assert "open more than 30% from the last close" in cleaning_table(found, 20, 1, 1)


def kinds(bars: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Bars that one rule takes apart."""
    if kind == "gap":
        bars.iloc[::2, :4] *= 2
    elif kind == "stagnant":
        bars[["open", "high", "low", "close"]] = 10.0
    elif kind == "illiquid":
        bars.iloc[:-1, 4] = 0.0
    elif kind == "no price":
        bars.iloc[::7, 2] = np.nan
    return bars


@pytest.mark.parametrize(
    ("kind", "frequency", "says"),
    [
        (
            "gap",
            "auto",
            ["'open more than 30% from the last close' took most, 40:", "Adjust prices for splits"],
        ),
        ("stagnant", "auto", ["'unchanged close for more than 3 bars' took most, 40:", "moves more often"]),
        (
            "illiquid",
            "auto",
            ["'no volume for more than 1 bar' took most, 40:", "Leave out the volume column"],
        ),
        ("no price", "auto", ["'no positive price' took most, 40:", "Fill in the prices"]),
        (
            "stagnant",
            "5min",
            ["by their timestamps, cleaned by the rule for 5min, as given", "Leave out frequency=5min"],
        ),
        ("short", "auto", ["the longest has 40. Give longer series, or lower --lookback or --horizon."]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_nothing_is_left_the_error_names_the_rule_that_took_most_and_what_to_do(
    kind: str, frequency: str, says: list[str], tmp_path: Path
) -> None:
    file = write_bars(tmp_path / "bars.csv", kinds(make_bars(40), kind))
    with pytest.raises(
        ValueError, match=r"^bars has no stretch of 50 clean bars \(lookback \+ horizon\)"
    ) as error:
        BarTape.open(Source(file, frequency=frequency), 50)
    for part in says:
        assert part in str(error.value)
