"""`kronos train head` as a user runs it, on simulated bars and the tiny reference checkpoint."""

import re

import pytest

pytest.importorskip("qlib")

from kronos.head import ReturnHead
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.simulate import MarketConfig, simulate_market
from tests.kronos_strategies.qlib.conftest import TINY

from .conftest import run

DATES = ("--train-until", "2022-11-30", "--valid-until", "2023-02-28")
SETTINGS = ("--lookback", 30, "--every", 5, "--device", "cpu")


@pytest.fixture(scope="module")
def market():
    return simulate_market(
        MarketConfig(seed=3, instruments=32, sectors=4, start="2022-07-01", end="2023-04-28")
    )


@pytest.fixture(autouse=True)
def no_settings_of_mine(monkeypatch):
    monkeypatch.delenv("KRONOS_QLIB_DATA", raising=False)


def test_a_head_is_fitted_on_the_members_of_a_market_and_the_next_command_is_printed(
    market, tmp_path, capsys
):
    store = tmp_path / "qlib"
    write_store(
        market.bars,
        store,
        membership={"csi300": market.membership},
        benchmarks=market.benchmark,
        source={"kind": "simulation"},
    )
    output = tmp_path / "head"
    code, out, err = run(
        capsys, "train", "head", TINY, *DATES, *SETTINGS, "--data", store, "--output", output
    )
    assert code == 0, err
    info = ReturnHead.from_pretrained(output).info
    assert (info.kind, info.horizons, info.lookback) == ("ridge", (1, 5, 10), 30)
    assert (info.checkpoint, info.markets, info.trained_until) == (
        str(TINY),
        ("simulated market",),
        "2023-02-28",
    )
    assert re.search(r"validation correlation 5 +│ [-\d.e]+", out)
    assert f"KRONOS_HEADS={output}" in out
    assert "SIMULATED" in out


def test_lightgbm_is_fitted_on_a_file_of_bars_and_stored_hidden_states_are_reused(
    market, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("lightgbm")
    file = tmp_path / "made.parquet"
    market.bars.to_parquet(file)
    common = ("train", "head", TINY, *DATES, *SETTINGS, "--bars", file, "--store", tmp_path / "kept")
    code, _, err = run(capsys, *common, "--horizons", 5, "--output", tmp_path / "ridge")
    assert code == 0, err
    monkeypatch.setattr("kronos.predictor.KronosPredictor.embed", None)  # every call fails
    trees = ("--kind", "lightgbm", "--horizons", 5, 10, "--seeds", 2, "--output", tmp_path / "trees")
    code, _, err = run(capsys, *common, *trees)
    assert code == 0, err
    info = ReturnHead.from_pretrained(tmp_path / "trees").info
    assert (info.kind, info.horizons, info.markets) == ("lightgbm", (5, 10), ("made",))
    assert sorted(path.name for path in (tmp_path / "trees").iterdir()) == [
        "head-10.0.txt",
        "head-10.1.txt",
        "head-5.0.txt",
        "head-5.1.txt",
        "head.json",
    ]


def test_spans_that_leave_no_label_are_one_sentence(market, tmp_path, capsys):
    file = tmp_path / "made.parquet"
    market.bars.to_parquet(file)
    dates = ("--train-until", "2022-11-30", "--valid-until", "2022-12-05")
    code, _, err = run(
        capsys, "train", "head", TINY, *dates, *SETTINGS, "--bars", file, "--output", tmp_path / "head"
    )
    assert code == 2
    assert "No validation date has 20 instruments" in err
    assert not (tmp_path / "head").exists()


def test_a_frequency_of_a_file_of_bars_is_refused(tmp_path, capsys):
    dates = ("--train-until", "2022-11-30", "--valid-until", "2022-12-05")
    given = ("--bars", tmp_path / "bars.parquet", "--frequency", "60min", "--output", tmp_path / "head")
    code, _, err = run(capsys, "train", "head", TINY, *dates, *given)
    assert code == 2
    assert "--frequency chooses among the bars of --data" in err
