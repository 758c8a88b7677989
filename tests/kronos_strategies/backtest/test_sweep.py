"""Trials of a sweep: resumed by content, equal in any number of processes, evaluated with all that were tried."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

pytest.importorskip("arch")
pytest.importorskip("empyrical")

from kronos_strategies.backtest.search import SweepConfig
from kronos_strategies.backtest.sweep import Sweep
from kronos_strategies.backtest.trials import NET, TrialResult
from kronos_strategies.evaluation.portfolio.overfitting import evaluate_overfitting
from kronos_strategies.evaluation.portfolio.sharpe import expected_max_sharpe, probabilistic_sharpe

TRADING = {"min_cost": 0, "lot": 0}
STEP, LONGEST = 0.05, 120  # seconds


@pytest.fixture
def config(walk_folder, tmp_path) -> SweepConfig:
    rules = {"topk": [3, 6], "weighting": ["equal", "inverse_volatility"]}
    return SweepConfig(
        str(walk_folder / "forecasts"), walk_folder / "qlib", tmp_path / "out", rules=rules, trading=TRADING
    )


def files(config: SweepConfig) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in config.output.glob("trials/*/*.parquet")}


def test_a_longer_list_runs_the_new_settings_only_and_all_of_them_count(config):
    first = Sweep(config).run()
    assert (first.trials, first.best.trials, first.overfitting.settings) == (4, 4, 4)
    before = files(config)
    longer = replace(config, rules={**config.rules, "topk": [9, 6, 3]})
    second = Sweep(longer).run()
    assert (len(second.table), second.trials) == (6, 6)
    after = files(config)
    assert {name: after[name] for name in before} == before
    again = Sweep(config).run()
    assert files(config) == after
    assert (len(again.table), again.trials, again.best.trials) == (4, 6, 6)
    pd.testing.assert_frame_equal(again.table.drop(columns="dsr"), first.table.drop(columns="dsr"))
    assert (again.table["dsr"] != first.table["dsr"]).all()


def test_ratios_are_deflated_by_all_trials_and_overfitting_is_that_of_their_returns(config):
    sweep = Sweep(config)
    result = sweep.run()
    stored = [TrialResult.read(file).bars[NET] for file in sweep.files]
    ratios = np.array([net.mean() / net.std() for net in stored])
    assert result.best.trials_deviation == pytest.approx(ratios.std(ddof=1))
    best = stored[int(ratios.argmax())]
    expected = probabilistic_sharpe(best, expected_max_sharpe(4, ratios.std(ddof=1)))
    assert result.table["dsr"].iloc[0] == pytest.approx(expected)
    assert result.overfitting.pbo == evaluate_overfitting(pd.concat(stored, axis=1)).pbo
    assert result.best == replace(
        sweep.trials[int(ratios.argmax())].settings, trials=4, trials_deviation=result.best.trials_deviation
    )


def test_a_trial_is_the_backtest_of_its_setting_alone(config):
    sweep = Sweep(replace(config, hold=[2, 5], every=2))
    sweep.run()
    for trial, file in list(zip(sweep.trials, sweep.files, strict=True))[::3]:
        alone = sweep.artifacts(trial.settings).result
        found = TrialResult.read(file).bars
        pd.testing.assert_frame_equal(found[["gross", NET]], alone.returns[["gross", NET]])
        np.testing.assert_array_equal(found["positions"], alone.positions)


@pytest.mark.parametrize("change", ["dates", "industries", "price", "bars"])
def test_other_data_or_execution_are_other_trials(config, change, tmp_path, walk_market):
    sweep = Sweep(config)
    if change == "dates":
        other = replace(config, end=pd.Timestamp("2023-01-31"))
    elif change == "price":
        other = replace(config, trading={**TRADING, "price": "open"})
    elif change == "bars":
        bars = walk_market.bars.copy()
        bars.loc[bars["datetime"] == "2023-02-01", "close"] *= 1.001
        bars.to_parquet(tmp_path / "bars.parquet")
        other = replace(config, data=tmp_path / "bars.parquet")
    else:
        names = walk_market.bars["instrument"].unique()
        pd.DataFrame({"instrument": names, "industry": "A"}).to_csv(tmp_path / "industry.csv", index=False)
        other = replace(config, industry=tmp_path / "industry.csv")
    found = Sweep(other)
    assert not set(found.files) & set(sweep.files)
    assert (found.files[0].parent == sweep.files[0].parent) == (change == "price")


def test_equal_settings_have_one_file_however_they_are_written(config):
    written = replace(config, rules={"topk": 3.0, "quantile": 0, "rank_by": "score"})
    plain = replace(config, rules={"topk": 3})
    assert Sweep(written).files == Sweep(plain).files


def test_a_damaged_result_is_run_again(config):
    sweep = Sweep(config)
    before = sweep.run()
    sweep.files[1].write_bytes(sweep.files[1].read_bytes()[:-100])
    pd.testing.assert_frame_equal(Sweep(config).run().table, before.table)
    assert TrialResult.read(sweep.files[1]) is not None


def test_progress_is_reported_after_each_trial(config, monkeypatch):
    reported = []

    @contextmanager
    def bar(what, unit):
        yield lambda done, total: reported.append((done, total, len(files(config))))

    monkeypatch.setattr("kronos_strategies.backtest.sweep.progress_bar", bar)
    Sweep(config).run()
    assert reported == [(done, 4, done) for done in range(5)]
    with pytest.raises(ValueError, match="workers=0 is below 1"):
        Sweep(config).run(0)


def test_a_setting_that_fails_leaves_the_others_and_says_why(config):
    some = replace(config, rules={"topk": 4, "max_industry_weight": [0.5, 1.0]})
    result = Sweep(some).run()
    assert (result.failed, result.trials) == (1, 1)
    assert result.table["error"].iloc[1].startswith("max_industry_weight=0.5 needs the industry")
    with pytest.raises(
        ValueError, match=r"No setting has a result. The first one failed: max_industry_weight=0.5"
    ):
        Sweep(replace(config, rules={"max_industry_weight": [0.5, 0.6]})).run()


def test_a_signal_that_does_not_exist_fails_with_those_that_do(config):
    result = Sweep(replace(config, rules={"topk": 4, "rank_by": ["score", "scor"]})).run()
    assert result.failed == 1
    reason = result.table["error"].iloc[1]
    assert "no column 'scor'" in reason
    assert "'prob_up'" in reason
    assert "Did you mean 'score'?" in reason


@pytest.mark.integration
def test_processes_give_the_same_results(config, tmp_path):
    if find_spec("cvxpy"):  # reads the sampled paths in every process
        weightings = ["equal", "min_cvar"]
        config = replace(config, rules={"topk": [3, 6], "scenario_bars": 40, "weighting": weightings})
    alone = Sweep(config).run(1).table
    assert not alone["error"].any()
    several = Sweep(replace(config, output=tmp_path / "several")).run(2).table
    pd.testing.assert_frame_equal(alone, several)


def children(pid: int) -> set[int]:
    """Processes that a process started, and those that they started."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(status.parent.name)] = int(fields[1])
    found = {pid}
    while more := {each for each, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def wait_until(holds, process=None) -> None:
    deadline = time.monotonic() + LONGEST
    while not holds():
        assert time.monotonic() < deadline, "it takes too long"
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(STEP)


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found where Linux lists them")
def test_a_killed_sweep_leaves_no_process_and_resumes_where_it_was(config, walk_folder, tmp_path):
    rules = {"topk": list(range(2, 12)), "rank_buffer": list(range(10)), "no_trade_band": [0.0, 0.01, 0.02]}
    values = {"rules": rules, "trading": TRADING, "every": 1}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(values))
    words = [
        "sweep",
        tmp_path / "sweep.yaml",
        "--store",
        walk_folder / "forecasts",
        "--data",
        walk_folder / "qlib",
    ]
    words += ["--output", config.output, "--workers", 2]
    script = "import sys\nfrom kronos_strategies.cli import main\nmain(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        wait_until(lambda: len(files(config)) >= 2, process)
        started = children(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert started
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() and pid in children(1) for pid in started))
    before = files(config)
    assert 2 <= len(before) < 300
    few = {**rules, "topk": [2], "rank_buffer": [0, 1]}
    sweep = Sweep(replace(config, rules=few, every=1))
    result = sweep.run()
    after = files(config)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) <= {file.name for file in sweep.files}
    assert result.trials == len(after)
