"""A sweep as files and in a terminal: a page with all settings, their table as CSV and parquet, metrics.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from kronos.utils import MissingExtra, atomic_file, csv_text, explain_write_errors, write_atomic
from kronos_strategies.backtest.trials import SweepResult
from kronos_strategies.report.export import WIDTH, to_json
from kronos_strategies.report.figures import portfolio as figures
from kronos_strategies.report.figures.base import CONFIG, plotly_js
from kronos_strategies.report.formatting import (
    DASH,
    count,
    decimals_2,
    general,
    interval,
    percent,
    percent_2,
    span,
)
from kronos_strategies.report.layout import (
    TEMPLATES,
    Cell,
    Chart,
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
    table,
    template_environment,
    text,
)
from kronos_strategies.report.summary import Verdict

try:
    from markupsafe import Markup
except ImportError as error:
    raise MissingExtra("Reports need Jinja: pip install 'kronos-strategies[report]'") from error

MOST_ROWS, FEW_ROWS = 500, 10  # of the page, of a terminal; files hold all
HALF, CONFIDENT = 0.5, 0.95
HEAT_MAPS = {  # metrics to select, with their labels and d3 formats
    "sharpe": ("Sharpe, net", ".2f"),
    "annual_return": ("Annual return, net", ".1%"),
    "max_drawdown": ("Max drawdown, net", ".1%"),
    "turnover": ("Turnover per bar", ".1%"),
}
NO_PAIR = "A heat map needs two parameters with at least two values each."
NO_SPLITS = "Cross-validation needs at least two different settings and 32 bars."


def save_sweep(result: SweepResult, folder: Path, heat_map: Sequence[str] = ()) -> list[Path]:
    """Write sweep.html, sweep.csv, sweep.parquet and metrics.json into `folder`.

    Equal results write equal pages and tables.

    Args:
        result: evaluated trials.
        folder: where to write.
        heat_map: two parameters; those with most values when empty.

    Returns:
        The paths of the files, the page first.
    """
    texts = {
        "sweep.html": render(result, heat_map),
        "sweep.csv": csv_text(result.table),
        "metrics.json": to_json(result.metrics()),
    }
    with explain_write_errors(folder, "Choose another folder with --output."):
        folder.mkdir(parents=True, exist_ok=True)
        written = [write_atomic(folder / name, content) for name, content in texts.items()]
        mixed = result.table.select_dtypes("object")  # a parquet column has one type
        with atomic_file(folder / "sweep.parquet") as draft:
            result.table.assign(**{str(name): mixed[name].astype(str) for name in mixed}).to_parquet(draft)
    return [*written, folder / "sweep.parquet"]


def render(result: SweepResult, heat_map: Sequence[str] = ()) -> str:
    """The page as HTML text, a single file without external resources."""
    scripts = [Markup((TEMPLATES / name).read_text(encoding="utf-8")) for name in ("page.js", "sort.js")]
    return (
        template_environment()
        .get_template("sweep.html.j2")
        .render(
            title=f"{count(len(result.table))} settings of portfolio rules",
            span=f"{span(pd.DatetimeIndex(result.returns.index))}, {count(len(result.returns))} bars",
            verdict=summarize_sweep(result),
            warnings=list(sweep_warnings(result)),
            section=sweep_section(result, heat_map),
            style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
            scripts=scripts,
            plotly_js=Markup(plotly_js()),
            plotly_config=Markup(json.dumps(CONFIG, sort_keys=True)),
        )
    )


def summarize_sweep(result: SweepResult) -> Verdict:
    """Whether the best setting is better than the best of as many without skill."""
    best, overfitting = result.table.iloc[0], result.overfitting
    ends = interval(best["sharpe_low"], best["sharpe_high"], decimals_2)
    chosen = ", ".join(f"{name} {_value(best[name])}" for name in result.parameters) or "the only setting"
    sentences = [
        f"The best of {count(result.trials)} trials has a net Sharpe ratio of {decimals_2(best['sharpe'])} "
        f"({ends}): {chosen}.",
        f"The probability that its true ratio is above the expected maximum of as many trials without skill is "
        f"{percent(best['dsr'])} (DSR).",
    ]
    if overfitting.blocks and len(overfitting.in_sample):
        sentences.append(
            f"What is best on one half of the bars is below the median of all settings on the other half in "
            f"{percent(overfitting.pbo)} of {count(len(overfitting.in_sample))} splits (PBO), and loses there in "
            f"{percent(overfitting.prob_loss)}."
        )
    if not best["dsr"] > CONFIDENT:
        return Verdict("none", "No evidence of skill beyond the number of trials", tuple(sentences))
    if overfitting.pbo >= HALF:
        return Verdict("mixed", "A high ratio, but the choice does not hold out of sample", tuple(sentences))
    return Verdict("good", "Better than the best of as many trials without skill", tuple(sentences))


def sweep_warnings(result: SweepResult) -> Iterator[str]:
    """Overfitting, settings that failed, and trials of earlier sweeps."""
    best, pbo = result.table.iloc[0], result.overfitting.pbo
    if best["dsr"] < CONFIDENT and result.trials > 1:
        yield (
            f"The deflated Sharpe ratio is {best['dsr']:.1%}: a strategy without skill could reach this Sharpe "
            f"ratio after {result.trials:,} trials."
        )
    if pbo >= HALF:
        yield f"PBO is {pbo:.1%}: choosing the best of these settings is no better than choosing any of them."
    if result.failed:
        first = next(each for each in result.table["error"] if each)
        what = "setting fails and does" if result.failed == 1 else "settings fail and do"
        yield f"{result.failed:,} {what} not count, for example: {first}"
    finished = len(result.table) - result.failed
    if result.trials > finished:
        yield (
            f"{result.trials - finished:,} trials of earlier sweeps on the same data count as well, since each was "
            "a chance to find a good result."
        )


def sweep_section(result: SweepResult, heat_map: Sequence[str] = ()) -> Section:
    """Headline metrics, charts and the table of settings."""
    overfitting = result.overfitting
    best = result.table.iloc[0]
    tiles = (
        Tile(
            "Best Sharpe, net",
            decimals_2(best["sharpe"]),
            interval(best["sharpe_low"], best["sharpe_high"], decimals_2),
        ),
        Tile(
            "DSR: Sharpe above that of trials", percent(best["dsr"]), f"after {count(result.trials)} trials"
        ),
        Tile("PBO: best below the median", percent(overfitting.pbo), f"{overfitting.blocks} blocks of bars"),
        Tile("Median Sharpe, net", decimals_2(result.table["sharpe"].median()), "of all settings"),
        Tile(
            "Annual return, net", percent(best["annual_return"]), f"volatility {percent(best['volatility'])}"
        ),
        Tile(
            "Max drawdown, net",
            percent(best["max_drawdown"]),
            f"turnover {percent(best['turnover'])} per bar",
        ),
    )
    charts = collect_charts(
        _heat_map(result, heat_map),
        chart(
            "sharpe-by-rank", "All settings", "Net Sharpe ratio with its 95% interval by stationary bootstrap.",
            figures.sharpe_by_rank(result.table), "No setting has a Sharpe ratio.",
        ),
        chart(
            "relative-ranks", "Out of sample",
            "Rank, on the other half of the bars, of the setting that is best on one half. Left of the dotted line "
            "it is below the median.",
            figures.relative_ranks(overfitting), NO_SPLITS,
        ),
    )  # fmt: skip
    return Section(
        "sweep",
        "Settings",
        "All settings trade on the same signals and prices. Metrics are net of costs.",
        tiles,
        (Part("What the parameters do", charts=charts), Part("Table", (settings_table(result),))),
    )


def settings_table(result: SweepResult) -> Table:
    """The best settings, one row each."""
    shown = result.table.head(MOST_ROWS).rename_axis("place").reset_index()
    shown["place"] += 1
    left = len(result.table) - len(shown)
    caption = (
        "PSR: probability that the true Sharpe ratio is above 0. DSR: that it is above the expected maximum "
    )
    caption += f"of {count(result.trials)} trials without skill."
    caption += f" {count(left)} more settings are in sweep.csv." if left else ""
    columns = [
        number("place", "Place", count),
        *(Column(name, _cell(name), _is_number(shown[name])) for name in result.parameters),
        estimate("sharpe", "sharpe_low", "sharpe_high", "Sharpe", decimals_2),
        number("psr", "PSR", percent),
        number("dsr", "DSR", percent),
        number("annual_return", "Annual return", percent),
        number("volatility", "Volatility", percent),
        number("max_drawdown", "Max drawdown", percent),
        number("turnover", "Turnover", percent_2),
        number("annual_cost", "Annual costs", percent_2),
        number("positions", "Positions", general),
    ]
    columns += [text("error", "Failure")] if result.failed else []
    return table("settings", caption, shown, columns)


def show_sweep(result: SweepResult, written: Sequence[Path | str]) -> None:
    """Print the best settings, the verdict, warnings and the written files."""
    console = Console(width=max(WIDTH, Console().width))
    shown = RichTable(
        title=f"The best of {len(result.table):,} settings",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    names = ("Sharpe", "95 %", "DSR", "return", "drawdown", "turnover")
    for name in (*result.parameters, *names):
        shown.add_column(escape(name), justify="left" if name in result.parameters else "right")
    for row in result.table.head(FEW_ROWS).to_dict("records"):
        shown.add_row(
            *(escape(_value(row[name])) for name in result.parameters),
            decimals_2(row["sharpe"]), interval(row["sharpe_low"], row["sharpe_high"], decimals_2),
            *(percent(row[name]) for name in ("dsr", "annual_return", "max_drawdown", "turnover")),
        )  # fmt: skip
    console.print(shown)
    for sentence in summarize_sweep(result).sentences:
        console.print(escape(sentence), soft_wrap=True, highlight=False)
    for warning in sweep_warnings(result):
        console.print(f"[yellow]Warning:[/] {escape(warning)}", soft_wrap=True)
    for path in written:
        console.print(escape(str(path)), soft_wrap=True, highlight=False)


def _heat_map(result: SweepResult, pair: Sequence[str]) -> Chart | OmittedChart:
    heading, shown = "Heat map", result.table[result.table["sharpe"].notna()]
    sizes = {name: len(shown[name].unique()) for name in result.parameters}
    varied = sorted((name for name in sizes if sizes[name] > 1), key=lambda name: -sizes[name])
    x, y = pair or (*varied, "", "")[:2]
    if not (x in varied and y in varied):
        return OmittedChart(heading, NO_PAIR)
    drawn = [figures.heat_map(shown, x, y, name, form) for name, (_, form) in HEAT_MAPS.items()]
    menu = [Dropdown("Metric", tuple(label for label, _ in HEAT_MAPS.values()))]
    note = f"Mean over the settings with this {x} and {y}. A single good cell among poor ones is likely luck."
    return chart_with_dropdown("heat-map", heading, note, drawn, menu, NO_PAIR, wide=True)


def _is_number(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values)


def _value(value: object) -> str:
    return general(value) if isinstance(value, int | float) else str(value)


def _cell(name: str) -> Callable[[Record], Cell]:
    def cell(row: Record) -> Cell:
        value = row[name]
        key = repr(float(value)) if isinstance(value, int | float) else str(value)
        return Cell(_value(value) or DASH, key)

    return cell
