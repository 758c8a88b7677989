"""Bars are checked part by part, with the result and the messages of a check of all."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.data import validation
from kronos_strategies.data.validation import check_tidy


@pytest.fixture
def many() -> pd.DataFrame:
    """Nine instruments of different lengths."""
    rng = np.random.default_rng(0)
    parts = []
    for i, length in enumerate((3, 30, 1, 12, 12, 40, 2, 7, 9)):
        close = 10 + rng.random(length)
        prices = {"open": close, "high": close + 1, "low": close - 1, "close": close}
        days = pd.bdate_range("2024-01-01", periods=length)
        parts.append(pd.DataFrame({"instrument": f"N{i}", "datetime": days, "volume": 1.0} | prices))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("rows", [1, 10, 41, 1000])
def test_every_row_is_in_one_part_with_all_rows_of_its_instrument(many, rows, monkeypatch):
    monkeypatch.setattr(validation, "_PART", rows)
    parts = list(validation._parts(many))
    pd.testing.assert_frame_equal(pd.concat(parts), many)
    names = [set(part["instrument"]) for part in parts]
    assert sum(map(len, names)) == many["instrument"].nunique()
    assert len(parts) == (9 if rows == 1 else 1 if rows == 1000 else len(parts))


def test_parts_and_order_of_rows_change_nothing(many, monkeypatch):
    whole = check_tidy(many)
    monkeypatch.setattr(validation, "_PART", 10)
    pd.testing.assert_frame_equal(check_tidy(many), whole)
    pd.testing.assert_frame_equal(check_tidy(many.sample(frac=1, random_state=0)), whole)
    assert list(whole.columns) == [
        "instrument",
        "datetime",
        "open",
        "high",
        "low",
        "close",
        "volume",
        "factor",
    ]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("close", np.nan, "2 missing or infinite values"),
        ("high", 1.0, r"outside \[low, high\] in 2 rows"),
        ("factor", 0.0, "has 2 rows with a price or factor that is not positive"),
    ],
)
def test_a_message_counts_the_rows_of_all_parts(many, column, value, message, monkeypatch):
    monkeypatch.setattr(validation, "_PART", 10)
    bad = many.assign(factor=1.0)
    bad.loc[[5, 90], column] = value
    with pytest.raises(ValueError, match=message):
        check_tidy(bad)


def test_the_bars_of_the_caller_stay_as_they_are(many):
    before = many.copy()
    check_tidy(many)
    pd.testing.assert_frame_equal(many, before)
