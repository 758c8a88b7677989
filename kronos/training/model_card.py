"""Description of training data (contents, cleaning, errors), and the model card written from a run's records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kronos.config import CARD
from kronos.training.sources import MAX_PAUSE, REASONS, RULES, CleaningReport
from kronos.utils import write_atomic

SEVERAL = "several frequencies"  # as `inferred`: instruments have different ones

_ADVICE = {
    "no price": "Fill the prices that are missing or not positive",
    "illiquid": "Drop the volume column if volume is not recorded, or choose instruments that trade more often",
    "stagnant": "Choose instruments whose price changes more often",
    "pause": "Choose instruments without such pauses",
    "gap": "Adjust prices for splits, e.g. by a column factor",
    "short": "Pass longer series",
}


@dataclass(frozen=True)
class DatasetInfo:
    """Description of the clean bars of a source.

    Attributes:
        name: name of the source.
        instruments: number of instruments with a clean segment.
        segments: number of clean segments.
        bars_read: number of bars in the source.
        bars: number of bars after cleaning.
        start: first date, ISO.
        end: last date, ISO.
        sha256: hash of all bars, their dates and segment bounds.
        frequency: frequency whose cleaning rule was used.
        inferred: frequency of the timestamps; the step between bars if there is no rule for it.
        cleaning: what cleaning removed.
        notes: how the files were interpreted, one line each.
    """

    name: str
    instruments: int
    segments: int
    bars_read: int
    bars: int
    start: str
    end: str
    sha256: str
    frequency: str = "1day"
    inferred: str = "1day"
    cleaning: CleaningReport = field(default_factory=CleaningReport)
    notes: tuple[str, ...] = ()


def reason_text(reason: str, frequency: str, inferred: str, min_bars: int) -> str:
    """A reason for cleaning in words, with its threshold."""
    rule = RULES[frequency]
    return {
        "no price": "no positive price",
        "illiquid": f"no volume for more than {_count(rule.max_illiquid, 'bar')}",
        "stagnant": f"unchanged close for more than {_count(rule.max_stagnant, 'bar')}",
        "pause": f"pause of more than {f'{MAX_PAUSE.days} days' if inferred in RULES else '2 bars'}",
        "gap": f"open more than {rule.max_gap:.0%} from the previous close",
        "short": f"segment of fewer than {_count(min_bars, 'bar')}",
    }[reason]


def frequency_text(frequency: str, inferred: str) -> str:
    """Both frequencies of a source: of its timestamps and of its cleaning rule."""
    text = f"bars of {inferred} by their timestamps, cleaned by the rule for {frequency}"
    if inferred == frequency:
        return text
    return f"{text}, as set" if inferred in (*RULES, SEVERAL) else f"{text} (there is no rule for {inferred})"


def cleaning_table(info: DatasetInfo, min_bars: int, training: int, validation: int) -> str:
    """The table that training prints for a source: bars read, dropped by reason and left, and windows."""
    report, rows = info.cleaning, [("", "places", "bars"), ("read", "", f"{info.bars_read:,}")]
    for reason in REASONS:
        if places := report.places.get(reason, 0):
            text = reason_text(reason, info.frequency, info.inferred, min_bars)
            rows.append(
                (text, f"{places:,}", f"{-report.bars[reason]:,}" if reason in report.bars else "cut")
            )
    rows += [
        (f"left ({_count(info.instruments, 'instrument')})", f"{info.segments:,}", f"{info.bars:,}"),
        ("training windows", "", f"{training:,}"),
        ("validation windows", "", f"{validation:,}"),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
    head = f"{info.name}, {info.start} to {info.end}: {frequency_text(info.frequency, info.inferred)}"
    return "\n".join([head, *(f"  {note}" for note in info.notes), *lines])


def cleaning_sentence(source: Mapping[str, Any]) -> str | None:
    """The same as one sentence for a model card, from a record's entry; None for old records without it."""
    if "cleaning" not in source:
        return None
    dropped = source["cleaning"]["bars"]
    parts = ", ".join(f"{reason} {dropped[reason]:,}" for reason in REASONS if dropped.get(reason))
    cuts = source["cleaning"]["places"]
    cut = ", ".join(f"{name}s {cuts[name]:,}" for name in ("pause", "gap") if cuts.get(name))
    head = f"{source['name']}: {frequency_text(source['frequency'], source['inferred'])}"
    counts = f"{source['bars_read']:,} bars read; dropped: {parts or 'none'}; cuts: {cut or 'none'}"
    return f"{head}. {counts}; {_count(source['segments'], 'segment')} left."


def no_clean_segment(
    name: str, read: int, min_bars: int, report: CleaningReport, frequency: str, inferred: str
) -> str:
    """The error if cleaning leaves nothing to train on: which rule removed most, and what to do."""
    if not read:
        return f"{name} has no bars. Check its path, instruments, start and end."
    most = max(report.lost, key=lambda reason: report.lost[reason])
    text = f"{name} has no segment of {min_bars} clean bars (lookback + horizon); "
    text += f"the longest has {report.longest}. "
    advice = _ADVICE[most]
    if most != "short":
        rule = reason_text(most, frequency, inferred, min_bars)
        text += f"Of {read:,} bars the rule '{rule}' removed most, {report.lost[most]:,}: "
        text += f"{frequency_text(frequency, inferred)}. "
        if inferred in RULES and inferred != frequency:
            advice = f"Remove frequency={frequency}"
    return f"{text}{advice}, or lower --lookback or --horizon."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


RECORD = "training.json"
SHOWN = (
    "max_steps",
    "batch_size",
    "learning_rate",
    "schedule",
    "weight_decay",
    "dropout",
    "volume_dropout",
    "seed",
)


def write_card(folder: Path) -> None:
    """Write README.md from the training.json of each part in the folder."""
    records = {
        part: json.loads(file.read_text())
        for part in ("tokenizer", "predictor")
        if (file := folder / part / RECORD).is_file()
    }
    write_atomic(folder / CARD, render(folder.resolve().parent.name, records))


def render(title: str, records: Mapping[str, Mapping[str, Any]]) -> str:
    """Text of the card: front matter with `trained_until`, then a section per part."""
    until = latest([record["trained_until"] for record in records.values()])
    head = [
        "---",
        *([f"trained_until: {until}"] if until else []),
        "tags: [time-series, finance, kronos]",
        "---",
    ]
    if until:
        known = f"No bar after **{until}** was used for these weights."
    else:
        known = "The training data of the initial weights is unknown, and so is the last date."
    lines = [*head, "", f"# {title}", "", known]
    for part, record in records.items():
        lines += ["", *_section(part, record)]
    return "\n".join(lines) + "\n"


def latest(dates: Sequence[str | None]) -> str | None:
    """The latest of ISO dates; None if one is unknown."""
    known = [date for date in dates if date is not None]
    return max(known) if known and len(known) == len(dates) else None


def _section(part: str, record: Mapping[str, Any]) -> list[str]:
    if "data" not in record:  # not trained in this folder
        return [
            f"## {part.capitalize()}",
            "",
            f"From `{record['origin']}`, sha256 `{record['sha256'][:16]}`, unchanged.",
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
        f"commit `{commit[:12]}`. Windows of {settings['lookback']} bars, which determine the scale, and "
        f"{settings['horizon']} after them; {shown}.",
        "",
        "| source | instruments | bars | dates | trained until | validated until | sha256 |",
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
    """Loss of the initial weights, and the learning-rate schedules of a resumed run."""
    lines = []
    if start := record.get("start"):
        text = f"The initial weights have a validation loss of {start['val_loss']:.5g}"
        if record["step"] == 0:
            text += "; no later validation was better, so these are the initial weights"
        lines += [f"{text}.", ""]
    if schedules := record.get("schedules"):
        parts = [f"from step {first} the one of {steps} steps" for first, steps in schedules]
        lines += [
            f"The run was resumed with another max_steps; learning-rate schedules: {', '.join(parts)}.",
            "",
        ]
    return lines
