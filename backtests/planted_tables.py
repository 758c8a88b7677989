"""The result of `planted_effect.py` as tables: printed, as CSV and JSON, and in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from kronos.utils import csv_text

HEAD = ("optimum", "ranked by", "bars learned from", "RankIC", "95 %", "t", "share of the optimum")


def save(rows: pd.DataFrame, settings: Mapping[str, object], output: Path) -> list[Path]:
    """Write the rows as CSV, as JSON with the settings, and as tables to read."""
    output.mkdir(parents=True, exist_ok=True)
    csv, js, page = (output / f"planted_effect.{ending}" for ending in ("csv", "json", "md"))
    csv.write_text(csv_text(rows), encoding="utf-8")
    records = json.loads(rows.to_json(orient="records"))
    js.write_text(json.dumps({"settings": dict(settings), "rows": records}, indent=1) + "\n")
    page.write_text(markdown(rows, settings))
    return [csv, js, page]


def markdown(rows: pd.DataFrame, settings: Mapping[str, object]) -> str:
    """The settings, and one table per effect."""
    lines = ["# Planted effects", "", ", ".join(f"{name}: {value}" for name, value in settings.items()), ""]
    for effect, part in rows.groupby("effect", sort=False):
        lines += [f"## {effect}", "", f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
        lines += [f"| {' | '.join(cells(row))} |" for row in part.to_dict("records")]
        lines.append("")
    return "\n".join(lines)


def show(rows: pd.DataFrame) -> None:
    """Print the rows of one market."""
    effect = str(rows["effect"].iloc[0])
    table = Table(*HEAD, title=f"planted effect: {effect}", title_justify="left")
    for row in rows.to_dict("records"):
        table.add_row(*cells(row))
    Console(width=max(Console().width, 112)).print(table)


def cells(row: Mapping[str, float]) -> list[str]:
    """One row as formatted text."""
    share = f"{row['share']:.0%}" if np.isfinite(row["share"]) else "-"
    interval = f"{row['low']:+.4f} to {row['high']:+.4f}"
    bars = f"{row['bars']:,}" if row["bars"] else "-"
    rank_ic, t = f"{row['rank_ic']:+.4f}", f"{row['t']:.1f}"
    return [f"{row['strength']:g}", str(row["ranked_by"]), bars, rank_ic, interval, t, share]
