"""Do sampled volatilities control risk better than 20-day and EWMA ones?

    kronos store fill ~/forecasts --data ~/csi300 --start 2020-06-01 --end 2023-12-13 --every 10 \
        --samples 12 --horizon 11
    python backtests/volatility_rules.py ~/forecasts --data ~/csi300 --every 10

All instruments are held; only the volatilities that size them differ, for inverse volatility, risk parity and a
volatility target. Reported are the variation of the realized volatility of blocks of bars around its own mean, its
deviation from the target, turnover, Sharpe ratio and net return, each paired with that of 20-day volatilities. In
--output: a page, a JSON file and a table for each weighting.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import cyclopts
import pandas as pd
from rules_run import Forecasts, read_forecasts, write_results

from kronos.utils import run_command
from kronos_strategies.evaluation.comparison.portfolios import BLOCK, PortfolioVersion, compare_results
from kronos_strategies.evaluation.warnings import universe_warnings
from kronos_strategies.portfolio import PortfolioRules, Weighting

REFERENCE = "20 days"
WEIGHTINGS: tuple[Weighting, ...] = ("inverse_volatility", "risk_parity", "volatility_target")

app = cyclopts.App(help=__doc__, version_flags=[])


@app.default
def volatility_rules(
    store: str,
    /,
    *,
    data: Annotated[Path, cyclopts.Parameter(env_var="KRONOS_QLIB_DATA")],
    every: int = 5,
    target: float = 0.1,
    block: int = BLOCK,
    correlation_bars: int = 60,
    bars_per_year: int | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    trading: str = "",
    calibration: str = "auto",
    output: Path = Path("out/volatility_rules"),
) -> None:
    """Size all instruments by each kind of volatility, and compare the portfolios.

    Args:
        store: folder or URL of a forecast store with one set of forecasts, or of one set.
        data: Qlib data directory, or a file or folder of bars, of the instruments that were forecast.
        every: bars between rebalances.
        target: volatility per year that the volatility target aims at; choose one below that of the market, since
            exposure is lowered and never raised.
        block: bars over which each realized volatility is measured.
        correlation_bars: past bars from which correlations are estimated, the same for all volatilities.
        bars_per_year: bars per year; inferred from the prices when omitted.
        start: first date; the first forecast when omitted.
        end: last date; the last forecast when omitted.
        trading: fields of TradingRules; costs, price limit and lots of the region of the data otherwise.
        calibration: auto, or a file of `kronos calibrate`; raw paths are compared as well.
        output: folder of the pages and tables.
    """
    kinds = {"calibrated": calibration, "raw": "none"}
    read = {
        kind: read_forecasts(store, data, 1, every, start, end, trading, each) for kind, each in kinds.items()
    }
    forecasts = read["calibrated"]
    volatilities = naive_volatilities(forecasts) | {
        f"paths, {kind}": each.signals["volatility"] for kind, each in read.items()
    }
    year = bars_per_year or forecasts.bars_per_year
    print(forecasts.described)
    for weighting in WEIGHTINGS:
        rules = PortfolioRules(
            rank_by="volatility",
            topk=forecasts.signals.index.get_level_values("instrument").nunique(),
            weighting=weighting,
            target_volatility=target,
            bars_per_year=year,
            correlation_bars=correlation_bars,
            no_trade_band=0.0,
        )
        portfolios = compared(forecasts, volatilities, rules)
        comparison = compare_results(portfolios, REFERENCE, block, universe_warnings(forecasts.signals.index))
        title = f"{weighting.replace('_', ' ')}, {data.name}"
        for file in write_results(comparison, portfolios, title, output, weighting):
            print("Wrote", file)


def naive_volatilities(forecasts: Forecasts) -> dict[str, pd.Series]:
    """Volatilities per bar from past closes, known at the close of each date."""
    panel, index = forecasts.inputs.prices.panel, forecasts.signals.index
    return {
        REFERENCE: panel.lookup(panel.historical_volatility, index),
        "EWMA": panel.lookup(panel.ewma, index),
    }


def compared(
    forecasts: Forecasts,
    volatilities: dict[str, pd.Series],
    rules: PortfolioRules,
) -> list[PortfolioVersion]:
    """One portfolio per kind of volatility, on the windows that all of them have, and one of equal weights."""
    table = pd.DataFrame(volatilities)
    table = table[(table > 0).all(axis=1)]
    target = rules.target_volatility if rules.weighting == "volatility_target" else None
    portfolios = []
    for name in table:
        signals = table[[name]].set_axis(["volatility"], axis=1)
        result = forecasts.trade(rules, signals)
        portfolios.append(PortfolioVersion(str(name), result, target, {"rules": f"{rules.weighting}"}))
    if target is None:
        equal = PortfolioRules(rank_by="volatility", topk=rules.topk, no_trade_band=0.0)
        signals = table[[REFERENCE]].set_axis(["volatility"], axis=1)
        portfolios.append(PortfolioVersion("equal weights", forecasts.trade(equal, signals)))
    return portfolios


if __name__ == "__main__":
    run_command(app)
