"""Linear probes: their labels and inputs, the order of dates, and planted relations that transfer or do not."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

pytest.importorskip("sklearn")

from kronos_strategies.heads.probes import (
    CHANGE,
    DIRECTION,
    VOLATILITY,
    ProbeSample,
    probe_labels,
    relative_bar_features,
    sample_windows,
    transfer,
)
from tests.kronos.builders import make_bars, make_panel
from tests.kronos_strategies.warm import run_warm

ROOT = Path(__file__).parents[3]
TINY = ROOT / "tests" / "reference" / "kronos_tiny"


def keys_of(panel, *positions: int) -> pd.MultiIndex:
    rows = [(bars.index[i], name) for name, bars in panel.items() for i in positions]
    return pd.MultiIndex.from_tuples(rows, names=["datetime", "instrument"])


def test_labels_are_the_volatility_of_the_next_bars_without_units_and_the_sign_from_the_next_close_on():
    panel = make_panel(60, "A", "B")
    keys = keys_of(panel, 30, 40)
    found = probe_labels(panel, keys, 5, 30, panel["A"].index[-1])
    for date, name in keys:
        bars = panel[name]
        at = bars.index.get_loc(date)
        steps = np.diff(np.log(bars["close"].to_numpy()))  # steps[i] ends at bar i + 1
        past, future = steps[at - 20 : at], steps[at : at + 5]
        row = found.loc[(date, name)]
        closes = np.log(bars["close"].to_numpy()[at - 29 : at + 1])
        np.testing.assert_allclose(row[VOLATILITY], np.log((future**2).mean() ** 0.5 / closes.std()))
        np.testing.assert_allclose(row[CHANGE], 0.5 * np.log((future**2).mean() / (past**2).mean()))
        assert row[DIRECTION] == float(bars["close"].iloc[at + 6] > bars["close"].iloc[at + 1])
        assert row["known"] == bars.index[at + 6]


def test_no_label_uses_a_bar_after_its_end():
    panel = make_panel(60, "A")
    dates = panel["A"].index
    keys = keys_of(panel, 43, 44)
    early, late = probe_labels(panel, keys, 5, 30, dates[49])[[VOLATILITY, CHANGE, DIRECTION]].to_numpy()
    assert not np.isnan(early).any()  # known at bar 49
    assert np.isnan(late).all()
    panel["A"].iloc[50:] *= 3
    np.testing.assert_array_equal(probe_labels(panel, keys, 5, 30, dates[49])[VOLATILITY].iloc[0], early[0])


def test_prices_that_do_not_move_have_no_label():
    panel = make_panel(60, "A")
    panel["A"].iloc[30:40] = panel["A"].iloc[30].to_numpy()
    found = probe_labels(panel, keys_of(panel, 31), 5, 30, panel["A"].index[-1])
    assert found[[VOLATILITY, CHANGE, DIRECTION]].isna().all(axis=None)


def test_relative_features_have_no_units_and_read_no_later_bar():
    bars = make_bars(100)
    other = bars * np.array([100, 100, 100, 100, 7, 700])
    panel = {"A": bars, "B": other}
    found = relative_bar_features(panel, keys_of(panel, 70), 60)
    np.testing.assert_allclose(found.iloc[0], found.iloc[1], rtol=1e-9)
    changed = {"A": bars.copy(), "B": other}
    changed["A"].iloc[71:] *= 2
    pd.testing.assert_frame_equal(relative_bar_features(changed, keys_of(panel, 70), 60), found)
    assert found.notna().all(axis=None)


def test_a_sample_is_spread_over_dates_and_instruments_and_not_larger_than_asked():
    panel = make_panel(200, *(f"N{i:02d}" for i in range(20)))
    dates = panel["N00"].index
    found = sample_windows(panel, 30, (dates[50], dates[149]), every=5, count=100)
    index = found.index
    assert index.unique("datetime").equals(dates[50:150:5].rename("datetime"))
    assert list(index.unique("instrument")) == ["N00", "N04", "N08", "N12", "N16"]
    assert len(found) == 100


def sample(start: str, slope: float, seed: int, names: int = 10, dates: int = 150) -> ProbeSample:
    """Windows whose input `true` moves both labels by `slope`, and whose input `noise` moves neither."""
    random = np.random.default_rng(seed)
    days = pd.bdate_range(start, periods=dates)
    index = pd.MultiIndex.from_product(
        [days, [f"N{i}" for i in range(names)]], names=["datetime", "instrument"]
    )
    true, noise, rest = random.normal(0, 1, (3, len(index), 3))
    signal = slope * true[:, 0]
    labels = pd.DataFrame(
        {
            VOLATILITY: signal + rest[:, 0],
            CHANGE: signal + rest[:, 2],
            DIRECTION: (signal + rest[:, 1] > 0).astype(float),
            "known": index.get_level_values("datetime") + pd.offsets.BDay(1),
        },
        index=index,
    )
    return ProbeSample({"true": true, "noise": noise}, labels, 1, 1)


@pytest.fixture(scope="module")
def scores():
    """Two markets with the same relation, and one in which it is reversed; one has no training windows."""
    train = {"same": sample("2015-01-01", 1.0, 0), "reversed": sample("2015-01-01", -1.0, 1)}
    test = {
        name: sample("2018-01-01", slope, seed)
        for seed, (name, slope) in enumerate({"same": 1.0, "reversed": -1.0, "new": 1.0}.items(), start=2)
    }
    found = list(transfer(train, test, reference="noise"))
    return {(s.target, s.trained_on, s.tested_on, s.inputs): s for s in found}


@pytest.mark.parametrize("target", [VOLATILITY, CHANGE, DIRECTION])
def test_a_relation_transfers_to_markets_that_have_it_and_to_no_other(scores, target):
    for tested_on in ("same", "new"):
        assert scores[target, "same", tested_on, "true"].skill.low > 0.1
        assert scores[target, "reversed", tested_on, "true"].skill.high < -0.1
        assert scores[target, "same", tested_on, "true"].difference.low > 0.1
    half = scores[VOLATILITY, "same", "same", "true"].skill.mean  # half of the variance is the input's
    assert 0.45 < half < 0.55


@pytest.mark.parametrize("target", [VOLATILITY, CHANGE, DIRECTION])
def test_an_input_without_information_has_no_skill(scores, target):
    for tested_on in ("same", "reversed", "new"):
        test = scores[target, "same", tested_on, "noise"]
        assert abs(test.skill.mean) < 0.02
        assert test.difference is None


def test_the_pool_of_opposite_markets_has_hardly_any_skill(scores):
    assert abs(scores[VOLATILITY, "all", "same", "true"].skill.mean) < 0.05


def test_a_training_label_that_is_known_after_a_test_date_of_any_market_is_refused():
    train = {"early": sample("2015-01-01", 1.0, 0), "late": sample("2017-10-02", 1.0, 1)}
    test = {"early": sample("2018-01-01", 1.0, 2)}
    with pytest.raises(ValueError, match=r"training label of late is known on .* first test date of early"):
        list(transfer(train, test, reference="noise"))


@pytest.mark.integration
def test_the_script_writes_a_table_and_reads_hidden_states_again(tmp_path):
    for name, seed in (("one", 0), ("two", 50)):
        parts = [make_bars(160, seed + i).assign(instrument=f"N{i}").reset_index() for i in range(4)]
        pd.concat(parts).to_parquet(tmp_path / f"{name}.parquet")
    days = make_bars(160).index
    train, test = (
        {"start": f"{days[first]:%Y-%m-%d}", "end": f"{days[last]:%Y-%m-%d}"}
        for first, last in ((40, 95), (100, 159))
    )
    one, two = ({"file": f"{name}.parquet"} for name in ("one", "two"))
    markets = {"one": {"train": one | train, "test": one | test}, "two": {"test": two | test | {"every": 4}}}
    (tmp_path / "markets.yaml").write_text(yaml.safe_dump(markets))
    command = [
        ROOT / "backtests" / "transfer_across_markets.py", "--data", tmp_path, "--markets",
        tmp_path / "markets.yaml", "--model", TINY, "--lookback", "30", "--windows", "60", "--horizon", "3",
        "--device", "cpu", "--store", tmp_path / "store", "--output", tmp_path / "out",
    ]  # fmt: skip
    done = run_warm(command, tmp_path, os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "out" / "transfer.json").read_text())["scores"]
    assert {(s["trained_on"], s["tested_on"]) for s in found} == {("one", "one"), ("one", "two")}
    assert (
        "volatility, hidden states: trained on | one | two |"
        in (tmp_path / "out" / "transfer.md").read_text()
    )
    stored = {file: file.stat().st_mtime_ns for file in (tmp_path / "store").rglob("*.parquet")}
    assert stored
    assert run_warm(command, tmp_path, os.environ).returncode == 0
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "store").rglob("*.parquet")} == stored
