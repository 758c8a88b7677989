"""`kronos backtest` and `kronos sweep`: rules on the forecasts of a store, once or with many settings."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kronos_strategies.cli import common

BEST = "best"  # folder of the report of the best setting


def backtest(
    store: str,
    /,
    *,
    data: Annotated[Path, Parameter(env_var="KRONOS_QLIB_DATA")],
    rules: str = "",
    trading: str = "",
    levels: str = "",
    hold: int | None = None,
    every: int | None = None,
    score: Literal["auto", "head", "paths"] = "auto",
    head: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    benchmark: str | None = None,
    industry: Path | None = None,
    calibration: common.Calibration = "auto",
    trials: int = 1,
    output: Path | None = None,
) -> None:
    """Backtest portfolio rules on stored forecasts, and write the usual report.

    Signals of a date are known at its close; their orders trade on the next bar.

    For example: `kronos backtest ~/forecasts --rules topk=50,rank_buffer=50 --data ~/csi300 --output out/top50`

    At the next open, long and short: `--rules quantile=0.1,side=long_short --trading price=open,borrow_cost=0.08`

    Args:
        store: folder or URL of a forecast store that has one model and one set of settings, or the folder of one
            set in it.
        data: Qlib data directory, or a file or folder of bars, of the instruments that were forecast.
        rules: fields of PortfolioRules, e.g. topk=50,rank_buffer=25,weighting=inverse_volatility,rank_by=downside,
            or weighting=min_cvar,max_weight=0.05.
        trading: fields of TradingRules, e.g. price=open,lot=0,limit=0.095; costs, limit and lot of the region of
            the data when omitted.
        levels: levels of some signals, e.g. tail=0.05,take_profit=0.1,stop_loss=0.05,drawdown=0.2.
        hold: bars that the score spans; 5 when omitted, or what the horizon allows.
        every: bars between rebalances; as many as --hold when omitted.
        score: head for the stored outputs of a return head, paths for the expected return, auto for the head where
            one has scores of that holding period.
        head: name of the return head, if the store has several.
        start: first date to trade on, with or without a time; the first forecast when omitted.
        end: last date, which without a time ends with its last bar; the last forecast when omitted.
        benchmark: instrument of the data to compare with, in addition to all instruments at equal weights.
        industry: CSV with columns instrument and industry, for max_industry_weight and the report.
        trials: settings tried so far, including this one, by which the Sharpe ratio is deflated.
        output: folder of the report; backtest-MODEL when omitted.
    """
    from kronos.postprocessing import PathOptions
    from kronos_strategies.backtest.inputs import (
        BacktestSettings,
        find_dates,
        find_scores,
        read_benchmark,
        read_prices,
    )
    from kronos_strategies.backtest.stored import backtest_forecasts
    from kronos_strategies.data.qlib_bins import forecast_freq
    from kronos_strategies.evaluation.signal.neutralization import read_industries
    from kronos_strategies.path_signals import PathSignalSettings
    from kronos_strategies.portfolio import parse_fields, parse_rules, with_fields
    from kronos_strategies.report.export import save_report, show_report
    from kronos_strategies.report.report import build_report
    from kronos_strategies.run_artifacts import ARTIFACTS
    from kronos_strategies.store import ForecastSet
    from kronos_strategies.store.settings import label_of

    portfolio_rules = parse_rules(rules)
    path_levels = with_fields(PathSignalSettings(), parse_fields(levels))
    changes = parse_fields(trading)
    forecast_set = ForecastSet.find(store)
    horizon = forecast_set.settings.spec.horizon
    hold = min(5, horizon - 1) if hold is None else hold
    if not 1 <= hold < horizon:
        raise ValueError(
            f"--hold {hold} needs forecasts of {hold + 1} bars, and {forecast_set.folder} has {horizon}: a signal "
            "trades one bar later. Choose a holding period from 1 to the horizon less 1."
        )
    dates = find_dates(forecast_set, start, end)
    scores = find_scores(forecast_set, score, head, hold)
    industries = None if industry is None else read_industries(industry)
    instruments = forecast_set.frame(dates[0], dates[-1]).index.get_level_values("instrument").unique()
    freq = forecast_freq(data, forecast_set.settings.spec.universe, dates)
    prices = read_prices(data, sorted(instruments), freq)
    settings = BacktestSettings(
        portfolio_rules,
        with_fields(prices.trading, changes),
        hold,
        hold if every is None else every,
        path_levels,
        trials,
    )
    compared = None if benchmark is None else read_benchmark(data, benchmark, freq)
    artifacts = backtest_forecasts(
        forecast_set, dates, prices, settings, PathOptions(calibration), scores, industries, compared
    )
    report = build_report(artifacts)
    folder = output or Path(f"backtest-{label_of(Path(forecast_set.settings.provenance.model).name)}")
    show_report(report, [*save_report(report, folder)[:2], artifacts.write(folder / ARTIFACTS)])


def sweep(
    config: Path,
    /,
    *,
    store: str | None = None,
    data: Annotated[Path | None, Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    output: Path | None = None,
    workers: int | None = None,
) -> None:
    """Backtest many settings of portfolio rules on stored forecasts, and report how likely the best one is luck.

    Signals are computed once and shared by all settings. Finished settings are kept in the output folder: a sweep
    that was stopped resumes, and a longer list costs the new settings only.

    For example: `kronos sweep configs/sweep.yaml --store ~/forecasts --data ~/csi300 --output out/sweep`

    Args:
        config: YAML file with the settings to search; `kronos init configs` writes sweep.yaml.
        store: forecast store in place of that of the file.
        data: Qlib data directory, or file or folder of bars, in place of that of the file.
        output: folder of the results in place of that of the file.
        workers: processes; as many as there are cores when omitted.
    """
    from kronos.utils import usable_cpus
    from kronos_strategies.backtest.search import read_config
    from kronos_strategies.backtest.sweep import Sweep
    from kronos_strategies.report.export import save_report
    from kronos_strategies.report.report import build_report
    from kronos_strategies.report.sweep import save_sweep, show_sweep
    from kronos_strategies.run_artifacts import ARTIFACTS

    settings = read_config(config)
    settings = replace(
        settings, store=store or settings.store, data=data or settings.data, output=output or settings.output
    )
    opened = Sweep(settings)
    result = opened.run(usable_cpus() if workers is None else workers)
    folder = settings.output.expanduser()
    written = save_sweep(result, folder, settings.heat_map)
    artifacts = opened.artifacts(result.best)
    report = save_report(build_report(artifacts), folder / BEST)
    show_sweep(result, [*written, report[0], artifacts.write(folder / BEST / ARTIFACTS)])
