from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kronos.checkpoint import trained_until
from kronos.training import card
from kronos.training.card import latest, render, write_card
from kronos.training.config import TrainingConfig

SETTINGS = {
    "lookback": 90,
    "horizon": 11,
    **{name: getattr(TrainingConfig(Path("out")), name) for name in card.SHOWN},
}


def record(until: str | None = "2019-12-31", **changes: Any) -> dict[str, Any]:
    """What training writes beside weights."""
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


def test_the_card_tells_data_settings_and_losses() -> None:
    text = render("mine", {"tokenizer": record(), "predictor": record()})
    assert text.startswith(
        "---\ntrained_until: 2019-12-31\ntags: [time-series, finance, kronos]\n---\n\n# mine\n"
    )
    for part in (
        "No bar after **2019-12-31** had any part in these weights.",
        "## Tokenizer",
        "## Predictor",
        "168,918 parameters, from `kronos-nano`, trained by kronos-strategies 0.1.0 at commit `0123456789ab`.",
        "| CSI 300 | 312 | 1,234,567 | 2005-01-04 to 2019-12-31 | 2018-12-28 |  | `abababababababab` |",
        "| NIFTY 50 | 312 | 1,234,567 | 2005-01-04 to 2019-12-31 | 2018-12-28 | 2019-12-31 |",
        "Windows of 90 bars, which alone set the scale, and 11 behind them; max_steps 2000, batch_size 64,",
        "| step 400 | |",
        "| val_loss | 0.23457 |",
    ):
        assert part in text
    assert "dropout" not in text  # as in the weights' own config
    assert "from random weights" in render("mine", {"tokenizer": record(origin=None)})


def test_the_card_tells_what_the_weights_to_start_from_achieved() -> None:
    start = {"step": 0, "val_loss": 0.3456789}
    better = render("mine", {"tokenizer": record(start=start)})
    assert "The weights that training started from have a held-out loss of 0.34568.\n" in better
    none = render("mine", {"tokenizer": record(start=start, step=0, losses=start)})
    assert "0.34568; no later validation was better, so these are those weights.\n" in none
    assert "started from have" not in render("mine", {"tokenizer": record()})


def test_a_part_that_was_not_trained_here_says_where_it_is_from() -> None:
    text = render(
        "mine",
        {
            "tokenizer": {"origin": "kronos-nano", "sha256": "cd" * 32, "trained_until": "2019-12-31"},
            "predictor": record("2022-12-30"),
        },
    )
    assert "## Tokenizer\n\nFrom `kronos-nano`, sha256 `cdcdcdcdcdcdcdcd`, as it is." in text
    assert "trained_until: 2022-12-30" in text


def test_one_part_of_which_nothing_is_known_leaves_the_date_open() -> None:
    text = render("mine", {"tokenizer": record(None), "predictor": record("2022-12-30")})
    assert "trained_until" not in text
    assert "is not known, so neither is the last date" in text


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
