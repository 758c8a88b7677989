"""How numbers, dates and names of metrics are shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

DASH = "–"
Show = Callable[[float], str]


def decimals(value: float, places: int = 3) -> str:
    """A fixed number of decimals, with a true minus sign and no minus zero."""
    if not np.isfinite(value):
        return DASH
    return f"{round(float(value), places) + 0.0:,.{places}f}".replace("-", "−")


def percent(value: float, places: int = 1) -> str:
    """A share, as percent."""
    return f"{decimals(100 * value, places)}%" if np.isfinite(value) else DASH


def count(value: float) -> str:
    """A whole number, its thousands apart."""
    return decimals(value, 0)


def general(value: float) -> str:
    """Four significant digits of anything; whole numbers in full."""
    if not np.isfinite(value):
        return DASH
    if float(value).is_integer():
        return count(value)
    return f"{float(value):,.4g}".replace("-", "−")


def listing(words: Sequence[str]) -> str:
    """Words in a row: a, b and c."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def decimals_2(value: float) -> str:
    """Two decimals."""
    return decimals(value, 2)


def decimals_4(value: float) -> str:
    """Four decimals."""
    return decimals(value, 4)


def decimals_5(value: float) -> str:
    """Five decimals, for losses."""
    return decimals(value, 5)


def percent_2(value: float) -> str:
    """A share as percent, with two decimals."""
    return percent(value, 2)


def signed(value: float) -> str:
    """Four decimals and the sign, also of what is positive."""
    return _with_sign(value, decimals_4)


def signed_5(value: float) -> str:
    """Five decimals and the sign."""
    return _with_sign(value, decimals_5)


def signed_percent(value: float) -> str:
    """A share as percent, with two decimals and the sign."""
    return _with_sign(value, percent_2)


def _with_sign(value: float, show: Show) -> str:
    return f"+{show(value)}" if value > 0 and np.isfinite(value) else show(value)


def probability(value: float) -> str:
    """Of a test; a small one is never written as zero."""
    return "< 0.001" if value < 0.001 else decimals(value)


def interval(low: float, high: float, show: Show) -> str:
    """Both ends, or a dash where one of them is undefined."""
    return f"{show(low)} to {show(high)}" if np.isfinite(low) and np.isfinite(high) else DASH


def bars(number: object) -> str:
    """So many bars."""
    return f"{number} bar{'' if number == 1 else 's'}"


def is_timed(dates: pd.Index | pd.Series) -> bool:
    """Whether one of these is a time of day, as of bars within the day."""
    index = pd.DatetimeIndex(dates).dropna()
    return bool((index != index.normalize()).any())


def moment(date: pd.Timestamp, timed: bool) -> str:
    """A date, with the time of day where bars have one."""
    return f"{date:%Y-%m-%d %H:%M}" if timed else f"{date:%Y-%m-%d}"


def span(dates: pd.DatetimeIndex) -> str:
    """From the first to the last of ascending dates."""
    timed = is_timed(dates)
    return f"{moment(dates[0], timed)} to {moment(dates[-1], timed)}"


class Metric(NamedTuple):
    """Of one name."""

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
    "spread": Metric("Top less bottom bucket, mean", percent),
    "spread_low": Metric("Top less bottom bucket, lower end of its 95% interval", percent),
    "spread_high": Metric("Top less bottom bucket, upper end of its 95% interval", percent),
    "spread_t": Metric("Top less bottom bucket, t", decimals_2),
    "monotonicity": Metric("Spearman correlation of bucket and return", decimals_2),
    "top_hit_rate": Metric("Names of the top bucket above the median name", percent),
    "top_turnover": Metric("New in the top bucket, a date", percent),
    "rank_autocorrelation": Metric("Rank correlation with the date before", decimals),
    "rank_ic_neutral": Metric("RankIC beyond all exposures", decimals_4),
    "dates": Metric("Dates with a coefficient", count),
    "undefined_dates": Metric("Dates without", count),
    "annual_return": Metric("Return a year, net", percent),
    "volatility": Metric("Volatility a year, net", percent),
    "sharpe": Metric("Sharpe, net", decimals_2),
    "sharpe_low": Metric("Sharpe, net, lower end of its 95% interval", decimals_2),
    "sharpe_high": Metric("Sharpe, net, upper end of its 95% interval", decimals_2),
    "psr": Metric("Probability that the true Sharpe is above 0", percent),
    "dsr": Metric("The same above the best of the trials by chance", percent),
    "trials": Metric("Settings tried", count),
    "sortino": Metric("Sortino, net", decimals_2),
    "calmar": Metric("Calmar, net", decimals_2),
    "max_drawdown": Metric("Max drawdown, net", percent),
    "gross_annual_return": Metric("Return a year, gross", percent),
    "gross_sharpe": Metric("Sharpe, gross", decimals_2),
    "annual_cost": Metric("Costs a year", percent),
    "turnover": Metric("Turnover a bar", percent),
    "candles_outside": Metric("Sampled bars with open or close outside high and low", percent_2),
    "candles_paths_outside": Metric("Sampled paths with such a bar", percent_2),
    "candles_crossed": Metric("Sampled bars with a high below their low", percent_2),
    "candles_not_positive": Metric("Sampled bars with a price at or below zero", percent_2),
    "candles_negative_volume": Metric("Sampled bars with a negative volume or amount", percent_2),
    "candles_gap_sampled": Metric("Gap from the last close to the first open, mean size, sampled", percent_2),
    "candles_gap_realized": Metric(
        "Gap from the last close to the first open, mean size, realized", percent_2
    ),
    "trades": Metric("Closed trades", count),
    "trade_hit_rate": Metric("Trades with a profit", percent),
    "trade_profit_factor": Metric("Profits / losses of trades", decimals_2),
    "trade_return": Metric("Return of a trade, mean, net", percent),
    "trade_bars": Metric("Bars that a trade was held, mean", decimals_2),
    "trades_open": Metric("Trades still open", count),
    "break_even_bps": Metric("Costs that would leave a mean return of zero, basis points", decimals_2),
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
    "hit_rate": Metric("Sign was right", percent),
    "hit_rate_low": Metric("Sign was right, lower end of its 95% interval", percent),
    "hit_rate_high": Metric("Sign was right, upper end of its 95% interval", percent),
    "hit_rate_lead": Metric("Sign was right, less always one way", percent),
    "rises": Metric("Outcomes above 0", percent),
    "band_level": Metric("Share that the band is to hold", percent),
    "band_coverage": Metric("Outcomes in the band", percent),
    "crps": Metric("CRPS, fair, log return", general),
    "crps_walk": Metric("CRPS of the random walk", general),
    "crps_skill": Metric("CRPS skill against the random walk, fair", percent),
    "crps_skill_ensemble": Metric("CRPS skill against the random walk, ensemble", percent),
}
BY_HORIZON = {
    r"sampled_coverage_([\d.]+)": Metric("Outcomes in the {}% band, uncalibrated", percent),
    r"sampled_crps": Metric("CRPS, fair, log return, uncalibrated", general),
    r"sampled_crps_skill": Metric("CRPS skill against the random walk, fair, uncalibrated", percent),
    r"sampled_crps_skill_ensemble": Metric(
        "CRPS skill against the random walk, ensemble, uncalibrated", percent
    ),
    r"sampled_pit_mean": Metric("PIT, mean, uncalibrated", decimals),
    r"sampled_pit_deviation": Metric("PIT, standard deviation, uncalibrated", decimals),
    r"crps_excess_shrunk_walk": Metric("CRPS less that of the random walk of shrunk volatility", general),
    r"crps_excess_ewma": Metric("CRPS less that of EWMA", general),
    r"crps_excess_garch_t": Metric("CRPS less that of GARCH-t, on its names", general),
    r"coverage_([\d.]+)": Metric("Outcomes in the {}% band", percent),
    r"crps": Metric("CRPS, fair, log return", general),
    r"crps_skill": Metric("CRPS skill against the random walk, fair", percent),
    r"crps_skill_ensemble": Metric("CRPS skill against the random walk, ensemble", percent),
    r"pit_mean": Metric("PIT, mean", decimals),
    r"pit_deviation": Metric("PIT, standard deviation", decimals),
    r"volatility_rank_ic": Metric("Volatility, RankIC", decimals_4),
    r"volatility_rank_ic_lead": Metric("Volatility, RankIC less that of the last 20 bars", decimals_4),
    r"qlike": Metric("QLIKE", decimals_4),
    r"qlike_excess": Metric("QLIKE less that of the last 20 bars", decimals_4),
    r"volatility_mae": Metric("Volatility, mean absolute error, log return", general),
    r"volatility_r2": Metric("Volatility, R²", decimals),
}
OF_BENCHMARK = {
    r"rank_ic_neutral_(.+)": Metric("RankIC beyond {}", decimals_4),
    r"qlib_(.+)": Metric("Qlib's own: {}", general),
    r"beta_(.+)": Metric("Beta on {}", decimals_2),
    r"active_return_(.+)": Metric("Return a year above {}, arithmetic", percent),
    r"information_ratio_(.+)": Metric("Information ratio against {}", decimals_2),
    r"(.+)_annual_return": Metric("Return a year, {}", percent),
    r"(.+)_sharpe": Metric("Sharpe, {}", decimals_2),
    r"(.+)_max_drawdown": Metric("Max drawdown, {}", percent),
}


def describe_metrics(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Name, label and value of every metric; one that is not known has no label."""
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
