"""Picks computed by hand, and portfolios as files have them."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.picks import COLUMNS, Picks, pick, read_holdings
from kronos_strategies.portfolio import PortfolioRules

DATE = pd.Timestamp("2024-03-01")
RULES = PortfolioRules(topk=2, rank_buffer=1, cash_buffer=0.1, no_trade_band=0.05)


def signals_of(**scores: float) -> pd.DataFrame:
    return pd.DataFrame({"score": scores}, dtype=float).rename_axis("instrument")


def state_of(*names: str) -> pd.DataFrame:
    index = pd.Index(names, name="instrument")
    return pd.DataFrame({"close": 10.0, "traded_value": 1e6, "flags": ""}, index)


def test_every_number_of_a_row_follows_from_scores_and_holdings_by_hand():
    today, yesterday = signals_of(A=1, B=4, C=3, D=2), signals_of(A=4, B=3, C=2, D=1)
    previous = pd.Series({"A": 0.3, "C": 0.42, "D": 0.1})
    table = pick(today, yesterday, state_of("A", "B", "C", "D"), previous, RULES, pd.Index(list("ABCD")))
    assert tuple(table.columns) == COLUMNS
    assert list(table.index) == ["B", "C", "D", "A"]
    # B, C enter the best two, D stays third of three; each gets 0.9 / 3. C changes by 0.12, D by 0.2, A leaves.
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert table["previous_rank"].tolist() == [2, 3, 4, 1]
    assert table["rank_change"].tolist() == [1, 1, 1, -3]
    assert table["weight_before"].tolist() == [0, 0.42, 0.1, 0.3]
    assert table["target_weight"].tolist() == pytest.approx([0.3, 0.3, 0.3, 0])
    assert table["trade"].tolist() == pytest.approx([0.3, -0.12, 0.2, -0.3])
    made = Picks("market", DATE, table, RULES)
    assert made.summary == {
        "buy": (2, pytest.approx(0.5)), "sell": (2, pytest.approx(0.42)), "hold": (3, pytest.approx(0.9))
    }  # fmt: skip


def test_an_instrument_that_cannot_be_bought_is_ranked_and_the_next_one_is_bought_instead():
    today = signals_of(A=3, B=2, C=1)
    table = pick(
        today, today[:0], state_of("A", "B", "C"), pd.Series(dtype=float), RULES, pd.Index(["B", "C"])
    )
    assert table["rank"].to_dict() == {"A": 1, "B": 2, "C": 3}
    assert table.index[table["trade"] > 0].tolist() == ["B", "C"]
    assert table["rank_change"].isna().all()


def test_a_position_without_a_forecast_is_last_and_keeps_its_weight_unless_it_trades():
    today, previous = signals_of(B=2, C=1), pd.Series({"X": 0.2, "Y": 0.1})
    table = pick(today, today, state_of("B", "C", "X", "Y"), previous, RULES, pd.Index(["B", "C", "Y"]))
    assert list(table.index) == ["B", "C", "X", "Y"]
    assert table.loc[["X", "Y"], "rank"].isna().all()
    assert table.loc[["X", "Y"], "trade"].tolist() == pytest.approx([0, -0.1])


def written(folder, text: str):
    (folder / "held.csv").write_text(text)
    return folder / "held.csv"


def test_weights_are_taken_as_they_are_and_codes_keep_their_zeros(tmp_path):
    held = read_holdings(written(tmp_path, "Symbol,Weight\n000001,0.25\nB,0.5\nC,0\n"))
    assert held.to_dict() == {"000001": 0.25, "B": 0.5, "C": 0}


def test_values_are_divided_by_the_equity_with_its_cash(tmp_path):
    file = written(tmp_path, "instrument,value\nA,300\nB,100\n")
    assert read_holdings(file).to_dict() == {"A": 0.75, "B": 0.25}
    assert read_holdings(file, cash=600).to_dict() == {"A": 0.3, "B": 0.1}


def test_a_parquet_file_is_read_as_well(tmp_path):
    pd.DataFrame({"instrument": ["A"], "weight": [0.5]}).to_parquet(tmp_path / "held.parquet")
    assert read_holdings(tmp_path / "held.parquet").to_dict() == {"A": 0.5}


@pytest.mark.parametrize(
    ("text", "cash", "says"),
    [
        ("instrument,weight\n", None, r"has no positions. Omit --holdings"),
        ("name,weight\nA,1\n", None, r"lacks the columns \['instrument'\]"),
        ("instrument,amount\nA,1\n", None, r"either a column 'weight'.*has none of them.*numbers of shares"),
        ("instrument,weight,value\nA,1,1\n", None, r"but has weight and value"),
        ("instrument,weight\nA,5 %\n", None, r"the weight 5 % of A"),
        ("instrument,weight\nA,\n", None, r"the weight nan of A"),
        ("instrument,weight\nA,inf\n", None, r"the weight inf of A"),
        ("instrument,weight\nA,-0.1\n", None, r"the weight -0.1 of A.*long-only"),
        ("instrument,weight\nA,0.1\n,0.1\n", None, r"no instrument in row 2"),
        ("instrument,weight\nA,0.1\nA,0.1\n", None, r"has A twice"),
        ("instrument,weight\nA,30\nB,40\n", None, r"add up to 70. Write fractions of equity"),
        ("instrument,value\nA,0\n", None, r"add up to 0. Pass the money in the account with --cash"),
        ("instrument,value\nA,1\n", -1.0, r"cash=-1 cannot be used"),
        ("instrument,value\nA,1\n", np.nan, r"cash=nan cannot be used"),
        ("instrument,weight\nA,1\n", 5.0, r"cash=5 cannot be used with the weights"),
    ],
)
def test_a_file_that_is_not_a_portfolio_is_refused_in_one_sentence(tmp_path, text, cash, says):
    with pytest.raises(ValueError, match=says) as caught:
        read_holdings(written(tmp_path, text), cash)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv is not a file"):
        read_holdings(tmp_path / "nowhere.csv")
