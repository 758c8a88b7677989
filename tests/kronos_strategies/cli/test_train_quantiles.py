"""`kronos train quantiles` as a user runs it, on bars of a file and of a Qlib data directory."""

import pytest

pytest.importorskip("lightgbm")

from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.simulate import MarketConfig, simulate_market
from kronos_strategies.forecasters import load_forecaster
from tests.kronos_strategies.forecasters.markets import panel_of, tidy

from .conftest import run

SETTINGS = ("--steps", 1, 3, "--levels", 0.1, 0.5, 0.9, "--rounds", 5, "--every", 1, "--lookback", 61)
OF_FILE = ("--train-until", "2022-06-17", "--valid-until", "2022-08-19")
OF_STORE = ("--train-until", "2022-11-30", "--valid-until", "2023-02-28")


@pytest.fixture(autouse=True)
def no_settings_of_mine(monkeypatch):
    monkeypatch.delenv("KRONOS_QLIB_DATA", raising=False)


def test_quantile_models_are_fitted_on_a_file_of_bars(tmp_path, capsys):
    tidy(panel_of(20)).to_csv(tmp_path / "made.csv", index=False)
    output = tmp_path / "quantiles"
    code, out, err = run(
        capsys, "train", "quantiles", *OF_FILE, *SETTINGS, "--bars", tmp_path / "made.csv", "--output", output
    )
    assert code == 0, err
    info = load_forecaster(f"lightgbm-quantiles:{output}").info
    assert (info.steps, info.levels, info.lookback) == ((1, 3), (0.1, 0.5, 0.9), 61)
    assert (info.markets, info.trained_until) == (("made",), "2022-08-19")
    assert "constant quantiles" in out


def test_quantile_models_are_fitted_on_the_members_of_a_market_and_the_next_command_is_printed(
    tmp_path, capsys
):
    pytest.importorskip("qlib")
    market = simulate_market(
        MarketConfig(seed=3, instruments=24, sectors=4, start="2022-03-01", end="2023-04-28")
    )
    store, output = tmp_path / "qlib", tmp_path / "quantiles"
    source = {"kind": "simulation"}
    write_store(
        market.bars,
        store,
        membership={"csi300": market.membership},
        benchmarks=market.benchmark,
        source=source,
    )
    code, out, err = run(
        capsys, "train", "quantiles", *OF_STORE, *SETTINGS, "--data", store, "--output", output
    )
    assert code == 0, err
    assert load_forecaster(f"lightgbm-quantiles:{output}").info.markets == ("simulated market",)
    assert f"KRONOS_MODEL=lightgbm-quantiles:{output}" in "".join(out.split("\n"))


def test_a_validation_that_does_not_follow_training_is_one_sentence(tmp_path, capsys):
    code, _, err = run(
        capsys, "train", "quantiles", "--train-until", "2022-06-17", "--valid-until", "2022-06-17",
        "--output", tmp_path / "quantiles",
    )  # fmt: skip
    assert code == 2
    assert "Validation ends at 2022-06-17, not after training" in err
