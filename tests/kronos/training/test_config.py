from __future__ import annotations

from pathlib import Path

import pytest

from kronos.config import ModelConfig, TokenizerConfig
from kronos.training.__main__ import app
from kronos.training.config import Source, Stage, TrainingConfig, read_yaml

YAML = """
output: out/here
pretrained: none
train_until: 2018-12-31
validate_until: 2019-12-31
max_steps: 10
learning_rate: 1e-3
seed: 7
patience:
predictor_size: {d_model: 32, n_layers: 1, n_heads: 2, ff_dim: 24, s1_bits: 4, s2_bits: 4}
sources:
  - {path: a.parquet, name: A, weight: 3, instruments: [SH600000, "000001"], fields: {amount: money}}
  - path: b.csv
    weight: 1
    frequency: 5min
    start: 2020-01-01
    end: 2024-03-31
    train_until: 2024-02-29
    validate_until: 2024-03-31
    market:
stages:
  tokenizer:
    max_steps: 20
  predictor:
    max_steps: 30
    dropout: 0.1
"""


def parse(stage: Stage, folder: Path, text: str, *flags: str) -> TrainingConfig:
    """The settings that a command line stands for, with a YAML file."""
    file = folder / "settings.yaml"
    file.write_text(text)
    tokens = [stage, "--config", str(file), *flags]
    _, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    return bound.arguments["settings"]


# YAML and flags


def test_a_flag_wins_over_a_stage_and_a_stage_over_the_rest(tmp_path: Path) -> None:
    for stage, steps in (("tokenizer", 20), ("predictor", 30)):
        assert parse(stage, tmp_path, YAML).max_steps == steps
        assert parse(stage, tmp_path, YAML, "--max-steps", "40").max_steps == 40
        assert parse(stage, tmp_path, YAML).seed == 7
    assert parse("tokenizer", tmp_path, YAML).dropout is None
    assert parse("predictor", tmp_path, YAML).dropout == 0.1
    assert parse("predictor", tmp_path, "output: out\nmax_steps: 10").max_steps == 10
    assert parse("predictor", tmp_path, "output: out").max_steps == TrainingConfig(Path("out")).max_steps


def test_a_file_and_flags_give_the_same_settings(tmp_path: Path) -> None:
    text = "output: out\ndata: bars.csv\nlearning_rate: 1e-3\nschedule: cosine\ncompile: true\nresume: yes"
    flags = ["--output", "out", "--data", "bars.csv", "--learning-rate", "1e-3", "--schedule", "cosine"]
    written = parse("tokenizer", tmp_path, text)
    assert written == parse("tokenizer", tmp_path, "", *flags, "--compile", "--resume")
    assert written.compile
    assert written.learning_rate == 0.001
    assert written.output == Path("out")


def test_dates_need_no_quotes_and_an_empty_value_is_one_that_is_not_given(tmp_path: Path) -> None:
    settings = parse("tokenizer", tmp_path, YAML)
    assert (settings.train_until, settings.validate_until) == ("2018-12-31", "2019-12-31")
    assert settings.patience == TrainingConfig(Path("out")).patience
    assert (settings.sources[1].start, settings.sources[1].market) == ("2020-01-01", "all")


def test_sources_and_sizes_are_read_as_such(tmp_path: Path) -> None:
    settings = parse("predictor", tmp_path, YAML)
    fields = {"amount": "money"}
    assert settings.sources == (
        Source(Path("a.parquet"), "A", weight=3.0, instruments=("SH600000", "000001"), fields=fields),
        Source(
            Path("b.csv"),
            frequency="5min",
            start="2020-01-01",
            end="2024-03-31",
            train_until="2024-02-29",
            validate_until="2024-03-31",
            weight=1.0,
        ),
    )
    assert settings.predictor_size == ModelConfig(4, 4, n_layers=1, d_model=32, n_heads=2, ff_dim=24)


def test_a_frequency_is_for_the_sources_that_have_none_of_their_own(tmp_path: Path) -> None:
    def frequencies(*flags: str) -> list[str]:
        return [
            source.frequency for source in parse("tokenizer", tmp_path, "output: out", *flags).all_sources()
        ]

    assert frequencies("--data", "a.csv") == ["auto"]
    assert frequencies("--data", "a.csv", "--frequency", "15min") == ["15min"]
    found = parse("tokenizer", tmp_path, YAML + "\nfrequency: 60min").all_sources()
    assert [source.frequency for source in found] == ["60min", "5min"]
    with pytest.raises(
        ValueError, match=r"frequency=5min is set, but no bars\. Set --data or sources, too\."
    ):
        frequencies("--frequency", "5min")


def test_values_may_name_variables_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRONOS_TEST_DATA", "/data")
    text = 'output: out\nsources: [{path: "${KRONOS_TEST_DATA}/a.csv"}]'
    assert parse("tokenizer", tmp_path, text).sources[0].path == Path("/data/a.csv")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("output: out\nmax_stepz: 3", "max_stepz"),
        ("output: out\nsources: [{path: a.csv, weigth: 3}]", "weigth"),
        ("output: out\npretrained: none\ntokenizer_size: {d_modell: 3}", "d_modell"),
        ("output: out\nstages: {predictor: {lerning_rate: 3}}", "lerning_rate"),
        (
            "output: out\nstages: {tokeniser: {seed: 3}}",
            r"has unknown stages \['tokeniser'\]\. Known ones are",
        ),
        ("output: out\nschedule: linear", "linear"),
        ("output: out\nmax_steps: many", "many"),
        ("- output", r"settings\.yaml is not a mapping of settings\. Write lines like"),
        ("stages: [1]", "mapping of settings"),
        ("output: {", r"settings\.yaml is not YAML \(.*\)\. Fix it\."),
        ("max_steps: 3", "--output"),
    ],
    ids=lambda value: value.replace("\n", ", ")[:40],
)
def test_a_mistake_in_a_file_is_refused_by_name(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=says) as caught:
        parse("predictor", tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_the_other_stage_does_not_matter(tmp_path: Path) -> None:
    text = "output: out\nstages: {predictor: {lerning_rate: 3}}"
    assert parse("tokenizer", tmp_path, text).output == Path("out")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml is not a file\. Check --config\."):
        read_yaml(tmp_path / "nowhere.yaml", "tokenizer")


# Checks


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lookback": 1}, "lookback=1 is too small. Pass at least 2."),
        ({"ema": 1.0}, "ema=1.0 is not a share. Pass a number in [0, 1)."),
        ({"lookback_weight": -0.1}, "lookback_weight=-0.1 is negative. Pass 0 or more."),
        ({"token_weight": -1.0}, "token_weight=-1.0 is negative. Pass 0 or more."),
        ({"head_weight": float("nan")}, "head_weight=nan is negative. Pass 0 or more."),
        (
            {"column_weights": {"vwap": 1.0}},
            "column_weights has unknown names ['vwap']. Known ones are ['open', 'high',",
        ),
        ({"column_weights": {"close": -1.0}}, "are not weights. Pass 0 or more, and one of them above 0."),
        ({"stop_after": -1}, "stop_after=-1 is too small. Pass at least 0."),
        *(
            ({name: 0}, f"{name}=0 is too small. Pass at least 1.")
            for name in ("horizon", "max_steps", "batch_size", "accumulate", "validate_every")
        ),
        ({"validation_windows": 0}, "validation_windows=0 is too small."),
        *(
            ({name: -1}, f"{name}=-1 is too small. Pass at least 0.")
            for name in ("patience", "save_every", "seed", "workers")
        ),
        *(({name: 0.0}, f"{name}=0.0 is not positive.") for name in ("learning_rate", "clip_norm")),
        ({"learning_rate": float("nan")}, "learning_rate=nan is not positive."),
        *(({name: 1.0}, f"{name}=1.0 is not a share.") for name in ("warmup", "volume_dropout", "dropout")),
        ({"dropout": -0.1}, "dropout=-0.1 is not a share. Pass a number in [0, 1)."),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 is negative. Pass 0 or more."),
        (
            {"batch_size": 8, "accumulate": 3},
            "batch_size=8 does not split into accumulate=3 equal parts. Choose a multiple.",
        ),
        ({"train_until": "soon"}, "train_until='soon' is not a date. Write it like 2018-12-31."),
        ({"validate_until": "20191231"}, "validate_until='20191231' is not a date."),
        (
            {"train_until": "2019-12-31", "validate_until": "2019-12-31"},
            "validate_until=2019-12-31 is not after train_until=2019-12-31.",
        ),
        (
            {"train_until": "2018-12-31", "validate_from": "2018-12-31"},
            "validate_from=2018-12-31 is not after train_until=2018-12-31.",
        ),
        (
            {"sources": (Source(Path("a.csv"), train_until="2020-01-01"),), "validate_until": "2019-12-31"},
            "validate_until=2019-12-31 is not after train_until=2020-01-01.",
        ),
        ({"resume": True, "overwrite": True}, "Both --resume and --overwrite are set. Keep one of them."),
        (
            {"sources": (Source(Path("a.csv")),), "data": Path("b.csv")},
            "Both --data and sources are set. Keep one of them.",
        ),
        (
            {"sources": (Source(Path("a.csv"), weight=1.0), Source(Path("b.csv")))},
            "Some sources have a weight and some do not. Set it for all of them, or for none.",
        ),
        (
            {"sources": (Source(Path("x/a.csv")), Source(Path("y/a.parquet")))},
            "Two sources are named a. Give each a different name.",
        ),
        (
            {"tokenizer_size": TokenizerConfig()},
            "Sizes are set, but those of pretrained=kronos-nano are fixed. Set pretrained: none",
        ),
        ({"predictor_size": ModelConfig()}, "Sizes are set, but those of pretrained=kronos-nano"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_invalid_settings_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (compared below)
        TrainingConfig(Path("out"), **settings)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"frequency": "tick"},
            "frequency=tick has no cleaning rule. Choose one of ['auto', '1min', '5min',",
        ),
        ({"weight": 0.0}, "weight=0.0 of bars.csv is not positive. Pass a positive weight."),
        ({"weight": float("nan")}, "weight=nan of bars.csv is not positive."),
        (
            {"fields": {"amuont": "money"}},
            "fields of bars.csv has unknown names ['amuont']. Known ones are ['instrument', ",
        ),
        *(
            ({name: "12/31/2018"}, f"{name}='12/31/2018' is not a date.")
            for name in ("start", "end", "train_until", "validate_until")
        ),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_invalid_sources_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (compared below)
        Source(Path("bars.csv"), **settings)
    assert says in str(caught.value)


# Sources


def test_a_store_is_the_only_source_and_its_absence_means_the_simulated_market() -> None:
    assert TrainingConfig(Path("out")).all_sources() == ()
    settings = TrainingConfig(Path("out"), data=Path("csi"), market="csi300", validate_until="2019-12-31")
    # who joined the market later must not be chosen
    assert settings.all_sources() == (Source(Path("csi"), market="csi300", validate_until="2019-12-31"),)


def test_the_dates_of_a_source_override_those_of_all() -> None:
    sources = Source(Path("a.csv")), Source(Path("b.csv"), train_until="2017-12-31")
    settings = TrainingConfig(
        Path("out"), sources=sources, train_until="2018-12-31", validate_until="2019-12-31"
    )
    spans = [(source.train_until, source.validate_until) for source in settings.all_sources()]
    assert spans == [("2018-12-31", "2019-12-31"), ("2017-12-31", "2019-12-31")]
    assert spans == [settings.until(source) for source in sources]
    assert settings.until(None) == ("2018-12-31", "2019-12-31")


@pytest.mark.parametrize(
    ("path", "name", "label"),
    [("bars/sp500.v2.csv.gz", "", "sp500"), ("~/csi300", "", "csi300"), ("a.csv", "S&P 500", "S&P 500")],
)
def test_a_source_is_called_by_its_name_or_its_files(path: str, name: str, label: str) -> None:
    assert Source(Path(path), name).label == label


@pytest.mark.parametrize("stage", ["tokenizer", "predictor"])
def test_the_recipe_of_kronos_nano_is_valid(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRONOS_DATA", "/bars")
    recipe = Path(__file__).parents[3] / "configs" / "pretrain_nano.yaml"
    config = parse(stage, tmp_path, recipe.read_text(), "--output", str(tmp_path / "out"))
    assert (config.lookback, config.horizon, config.window_length) == (90, 17, 107)
    assert sum(source.weight for source in config.sources) == pytest.approx(1.0)
    assert [source.label for source in config.sources if source.head] == [
        "CSI 300",
        "NIFTY 50",
        "S&P 500",
        "US",
    ]
    assert config.sources[4].instruments == ("*@1d",)
    steps, batch = (3527, 768) if stage == "tokenizer" else (1400, 1024)
    assert (config.max_steps, config.batch_size, config.last_step) == (steps, batch, steps)
    assert config.column_weights["close"] == 3.0


def test_training_ends_with_its_schedule_or_before() -> None:
    assert TrainingConfig(Path("out"), max_steps=10).last_step == 10
    assert TrainingConfig(Path("out"), max_steps=10, stop_after=4).last_step == 4
    assert TrainingConfig(Path("out"), max_steps=10, stop_after=40).last_step == 10
