"""Tables show every metric and know what each column is sorted by."""

import numpy as np
import pandas as pd

from kronos_strategies.report.formatting import decimals
from kronos_strategies.report.layout import (
    boolean,
    date,
    estimate,
    month_grid,
    number,
    table,
    text,
)


def test_a_cell_is_sorted_by_its_full_value_and_not_by_what_is_shown():
    frame = pd.DataFrame({"name": ["a", "b", "c"], "x": [0.12341, 0.12342, np.nan]})
    shown = table("t", "", frame, (text("name", "Name"), number("x", "X", decimals)))
    assert [row.cells[1].text for row in shown.rows] == ["0.123", "0.123", "–"]
    assert [row.cells[1].key for row in shown.rows] == ["0.12341", "0.12342", ""]


def test_an_interval_is_shown_below_its_estimate_where_there_is_one():
    frame = pd.DataFrame({"x": [0.1, 0.2], "low": [0.0, np.nan], "high": [0.2, np.nan]})
    shown = table("t", "", frame, (estimate("x", "low", "high", "X", decimals),))
    assert [row.cells[0].note for row in shown.rows] == ["0.000 to 0.200", ""]


def test_missing_dates_and_booleans_have_a_text():
    frame = pd.DataFrame({"end": pd.to_datetime(["2020-01-02", None]), "best": [True, None]})
    shown = table("t", "", frame, (date("end", "End", otherwise="not yet"), boolean("best", "Best")))
    assert [[cell.text for cell in row.cells] for row in shown.rows] == [
        ["2020-01-02", "yes"],
        ["not yet", "–"],
    ]
    assert shown.rows[1].cells[0].key == ""


def test_the_subject_and_baselines_are_marked():
    frame = pd.DataFrame({"name": ["ours", "other", "naive"]})
    shown = table("t", "", frame, (text("name", "Name"),), highlight="ours", baseline_rows=1)
    assert [row.kind for row in shown.rows] == ["highlight", "", "baseline"]


def test_one_row_and_rows_in_an_order_are_not_sorted():
    frame = pd.DataFrame({"name": ["a", "b"]})
    columns = (text("name", "Name"),)
    assert table("t", "", frame, columns).sortable
    assert not table("t", "", frame.iloc[:1], columns).sortable
    assert not table("t", "", frame, columns, ordered=True).sortable


def test_months_are_tinted_by_sign_and_size_and_the_year_is_not():
    months = pd.DataFrame(np.nan, index=[2020], columns=[*range(1, 13), "year"])
    months.loc[2020, [1, 2, "year"]] = 0.1, -0.05, 0.04
    ((year, heats),) = month_grid("m", "", months, decimals).rows
    assert year == "2020"
    assert [heat.tint for heat in heats[:3]] == [1.0, -0.5, 0.0]
    assert [heat.text for heat in (heats[0], heats[2], heats[12])] == ["0.100", "", "0.040"]
    assert heats[12].tint == 0.0


def test_without_months_there_is_no_grid():
    empty = pd.DataFrame(np.nan, index=[2020], columns=[*range(1, 13), "year"])
    assert month_grid("m", "", empty, decimals) is None
