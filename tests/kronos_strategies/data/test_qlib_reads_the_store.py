"""The store in the hands of the real Qlib, which runs in a process of its own as its settings are global."""

import importlib.util
import json
import os
from textwrap import dedent

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.data.importer import import_bars, import_benchmarks
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.simulate import BENCHMARK
from kronos_strategies.data.validation import listing_spans
from tests.kronos_strategies.warm import run_warm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("qlib") is None, reason="needs the extra [qlib]"),
]

READ = """
    import json, logging, sys
    from pathlib import Path
    import numpy as np
    import qlib
    from qlib.constant import REG_CN
    from qlib.data import D

    store, out = map(Path, sys.argv[1:])
    qlib.init(provider_uri=str(store), region=REG_CN, kernels=1, logging_level=logging.ERROR)
    fields = ["$open", "$high", "$low", "$close", "$volume", "$amount", "$factor", "$change"]
    names = D.list_instruments(D.instruments("all"), as_list=True)
    D.features(names, fields).to_parquet(out / "all.parquet")
    D.features(D.instruments("csi300"), ["$close"]).to_parquet(out / "members.parquet")
    D.features(["SH000300"], ["$close", "$volume"]).to_parquet(out / "benchmark.parquet")
    read = {
        "names": names,
        "days": [str(day.date()) for day in D.calendar()],
        "future": [str(day.date()) for day in D.calendar(future=True)],
    }
    (out / "read.json").write_text(json.dumps(read))
"""

BACKTEST = """
    from qlib.backtest import backtest
    from qlib.contrib.strategy import TopkDropoutStrategy

    signal = -D.features(D.instruments("csi300"), ["$close/Ref($close, 5) - 1"]).iloc[:, 0].dropna()
    signal = signal.swaplevel().sort_index()
    days = D.calendar()
    executor = {
        "class": "SimulatorExecutor",
        "module_path": "qlib.backtest.executor",
        "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
    }
    portfolio, _ = backtest(
        start_time=days[-40],
        end_time=days[-1],
        strategy=TopkDropoutStrategy(signal=signal, topk=10, n_drop=2),
        executor=executor,
        account=1e8,
        benchmark="SH000300",
        exchange_kwargs={"limit_threshold": 0.095, "deal_price": "close", "min_cost": 5},
    )
    portfolio["1day"][0].reset_index().to_parquet(out / "report.parquet")
"""


def run_qlib(script, store, out):
    out.mkdir()
    (out / "script.py").write_text(script)
    done = run_warm([out / "script.py", store, out], out, os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def read(market, tmp_path_factory):
    """Results of Qlib on the simulated market."""
    folder = tmp_path_factory.mktemp("simulated")
    store = write_store(
        market.bars,
        folder / "store",
        membership={"csi300": market.membership},
        benchmarks=market.benchmark,
        source={"kind": "simulation"},
    )
    return run_qlib(dedent(READ) + dedent(BACKTEST), store.path, folder / "out")


def test_qlib_reads_adjusted_prices_and_volume(market, read):
    bars = market.bars.set_index(["instrument", "datetime"])
    seen = pd.read_parquet(read / "all.parquet").dropna(subset=["$close"])
    assert seen.index.sort_values().equals(bars.index.sort_values().set_names(seen.index.names))
    seen = seen.loc[bars.index]
    for price in ("open", "high", "low", "close"):
        np.testing.assert_allclose(seen[f"${price}"], bars[price] * bars["factor"], rtol=1e-6)
    np.testing.assert_allclose(seen["$volume"], bars["volume"] / bars["factor"], rtol=1e-6)
    np.testing.assert_allclose(seen["$amount"], bars["amount"], rtol=1e-6)
    np.testing.assert_allclose(seen["$close"] * seen["$volume"], bars["close"] * bars["volume"], rtol=1e-6)


def test_a_suspended_day_is_empty_for_qlib(market, read):
    seen = pd.read_parquet(read / "all.parquet")
    empty = seen[seen["$close"].isna()]
    assert len(empty) > 200
    assert empty.isna().all().all()


def test_qlib_masks_rows_by_membership(market, read):
    members = pd.read_parquet(read / "members.parquet")
    days = members.reset_index()
    stays = days.merge(market.membership, on="instrument")
    inside = stays[stays["datetime"].between(stays["start"], stays["end"])]
    assert len(inside) == len(days)
    assert set(days["instrument"]) == set(market.membership["instrument"])


def test_qlib_finds_the_calendar_and_its_future(market, read):
    calendars = json.loads((read / "read.json").read_text())
    days = [f"{day:%Y-%m-%d}" for day in market.benchmark["datetime"]]
    assert calendars["days"] == days
    assert calendars["future"][: len(days)] == days
    assert calendars["future"][len(days) :][:2] == ["2024-01-01", "2024-01-02"]
    assert len(calendars["future"]) == len(days) + 60


def test_the_benchmark_is_readable_but_not_an_instrument(market, read):
    names = json.loads((read / "read.json").read_text())["names"]
    assert BENCHMARK not in names
    assert len(names) == market.config.instruments
    close = pd.read_parquet(read / "benchmark.parquet")["$close"]
    np.testing.assert_allclose(close, market.benchmark["close"], rtol=1e-6)


def test_a_backtest_may_end_on_the_last_day(market, read):
    report = pd.read_parquet(read / "report.parquet").set_index("datetime")
    assert report.index[-1] == market.benchmark["datetime"].iloc[-1]
    bench = market.benchmark.set_index("datetime")["close"].pct_change()
    np.testing.assert_allclose(report["bench"], bench[report.index], atol=1e-6)
    assert report["turnover"].iloc[1:].gt(0).any()


def test_real_bars_keep_their_adjusted_returns(shared_data, tmp_path):
    bars, report = import_bars([shared_data / "csi300_2020_2023.parquet"])
    indices, _ = import_benchmarks(shared_data / "csi_index_2005_2023.parquet")
    assert (report.rows_read, report.rows_kept, report.instruments) == (277841, 277841, 300)
    store = write_store(
        bars,
        tmp_path / "store",
        membership={"csi300": listing_spans(bars)},
        benchmarks=indices,
        source={"kind": "import"},
    )
    seen = pd.read_parquet(run_qlib(dedent(READ), store.path, tmp_path / "out") / "all.parquet")

    raw = pd.read_parquet(shared_data / "csi300_2020_2023.parquet").astype({"instrument": str})
    raw = raw.set_index(["instrument", "datetime"]).sort_index()
    seen = seen.loc[raw.index]
    np.testing.assert_allclose(seen["$close"], raw["close"] * raw["factor"], rtol=1e-6)
    # The exchange publishes a previous close already adjusted for splits and dividends: an independent witness.
    published = raw["close"] / raw["preclose"] - 1
    known = seen["$change"].notna()
    assert (seen["$change"] - published)[known].abs().max() < 2e-3
    assert (seen["$change"] - published)[known].abs().median() < 1e-6
