from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos.checkpoint import trained_until
from kronos.training import model_card
from kronos.training.bar_array import MappedBars
from kronos.training.config import Source, TrainingConfig
from kronos.training.model_card import (
    DatasetInfo,
    cleaning_sentence,
    cleaning_table,
    frequency_text,
    latest,
    render,
    write_card,
)
from kronos.training.sources import CleaningReport
from tests.kronos.builders import make_bars
from tests.kronos.training.builders import write_bars

REPORT = CleaningReport(
    places={"no price": 3, "illiquid": 2, "stagnant": 4, "pause": 1, "gap": 2, "short": 9},
    bars={"no price": 3, "illiquid": 1200, "stagnant": 52, "short": 410},
)
INFO = DatasetInfo(
    "five_min", 1, 12, 13152, 11487, "2024-01-02", "2024-06-28", "0" * 64, "5min", "5min", REPORT
)


def test_the_table_has_a_line_for_each_rule_that_took_or_cut_something() -> None:
    assert cleaning_table(INFO, 101, 8000, 1900).splitlines() == [
        "five_min, 2024-01-02 to 2024-06-28: bars of 5min by their timestamps, cleaned by the rule for 5min",
        "                                              places    bars",
        "  read                                                13,152",
        "  no positive price                                3      -3",
        "  no volume for more than 3 bars                   2  -1,200",
        "  unchanged close for more than 10 bars            4     -52",
        "  pause of more than 15 days                       1     cut",
        "  open more than 15% from the previous close       2     cut",
        "  segment of fewer than 101 bars                   9    -410",
        "  left (1 instrument)                             12  11,487",
        "  training windows                                     8,000",
        "  validation windows                                   1,900",
    ]


@pytest.mark.parametrize(
    ("used", "inferred", "ends"),
    [
        ("5min", "5min", "by their timestamps, cleaned by the rule for 5min"),
        ("1day", "5min", "bars of 5min by their timestamps, cleaned by the rule for 1day, as set"),
        ("4h", "2h", "bars of 2h by their timestamps, cleaned by the rule for 4h (there is no rule for 2h)"),
    ],
)
def test_both_frequencies_are_reported(used: str, inferred: str, ends: str) -> None:
    assert frequency_text(used, inferred).endswith(ends)


def test_a_card_says_in_one_sentence_what_cleaning_took() -> None:
    assert cleaning_sentence(asdict(INFO)) == (
        "five_min: bars of 5min by their timestamps, cleaned by the rule for 5min. 13,152 bars read; dropped: "
        "no price 3, illiquid 1,200, stagnant 52, short 410; cuts: pauses 1, gaps 2; 12 segments left."
    )
    assert cleaning_sentence({"name": "an old record"}) is None


def test_a_cached_bar_array_has_the_info_of_the_original(tmp_path: Path) -> None:
    bars = make_bars(120)
    bars.iloc[60:, :4] *= 2
    bars.iloc[30, 0] = np.nan
    source = Source(write_bars(tmp_path / "bars.parquet", bars))
    made, found = (MappedBars.open(source, 20).info for _ in range(2))
    assert made == found
    assert made.cleaning.places == {"no price": 1, "gap": 1}
    assert "open more than 30% from the previous close" in cleaning_table(found, 20, 1, 1)


def kinds(bars: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Bars that one rule takes apart."""
    if kind == "gap":
        bars.iloc[::2, :4] *= 2
    elif kind == "stagnant":
        bars[["open", "high", "low", "close"]] = 10.0
    elif kind == "illiquid":
        bars.iloc[:-1, 4] = 0.0
    elif kind == "no price":
        bars.iloc[::7, 2] = np.nan
    return bars


@pytest.mark.parametrize(
    ("kind", "frequency", "says"),
    [
        (
            "gap",
            "auto",
            ["'open more than 30% from the previous close' removed most, 40:", "Adjust prices for splits"],
        ),
        (
            "stagnant",
            "auto",
            ["'unchanged close for more than 3 bars' removed most, 40:", "changes more often"],
        ),
        (
            "illiquid",
            "auto",
            ["'no volume for more than 1 bar' removed most, 40:", "Drop the volume column"],
        ),
        ("no price", "auto", ["'no positive price' removed most, 40:", "Fill the prices"]),
        (
            "stagnant",
            "5min",
            ["by their timestamps, cleaned by the rule for 5min, as set", "Remove frequency=5min"],
        ),
        ("short", "auto", ["the longest has 40. Pass longer series, or lower --lookback or --horizon."]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_nothing_is_left_the_error_names_the_rule_that_took_most_and_what_to_do(
    kind: str, frequency: str, says: list[str], tmp_path: Path
) -> None:
    file = write_bars(tmp_path / "bars.csv", kinds(make_bars(40), kind))
    with pytest.raises(
        ValueError, match=r"^bars has no segment of 50 clean bars \(lookback \+ horizon\)"
    ) as error:
        MappedBars.open(Source(file, frequency=frequency), 50)
    for part in says:
        assert part in str(error.value)


SETTINGS = {
    "lookback": 90,
    "horizon": 11,
    **{name: getattr(TrainingConfig(Path("out")), name) for name in model_card.SHOWN},
}


def record(until: str | None = "2019-12-31", **changes: Any) -> dict[str, Any]:
    """The record that training writes in addition to weights."""
    source = {"name": "CSI 300", "instruments": 312, "bars": 1234567, "start": "2005-01-04"}
    source |= {"end": "2019-12-31", "train_until": "2018-12-28", "validate_until": None, "sha256": "ab" * 32}
    return {
        "origin": "kronos-nano",
        "parameters": 168918,
        "data": [source, source | {"name": "NIFTY 50", "validate_until": "2019-12-31"}],
        "trained_until": until,
        "settings": SETTINGS,
        "version": "0.1.0",
        "commit": "0123456789abcdef+",
        "step": 400,
        "losses": {"step": 400, "train_loss": 0.123456, "val_loss": 0.234567},
    } | changes


def test_the_card_contains_data_settings_and_losses() -> None:
    text = render("mine", {"tokenizer": record(), "predictor": record()})
    assert text.startswith(
        "---\ntrained_until: 2019-12-31\ntags: [time-series, finance, kronos]\n---\n\n# mine\n"
    )
    for part in (
        "No bar after **2019-12-31** was used for these weights.",
        "## Tokenizer",
        "## Predictor",
        "168,918 parameters, from `kronos-nano`, trained by kronos-strategies 0.1.0 at commit `0123456789ab`.",
        "| CSI 300 | 312 | 1,234,567 | 2005-01-04 to 2019-12-31 | 2018-12-28 |  | `abababababababab` |",
        "| NIFTY 50 | 312 | 1,234,567 | 2005-01-04 to 2019-12-31 | 2018-12-28 | 2019-12-31 |",
        "Windows of 90 bars, which determine the scale, and 11 after them; max_steps 2000, batch_size 64,",
        "| step 400 | |",
        "| val_loss | 0.23457 |",
    ):
        assert part in text
    assert " dropout " not in text  # as in the weights' own config
    assert "from random weights" in render("mine", {"tokenizer": record(origin=None)})


def test_the_card_contains_the_loss_of_the_initial_weights() -> None:
    start = {"step": 0, "val_loss": 0.3456789}
    better = render("mine", {"tokenizer": record(start=start)})
    assert "The initial weights have a validation loss of 0.34568.\n" in better
    none = render("mine", {"tokenizer": record(start=start, step=0, losses=start)})
    assert "0.34568; no later validation was better, so these are the initial weights.\n" in none
    assert "initial weights have" not in render("mine", {"tokenizer": record()})


def test_a_part_that_was_not_trained_here_says_where_it_is_from() -> None:
    text = render(
        "mine",
        {
            "tokenizer": {"origin": "kronos-nano", "sha256": "cd" * 32, "trained_until": "2019-12-31"},
            "predictor": record("2022-12-30"),
        },
    )
    assert "## Tokenizer\n\nFrom `kronos-nano`, sha256 `cdcdcdcdcdcdcdcd`, unchanged." in text
    assert "trained_until: 2022-12-30" in text


def test_one_part_without_a_date_leaves_the_date_unknown() -> None:
    text = render("mine", {"tokenizer": record(None), "predictor": record("2022-12-30")})
    assert "trained_until" not in text
    assert "is unknown, and so is the last date" in text


@pytest.mark.parametrize(
    ("dates", "last"),
    [
        (["2019-12-31", "2022-01-03", "2020-01-01"], "2022-01-03"),
        (["2019-12-31", None], None),
        ([None], None),
        ([], None),
    ],
)
def test_the_last_date_is_known_if_all_are(dates: list[str | None], last: str | None) -> None:
    assert latest(dates) == last


def test_a_card_is_written_from_the_records_and_read_by_from_pretrained(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "best"
    for part, until in (("tokenizer", "2019-12-31"), ("predictor", "2022-12-30")):
        (folder / part).mkdir(parents=True)
        (folder / part / "training.json").write_text(json.dumps(record(until)))
        (folder / part / "config.json").write_text("{}")
        (folder / part / "model.safetensors").write_bytes(b"")
        write_card(folder)
        assert trained_until(folder, part) == until  # of the parts that are there, the last
    assert "# run\n" in (folder / "README.md").read_text()
