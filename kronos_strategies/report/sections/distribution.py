"""The section on sampled paths: fan charts, calibration, CRPS, volatility and validity of the sampled bars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.baselines import GARCH_INSTRUMENTS, MODEL
from kronos_strategies.evaluation.distribution.evaluation import DistributionEvaluation
from kronos_strategies.evaluation.distribution.metrics import expected_pit_std
from kronos_strategies.evaluation.distribution.scores import DistributionScore, VolatilityScore
from kronos_strategies.evaluation.significance import MeanTest
from kronos_strategies.report.figures import distribution as figures
from kronos_strategies.report.formatting import (
    METRICS,
    bars,
    count,
    decimals,
    decimals_4,
    interval,
    moment,
    percent,
    percent_3,
    signed,
    signed_percent,
    signed_percent_3,
)
from kronos_strategies.report.layout import (
    Chart,
    Charts,
    Column,
    Dropdown,
    OmittedChart,
    Part,
    Record,
    Section,
    Table,
    Tile,
    chart,
    chart_with_dropdown,
    collect_charts,
    estimate,
    number,
    number_with_note,
    table,
    text,
)

NO_OUTCOME = "No outcome is known yet."


def distribution_section(distribution: DistributionEvaluation) -> Section:
    """The section of a `DistributionEvaluation`."""
    first, last = distribution.dates[0], distribution.dates[-1]
    return Section(
        "distribution",
        "Distribution",
        f"{count(distribution.windows)} forecasts on {count(len(distribution.dates))} dates, {first:%Y-%m-%d} to "
        f"{last:%Y-%m-%d}, with {distribution.samples} sampled paths each, compared with random walks, EWMA, "
        "GARCH-t and historical volatility.",
        tiles(distribution),
        (
            Part("Example forecasts", charts=collect_charts(fan_charts(distribution.fan_charts))),
            Part("Calibration and CRPS", (losses(distribution),), charts=calibration(distribution)),
            Part("Volatility", (variances(distribution),), charts=volatility(distribution)),
            *((Part("Validity of sampled bars", (candles(distribution),)),) if distribution.checks else ()),
        ),
    )


def tiles(distribution: DistributionEvaluation) -> tuple[Tile, ...]:
    """Coverage of the widest band, CRPS skill and QLIKE, at the shortest and the longest horizon."""
    own = [score for score in distribution.distributions if score.name == MODEL]
    ends = list(dict.fromkeys(score.horizon for score in (own[0], own[-1])))
    found = []
    for score in (score for score in own if score.horizon in ends):
        reached = {level: test for level, test in score.coverage.items() if test is not None}
        if reached:
            level, test = max(reached.items())
            note = interval(test.low, test.high, percent)
            found.append(
                Tile(f"Coverage of the {level:.0%} band, {bars(score.horizon)}", percent(test.mean), note)
            )
    for score in (score for score in own if score.horizon in ends):
        note = f"ensemble {signed_percent(score.skill_ensemble)}"
        found.append(Tile(f"CRPS skill, {bars(score.horizon)}", signed_percent(score.skill), note))
    seen: set[int] = set()
    for volatility in distribution.volatilities:
        difference, horizon = volatility.qlike_difference, volatility.horizon
        if difference is not None and horizon in ends and horizon not in seen:
            seen.add(horizon)
            label = f"QLIKE minus historical volatility, {bars(horizon)}"
            note = interval(difference.low, difference.high, signed)
            found.append(Tile(label, signed(difference.mean), note))
    return tuple(found)


def fan_charts(fans: pd.DataFrame) -> Chart | OmittedChart:
    """One forecast at a time, by instrument and date."""
    names = sorted(fans["instrument"].astype(str).unique())
    dates = sorted(fans["datetime"].unique())
    parts = dict(iter(fans.groupby(["instrument", "datetime"])))
    drawn = [
        figures.fan(parts[name, date]) if (name, date) in parts else None for name in names for date in dates
    ]
    shown = [moment(date, date != date.normalize()) for date in map(pd.Timestamp, dates)]
    dropdowns = (
        Dropdown("Instrument", tuple(names)),
        Dropdown("Forecast after the close of", tuple(shown)),
    )
    note = "Historical closes, 50% and 90% bands and median of the sampled closes, and realized closes."
    why = "No forecast was kept for display."
    return chart_with_dropdown("fan", "Forecast and outcome", note, drawn, dropdowns, why, wide=True)


def losses(distribution: DistributionEvaluation) -> Table:
    """Coverage, CRPS and PIT, one row per horizon and forecast."""
    scores = distribution.distributions
    levels = sorted({each for score in scores for each in score.coverage})
    covered = [
        estimate(
            f"covered {level}", f"covered {level}_low", f"covered {level}_high", f"{level:.0%} band", percent
        )
        for level in levels
    ]
    columns: list[Column] = [
        text("forecast", "Forecast"),
        number("horizon", "Bars", count),
        *covered,
        number("crps", "CRPS", percent_3),
        number_with_note("skill", "CRPS skill", signed_percent, _ensemble),
        estimate("difference", "difference_low", "difference_high", "Difference", signed_percent_3),
        number_with_note("pit_mean", "PIT", decimals, lambda row: f"± {decimals(row['pit_deviation'])}"),
        number("outcomes", "Outcomes", count),
    ]
    calibrated = decimals(expected_pit_std(distribution.samples))
    caption = (
        "Share of outcomes inside each band. CRPS is the fair estimate in log return, lower is better; skill is "
        f"relative to the Gaussian random walk. Difference: CRPS of {MODEL} minus that of the row, paired by date, "
        "so that negative is better. PIT: mean ± standard deviation; for a calibrated forecast 0.500 ± 0.289, with "
        f"{distribution.samples} independent paths 0.500 ± {calibrated}; a larger deviation means too narrow. The "
        "random walk of shrunk volatility shrinks volatility to its average and has the empirical shape of past "
        "returns. It and GARCH-t are fitted once, to bars before the first forecast, GARCH-t for the "
        f"{GARCH_INSTRUMENTS} most traded instruments only."
    )
    rows = [_distribution_row(score, levels) for score in scores]
    return table("losses", caption, pd.DataFrame(rows), columns, highlight=MODEL)


def _ensemble(row: Record) -> str:
    return f"ensemble {signed_percent(row['skill_ensemble'])}"


def _distribution_row(score: DistributionScore, levels: Sequence[float]) -> dict[str, object]:
    row: dict[str, object] = {"forecast": score.name, "horizon": score.horizon}
    for level in levels:
        row |= _estimate(f"covered {level}", score.coverage.get(level))
    return (
        row
        | _estimate("difference", score.crps_difference)
        | {
            "crps": score.crps.mean,
            "skill": score.skill,
            "skill_ensemble": score.skill_ensemble,
            "pit_mean": score.pit_mean,
            "pit_deviation": score.pit_deviation,
            "outcomes": score.outcomes,
        }
    )


def candles(distribution: DistributionEvaluation) -> Table:
    """Invalid sampled bars before any repair, and gaps from the last close to the first open."""
    rows = [
        {"check": METRICS[f"candles_{name}"].label, "value": value}
        for name, value in distribution.checks.items()
    ]
    caption = (
        "Paths as sampled, before calibration and repair. Gaps are mean absolute log returns from the last close "
        "to the first open ahead, over the same windows."
    )
    columns = (text("check", "Check"), number("value", "Value", percent_3))
    return table("candles", caption, pd.DataFrame(rows), columns)


def calibration(distribution: DistributionEvaluation) -> Charts:
    """PIT, coverage, skill, and RankIC by number of paths."""
    return collect_charts(
        chart(
            "pit", "PIT histogram", "Flat if calibrated, U-shaped if too narrow, hump-shaped if too wide.",
            figures.pit(distribution), NO_OUTCOME,
        ),
        chart(
            "coverage", "Coverage", "Dotted lines are nominal, whiskers 95% intervals.",
            figures.coverage(distribution), NO_OUTCOME,
        ),
        chart(
            "crps-skill", "CRPS skill by horizon",
            "Relative to the random walk. Up to noise the true skill lies between the two estimates.",
            figures.crps_skill(distribution), NO_OUTCOME,
        ),
        chart(
            "samples", "RankIC by number of paths", "Of the score from the first paths, with 95% bands.",
            figures.rank_ic_by_num_paths(distribution), "Scores by number of paths were not kept.",
        ),
    )  # fmt: skip


def variances(distribution: DistributionEvaluation) -> Table:
    """Volatility forecasts, one row per horizon, measure and forecast."""
    columns = (
        text("forecast", "Forecast"),
        number("horizon", "Bars", count),
        text("measure", "Measure"),
        estimate("rank_ic", "rank_ic_low", "rank_ic_high", "RankIC", signed),
        estimate(
            "rank_ic_difference",
            "rank_ic_difference_low",
            "rank_ic_difference_high",
            "RankIC diff.",
            signed,
        ),
        number_with_note("qlike", "QLIKE", decimals_4, lambda row: row["dropped"]),
        estimate("qlike_difference", "qlike_difference_low", "qlike_difference_high", "QLIKE diff.", signed),
        number("mae", "MAE", percent_3),
        number("r2", "R²", decimals),
    )
    caption = (
        "Variance over the horizon; the forecast of the model is the mean over paths of each path's own variance. "
        f"Differences: {MODEL} minus the row, paired by date. MAE and R² are of volatility, in log return. QLIKE "
        "excludes the pairs in which no price moved."
    )
    rows = [_volatility_row(score) for score in distribution.volatilities]
    return table("variances", caption, pd.DataFrame(rows), columns, highlight=MODEL)


def _volatility_row(score: VolatilityScore) -> dict[str, object]:
    row: dict[str, object] = {"forecast": score.name, "horizon": score.horizon, "measure": score.measure}
    row |= _estimate("rank_ic", score.rank_ic)
    row |= _estimate("rank_ic_difference", score.rank_ic_difference)
    row |= _estimate("qlike_difference", score.qlike_difference)
    pooled = score.pooled
    return row | {
        "qlike": score.qlike.mean,
        "mae": pooled.mae,
        "r2": pooled.r2,
        "dropped": f"{percent(pooled.dropped / max(pooled.pairs, 1))} excluded" if pooled.dropped else "",
    }


def volatility(distribution: DistributionEvaluation) -> Charts:
    """QLIKE, and predicted against realized volatility."""
    return collect_charts(
        chart(
            "qlike", "QLIKE", "Whiskers are 95% intervals.",
            figures.qlike(distribution), NO_OUTCOME,
        ),
        chart(
            "volatility", "Predicted and realized volatility",
            "Means within 20 groups of equal size by forecast; both are equal on the dotted line.",
            figures.volatility(distribution), NO_OUTCOME,
        ),
    )  # fmt: skip


def _estimate(name: str, test: MeanTest | None) -> dict[str, float]:
    values = (test.mean, test.low, test.high) if test is not None else (np.nan, np.nan, np.nan)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
