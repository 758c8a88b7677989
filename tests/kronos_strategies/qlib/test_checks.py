"""Settings are checked before anything is forecast, on the workflow files as `qrun` reads them."""

import subprocess
from pathlib import Path

import pytest
import yaml
from qlib.cli.run import render_template

from kronos_strategies.qlib.checks import check_task

from .conftest import CONFIG, TINY, qrun

WEIGHTS = CONFIG.with_name("kronos_csi300_weights.yaml")
ROLLING = CONFIG.with_name("kronos_rolling.yaml")
RISK = CONFIG.with_name("kronos_csi300_risk.yaml")
SPAN = {"KRONOS_TEST_START": "2023-05-08", "KRONOS_TEST_END": "2023-06-09"}


def task_of(monkeypatch, store: Path, config: Path = CONFIG, **settings: str) -> dict:
    ours = {"KRONOS_QLIB_DATA": str(store), "KRONOS_MODEL": str(TINY), **SPAN, **settings}
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    return yaml.safe_load(render_template(str(config)))["task"]


@pytest.mark.parametrize("config", [CONFIG, WEIGHTS, RISK, ROLLING])
def test_the_settings_of_the_workflow_files_pass(in_store, monkeypatch, config):
    check_task(task_of(monkeypatch, in_store, config))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"KRONOS_LOOKBACK": "600"}, r"lookback=600 is more than the model's context"),
        ({"KRONOS_SAMPLES": "1"}, r"samples=1 is too few for the report"),
    ],
)
def test_the_settings_of_rolling_versions_are_checked_too(in_store, monkeypatch, settings, says):
    with pytest.raises(ValueError, match=says):
        check_task(task_of(monkeypatch, in_store, ROLLING, **settings))


@pytest.mark.parametrize(
    ("settings", "fitted"),
    [
        ({}, {"every": 5}),
        ({"KRONOS_CALIBRATE": "2"}, {"every": 2}),
        ({"KRONOS_CALIBRATE": "0"}, None),
        ({"KRONOS_SAMPLES": "0"}, None),
    ],
)
def test_rolling_versions_are_calibrated_where_paths_are_sampled(in_store, monkeypatch, settings, fitted):
    versions = task_of(monkeypatch, in_store, ROLLING, **settings)["model"]["kwargs"]["model"]["kwargs"]
    assert versions["fit_calibration"] == fitted
    assert versions["fit_head"] is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"TOPK": "0"}, r"topk=0 is too small. Set KRONOS_TOPK"),
        ({"TOPK": "abc"}, r"topk='abc' is not a whole number"),
        ({"TOPK": "4", "N_DROP": "5"}, r"n_drop=5 of topk=4 .* Set KRONOS_N_DROP to 0 to 4"),
        ({"N_DROP": "-1"}, r"n_drop=-1"),
        ({"LOOKBACK": "600"}, r"lookback=600 is more than the model's context of 512 bars"),
        ({"LOOKBACK": "abc"}, r"lookback='abc' is not a whole number"),
        ({"TEST_START": "June"}, r"start_time='June' is not a date"),
        ({"TEST_END": "2023-07-31"}, r"backtest .* ends after the data directory.*to 2023-06-30"),
        ({"TEST_START": "2030-01-01", "TEST_END": "2030-02-01"}, r"has no trading day"),
        (
            {"TEST_START": "2023-06-09", "TEST_END": "2023-05-08"},
            r"has no trading day: it starts on 2023-06-09 and ends on 2023-05-08",
        ),
        ({"BENCHMARK": "SH000905"}, r"no benchmark 'SH000905'.*KRONOS_BENCHMARK"),
        ({"INDUSTRY": "nowhere.csv"}, r"nowhere.csv"),
        ({"REGION": "eu"}, r"KRONOS_REGION=eu is not a region of Qlib. Choose one of \['cn', 'tw', 'us'\]"),
        ({"LIMIT": "10"}, r"limit_threshold=10 is not a fraction of the price"),
        ({"OPEN_COST": "five"}, r"open_cost='five' is not a number"),
        ({"SAMPLES": "1"}, r"samples=1 is too few for the report.*KRONOS_SAMPLES to 2 or more"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(in_store, monkeypatch, settings, says):
    settings = {f"KRONOS_{name}": value for name, value in settings.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        check_task(task_of(monkeypatch, in_store, **settings))


def backtest_of(task: dict) -> dict:
    return task["record"][2]["kwargs"]["config"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda t: t["dataset"]["kwargs"].update(deal_price="open"),
            r"at the open but the backtest trades at \['close'\]",
        ),
        (
            lambda t: backtest_of(t)["strategy"]["kwargs"].update(hold_thresh=7),
            r"hold=\d+ but the strategy has hold_thresh=7",
        ),
        (
            lambda t: backtest_of(t)["backtest"]["exchange_kwargs"].update(deal_price=["$open", "$close"]),
            r"trades at \['close', 'open'\]",
        ),
        (lambda t: backtest_of(t)["backtest"]["exchange_kwargs"].update(open_cost=-1), r"open_cost=-1"),
        (
            lambda t: backtest_of(t)["backtest"]["exchange_kwargs"].update(limit_threshold=9.5),
            r"limit_threshold=9.5",
        ),
    ],
)
def test_dataset_and_backtest_that_disagree_are_refused(in_store, monkeypatch, change, says):
    task = task_of(monkeypatch, in_store)
    change(task)
    with pytest.raises(ValueError, match=says):
        check_task(task)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"rules": {"rank_bufer": 3}},
            r"'rank_bufer' is not a field of PortfolioRules. Did you mean 'rank_buffer'",
        ),
        ({"rules": {"weighting": "inverse_vol"}}, r"weighting='inverse_vol'"),
        ({"rules": {"topk": 0}}, r"topk=0"),
        ({"every": 9}, r"strategy has every=9"),
        (
            {"rules": {"weighting": "min_cvar"}, "forecasts": ""},
            r"weighting='min_cvar' needs sampled paths, and none are given",
        ),
    ],
)
def test_a_wrong_rule_of_a_portfolio_is_refused(in_store, monkeypatch, change, says):
    task = task_of(monkeypatch, in_store, WEIGHTS)
    backtest_of(task)["strategy"]["kwargs"].update(change)
    with pytest.raises(ValueError, match=says):
        check_task(task)


def test_a_strategy_that_reads_more_than_the_score_needs_signals(in_store, monkeypatch):
    task = task_of(monkeypatch, in_store, WEIGHTS)
    task["model"]["kwargs"].pop("prediction")
    with pytest.raises(ValueError, match=r"reads 'volatility'.*Set prediction: signals"):
        check_task(task)


def test_a_strategy_that_reads_paths_needs_samples(in_store, monkeypatch):
    with pytest.raises(
        ValueError, match=r"reads 'volatility', which comes from sampled paths. Set KRONOS_SAMPLES"
    ):
        check_task(
            task_of(monkeypatch, in_store, WEIGHTS, KRONOS_SAMPLES="0", KRONOS_WEIGHTING="inverse_volatility")
        )
    check_task(task_of(monkeypatch, in_store, WEIGHTS, KRONOS_SAMPLES="0", KRONOS_WEIGHTING="equal"))


def test_no_benchmark_is_refused_where_qlib_would_look_for_another(
    in_store, small_store, monkeypatch, tmp_path
):
    import shutil

    from .conftest import use_store

    task = task_of(monkeypatch, in_store)
    backtest_of(task)["backtest"]["benchmark"] = None
    check_task(task)  # the store has the one that Qlib takes
    shutil.copytree(small_store, tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "features" / "sh000300")
    use_store(tmp_path / "store")
    with pytest.raises(ValueError, match=r"null as SH000300, which the data directory lacks.*to market"):
        check_task(task)


def test_tasks_without_a_class_of_ours_are_left_to_qlib(in_store):
    check_task(
        {
            "model": {"class": "LGBModel"},
            "dataset": {"class": "DatasetH"},
            "record": {"class": "SignalRecord"},
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"KRONOS_TOPK": "0"}, "topk=0 is too small."),
        ({"KRONOS_HORIZON": "2.5"}, "horizon=2.5 is not a whole number."),
        ({"KRONOS_SAMPLES": "many"}, "samples='many' is not a whole number."),
    ],
)
def test_qrun_says_one_sentence_without_a_trace_and_forecasts_nothing(
    small_store, run_folder, settings, says
):
    process: subprocess.CompletedProcess[str] = qrun(
        run_folder, KRONOS_QLIB_DATA=str(small_store), **{**SPAN, **settings}
    )
    assert process.returncode == 1
    assert says in process.stderr
    assert "Traceback" not in process.stdout + process.stderr
    assert 'File "' not in process.stdout + process.stderr
    assert "windows" not in process.stderr


@pytest.mark.parametrize("weighting", ["min_cvar", "risk_parity"])
def test_rules_over_paths_need_samples(in_store, monkeypatch, weighting):
    settings = {"KRONOS_WEIGHTING": weighting, "KRONOS_SAMPLES": "0"}
    with pytest.raises(ValueError, match=r"sampled paths. Set KRONOS_SAMPLES to 10"):
        check_task(task_of(monkeypatch, in_store, RISK, **settings))
