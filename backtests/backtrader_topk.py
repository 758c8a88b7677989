"""Top-k by Kronos in Backtrader, on daily bars: forecast, rank, trade at the next open, report, plot.

    python backtests/backtrader_topk.py
    python backtests/backtrader_topk.py csi300.parquet --start 2022-01-04 --topk 30 --weighting inverse_volatility

Bars come from the simulated market, a Qlib data directory, or CSV or parquet files, tidy (instrument, datetime,
open, high, low, close[, volume, factor]) or one file per instrument. Results go to --output: report.html,
metrics.json, CSVs, run.png; `kronos compare` accepts the folder.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import cyclopts
from backtrader_run import TopK, finish, most_traded, read_panel, run

from kronos.utils import run_command
from kronos_strategies.data.simulate import data_warnings, default_store, ensure_store
from kronos_strategies.portfolio import Side, Weighting

INDEX = "SH000300"  # index of the simulated market
SIMULATED = (
    "The market is SIMULATED: these results are not evidence about a real market. For real bars pass a Qlib data "
    "directory or files of bars."
)

Names = Annotated[tuple[str, ...], cyclopts.Parameter(negative=(), consume_multiple=True)]

app = cyclopts.App(
    help="Trade the instruments that Kronos ranks best, in Backtrader.\n\nFor example: `python "
    "backtests/backtrader_topk.py csi300.parquet --start 2022-01-04 --topk 30`",
    version_flags=[],
)


@app.default
def backtrader_topk(
    bars: Path | None = None,
    /,
    *,
    market: str = "csi300",
    instruments: Names = (),
    benchmark: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    model: str = "kronos-nano",
    lookback: int = 90,
    horizon: int = 5,
    samples: int = 20,
    seed: int = 0,
    device: str | None = None,
    rank_by: str = "score",
    topk: int = 10,
    rank_buffer: int = 5,
    every: int = 5,
    side: Side = "long",
    weighting: Weighting = "equal",
    target_volatility: float = 0.15,
    fee: float = 0.001,
    cash: float = 1e6,
    trials: int = 1,
    draw: str | None = None,
    output: Path = Path("out/backtrader_topk"),
) -> None:
    """Trade the instruments that Kronos ranks best.

    Args:
        bars: Qlib data directory, CSV or parquet file, or folder of such files; the simulated market when omitted.
        market: universe of a Qlib data directory; every instrument that was ever a member is traded.
        instruments: those to trade; all when omitted.
        benchmark: instrument to compare the portfolio with, never traded; the index of the simulated market.
        start: first bar; trading begins once `lookback` bars are seen.
        end: last bar.
        model: bundled name, folder or hub id.
        lookback: traded bars that the model reads.
        horizon: bars to forecast.
        samples: paths per window.
        seed: seed of the sampled paths.
        device: cpu, cuda or mps; the fastest available when omitted.
        rank_by: line to rank by: score, expected_return, prob_up, volatility, ...
        topk: positions per side.
        rank_buffer: ranks below topk that a position may fall to before it is closed.
        every: bars from one rebalance to the next.
        side: long, or long and short.
        weighting: weighting scheme.
        target_volatility: volatility of the portfolio per year, for weighting=volatility_target.
        fee: commission as a fraction of the value traded.
        cash: initial cash.
        trials: number of settings tried so far, including these.
        draw: instrument to plot; the most traded one when omitted.
        output: folder of all results, and of the forecasts.
    """
    store = ensure_store(default_store()) if bars is None else bars
    store_warnings = [SIMULATED] if bars is None else data_warnings(store)
    against = benchmark or (INDEX if bars is None else "")
    panel = read_panel(store, market, instruments, against, start, end)
    forecast = {"model": model, "lookback": lookback, "horizon": horizon, "samples": samples, "seed": seed}
    rules = {
        "rank_by": rank_by,
        "topk": topk,
        "rank_buffer": rank_buffer,
        "side": side,
        "weighting": weighting,
    }
    settings = {
        **forecast,
        **rules,
        "target_volatility": target_volatility,
        "every": every,
        "device": device,
        "store": str(output / "forecasts"),
        "benchmark": against,
        "drawn": draw or most_traded(panel, against),
    }
    sheet = {
        "signal": rank_by,
        "benchmark": against,
        "trials": trials,
        "title": f"Top {topk} of {len(panel) - bool(against)} by Kronos in Backtrader",
        "notice": " ".join(store_warnings),
    }
    finish(run(panel, TopK, settings, sheet, cash, fee), output)


if __name__ == "__main__":
    run_command(app)
