"""The section on sampled paths: fans, calibration, loss and volatility."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.distribution.baselines import NAMES
from kronos_strategies.evaluation.distribution.calibration import expected_pit_std
from kronos_strategies.evaluation.distribution.evaluation import DistributionEvaluation
from kronos_strategies.evaluation.distribution.scores import MODEL, DistributionScore, VolatilityScore
from kronos_strategies.evaluation.significance import MeanTest
from kronos_strategies.report.figures import distribution as figures
from kronos_strategies.report.formatting import (
    METRICS,
    bars,
    count,
    decimals,
    decimals_4,
    interval,
    percent,
    signed,
    signed_percent,
)  # fmt: skip
from kronos_strategies.report.layout import (
    Chart,
    Charts,
    Dropdown,
    OmittedChart,
    Part,
    Section,
    Tile,
    chart,
    chart_with_dropdown,
    collect_charts,
)
from kronos_strategies.report.tables import (
    Column,
    Record,
    Table,
    estimate,
    number,
    number_with_note,
    table,
    text,
)

NO_OUTCOME = "No outcome has come yet."


def distribution_section(study: DistributionEvaluation) -> Section:
    """Of a `DistributionEvaluation`."""
    first, last = study.dates[0], study.dates[-1]
    return Section(
        "distribution",
        "Distribution",
        f"{count(study.windows)} forecasts on {count(len(study.dates))} dates, {first:%Y-%m-%d} to "
        f"{last:%Y-%m-%d}, of {study.samples} sampled paths each, compared with random walks, "
        "EWMA, GARCH-t and the volatility of the last 20 days.",
        tiles(study),
        (
            Part("Forecasts to look at", charts=collect_charts(fan(study.fan_charts))),
            Part("Calibration and loss", (losses(study),), charts=calibration(study)),
            Part("Volatility", (variances(study),), charts=volatility(study)),
            *((Part("Candles", (candles(study),)),) if study.checks else ()),
        ),
    )


def tiles(study: DistributionEvaluation) -> tuple[Tile, ...]:
    """Widest band, CRPS skill and QLIKE, at the shortest and the longest horizon."""
    highlight = [score for score in study.distributions if score.name == MODEL]
    ends = list(dict.fromkeys(score.horizon for score in (highlight[0], highlight[-1])))
    found = []
    for score in (score for score in highlight if score.horizon in ends):
        reached = {level: test for level, test in score.coverage.items() if test is not None}
        if reached:
            level, test = max(reached.items())
            small = interval(test.low, test.high, percent)
            found.append(Tile(f"In the {level:.0%} band, {bars(score.horizon)}", percent(test.mean), small))
    for score in (score for score in highlight if score.horizon in ends):
        small = f"ensemble {signed_percent(score.ensemble_skill)}"
        found.append(Tile(f"CRPS skill, {bars(score.horizon)}", signed_percent(score.skill), small))
    seen: set[int] = set()
    for volatility in study.volatilities:
        if (
            (excess := volatility.excess) is not None
            and volatility.horizon in ends
            and volatility.horizon not in seen
        ):
            seen.add(volatility.horizon)
            label = f"QLIKE less the last 20 days', {bars(volatility.horizon)}"
            found.append(Tile(label, signed(excess.mean), interval(excess.low, excess.high, signed)))
    return tuple(found)


def fan(fans: pd.DataFrame) -> Chart | OmittedChart:
    """One forecast at a time, by instrument and date."""
    names = sorted(fans["instrument"].astype(str).unique())
    dates = sorted(fans["datetime"].unique())
    parts = dict(iter(fans.groupby(["instrument", "datetime"])))
    drawn = [
        figures.fan(parts[name, date]) if (name, date) in parts else None for name in names for date in dates
    ]
    picks = (
        Dropdown("Instrument", tuple(names)),
        Dropdown("Forecast after the close of", tuple(_stamp(date) for date in dates)),
    )
    note = "Bars seen, 50% and 90% bands of the sampled closes with their median, and what came."
    why = "No forecast was kept to be looked at."
    return chart_with_dropdown("fan", "Forecast and what came", note, drawn, picks, why, wide=True)


def losses(study: DistributionEvaluation) -> Table:
    """A row a horizon and forecast."""
    scores = study.distributions
    levels = sorted({each for score in scores for each in score.coverage})
    covered = [
        estimate(
            f"covered {level}",
            f"covered {level}_low",
            f"covered {level}_high",
            f"In {level:.0%} band",
            percent,
        )
        for level in levels
    ]
    columns: list[Column] = [
        text("forecast", "Forecast"),
        number("horizon", "Bars", count),
        *covered,
        number("crps", "CRPS", _fine),
        number_with_note("skill", "CRPS skill", signed_percent, _ensemble),
        estimate("excess", "excess_low", "excess_high", "Excess over it", _fine_signed),
        number_with_note("pit_mean", "PIT", decimals, lambda row: f"± {decimals(row['pit_deviation'])}"),
        number("outcomes", "Outcomes", count),
    ]
    calibrated = decimals(expected_pit_std(study.samples))
    caption = (
        "CRPS is fair and in log return, less is better; skill is against the random walk. Excess over it: CRPS of "
        "the model less that of the row, paired by date, so that negative is better. PIT: mean ± deviation; "
        f"calibrated, {study.samples} independent paths have 0.500 ± {calibrated} and the "
        "random walk 0.500 ± 0.289; a larger deviation says too narrow. The shrunk random walk draws volatility to "
        "its average and has the shape that returns had. It and GARCH-t are fitted once, to bars before the first "
        f"forecast, the latter for the {NAMES} most traded names only."
    )
    return table(
        "losses", caption, pd.DataFrame([_loss(score, levels) for score in scores]), columns, highlight=MODEL
    )


def _ensemble(row: Record) -> str:
    return f"ensemble {signed_percent(row['ensemble_skill'])}"


def _loss(score: DistributionScore, levels: Sequence[float]) -> dict[str, object]:
    row: dict[str, object] = {"forecast": score.name, "horizon": score.horizon}
    for level in levels:
        row |= _ends(f"covered {level}", score.coverage.get(level))
    return (
        row
        | _ends("excess", score.excess)
        | {
            "crps": score.crps.mean,
            "skill": score.skill,
            "ensemble_skill": score.ensemble_skill,
            "pit_mean": score.pit_mean,
            "pit_deviation": score.pit_deviation,
            "outcomes": score.outcomes,
        }
    )


def candles(study: DistributionEvaluation) -> Table:
    """Invalid sampled bars before any repair, and how far bars open from the last close."""
    rows = [
        {"check": METRICS[f"candles_{name}"].label, "value": value} for name, value in study.checks.items()
    ]
    caption = (
        "Of the paths as sampled, before calibration and repair. Gaps are mean absolute log returns from the last "
        "close to the first open ahead, over the same windows."
    )
    columns = (text("check", "Check"), number("value", "Value", _fine))
    return table("candles", caption, pd.DataFrame(rows), columns)


def calibration(study: DistributionEvaluation) -> Charts:
    """PIT, coverage, skill, and whether more paths rank better."""
    return collect_charts(
        chart(
            "pit", "Where outcomes fell among the paths", 
            "Flat if calibrated; a bowl says too narrow, a hump too wide.",
            figures.pit(study), NO_OUTCOME,
        ),
        chart(
            "coverage", "Coverage against nominal", "Rules are nominal, whiskers 95% intervals.",
            figures.coverage(study), NO_OUTCOME,
        ),
        chart(
            "crps-skill", "CRPS skill by horizon",
            "Against the random walk, which is 0. Up to noise the truth lies between the two estimators.",
            figures.crps_skill(study), NO_OUTCOME,
        ),
        chart(
            "samples", "RankIC against the number of paths", "Of what the first paths say, with 95% bands.",
            figures.samples(study), "The scores were not kept by number of paths.",
        ),
    )  # fmt: skip


def variances(study: DistributionEvaluation) -> Table:
    """A row a horizon, measure and forecast."""
    columns = (
        text("forecast", "Forecast"),
        number("horizon", "Bars", count),
        text("measure", "Measure"),
        estimate("rank_ic", "rank_ic_low", "rank_ic_high", "RankIC", signed),
        estimate(
            "rank_ic_difference", "rank_ic_difference_low", "rank_ic_difference_high", "Lead over it", signed
        ),
        number_with_note("qlike", "QLIKE", decimals_4, lambda row: row["left_out"]),
        estimate("excess", "excess_low", "excess_high", "Excess over it", signed),
        number("mae", "MAE", _fine),
        number("r2", "R²", decimals),
    )
    caption = (
        "Of the variance over the horizon, by closes or by ranges; the model's is the mean over paths of each "
        "path's own. Lead and excess: the model less the row, paired by date. MAE and R² are of its root, in log "
        "return. QLIKE leaves out the share of pairs where nothing moved."
    )
    rows = [_variance(score) for score in study.volatilities]
    return table("variances", caption, pd.DataFrame(rows), columns, highlight=MODEL)


def _variance(score: VolatilityScore) -> dict[str, object]:
    row: dict[str, object] = {"forecast": score.name, "horizon": score.horizon, "measure": score.measure}
    row |= (
        _ends("rank_ic", score.rank_ic)
        | _ends("rank_ic_difference", score.rank_ic_difference)
        | _ends("excess", score.excess)
    )
    pooled = score.pooled
    return row | {
        "qlike": score.qlike.mean,
        "mae": pooled.mae,
        "r2": pooled.r2,
        "left_out": f"{percent(pooled.dropped / max(pooled.pairs, 1))} left out" if pooled.dropped else "",
    }


def volatility(study: DistributionEvaluation) -> Charts:
    """Loss, and forecast against realised."""
    return collect_charts(
        chart(
            "qlike", "QLIKE beside the last 20 days", "Whiskers are 95% intervals.",
            figures.qlike(study), NO_OUTCOME,
        ),
        chart(
            "volatility", "Volatility, forecast and realised",
            "Means of twentieths of the forecasts; on the rule both are equal.",
            figures.volatility(study), NO_OUTCOME,
        ),
    )  # fmt: skip


def _ends(name: str, test: MeanTest | None) -> dict[str, float]:
    values = (test.mean, test.low, test.high) if test is not None else (np.nan, np.nan, np.nan)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _stamp(date: pd.Timestamp) -> str:
    return f"{date:%Y-%m-%d}" if date == date.normalize() else f"{date:%Y-%m-%d %H:%M}"


def _fine(value: float) -> str:
    return percent(value, 3)


def _fine_signed(value: float) -> str:
    return f"+{_fine(value)}" if value > 0 and np.isfinite(value) else _fine(value)
