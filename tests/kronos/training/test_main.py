from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from kronos.predictor import KronosPredictor
from kronos.training.__main__ import app, train_both
from kronos.utils import run_command
from kronos.windows import Windows
from tests.kronos.builders import make_bars, make_model, make_tokenizer
from tests.kronos.training.builders import PREDICTOR, TOKENIZER, write_bars

pytestmark = pytest.mark.integration

SETTINGS = {
    "pretrained": "none",
    "tokenizer_size": vars(TOKENIZER),
    "predictor_size": vars(PREDICTOR),
    "train_until": "2024-05-31",
    "validate_until": "2024-12-31",
    "lookback": 16,
    "horizon": 4,
    "batch_size": 8,
    "device": "cpu",
    "stages": {"tokenizer": {"max_steps": 4}, "predictor": {"max_steps": 3}},
}


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """Flags of a short run."""
    bars = write_bars(tmp_path / "bars.parquet", make_bars(160, 0), make_bars(160, 1))
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    given = {"config": tmp_path / "settings.yaml", "data": bars, "output": tmp_path / "out"}
    return [str(part) for name, value in given.items() for part in (f"--{name}", value)]


def succeeds(*tokens: str) -> None:
    """Run a command line to its end."""
    with pytest.raises(SystemExit) as stop:
        run_command(app, tokens)
    assert not stop.value.code


def fails(capsys: pytest.CaptureFixture[str], *tokens: str) -> str:
    """Error output of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        run_command(app, tokens)
    assert stop.value.code == 2
    return capsys.readouterr().err


def steps(output: Path, part: str) -> int:
    return json.loads((output / "last" / part / "training.json").read_text())["step"]


def test_both_stages_run_to_a_pair_that_forecasts_and_is_scored(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    succeeds("tokenizer", *flags)
    succeeds("predictor", *flags, "--max-steps", "2")
    pair = tmp_path / "out" / "best"
    assert (steps(tmp_path / "out", "tokenizer"), steps(tmp_path / "out", "predictor")) == (4, 2)
    predictor = KronosPredictor.from_pretrained(pair, device="cpu")
    forecast = predictor.forecast(Windows.rolling({"A": make_bars(20)}, 16, 3, "B"))
    assert np.isfinite(forecast.paths).all()

    capsys.readouterr()
    spans = ("--train-until", "2024-06-10", "--start", "2024-07-01", "--end", "2024-08-01")
    bars = str(tmp_path / "bars.parquet")
    succeeds("evaluate", str(pair), "--train", bars, "--data", bars, *spans)
    scores = json.loads(capsys.readouterr().out)
    dates = make_bars(160).index
    ends = 2 * ((dates >= "2024-07-01") & (dates <= "2024-08-01")).sum()
    assert scores["nll"]["s1"]["kronos"] == pytest.approx(np.log(16), rel=0.5)  # barely trained: near chance
    assert scores["tokens"] == ends * 11  # the horizon of a window that ends with every one of them


def test_both_stages_at_once_take_their_own_settings(flags: list[str], tmp_path: Path) -> None:
    train_both(flags)
    assert (steps(tmp_path / "out", "tokenizer"), steps(tmp_path / "out", "predictor")) == (4, 3)


def test_both_stages_are_resumed_with_more_steps_of_the_predictor_alone(
    flags: list[str], tmp_path: Path
) -> None:
    train_both([*flags, "--patience", "1"])
    output = tmp_path / "out"
    tokenizer = steps(output, "tokenizer")
    train_both([*flags, "--resume", "--max-steps", "9", "--patience", "0"])
    assert (steps(output, "tokenizer"), steps(output, "predictor")) == (tokenizer, 9)


def test_each_stage_starts_from_weights_of_its_own(flags: list[str], tmp_path: Path) -> None:
    tokenizer = make_tokenizer(s1_bits=4, s2_bits=4).save_pretrained(tmp_path / "Tokenizer-mine")
    predictor = make_model(s1_bits=4, s2_bits=4).save_pretrained(tmp_path / "mine")
    plain = {name: value for name, value in SETTINGS.items() if not name.endswith("_size")}
    settings = plain | {"pretrained": str(predictor)}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(
        ValueError, match=r"mine contains a predictor, but no tokenizer.*`stages: tokenizer:`"
    ):
        train_both(flags)
    assert not (tmp_path / "out").exists()
    settings["stages"] = {
        "tokenizer": {"max_steps": 2, "pretrained": str(tokenizer)},
        "predictor": {"max_steps": 2},
    }
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    train_both(flags)
    for part, start in (("tokenizer", tokenizer), ("predictor", predictor)):
        assert json.loads((tmp_path / "out" / "last" / part / "training.json").read_text())["origin"] == str(
            start
        )


def test_neither_stage_begins_if_the_second_has_a_mistake(flags: list[str], tmp_path: Path) -> None:
    wrong = SETTINGS | {"stages": {"predictor": {"dropout": 2}}}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(ValueError, match=r"dropout=2\.0 is not a share"):
        train_both(flags)
    assert not (tmp_path / "out").exists()


def test_help_answers_without_torch() -> None:
    script = (
        "import sys\nfrom kronos.training.__main__ import app\n"
        "for stage in ('tokenizer', 'predictor', 'evaluate'):\n"
        "    try: app([stage, '--help'])\n"
        "    except SystemExit: pass\n"
        "sys.exit(f'{heavy}' if (heavy := {'torch', 'accelerate', 'matplotlib'} & set(sys.modules)) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("For example: python -m kronos.training") == 3
    for flag in ("--learning-rate", "--resume", "--no-compile", "--sources"):
        assert (flag in done.stdout) == (flag in ("--learning-rate", "--resume"))


def test_every_setting_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    app(["predictor", "--help"], result_action="return_value")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for sentence in (
        "YAML file of settings; flags override it.",
        "number of optimizer steps in the learning-rate schedule. [default: 2000]",
        "[choices: onecycle, cosine]",
        "tokenizer of the second stage: output directory of a first stage",
    ):
        assert sentence in text


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (["--data", "nowhere.parquet"], "nowhere.parquet is neither a file nor a folder of bars."),
        (["--data", "{bad}"], "bad.csv lacks the columns ['high', 'low', 'close']"),
        (["--train-until", "soon"], "train_until='soon' is not a date. Write it like 2018-12-31."),
        (
            ["--validate-until", "2000-01-01"],
            "validate_until=2000-01-01 is not after train_until=2024-05-31.",
        ),
        (["--train-until", "2024-12-30"], "There is no validation window"),
        (["--market", "csi300", "--batch-siez", "3"], "--batch-siez"),
        (["--batch-size", "many"], "--batch-size"),
        (["--batch-size", "4096"], "training windows are fewer than one batch of 4096."),
        (["--schedule", "linear"], "linear"),
        (["--frequency", "2h"], "frequency=2h has no cleaning rule. Choose one of ['auto', '1min'"),
        (
            ["--lookback", "300"],
            "bars has no segment of 304 clean bars (lookback + horizon); the longest has 160.",
        ),
        (["--train-until", "2030-01-01", "--validate-until", "2031-01-01"], "trains until 2030-01-01"),
        (["--train-until", "2024-01-05"], "has no window of 20 bars that ends by train_until=2024-01-05."),
        (["--config", "nowhere.yaml"], "nowhere.yaml is not a file. Check --config."),
        (
            ["--pretrained", "unknown/missing"],
            "Sizes are set, but those of pretrained=unknown/missing are fixed.",
        ),
        (["--learning-rate", "1e30"], "Lower the learning rate."),
        (["surplus"], "surplus"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    tokens: list[str],
    says: str,
    flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("date,open\n2024-01-02,3\n")
    kept = list(flags)
    for flag in ("--config", "--data"):
        if flag in tokens:
            del kept[kept.index(flag) : kept.index(flag) + 2]
    error = fails(capsys, "tokenizer", *kept, *(token.format(bad="bad.csv") for token in tokens))
    assert says in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (["--train-until", "soon"], "train_until='soon' is not a date."),
        (["--start", "2030-01-01", "--end", "2031-01-01"], "have no window that ends in 2030-01-01 to"),
        (["--frequency", "tick"], "frequency=tick has no cleaning rule."),
        (["--data", "nowhere.csv"], "nowhere.csv is neither a file nor a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_scoring_is_one_sentence_and_exit_code_2(
    tokens: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bars = str(write_bars(tmp_path / "bars.parquet", make_bars(160)))
    given = {"--train": bars, "--data": bars, "--train-until": "2024-06-10"}
    given |= {"--start": "2024-07-01", "--end": "2024-08-01"} | dict(
        zip(tokens[::2], tokens[1::2], strict=True)
    )
    error = fails(capsys, "evaluate", "kronos-nano", *(part for pair in given.items() for part in pair))
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_the_module_is_a_command_that_fails_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kronos.training", "tokenizer", "--output", "out", "--data", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nowhere is neither a file nor a folder of bars. Check the path." in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
