"""What a source of bars held, what cleaning took from it and why: for the log, for errors and for model cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kronos.training.clean import MAX_PAUSE, REASONS, RULES, CleaningReport

SEVERAL = "several frequencies"  # as `inferred`: instruments differ

_ADVICE = {
    "no price": "Fill in the prices that are missing or not positive",
    "illiquid": "Leave out the volume column if volume is not recorded, or choose series that trade more often",
    "stagnant": "Choose series whose price moves more often",
    "pause": "Choose series without such pauses",
    "gap": "Adjust prices for splits, e.g. by a column factor",
    "short": "Give longer series",
}


@dataclass(frozen=True)
class Ledger:
    """What a tape holds.

    Attributes:
        name: of the source.
        instruments: that have a clean stretch.
        segments: unbroken stretches.
        bars_read: of the source.
        bars: that are left after cleaning.
        start: first date, ISO.
        end: last date, ISO.
        sha256: of all bars, their dates and where stretches end.
        frequency: whose cleaning rule was used.
        inferred: the frequency that the timestamps have; where there is no rule for it, the distance between bars.
        cleaning: what cleaning took.
        notes: what was understood of the files, a line each.
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
    """A reason for cleaning in words, with its limit."""
    rule = RULES[frequency]
    return {
        "no price": "no positive price",
        "illiquid": f"no volume for more than {_count(rule.max_illiquid, 'bar')}",
        "stagnant": f"unchanged close for more than {_count(rule.max_stagnant, 'bar')}",
        "pause": f"pause of more than {f'{MAX_PAUSE.days} days' if inferred in RULES else '2 bars'}",
        "gap": f"open more than {rule.max_gap:.0%} from the last close",
        "short": f"stretch of fewer than {_count(min_bars, 'bar')}",
    }[reason]


def frequency_text(frequency: str, inferred: str) -> str:
    """Both frequencies of a source: that of its timestamps, and that of its cleaning rule."""
    text = f"bars of {inferred} by their timestamps, cleaned by the rule for {frequency}"
    if inferred == frequency:
        return text
    return f"{text}, as given" if inferred in (*RULES, SEVERAL) else f"{text} (there is none for {inferred})"


def cleaning_table(ledger: Ledger, min_bars: int, training: int, validation: int) -> str:
    """The table that training prints for a source: bars read, dropped for each reason, left, and their windows."""
    report, rows = ledger.cleaning, [("", "places", "bars"), ("read", "", f"{ledger.bars_read:,}")]
    for reason in REASONS:
        if places := report.places.get(reason, 0):
            text = reason_text(reason, ledger.frequency, ledger.inferred, min_bars)
            rows.append(
                (text, f"{places:,}", f"{-report.bars[reason]:,}" if reason in report.bars else "cut")
            )
    rows += [
        (f"left ({_count(ledger.instruments, 'instrument')})", f"{ledger.segments:,}", f"{ledger.bars:,}"),
        ("training windows", "", f"{training:,}"),
        ("validation windows", "", f"{validation:,}"),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
    head = (
        f"{ledger.name}, {ledger.start} to {ledger.end}: {frequency_text(ledger.frequency, ledger.inferred)}"
    )
    return "\n".join([head, *(f"  {note}" for note in ledger.notes), *lines])


def cleaning_sentence(source: Mapping[str, Any]) -> str | None:
    """The same in one sentence for a model card, from a record's entry; None where an old record has no such."""
    if "cleaning" not in source:
        return None
    dropped = source["cleaning"]["bars"]
    parts = ", ".join(f"{reason} {dropped[reason]:,}" for reason in REASONS if dropped.get(reason))
    cuts = source["cleaning"]["places"]
    cut = ", ".join(f"{name}s {cuts[name]:,}" for name in ("pause", "gap") if cuts.get(name))
    head = f"{source['name']}: {frequency_text(source['frequency'], source['inferred'])}"
    counts = f"{source['bars_read']:,} bars read; dropped: {parts or 'none'}; cut at: {cut or 'no place'}"
    return f"{head}. {counts}; {_count(source['segments'], 'stretch')} left."


def no_stretch(
    name: str, read: int, min_bars: int, report: CleaningReport, frequency: str, inferred: str
) -> str:
    """The error where cleaning leaves nothing to train on: which rule took most, and what to do."""
    if not read:
        return f"{name} has no bars. Check its path, instruments, start and end."
    most = max(report.lost, key=lambda reason: report.lost[reason])
    text = f"{name} has no stretch of {min_bars} clean bars (lookback + horizon); "
    text += f"the longest has {report.longest}. "
    advice = _ADVICE[most]
    if most != "short":
        rule = reason_text(most, frequency, inferred, min_bars)
        text += f"Of {read:,} bars the rule '{rule}' took most, {report.lost[most]:,}: "
        text += f"{frequency_text(frequency, inferred)}. "
        if inferred in RULES and inferred != frequency:
            advice = f"Leave out frequency={frequency}"
    return f"{text}{advice}, or lower --lookback or --horizon."


def _count(number: int, noun: str) -> str:
    many = "es" if noun.endswith("ch") else "s"
    return f"{number:,} {noun}{many * (number != 1)}"
