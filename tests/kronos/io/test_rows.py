from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from kronos.io.rows import ReadOptions, read_rows, to_codes


def codes(values: list[object], pad: int | None = None) -> list[object]:
    read = to_codes(pd.Series(values, name="code"), pad, Path("a.csv"))
    return read.astype(object).where(read.notna(), None).tolist()


@pytest.mark.parametrize(
    "values",
    [
        ["600519.SH", "SH600519", "sh.600000"],
        ["000001", "600519"],
        ["00001", "9988"],
        ["7203", "6758"],
        ["AAPL", "A"],
    ],
)
def test_text_is_unchanged(values: list[object]) -> None:
    assert codes(values) == values


def test_six_digits_have_lost_no_zero() -> None:
    assert codes([600519, 600000]) == ["600519", "600000"]


def test_a_missing_instrument_stays_missing() -> None:
    assert codes([" A ", None, ""]) == ["A", None, None]


@pytest.mark.parametrize(
    "values", [[1], [1, 600519], [7203], [1.0, None], ["1"], ["1", "600519"], ["1.0"], ["12345", "600519"]]
)
def test_codes_that_may_have_lost_zeros_are_refused_without_a_width(values: list[object]) -> None:
    with pytest.raises(
        ValueError, match=r"a\.csv has the code \d+ in 'code', which may have lost .*--pad-codes"
    ):
        codes(values)


@pytest.mark.parametrize(
    ("values", "pad", "padded"),
    [
        ([1, 600519], 6, ["000001", "600519"]),
        (["1", "AAPL", "1.SZ"], 6, ["000001", "AAPL", "1.SZ"]),
        ([1.0, None], 6, ["000001", None]),
        ([5, 700], 5, ["00005", "00700"]),
        ([1], 1, ["1"]),
    ],
)
def test_codes_are_padded_on_request(values: list[object], pad: int, padded: list[object]) -> None:
    assert codes(values, pad) == padded


def test_an_invalid_width_or_code_is_refused() -> None:
    with pytest.raises(ValueError, match="pad_codes=0 is not a number of digits"):
        codes([1], 0)
    with pytest.raises(ValueError, match=r"has the number 1\.5 in 'code'"):
        codes([1.5])


@pytest.mark.parametrize("first", ["Unnamed: 0", "", "date"])
def test_two_columns_of_one_name_that_is_read_are_refused(first: str, tmp_path: Path) -> None:
    file = tmp_path / "bars.csv"
    rows = "".join(f"2024-01-{day:02},1,1,1,1,x\n" for day in range(2, 8))
    file.write_text(f"{first},open,high,low,close,{first}\n{rows}")
    with pytest.raises(ValueError, match=r"columns|candidates|lacks"):
        read_rows(file, ReadOptions())
