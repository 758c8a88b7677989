"""How a reader sees the names of metrics.json: a label and a format for each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from kronos_strategies.report.formats import (
    Show,
    bars,
    count,
    decimals,
    four,
    general,
    percent,
    percent_two,
    probability,
    two,
)


class Metric(NamedTuple):
    """Of one name."""

    label: str
    show: Show


METRICS = {
    "ic": Metric("IC, mean", four),
    "icir": Metric("ICIR", decimals),
    "rank_ic": Metric("RankIC, mean", four),
    "rank_ic_low": Metric("RankIC, lower end of its 95% interval", four),
    "rank_ic_high": Metric("RankIC, upper end of its 95% interval", four),
    "rank_icir": Metric("RankICIR", decimals),
    "rank_ic_t": Metric("RankIC t", two),
    "rank_ic_p": Metric("RankIC p", probability),
    "rank_ic_t_newey_west": Metric("RankIC t, Newey-West", two),
    "rank_ic_positive": Metric("Dates with RankIC above 0", percent),
    "spread": Metric("Top less bottom bucket, mean", percent),
    "spread_low": Metric("Top less bottom bucket, lower end of its 95% interval", percent),
    "spread_high": Metric("Top less bottom bucket, upper end of its 95% interval", percent),
    "spread_t": Metric("Top less bottom bucket, t", two),
    "monotonicity": Metric("Spearman correlation of bucket and return", two),
    "top_hit_rate": Metric("Names of the top bucket above the median name", percent),
    "top_turnover": Metric("New in the top bucket, a date", percent),
    "rank_autocorrelation": Metric("Rank correlation with the date before", decimals),
    "rank_ic_neutral": Metric("RankIC beyond all exposures", four),
    "dates": Metric("Dates with a coefficient", count),
    "undefined_dates": Metric("Dates without", count),
    "annual_return": Metric("Return a year, net", percent),
    "volatility": Metric("Volatility a year, net", percent),
    "sharpe": Metric("Sharpe, net", two),
    "sharpe_low": Metric("Sharpe, net, lower end of its 95% interval", two),
    "sharpe_high": Metric("Sharpe, net, upper end of its 95% interval", two),
    "psr": Metric("Probability that the true Sharpe is above 0", percent),
    "dsr": Metric("The same above the best of the trials by chance", percent),
    "trials": Metric("Settings tried", count),
    "sortino": Metric("Sortino, net", two),
    "calmar": Metric("Calmar, net", two),
    "max_drawdown": Metric("Max drawdown, net", percent),
    "gross_annual_return": Metric("Return a year, gross", percent),
    "gross_sharpe": Metric("Sharpe, gross", two),
    "annual_cost": Metric("Costs a year", percent),
    "turnover": Metric("Turnover a bar", percent),
    "candles_outside": Metric("Sampled bars with open or close outside high and low", percent_two),
    "candles_paths_outside": Metric("Sampled paths with such a bar", percent_two),
    "candles_crossed": Metric("Sampled bars with a high below their low", percent_two),
    "candles_not_positive": Metric("Sampled bars with a price at or below zero", percent_two),
    "candles_negative_volume": Metric("Sampled bars with a negative volume or amount", percent_two),
    "candles_gap_sampled": Metric(
        "Gap from the last close to the first open, mean size, sampled", percent_two
    ),
    "candles_gap_realized": Metric(
        "Gap from the last close to the first open, mean size, realized", percent_two
    ),
    "trades": Metric("Closed trades", count),
    "trade_hit_rate": Metric("Trades with a profit", percent),
    "trade_profit_factor": Metric("Profits / losses of trades", two),
    "trade_return": Metric("Return of a trade, mean, net", percent),
    "trade_bars": Metric("Bars that a trade was held, mean", two),
    "trades_open": Metric("Trades still open", count),
    "break_even_bps": Metric("Costs that would leave a mean return of zero, basis points", two),
}
OVER_TIME = {
    "correlation": Metric("Correlation of forecast and outcome over time", decimals),
    "correlation_low": Metric("Correlation over time, lower end of its 95% interval", decimals),
    "correlation_high": Metric("Correlation over time, upper end of its 95% interval", decimals),
    "correlation_t": Metric("Correlation over time, t", two),
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
    r"volatility_rank_ic": Metric("Volatility, RankIC", four),
    r"volatility_rank_ic_lead": Metric("Volatility, RankIC less that of the last 20 bars", four),
    r"qlike": Metric("QLIKE", four),
    r"qlike_excess": Metric("QLIKE less that of the last 20 bars", four),
    r"volatility_mae": Metric("Volatility, mean absolute error, log return", general),
    r"volatility_r2": Metric("Volatility, R²", decimals),
}
OF_BENCHMARK = {
    r"rank_ic_neutral_(.+)": Metric("RankIC beyond {}", four),
    r"qlib_(.+)": Metric("Qlib's own: {}", general),
    r"beta_(.+)": Metric("Beta on {}", two),
    r"active_return_(.+)": Metric("Return a year above {}, arithmetic", percent),
    r"information_ratio_(.+)": Metric("Information ratio against {}", two),
    r"(.+)_annual_return": Metric("Return a year, {}", percent),
    r"(.+)_sharpe": Metric("Sharpe, {}", two),
    r"(.+)_max_drawdown": Metric("Max drawdown, {}", percent),
}


def described(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
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
