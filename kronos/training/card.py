"""The model card of a folder of weights, written from the records that training leaves beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kronos.checkpoint import CARD
from kronos.training.ledger import cleaning_sentence

RECORD = "training.json"
SHOWN = (
    "max_steps",
    "batch_size",
    "learning_rate",
    "schedule",
    "weight_decay",
    "dropout",
    "hide_volume",
    "seed",
)


def write_card(folder: Path) -> None:
    """Write README.md from the training.json of each part that is there."""
    records = {
        part: json.loads(file.read_text())
        for part in ("tokenizer", "predictor")
        if (file := folder / part / RECORD).is_file()
    }
    (folder / CARD).write_text(render(folder.resolve().parent.name, records), encoding="utf-8")


def render(title: str, records: Mapping[str, Mapping[str, Any]]) -> str:
    """The card's text: front matter with `trained_until`, then a section for each part."""
    until = latest([record["trained_until"] for record in records.values()])
    head = [
        "---",
        *([f"trained_until: {until}"] if until else []),
        "tags: [time-series, finance, kronos]",
        "---",
    ]
    if until:
        known = f"No bar after **{until}** had any part in these weights."
    else:
        known = (
            "What the weights that training started from had seen is not known, so neither is the last date."
        )
    lines = [*head, "", f"# {title}", "", known]
    for part, record in records.items():
        lines += ["", *_section(part, record)]
    return "\n".join(lines) + "\n"


def latest(dates: Sequence[str | None]) -> str | None:
    """The last of ISO dates; None where one is not known."""
    known = [date for date in dates if date is not None]
    return max(known) if known and len(known) == len(dates) else None


def _section(part: str, record: Mapping[str, Any]) -> list[str]:
    if "data" not in record:  # not trained in this folder
        return [
            f"## {part.capitalize()}",
            "",
            f"From `{record['origin']}`, sha256 `{record['sha256'][:16]}`, as it is.",
        ]
    settings = record["settings"]
    start = f"`{record['origin']}`" if record["origin"] else "random weights"
    commit = record["commit"] or "unknown"
    rows = [
        f"| {d['name']} | {d['instruments']} | {d['bars']:,} | {d['start']} to {d['end']} | {d['train_until']} "
        f"| {d['validate_until'] or ''} | `{d['sha256'][:16]}` |"
        for d in record["data"]
    ]
    cleaning = [text for d in record["data"] if (text := cleaning_sentence(d)) is not None]
    losses = [
        f"| {name} | {value:.5g} |"
        for name, value in record["losses"].items()
        if "loss" in name or "val" in name
    ]
    shown = ", ".join(f"{name} {settings[name]}" for name in SHOWN if settings[name] is not None)
    return [
        f"## {part.capitalize()}",
        "",
        f"{record['parameters']:,} parameters, from {start}, trained by kronos-strategies {record['version']} at "
        f"commit `{commit[:12]}`. Windows of {settings['lookback']} bars, which alone set the scale, and "
        f"{settings['horizon']} behind them; {shown}.",
        "",
        "| source | instruments | bars | of | trained until | chosen until | sha256 |",
        "|---|---|---|---|---|---|---|",
        *rows,
        *(["", "Cleaning:", "", *(f"- {text}" for text in cleaning)] if cleaning else []),
        "",
        *_course(record),
        f"| step {record['losses'].get('step', record['step'])} | |",
        "|---|---|",
        *losses,
    ]


def _course(record: Mapping[str, Any]) -> list[str]:
    """What the weights that training started from achieve, and schedules that followed each other."""
    lines = []
    if start := record.get("start"):
        text = f"The weights that training started from have a held-out loss of {start['val_loss']:.5g}"
        if record["step"] == 0:
            text += "; no later validation was better, so these are those weights"
        lines += [f"{text}.", ""]
    if schedules := record.get("schedules"):
        parts = [f"from step {first} that of {steps} steps" for first, steps in schedules]
        lines += [
            f"The run was resumed with another max_steps; its learning rate followed {', '.join(parts)}.",
            "",
        ]
    return lines
