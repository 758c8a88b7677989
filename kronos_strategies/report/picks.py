"""Picks as text: the columns of terminal and page, and the page, which can be sorted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from markupsafe import Markup

from kronos.utils import explain_write_errors, write_atomic
from kronos_strategies.picks import Picks
from kronos_strategies.report.formatting import (
    DASH,
    count,
    general,
    moment,
    percent,
    percent_2,
    signed,
    signed_percent,
)
from kronos_strategies.report.layout import (
    TEMPLATES,
    Column,
    Table,
    number,
    table,
    template_environment,
    text,
)

UNITS = {1e9: " bn", 1e6: " M", 1e3: " k"}


def picks_title(picks: Picks) -> str:
    """Market and date."""
    return f"{picks.market} as of {moment(picks.date, timed=False)}"


def picks_lines(picks: Picks) -> tuple[str, ...]:
    """What is traded in total, and how the picks were made."""
    (bought, buys), (sold, sells), (held, target) = (picks.summary[each] for each in ("buy", "sell", "hold"))
    total = f"buy {percent(buys)} of equity in {count(bought)}, sell {percent(sells)} in {count(sold)}"
    return (f"{total}; then {count(held)} positions, {percent(1 - target)} cash", *picks.settings)


def picks_columns(picks: Picks) -> tuple[Column, ...]:
    """Columns to show; the signal that ranks follows the ranks."""
    rank_by = picks.rules.rank_by
    known = {
        "score": number("score", "Score", signed),
        "expected_return": number("expected_return", "Return", signed_percent),
        "volatility": number("volatility", "Vol./bar", percent_2),
        "prob_up": number("prob_up", "Prob. up", _whole_percent),
    }
    extra = {} if rank_by in known else {rank_by: number(rank_by, rank_by, signed_percent)}
    return (
        text("instrument", "Instrument"),
        number("rank", "Rank", count),
        number("rank_change", "Moved", _signed_count),
        number("weight_before", "Weight", _share),
        number("target_weight", "Target", _share),
        number("trade", "Trade", _trade),
        *(extra | known).values(),
        number("traded_value", "Value/day", _money),
        text("flags", "Flags"),
    )


def picks_table(picks: Picks) -> Table:
    """All picks as a table of text."""
    caption = (
        "Moved: ranks gained since the previous trading day. Weight, target and trade: fractions of equity. "
        "Return: mean over paths from the last close to the end of the forecast. Value/day: mean traded value of "
        "20 days."
    )
    return table("picks", caption, picks.table.droplevel("datetime"), picks_columns(picks))


def save_picks_page(picks: Picks, path: Path) -> Path:
    """Write the page as one HTML file without external resources. Equal picks give equal pages.

    Raises:
        OSError: the file cannot be written.
    """
    page = (
        template_environment()
        .get_template("picks.html.j2")
        .render(
            title=picks_title(picks),
            lines=picks_lines(picks),
            warnings=picks.warnings,
            table=picks_table(picks),
            style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
            script=Markup((TEMPLATES / "sort.js").read_text(encoding="utf-8")),
        )
    )
    path = path.expanduser()
    with explain_write_errors(path, "Choose another file for the page."):
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_atomic(path, page)


def _whole_percent(value: float) -> str:
    return percent(value, places=0)


def _signed_count(value: float) -> str:
    return f"+{count(value)}" if value > 0 else count(value)


def _share(value: float) -> str:
    """A weight; a dash where nothing is held."""
    return percent_2(value) if value else DASH


def _trade(value: float) -> str:
    return signed_percent(value) if value else DASH


def _money(value: float) -> str:
    """Three significant digits with a unit."""
    for unit, letter in UNITS.items():
        if np.isfinite(value) and abs(value) >= unit:
            return f"{value / unit:,.3g}{letter}"
    return general(value)
