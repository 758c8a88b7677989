"""Kronos on real 5-minute bars of crypto pairs in Backtrader: long or flat, or a ranking; fractional sizes.

    python backtests/backtrader_crypto.py
    python backtests/backtrader_crypto.py bars.csv --style rank --topk 2 --every 24 --fee 0.0004

Bars are tidy (instrument, datetime, open, high, low, close, volume), CSV or parquet, around the clock. Results go
to --output: report.html, metrics.json, CSVs, run.png; `kronos compare` accepts the folder.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
import pandas as pd
from backtrader_run import TopK, finish, most_traded, read_panel, run

from kronos.utils import run_command

BARS = Path(__file__).parents[2] / "shared" / "data" / "binance_5min_2024.parquet"
YEAR = 365 * 24 * 60  # minutes

Names = Annotated[tuple[str, ...], cyclopts.Parameter(negative=(), consume_multiple=True)]

app = cyclopts.App(
    help="Trade crypto pairs by Kronos, in Backtrader.\n\nFor example: `python backtests/backtrader_crypto.py "
    "bars.csv --instruments BTCUSDT ETHUSDT --every 24`",
    version_flags=[],
)


class LongFlat(TopK):
    """Hold an equal share of equity in each feed that is expected to rise by more than a hurdle.

    A position that stays is not rebalanced.

    Params:
        hurdle: simple return over the horizon; a round trip costs two fees.
    """

    params = (("hurdle", 0.0),)

    def weights(self, signals: pd.DataFrame, previous: pd.Series, tradable: pd.Index) -> pd.Series:
        """An instrument that cannot be traded keeps its weight."""
        part = (1 - self.p.cash_buffer) / len(self.signal_lines)
        held = previous.reindex(signals.index, fill_value=0.0)
        rises = signals["expected_return"] > self.p.hurdle
        wanted = held.where(held > 0, part).where(rises, 0.0)
        return wanted.where(signals.index.isin(tradable), held)


@app.default
def backtrader_crypto(
    bars: Path = BARS,
    /,
    *,
    instruments: Names = (),
    start: datetime = datetime(2024, 4, 8),
    end: datetime = datetime(2024, 4, 15),
    minutes: int = 5,
    style: Literal["long_flat", "rank"] = "long_flat",
    topk: int = 3,
    model: str = "kronos-nano",
    lookback: int = 96,
    horizon: int = 12,
    samples: int = 20,
    every: int = 12,
    seed: int = 0,
    device: str | None = None,
    fee: float = 0.001,
    cash: float = 100_000,
    trials: int = 1,
    draw: str | None = None,
    output: Path = Path("out/backtrader_crypto"),
) -> None:
    """Trade crypto pairs by Kronos.

    Args:
        bars: CSV or parquet.
        instruments: pairs to trade; all when omitted.
        start: first bar; trading begins once `lookback` bars are seen.
        end: last bar.
        minutes: minutes per bar.
        style: long_flat holds every pair that is expected to rise by more than a round trip costs; rank holds the
            best pairs.
        topk: number of pairs held by style rank.
        model: bundled name, folder or hub id.
        lookback: bars that the model reads.
        horizon: bars to forecast.
        samples: paths per window.
        every: bars from one forecast and rebalance to the next.
        seed: seed of the sampled paths.
        device: cpu, cuda or mps; the fastest available when omitted.
        fee: commission as a fraction of the value traded.
        cash: initial cash.
        trials: number of settings tried so far, including these.
        draw: pair to plot; the most traded one when omitted.
        output: folder of all results, and of the forecasts.
    """
    panel = read_panel(bars, "all", instruments, "", start, end)
    settings = {
        "model": model,
        "lookback": lookback,
        "horizon": horizon,
        "samples": samples,
        "every": every,
        "seed": seed,
        "device": device,
        "store": str(output / "forecasts"),
        "bars_per_year": YEAR // minutes,
        "drawn": draw or most_traded(panel, ""),
    }
    own = {"topk": topk} if style == "rank" else {"hurdle": 2 * fee}
    sheet = {
        "signal": "score" if style == "rank" else "expected_return",
        "bars_per_year": YEAR // minutes,
        "trials": trials,
        "title": f"{len(panel)} crypto pairs, {minutes}-minute bars, {style.replace('_', ' or ')}, by Kronos",
    }
    strategy = TopK if style == "rank" else LongFlat
    finish(run(panel, strategy, settings | own, sheet, cash, fee, minutes), output)


if __name__ == "__main__":
    run_command(app)
