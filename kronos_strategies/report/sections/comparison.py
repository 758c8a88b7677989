"""The section on versions, and the table of sample counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from kronos_strategies.evaluation.comparison.comparison import Comparison
from kronos_strategies.evaluation.comparison.metrics import HIGHER_IS_BETTER
from kronos_strategies.report.figures import comparison as figures
from kronos_strategies.report.figures.base import go
from kronos_strategies.report.formatting import (
    DASH,
    Show,
    bars,
    count,
    decimals_4,
    decimals_5,
    listing,
    percent,
    percent_2,
    probability,
    signed,
    signed_5,
    signed_percent,
)  # fmt: skip
from kronos_strategies.report.layout import (
    Chart,
    Charts,
    OmittedChart,
    Part,
    Section,
    Table,
    boolean,
    chart,
    chart_with_dropdown,
    collect_charts,
    estimate,
    metric_dropdown,
    number,
    table,
    text,
)

FIRST = ("rank_ic", "ic", "spread", "net_return", "sharpe")  # the headline first


ROWS = "Rows are (date, instrument) pairs; shares are of the first line."


def versions_section(comparison: Comparison) -> Section:
    """The section of a `Comparison`."""
    return Section(
        "versions",
        "Versions",
        f"{listing([str(name) for name in comparison.versions])} {_rows(comparison)}.",
        (),
        (
            Part("Metrics", tuple(_metric(comparison, metric) for metric in metrics(comparison))),
            Part("Differences", charts=differences(comparison)),
            Part("Sample and provenance", _sample_and_provenance(comparison)),
        ),
    )


def _rows(comparison: Comparison) -> str:
    """What the versions have in common."""
    if comparison.label_horizon is None:
        return f"on their common bars, compared with {comparison.reference}; returns are net of costs"
    return (
        f"on their common dates and instruments, compared with {comparison.reference}; the label spans "
        f"{bars(comparison.label_horizon)}"
    )


def metrics(comparison: Comparison) -> list[str]:
    """Metrics of the table, RankIC first."""
    found = [str(metric) for metric in comparison.table["metric"].unique()]
    return [metric for metric in FIRST if metric in found] + [
        metric for metric in found if metric not in FIRST
    ]


def differences_as(metric: str) -> Show:
    """Format of a difference: percent for returns, four decimals for coefficients, five for losses."""
    return signed_percent if metric in figures.SHARES else signed if metric in HIGHER_IS_BETTER else signed_5


def means_as(metric: str) -> Show:
    """Format of a mean, the same without the sign."""
    return percent_2 if metric in figures.SHARES else decimals_4 if metric in HIGHER_IS_BETTER else decimals_5


def _metric(comparison: Comparison, metric: str) -> Table:
    rows = comparison.table[comparison.table["metric"] == metric]
    baselines = comparison.baselines
    baselines = baselines[baselines["metric"] == metric] if len(baselines) else baselines
    frame = pd.concat([rows, baselines], ignore_index=True) if len(baselines) else rows
    show = differences_as(metric)
    columns = (
        text("version", "Version"),
        estimate("mean", "low", "high", "Mean", means_as(metric)),
        estimate("difference", "difference_low", "difference_high", f"Minus {comparison.reference}", show),
        number("p", "p", probability),
        number("p_holm", "p (Holm)", probability),
        boolean("in_mcs", "In MCS"),
        number("mcs_p", "p (MCS)", probability),
        number("detectable", "Detectable", means_as(metric)),
        number("dates", "Dates", count),
    )
    place = metrics(comparison).index(metric)
    return table(
        f"versions-{place}", _methods(rows), frame, columns,
        highlight=comparison.reference, baseline_rows=len(baselines), heading=figures.label_of(metric),
    )  # fmt: skip


def _methods(rows: pd.DataFrame) -> str:
    methods = [str(method) for method in rows["method"].dropna().unique()]
    return f"Means over dates; intervals at 95% and tests by {listing(methods) if methods else 'no method'}."


def differences(comparison: Comparison) -> Charts:
    """By version, year, date and horizon."""
    others = len(comparison.versions) - 1
    return collect_charts(
        _by_metric(
            comparison, "difference", "Difference from the reference", "Means over dates, with 95% intervals.",
            figures.differences, rows=others,
        ),
        _by_metric(
            comparison, "yearly-difference", "Difference by year", "Mean over the dates of each year.",
            figures.yearly,
        ),
        _by_metric(
            comparison, "cumulative-difference", "Cumulative difference",
            "A steady slope is a steady difference.", figures.cumulative, wide=True,
        ),
        chart(
            "version-decay", "RankIC by horizon",
            "By horizon of the label; hover labels show 95% intervals.",
            figures.decay(comparison),
            "Portfolios have no label." if comparison.label_horizon is None else "There is a single label.",
            wide=True,
        ),
    )  # fmt: skip


def _by_metric(
    comparison: Comparison, id_: str, heading: str, note: str,
    draw: Callable[[Comparison, str], go.Figure], wide: bool = False, rows: int = 0,
) -> Chart | OmittedChart:  # fmt: skip
    drawn, picks = metric_dropdown({metric: draw(comparison, metric) for metric in metrics(comparison)})
    picks = [pick._replace(options=tuple(map(figures.label_of, pick.options))) for pick in picks]
    why = "On no date is the metric defined for two versions."
    return chart_with_dropdown(id_, heading, note, drawn, picks, why, wide, rows)


def _sample_and_provenance(comparison: Comparison) -> tuple[Table, ...]:
    counted = (
        ROWS
        if comparison.label_horizon is not None
        else "Bars of the backtests; shares are of the first line."
    )
    rows = sample_table("versions-sample-counts", comparison.sample_counts, counted)
    entries = comparison.provenance.values()
    known = list(dict.fromkeys(label for each in entries for label in each))
    if not known:
        return (rows,)
    rows_by_version = [
        {"version": name, **{f"of {label}": comparison.provenance[name].get(label, DASH) for label in known}}
        for name in comparison.versions
    ]
    columns = (text("version", "Version"), *(text(f"of {label}", label) for label in known))
    caption = "Provenance of each version."
    return rows, table(
        "versions-provenance", caption, pd.DataFrame(rows_by_version), columns, highlight=comparison.reference
    )


def sample_table(id_: str, rows: Mapping[str, int], caption: str = ROWS) -> Table:
    """Numbers of rows by reason, and their shares of the first."""
    first = float(next(iter(rows.values()), 0))
    frame = pd.DataFrame(
        {
            "rows": list(rows),
            "count": [float(each) for each in rows.values()],
            "share": [each / first if first else float("nan") for each in rows.values()],
        }
    )
    columns = (text("rows", "Rows"), number("count", "Count", count), number("share", "Share", percent))
    return table(id_, caption, frame, columns, ordered=True)
