"""`kronos picks` as a user runs it, on a small simulated data directory and the tiny reference checkpoint."""

import inspect
import json
import os
import re
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pandas as pd
import pytest
import yaml

pytest.importorskip("qlib")
pytest.importorskip("jinja2")
from jinja2 import Template

from kronos.predictor import KronosPredictor
from kronos_strategies.cli.common import config_folder
from kronos_strategies.cli.picks import RANK_BUFFER, TOPK, picks
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.simulate import MarketConfig, simulate_market
from kronos_strategies.picks import COLUMNS
from kronos_strategies.portfolio import SCENARIO_WEIGHTINGS
from kronos_strategies.signal import SIGNALS
from tests.kronos_strategies.qlib.conftest import TINY

from .conftest import run

SETTINGS = {"--model": TINY, "--samples": 2, "--lookback": 30, "--device": "cpu", "--hold": 1, "--topk": 4}


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """A Qlib data directory of 24 simulated instruments."""
    market = simulate_market(
        MarketConfig(seed=3, instruments=24, sectors=4, start="2022-07-01", end="2023-04-28")
    )
    folder = tmp_path_factory.mktemp("bars") / "qlib data"
    write_store(
        market.bars, folder, membership={"csi300": market.membership}, benchmarks=market.benchmark,
        source={"kind": "simulation"},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Forecasts that the tests of this module share."""
    return tmp_path_factory.mktemp("forecasts")


@pytest.fixture(autouse=True)
def no_settings_of_mine(monkeypatch):
    for name in [name for name in os.environ if name.startswith("KRONOS_")]:
        monkeypatch.delenv(name)


def make(capsys, bars, *more, **changes):
    given = {"--data": bars, **SETTINGS, **{f"--{name.replace('_', '-')}": v for name, v in changes.items()}}
    return run(capsys, "picks", *(word for pair in given.items() for word in pair), *more)


def test_the_command_prints_positions_trades_settings_and_the_next_step(bars, store, tmp_path, capsys):
    (tmp_path / "held.csv").write_text("instrument,weight\nSH609001,0.2\nACME,0.1\n")
    code, out, err = make(capsys, bars, store=store, as_of="2023-03-12", holdings=tmp_path / "held.csv")
    assert (code, err) == (0, "")
    assert out.startswith("csi300 as of 2023-03-10")
    assert re.search(r"^ SH609001 +\d+ +\S+ +20.00% ", out, re.M)
    assert re.search(r"^ ACME +– +– +10.00% +10.00% +– .* unknown", out, re.M)
    assert re.search(r"^buy [\d.]+% of equity in \d+, sell [\d.]+% in \d+; then \d+ positions", out, re.M)
    assert "portfolio: the best 4 by score, kept among the best 29" in out
    assert "2023-03-12 is not a trading day" in out
    assert "has no ACME: holdings without bars keep their weight" in out
    assert "SIMULATED" in out
    assert re.search(
        r"^Next: kronos forecast '.*qlib data' --instrument S[HZ]\d+ --as-of 2023-03-10", out, re.M
    )


def test_a_second_run_reads_the_store_and_the_next_day_needs_one_forecast(
    bars, tmp_path, capsys, monkeypatch
):
    dates = []
    original = KronosPredictor.forecast

    def spy(self, windows, *rest, **named):
        dates.append(windows.index.get_level_values("datetime").unique().strftime("%m-%d").tolist())
        return original(self, windows, *rest, **named)

    monkeypatch.setattr(KronosPredictor, "forecast", spy)
    for as_of in ("2023-03-09", "2023-03-09", "2023-03-10"):
        assert make(capsys, bars, store=tmp_path / "forecasts", as_of=as_of)[0] == 0
    assert dates == [["03-08", "03-09"], ["03-10"]]


@pytest.mark.parametrize("weighting", SCENARIO_WEIGHTINGS[:3])
def test_weights_over_scenarios_need_no_other_setting(bars, store, tmp_path, capsys, weighting):
    assert make(capsys, bars, store=store, weighting=weighting, output=tmp_path / "a.csv")[0] == 0
    weights = pd.read_csv(tmp_path / "a.csv")["target_weight"]
    assert weights.sum() == pytest.approx(0.98, abs=1e-3)
    assert not np.isclose(weights[weights > 0], 0.245).all()


def test_a_date_with_too_short_a_past_says_so(bars, store, capsys):
    code, _, err = make(capsys, bars, store=store, weighting="min_cvar", as_of="2022-07-29", lookback=20)
    assert code != 0
    assert (
        "weighting=min_cvar has no result on 2022-07-29, because joint scenarios need 20 past windows" in err
    )
    assert err.count("\n") <= 2


def test_the_table_is_written_as_csv_parquet_and_json(bars, store, tmp_path, capsys):
    for suffix in ("csv", "parquet", "json"):
        assert make(capsys, bars, store=store, output=tmp_path / f"a.{suffix}")[0] == 0
    table = pd.read_csv(tmp_path / "a.csv", parse_dates=["datetime"])
    assert list(table.columns) == ["datetime", "instrument", *COLUMNS]
    assert table["datetime"].unique().tolist() == [pd.Timestamp("2023-04-28")]  # the last bar
    assert table["rank"].dropna().tolist() == list(range(1, table["rank"].count() + 1))
    same = pd.read_parquet(tmp_path / "a.parquet")
    assert same["instrument"].tolist() == table["instrument"].tolist()
    assert same["target_weight"].tolist() == pytest.approx(table["target_weight"].tolist())
    rows = json.loads((tmp_path / "a.json").read_text())
    assert rows[0]["instrument"] == table["instrument"][0]


def test_a_symbol_that_a_spreadsheet_would_run_is_quoted_in_the_csv_file(bars, store, tmp_path, capsys):
    (tmp_path / "held.csv").write_text('instrument,value\n"=HYPERLINK(""x"")",300\nSH609001,100\n')
    code, out, _ = make(
        capsys, bars, store=store, holdings=tmp_path / "held.csv", cash=600, output=tmp_path / "a.csv"
    )
    assert code == 0
    assert '=HYPERLINK("x")' in out
    table = pd.read_csv(tmp_path / "a.csv").set_index("instrument")
    assert table.loc['\'=HYPERLINK("x")', ["weight_before", "target_weight"]].tolist() == [0.3, 0.3]
    assert table.loc["SH609001", "weight_before"] == 0.1


def test_a_page_is_written(bars, store, tmp_path, capsys):
    code, out, _ = make(capsys, bars, store=store, html=tmp_path / "new" / "a.html")
    assert code == 0
    assert str(tmp_path / "new" / "a.html") in out
    page = (tmp_path / "new" / "a.html").read_text(encoding="utf-8")
    assert "csi300 as of 2023-04-28" in page


def test_more_instruments_than_fit_are_counted_but_positions_and_trades_are_all_printed(
    bars, store, capsys, monkeypatch
):
    monkeypatch.setattr(sys.modules[picks.__module__], "MAX_ROWS", 3)
    _, out, _ = make(capsys, bars, store=store)
    assert len(re.findall(r"^ S[HZ]\d+ ", out, re.M)) == 4  # those that are bought
    assert re.search(r"^\d+ more instruments: write all with --output or --html", out, re.M)


def test_the_variables_of_the_workflow_files_apply_and_empty_ones_do_not(bars, store, capsys, monkeypatch):
    monkeypatch.setenv("KRONOS_RANK_BUFFER", "3")
    monkeypatch.setenv("KRONOS_CASH_BUFFER", "0.1")
    monkeypatch.setenv("KRONOS_RANK_BY", "q05")
    monkeypatch.setenv("KRONOS_SEED", "")
    monkeypatch.setenv("KRONOS_WEIGHTING", "")
    code, out, _ = make(capsys, bars, store=store)
    assert code == 0
    assert "the best 4 by q05, kept among the best 7; weights: inverse volatility; 10.0% cash" in out
    assert "4 positions, 10.0% cash" in out


@pytest.mark.parametrize("simulated", [False, True], ids=["data", "simulated"])
@pytest.mark.parametrize("samples", ["", "0"])
def test_the_defaults_are_those_of_the_workflow_file(simulated, samples):
    text = (config_folder() / "kronos_csi300_weights.yaml").read_text(encoding="utf-8")
    environment = {"KRONOS_SAMPLES": samples} | ({} if simulated else {"KRONOS_QLIB_DATA": "x"})
    task = yaml.safe_load(Template(text).render(environment))["task"]
    model, dataset = task["model"]["kwargs"], task["dataset"]["kwargs"]
    strategy = task["record"][2]["kwargs"]["config"]["strategy"]["kwargs"]
    mine = {name: each.default for name, each in inspect.signature(picks).parameters.items()}
    rules = strategy["rules"]
    assert (rules.pop("topk"), rules.pop("rank_buffer")) == (TOPK[simulated], RANK_BUFFER[simulated])
    assert rules.pop("weighting") == ("equal" if samples else "inverse_volatility")
    assert rules == {name: mine[name] for name in rules}
    assert (strategy["every"], dataset["hold"], dataset["lookback"]) == (
        mine["hold"],
        mine["hold"],
        mine["lookback"],
    )
    assert (dataset["horizon"], mine["horizon"]) == (mine["hold"] + 1, None)
    assert dataset["market"] == mine["market"]
    names = {"checkpoint": "model", "T": "temperature"}
    for name in set(model) - {"prediction", "samples", "workers", "ray", "gpus_per_worker"}:
        assert (model[name] or None) == (mine[names.get(name, name)] or None), name
    assert mine["samples"] == 10


def test_price_limits_are_those_of_the_region_of_the_data(tmp_path, capsys):
    market = simulate_market(
        MarketConfig(seed=3, instruments=24, sectors=4, start="2022-07-01", end="2023-03-08")
    )
    names = {name: f"US{name[-4:]}{name[:2]}" for name in market.bars["instrument"].unique()}
    bars, members = (each.replace({"instrument": names}) for each in (market.bars, market.membership))
    write_store(bars, tmp_path / "us", membership={"us": members}, source={"kind": "test"})
    closes = bars.assign(adjusted=bars["close"] * bars["factor"]).pivot(
        index="datetime", columns="instrument", values="adjusted"
    )[sorted(set(members["instrument"]))]
    date, name = closes.pct_change(fill_method=None).loc["2023-01-02":].stack().idxmax()  # up by 10 %
    made = {}
    for region in ("us", "cn"):
        more = ("--region", "cn") if region == "cn" else ()
        output = tmp_path / f"{region}.csv"
        settings = {
            "store": tmp_path / "store",
            "market": "us",
            "as_of": f"{date:%Y-%m-%d}",
            "output": output,
        }
        _, out, _ = make(capsys, tmp_path / "us", *more, **settings)
        assert ("uses the trading rules of region 'cn'" in out) == (region == "cn")
        made[region] = pd.read_csv(output).set_index("instrument").loc[name, "flags"]
    assert pd.isna(made["us"])
    assert made["cn"] == "limit up"


def test_the_example_of_the_docs_has_the_columns_that_are_printed(bars, store, capsys):
    page = (Path(__file__).parents[3] / "docs" / "picks.md").read_text(encoding="utf-8")
    example = page[page.index("```text") : page.index("Below the table")]
    _, out, _ = make(capsys, bars, store=store)

    def heads(text: str) -> str:
        return " ".join(re.findall(r"^ Instrument .*$", text, re.M)[0].split())

    assert heads(example) == heads(out)
    documented = set(re.findall(r"`(\w+)`", page))
    assert set(COLUMNS) <= documented


def test_any_signal_may_rank():
    assert get_args(get_type_hints(picks)["rank_by"]) == SIGNALS


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"market": "csi301"}, r"no market 'csi301'. It has \['all', 'csi300'\]"),
        ({"data": "nowhere"}, r"nowhere is not a Qlib data directory"),
        ({"as_of": "2021-01-01"}, r"--as-of 2021-01-01 is before the first bar"),
        ({"as_of": "soon"}, r"--as-of='soon' is not a date"),
        ({"rank_by": "sharpe"}, r"Invalid value .sharpe. for --rank-by"),
        ({"topk": 0}, r"topk=0 is out of range"),
        ({"holdings": "empty.csv"}, r"empty.csv has no positions"),
        ({"holdings": "nowhere.csv"}, r"nowhere.csv is not a file"),
        ({"cash": 5}, r"--cash needs --holdings"),
        ({"samples": 0}, r"samples=0 samples no paths"),
        ({"score": "head"}, r"needs a return head"),
        ({"lookback": 1000}, r"lookback=1000 is more than the model's context"),
        ({"horizon": 1}, r"horizon=1 is too short"),
        ({"limit": 0}, r"--limit 0"),
        ({"output": "a.xlsx"}, r"ends in '.xlsx'"),
        ({"html": "a.pdf"}, r"ends in '.pdf'. Choose one of .html"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(bars, tmp_path, capsys, monkeypatch, changes, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").write_text("instrument,weight\n")
    code, _, err = make(capsys, bars, **changes)
    assert code == 2
    assert re.search(says, err), err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
