"""How numbers, dates and names of metrics are shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

DASH = "–"
Show = Callable[[float], str]  # formats a number


def decimals(value: float, places: int = 3) -> str:
    """A fixed number of decimals, with a true minus sign and no minus zero."""
    if not np.isfinite(value):
        return DASH
    return f"{round(float(value), places) + 0.0:,.{places}f}".replace("-", "−")


def percent(value: float, places: int = 1) -> str:
    """A share, as percent."""
    return f"{decimals(100 * value, places)}%" if np.isfinite(value) else DASH


def count(value: float) -> str:
    """A whole number with thousands separators."""
    return decimals(value, 0)


def general(value: float) -> str:
    """Four significant digits of anything; whole numbers in full."""
    if not np.isfinite(value):
        return DASH
    if float(value).is_integer():
        return count(value)
    return f"{float(value):,.4g}".replace("-", "−")


def listing(words: Sequence[str]) -> str:
    """Words joined as a, b and c."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


decimals_2 = partial(decimals, places=2)
decimals_4 = partial(decimals, places=4)
decimals_5 = partial(decimals, places=5)
percent_2 = partial(percent, places=2)
percent_3 = partial(percent, places=3)


def signed(value: float) -> str:
    """Four decimals and the sign, also of positive numbers."""
    return _with_sign(value, decimals_4)


def signed_5(value: float) -> str:
    """Five decimals and the sign."""
    return _with_sign(value, decimals_5)


def signed_percent(value: float) -> str:
    """A share as percent, with two decimals and the sign."""
    return _with_sign(value, percent_2)


def signed_percent_3(value: float) -> str:
    """A share as percent, with three decimals and the sign."""
    return _with_sign(value, percent_3)


def _with_sign(value: float, show: Show) -> str:
    return f"+{show(value)}" if value > 0 and np.isfinite(value) else show(value)


def probability(value: float) -> str:
    """A p-value; a small one is never written as zero."""
    return "< 0.001" if value < 0.001 else decimals(value)


def interval(low: float, high: float, show: Show) -> str:
    """Both ends, or a dash where one is undefined."""
    return f"{show(low)} to {show(high)}" if np.isfinite(low) and np.isfinite(high) else DASH


def bars(number: object) -> str:
    """A number of bars."""
    return f"{number} bar{'' if number == 1 else 's'}"


def is_timed(dates: pd.Index | pd.Series) -> bool:
    """Whether any of these has a time of day, as intraday bars have."""
    index = pd.DatetimeIndex(dates).dropna()
    return bool((index != index.normalize()).any())


def moment(date: pd.Timestamp, timed: bool) -> str:
    """A date, with the time of day where bars have one."""
    return f"{date:%Y-%m-%d %H:%M}" if timed else f"{date:%Y-%m-%d}"


def span(dates: pd.DatetimeIndex) -> str:
    """First to last of ascending dates."""
    timed = is_timed(dates)
    return f"{moment(dates[0], timed)} to {moment(dates[-1], timed)}"


class Metric(NamedTuple):
    """Label and format of one metric."""

    label: str
    show: Show


METRICS = {
    "ic": Metric("IC, mean", decimals_4),
    "icir": Metric("ICIR", decimals),
    "rank_ic": Metric("RankIC, mean", decimals_4),
    "rank_ic_low": Metric("RankIC, lower end of its 95% interval", decimals_4),
    "rank_ic_high": Metric("RankIC, upper end of its 95% interval", decimals_4),
    "rank_icir": Metric("RankICIR", decimals),
    "rank_ic_t": Metric("RankIC t", decimals_2),
    "rank_ic_p": Metric("RankIC p", probability),
    "rank_ic_t_newey_west": Metric("RankIC t, Newey-West", decimals_2),
    "rank_ic_positive": Metric("Dates with RankIC above 0", percent),
    "spread": Metric("Top minus bottom quantile, mean", percent),
    "spread_low": Metric("Top minus bottom quantile, lower end of its 95% interval", percent),
    "spread_high": Metric("Top minus bottom quantile, upper end of its 95% interval", percent),
    "spread_t": Metric("Top minus bottom quantile, t", decimals_2),
    "monotonicity": Metric("Spearman correlation of quantile and return", decimals_2),
    "top_hit_rate": Metric("Hit rate of the top quantile against the median", percent),
    "top_turnover": Metric("Turnover of the top quantile per date", percent),
    "rank_autocorrelation": Metric("Rank correlation with the previous date", decimals),
    "rank_ic_neutral": Metric("RankIC, neutralized against all exposures", decimals_4),
    "dates": Metric("Dates with a coefficient", count),
    "undefined_dates": Metric("Dates without a coefficient", count),
    "annual_return": Metric("Annual return, net", percent),
    "volatility": Metric("Annual volatility, net", percent),
    "sharpe": Metric("Sharpe, net", decimals_2),
    "sharpe_low": Metric("Sharpe, net, lower end of its 95% interval", decimals_2),
    "sharpe_high": Metric("Sharpe, net, upper end of its 95% interval", decimals_2),
    "psr": Metric("Probability that the true Sharpe is above 0", percent),
    "dsr": Metric("Probability that it is above the expected maximum of the trials", percent),
    "trials": Metric("Trials", count),
    "sortino": Metric("Sortino, net", decimals_2),
    "calmar": Metric("Calmar, net", decimals_2),
    "max_drawdown": Metric("Max drawdown, net", percent),
    "gross_annual_return": Metric("Annual return, gross", percent),
    "gross_sharpe": Metric("Sharpe, gross", decimals_2),
    "annual_cost": Metric("Annual costs", percent),
    "turnover": Metric("Turnover per bar", percent),
    "candles_outside": Metric("Sampled bars with open or close outside low to high", percent_2),
    "candles_paths_outside": Metric("Sampled paths with such a bar", percent_2),
    "candles_crossed": Metric("Sampled bars with high below low", percent_2),
    "candles_not_positive": Metric("Sampled bars with a price at or below zero", percent_2),
    "candles_negative_volume": Metric("Sampled bars with a negative volume or amount", percent_2),
    "candles_gap_sampled": Metric("Mean |gap| from the last close to the first open, sampled", percent_2),
    "candles_gap_realized": Metric("Mean |gap| from the last close to the first open, realized", percent_2),
    "trades": Metric("Closed trades", count),
    "trade_hit_rate": Metric("Hit rate of trades", percent),
    "trade_profit_factor": Metric("Profits / losses of trades", decimals_2),
    "trade_return": Metric("Mean return of a trade, net", percent),
    "trade_bars": Metric("Mean bars held", decimals_2),
    "trades_open": Metric("Open trades", count),
    "break_even_bps": Metric("Break-even costs, basis points", decimals_2),
}
OVER_TIME = {
    "correlation": Metric("Correlation of forecast and outcome over time", decimals),
    "correlation_low": Metric("Correlation over time, lower end of its 95% interval", decimals),
    "correlation_high": Metric("Correlation over time, upper end of its 95% interval", decimals),
    "correlation_t": Metric("Correlation over time, t", decimals_2),
    "rank_correlation": Metric("Rank correlation over time", decimals),
    "rank_correlation_low": Metric("Rank correlation over time, lower end of its 95% interval", decimals),
    "rank_correlation_high": Metric("Rank correlation over time, upper end of its 95% interval", decimals),
    "dates": Metric("Dates with a forecast and an outcome", count),
    "hit_rate": Metric("Hit rate of the sign", percent),
    "hit_rate_low": Metric("Hit rate of the sign, lower end of its 95% interval", percent),
    "hit_rate_high": Metric("Hit rate of the sign, upper end of its 95% interval", percent),
    "hit_rate_lead": Metric("Hit rate of the sign minus that of one direction", percent),
    "rises": Metric("Share of positive outcomes", percent),
    "band_level": Metric("Nominal coverage of the band", percent),
    "band_coverage": Metric("Coverage of the band", percent),
    "crps": Metric("CRPS, fair, log return", general),
    "crps_walk": Metric("CRPS of the random walk", general),
    "crps_skill": Metric("CRPS skill against the random walk, fair", percent),
    "crps_skill_ensemble": Metric("CRPS skill against the random walk, ensemble", percent),
}
BY_HORIZON = {
    r"sampled_coverage_([\d.]+)": Metric("Coverage of the {}% band, uncalibrated", percent),
    r"sampled_crps": Metric("CRPS, fair, log return, uncalibrated", general),
    r"sampled_crps_skill": Metric("CRPS skill against the random walk, fair, uncalibrated", percent),
    r"sampled_crps_skill_ensemble": Metric(
        "CRPS skill against the random walk, ensemble, uncalibrated", percent
    ),
    r"sampled_pit_mean": Metric("PIT, mean, uncalibrated", decimals),
    r"sampled_pit_deviation": Metric("PIT, standard deviation, uncalibrated", decimals),
    r"crps_excess_shrunk_walk": Metric("CRPS minus that of the random walk with shrunk volatility", general),
    r"crps_excess_ewma": Metric("CRPS minus that of EWMA", general),
    r"crps_excess_garch_t": Metric("CRPS minus that of GARCH-t, on its instruments", general),
    r"coverage_([\d.]+)": Metric("Coverage of the {}% band", percent),
    r"crps": Metric("CRPS, fair, log return", general),
    r"crps_skill": Metric("CRPS skill against the random walk, fair", percent),
    r"crps_skill_ensemble": Metric("CRPS skill against the random walk, ensemble", percent),
    r"pit_mean": Metric("PIT, mean", decimals),
    r"pit_deviation": Metric("PIT, standard deviation", decimals),
    r"volatility_rank_ic": Metric("Volatility, RankIC", decimals_4),
    r"volatility_rank_ic_lead": Metric("Volatility, RankIC minus that of historical volatility", decimals_4),
    r"qlike": Metric("QLIKE", decimals_4),
    r"qlike_excess": Metric("QLIKE minus that of historical volatility", decimals_4),
    r"volatility_mae": Metric("Volatility, mean absolute error, log return", general),
    r"volatility_r2": Metric("Volatility, R²", decimals),
}
OF_BENCHMARK = {
    r"rank_ic_neutral_(.+)": Metric("RankIC, neutralized against {}", decimals_4),
    r"qlib_(.+)": Metric("Qlib's metric: {}", general),
    r"beta_(.+)": Metric("Beta on {}", decimals_2),
    r"active_return_(.+)": Metric("Active return against {}, annual", percent),
    r"information_ratio_(.+)": Metric("Information ratio against {}", decimals_2),
    r"(.+)_annual_return": Metric("Annual return, {}", percent),
    r"(.+)_sharpe": Metric("Sharpe, {}", decimals_2),
    r"(.+)_max_drawdown": Metric("Max drawdown, {}", percent),
}


def describe_metrics(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Name, label and value of every metric; an unknown one has no label."""
    known = [(name, _metric(name), value) for name, value in metrics.items()]
    return [(name, metric.label, metric.show(value)) for name, metric, value in known]


def _metric(name: str) -> Metric:
    if name in METRICS:
        return METRICS[name]
    for key in sorted(OVER_TIME, key=len, reverse=True):
        if over_time := re.fullmatch(rf"time_(?:(.+)_)?{key}", name):
            metric = OVER_TIME[key]
            of = f", {over_time[1]}" if over_time[1] else ""
            return metric._replace(label=f"{metric.label}{of}")
    horizon = re.fullmatch(r"(.+)_h(\d+)", name)
    if horizon:
        for pattern, metric in BY_HORIZON.items():
            if found := re.fullmatch(pattern, horizon[1]):
                ahead = bars(int(horizon[2]))
                return metric._replace(label=f"{metric.label.format(*found.groups())}, {ahead}")
    for pattern, metric in OF_BENCHMARK.items():
        if found := re.fullmatch(pattern, name):
            return metric._replace(label=metric.label.format(found[1].replace("_", " ")))
    return Metric("", general)
