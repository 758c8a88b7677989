import numpy as np
import pandas as pd
import pytest

from kronos.utils import csv_text
from kronos_strategies.report.formatting import (
    bars,
    count,
    decimals,
    decimals_4,
    general,
    interval,
    listing,
    percent,
    probability,
    signed,
    signed_percent,
)


@pytest.mark.parametrize("show", [decimals, percent, count, general, decimals_4, signed, signed_percent])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_missing_number_is_a_dash(show, value):
    assert show(value) == "–"


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (decimals(0.0396), "0.040"),
        (decimals(-1.005, 2), "−1.00"),
        (decimals(-0.0001), "0.000"),
        (percent(-0.1234), "−12.3%"),
        (percent(0.0), "0.0%"),
        (count(np.int64(1234567)), "1,234,567"),
        (general(81.2512), "81.25"),
        (general(-0.0000123456), "−1.235e−05"),
        (general(480), "480"),
        (signed(0.01), "+0.0100"),
        (signed(-0.01), "−0.0100"),
        (signed(0.0), "0.0000"),
        (signed_percent(0.0123), "+1.23%"),
        (probability(0.0004), "< 0.001"),
        (probability(0.0456), "0.046"),
        (probability(np.nan), "–"),
        (interval(-0.1, 0.2, decimals), "−0.100 to 0.200"),
        (interval(-0.1, np.nan, decimals), "–"),
        (bars(1), "1 bar"),
        (bars(5), "5 bars"),
    ],
)
def test_numbers_have_separators_signs_and_the_given_decimals(shown, text):
    assert shown == text


@pytest.mark.parametrize(
    ("words", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_words_are_joined_by_commas_and_and(words, text):
    assert listing(words) == text


def test_text_that_a_spreadsheet_would_run_is_quoted_in_cells_index_and_columns():
    frame = pd.DataFrame(
        {"name": ["=1+1", "plain", None], "value": [-1.0, 2.0, 3.0], "-x": pd.Categorical(["+1", "a", "@b"])},
        index=pd.MultiIndex.from_tuples(
            [(pd.Timestamp("2024-01-02"), "-A"), (pd.Timestamp("2024-01-02"), "B"),
             (pd.Timestamp("2024-01-03"), "\tC")],
            names=["datetime", "instrument"],
        ),
    )  # fmt: skip
    assert csv_text(frame, "datetime", "instrument").splitlines() == [
        "datetime,instrument,name,value,'-x",
        "2024-01-02,'-A,'=1+1,-1.0,'+1",
        "2024-01-02,B,plain,2.0,a",
        "2024-01-03,'\tC,,3.0,'@b",
    ]
    assert frame["name"].iloc[0] == "=1+1"


def test_a_table_without_such_text_is_written_as_before():
    frame = pd.DataFrame(
        {"a": [1, 2], "b": ["x", "y"]}, index=pd.DatetimeIndex(["2024-01-02", "2024-01-03 09:30"], name="t")
    )
    assert csv_text(frame, "t") == frame.to_csv()
    assert csv_text(frame[:0], "t") == frame[:0].to_csv()
