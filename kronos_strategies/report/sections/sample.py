"""What made the forecasts, and what became of the rows: tables that belong to the whole page."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from kronos_strategies.report.formats import count, percent
from kronos_strategies.report.tables import Table, number, table, word


def ledger(id_: str, rows: Mapping[str, int]) -> Table:
    """Rows by reason, and their share of the first reason's."""
    first = float(next(iter(rows.values()), 0))
    frame = pd.DataFrame(
        {
            "rows": list(rows),
            "count": [float(each) for each in rows.values()],
            "share": [each / first if first else float("nan") for each in rows.values()],
        }
    )
    caption = "What became of the rows, one a name and date; shares are of the first line."
    columns = (word("rows", "Rows"), number("count", "Count", count), number("share", "Share", percent))
    return table(id_, caption, frame, columns, ordered=True)
