"""All portfolio rules on the same stored forecasts, after costs: what does each rule add?

    kronos store fill ~/forecasts --data ~/csi300 --start 2020-06-01 --end 2023-12-13 --every 10 \
        --samples 12 --horizon 11
    python backtests/strategies_compared.py ~/forecasts --data ~/csi300 --hold 10

Versions are rules; the reference holds the best `topk` at equal weights. Differences in net return and Sharpe ratio
are paired by bar, with 95 % intervals. Forecasts are read from the store, no model is loaded. In --output:
compare.html, compare.json, compare.md.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import cyclopts
from rules_run import read_forecasts, write_results

from kronos.utils import run_command
from kronos_strategies.evaluation.comparison.portfolios import PortfolioVersion, compare_results
from kronos_strategies.evaluation.warnings import universe_warnings
from kronos_strategies.portfolio import PortfolioRules, parse_fields, with_fields

REFERENCE = "top k"
PATH_RANKS = (
    "expected_return", "risk_adjusted", "prob_up_tiebreak", "downside", "expected_shortfall", "prob_take_profit",
    "max_drawdown",
)  # fmt: skip

app = cyclopts.App(help=__doc__, version_flags=[])


@app.default
def strategies_compared(
    store: str,
    /,
    *,
    data: Annotated[Path, cyclopts.Parameter(env_var="KRONOS_QLIB_DATA")],
    rule: Annotated[tuple[str, ...], cyclopts.Parameter(negative=(), consume_multiple=True)] = (),
    common: str = "no_trade_band=0,correlation_bars=60",
    topk: int | None = None,
    hold: int = 5,
    every: int | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    trading: str = "",
    calibration: str = "auto",
    output: Path = Path("out/strategies_compared"),
) -> None:
    """Trade each rule on the same forecasts and compare it with the first.

    Args:
        store: folder or URL of a forecast store with one set of forecasts, or of one set.
        data: Qlib data directory, or a file or folder of bars, of the instruments that were forecast.
        rule: rules in place of the usual ones, each as NAME:topk=50,weighting=score; the first is the reference.
        common: fields that all rules share.
        topk: positions; a sixth of the instruments when omitted.
        hold: bars that the score spans.
        every: bars between rebalances; as many as `hold` when omitted.
        start: first date; the first forecast when omitted.
        end: last date; the last forecast when omitted.
        trading: fields of TradingRules; costs, price limit and lots of the region of the data otherwise.
        calibration: auto, none, or a file of `kronos calibrate`.
        output: folder of the page and the tables.
    """
    forecasts = read_forecasts(store, data, hold, every or hold, start, end, trading, calibration)
    count = int(forecasts.signals.groupby(level="datetime").size().median())
    base = with_fields(
        PortfolioRules(topk=topk or max(1, count // 6), bars_per_year=forecasts.bars_per_year),
        parse_fields(common),
    )
    everything = forecasts.signals.index.get_level_values("instrument").nunique()
    chosen = _given(rule, base) if rule else usual_rules(base, everything)
    portfolios = [
        PortfolioVersion(
            name,
            forecasts.trade(rules),
            rules.target_volatility if rules.weighting == "volatility_target" else None,
            {"rules": changed(rules)},
        )
        for name, rules in chosen.items()
    ]
    warnings = universe_warnings(forecasts.signals.index)
    comparison = compare_results(portfolios, warnings=warnings)
    print(forecasts.described)
    for file in write_results(comparison, portfolios, f"Rules, {data.name}", output, "compare"):
        print("Wrote", file)


def usual_rules(base: PortfolioRules, instruments: int) -> dict[str, PortfolioRules]:
    """One rule of each kind, by name; they differ from the first in one respect."""
    few, cap = max(1, base.topk // 10), min(1.0, 3 / base.topk)
    named: dict[str, Mapping[str, object]] = {
        REFERENCE: {},
        "all instruments": {"topk": instruments},
        "rank buffer": {"rank_buffer": base.topk},
        f"at most {few} replaced": {"n_drop": few},
        "half the turnover": {"max_turnover": 0.5},
        "score weights": {"weighting": "score"},
        "inverse volatility": {"weighting": "inverse_volatility"},
        "risk parity": {"weighting": "risk_parity"},
        "volatility target": {"weighting": "volatility_target"},
        "Kelly": {"weighting": "kelly"},
        "minimum variance": {"weighting": "min_variance", "max_weight": cap},
        "minimum CVaR": {"weighting": "min_cvar", "max_weight": cap},
        "minimum drawdown CVaR": {"weighting": "min_drawdown_cvar", "max_weight": cap},
        "mean and CVaR": {"weighting": "mean_cvar", "max_weight": cap},
        **{f"rank by {name}": {"rank_by": name} for name in PATH_RANKS},
        "long-short tenth": {"quantile": 0.1, "side": "long_short"},
    }
    return {name: with_fields(base, values) for name, values in named.items()}


def _given(rules: tuple[str, ...], base: PortfolioRules) -> dict[str, PortfolioRules]:
    """Rules by name from NAME:fields."""
    named = {}
    for text in rules:
        name, colon, values = text.partition(":")
        if not colon or not name or name in named:
            raise ValueError(f"'{text}' is not a named rule. Write NAME:topk=50,..., each name once.")
        named[name] = with_fields(base, parse_fields(values))
    return named


def changed(rules: PortfolioRules) -> str:
    """The fields that differ from the defaults."""
    defaults = asdict(PortfolioRules())
    return ", ".join(f"{name}={value}" for name, value in asdict(rules).items() if value != defaults[name])


if __name__ == "__main__":
    run_command(app)
