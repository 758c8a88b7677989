"""What one stage of training learns from, how long and how fast: one frozen dataclass, in YAML or as flags.

A YAML file holds the fields of `TrainingConfig`; under `stages:` it may give one stage other values than the
other. A flag of the command line wins over both. Knows no torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from cyclopts import Parameter

from kronos.bars import FEATURES
from kronos.config import ModelConfig, TokenizerConfig, check_numbers
from kronos.training.sources import AUTO, Source, check_frequency, parse_date

Stage = Literal["tokenizer", "predictor"]
STAGES: tuple[Stage, ...] = ("tokenizer", "predictor")
RANDOM_WEIGHTS = "none"  # as `pretrained`: start from random weights


@Parameter(name="*")
@dataclass(frozen=True)
class TrainingConfig:
    """One stage of training.

    Attributes:
        output: folder of the result: best/ and last/ with the stage's weights, run/ with its losses and state.
        sources: what to learn from, each with the fields of `Source`; in YAML only.
        data: one source instead: a Qlib store, a CSV or parquet file, or a folder of such. Without any source the
            simulated market is used.
        market: of a Qlib store given as `data`: whose members to learn from.
        frequency: of the bars, for the cleaning rules, where a source gives none itself: 1min, 5min, 15min, 30min,
            60min, 4h, 1day or 1week; auto infers it from the timestamps.
        train_until: last date of training windows; by default after 80 % of each source's span.
        validate_until: last date of validation windows, whose horizons start after `train_until`.
        lookback: bars that a window is scaled by.
        horizon: bars behind them.
        volume_dropout: share of training windows whose volume and amount are set to 0.
        pretrained: bundled name, folder or hub id whose weights to start from; `none` for random ones, of the sizes
            under tokenizer_size and predictor_size in YAML, else of those of kronos-nano.
        tokenizer: of the second stage: folder of a first stage, bundled name or hub id. Without one it is that in
            `output`, else that of `pretrained`.
        tokenizer_size: of a tokenizer that starts from random weights.
        predictor_size: of a predictor that starts from random weights.
        dropout: of feed-forward, residual and token; as in the weights' own config when omitted.
        token_dropout: of the token embedding, where it differs from `dropout`.
        column_weights: of the tokenizer's squared errors, by feature; 1 where omitted. They are scaled to mean 1.
        lookback_weight: of the predictor's positions before the last bar of the lookback; those after it weigh 1.
            Through the scale, positions inside the lookback know something of what follows.
        head_weight: of the return head's squared error beside the token loss; 0 trains no head.
        ema: decay of the moving average of the weights that is validated and saved; 0 saves the weights themselves.
        max_steps: optimizer steps, which the schedule spans.
        stop_after: stop after so many steps with the schedule as it is; 0 trains to `max_steps`.
        batch_size: windows of a step, over all processes.
        accumulate: parts of a batch that go through the network one after the other, to save memory. The
            tokenizer's codebook entropy is then taken part by part.
        learning_rate: at its peak, after the warm-up.
        schedule: onecycle rises from a tenth of the peak and falls to nothing, both as a cosine; cosine rises in a
            straight line.
        warmup: share of the steps.
        weight_decay: of AdamW, on matrices only.
        clip_norm: of the gradient.
        validate_every: steps between held-out losses.
        validation_windows: how many held-out windows to score.
        rank_dates: on how many held-out dates of each source with a head to take its RankIC.
        select_by: what chooses `best`: the lowest held-out loss, the highest RankIC beyond volatility, or both, the
            loss less the RankIC. Without a head it is the loss.
        patience: validations without a better one after which training stops; 0 never stops early.
        save_every: steps between states that `--resume` goes on from; as often as validation when 0.
        seed: of shuffling, initial weights and dropout.
        precision: of matrix products; bfloat16 by autocast.
        device: auto takes an accelerator where there is one.
        compile: compile the network first, for long runs.
        workers: processes that load windows; 0 loads them in this one.
        data_on_device: keep all bars on the accelerator and cut windows there; auto does so where they take less
            than half of its free memory.
        tracker: tensorboard or mlflow, kept in run/.
        resume: go on from the last saved state in `output`.
        overwrite: replace an earlier result in `output`.
    """

    output: Path
    sources: Annotated[tuple[Source, ...], Parameter(show=False)] = ()
    data: Path | None = None
    market: str = "all"
    frequency: str = AUTO
    train_until: str | None = None
    validate_until: str | None = None
    lookback: int = 90
    horizon: int = 11
    volume_dropout: float = 0.05
    pretrained: str = "kronos-nano"
    tokenizer: str | None = None
    tokenizer_size: Annotated[TokenizerConfig | None, Parameter(show=False)] = None
    predictor_size: Annotated[ModelConfig | None, Parameter(show=False)] = None
    dropout: float | None = None
    token_dropout: float | None = None
    column_weights: Annotated[dict[str, float], Parameter(show=False)] = field(
        default_factory=lambda: {"close": 3.0, "volume": 0.5, "amount": 0.5}
    )
    lookback_weight: float = 0.1
    head_weight: float = 1.0
    ema: float = 0.998
    max_steps: int = 2000
    stop_after: int = 0
    batch_size: int = 64
    accumulate: int = 1
    learning_rate: float = 2e-4
    schedule: Literal["onecycle", "cosine"] = "onecycle"
    warmup: float = 0.1
    weight_decay: float = 0.05
    clip_norm: float = 3.0
    validate_every: int = 100
    validation_windows: int = 1024
    rank_dates: int = 120
    select_by: Literal["loss", "rank", "both"] = "both"
    patience: int = 0
    save_every: int = 0
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu"] = "auto"
    compile: Annotated[bool, Parameter(negative="")] = False
    workers: int = 0
    data_on_device: Literal["auto", "on", "off"] = "auto"
    tracker: Literal["none", "tensorboard", "mlflow"] = "none"
    resume: Annotated[bool, Parameter(negative="")] = False
    overwrite: Annotated[bool, Parameter(negative="")] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", self.output.expanduser())
        check_numbers(self)
        _check_counts(self)
        if (weights := [s.weight for s in self.sources]) and None in weights and any(weights):
            raise ValueError("Some sources have a weight and some have none. Give all of them one, or none.")
        labels = [source.label for source in self.sources]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"Two sources are called {twice[0]}. Give each a name of its own.")
        if self.data is not None and self.sources:
            raise ValueError("Both --data and sources: give one of them.")
        check_frequency(self.frequency)
        if self.frequency != AUTO and self.data is None and not self.sources:
            raise ValueError(
                f"frequency={self.frequency} is given, but no bars. Give --data or sources, too."
            )
        if self.pretrained != RANDOM_WEIGHTS and (self.tokenizer_size or self.predictor_size):
            raise ValueError(
                f"Sizes are given, but those of pretrained={self.pretrained} are fixed. Set pretrained: "
                f"{RANDOM_WEIGHTS} to start from random weights."
            )
        if self.resume and self.overwrite:
            raise ValueError("Both --resume and --overwrite: give one of them.")
        for source in self.sources or (None,):
            train, validate = self.until(source)
            if (
                train
                and validate
                and parse_date("train_until", train) >= parse_date("validate_until", validate)
            ):
                raise ValueError(
                    f"validate_until={validate} is not after train_until={train}. Leave some dates between them to "
                    "validate on."
                )

    @property
    def last_step(self) -> int:
        """Where training ends."""
        return min(self.stop_after or self.max_steps, self.max_steps)

    @property
    def window_length(self) -> int:
        """Bars of a window."""
        return self.lookback + self.horizon

    def all_sources(self) -> tuple[Source, ...]:
        """What to learn from, each with its dates; nothing stands for the simulated market."""
        sources = self.sources if self.data is None else (Source(self.data, market=self.market),)
        dates = map(self.until, sources)
        return tuple(
            replace(
                source,
                train_until=train,
                validate_until=validate,
                frequency=self.frequency if source.frequency == AUTO else source.frequency,
            )
            for source, (train, validate) in zip(sources, dates, strict=True)
        )

    def until(self, source: Source | None) -> tuple[str | None, str | None]:
        """Last date of training and of validation windows of a source."""
        own = (source.train_until, source.validate_until) if source else (None, None)
        return own[0] or self.train_until, own[1] or self.validate_until


def read_yaml(file: Path, stage: Stage) -> dict[str, Any]:
    """The settings of one stage: those for all, and over them those under `stages:`; $NAME is of the environment.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, or not settings by name.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no file. Check --config.")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:  # an impossible date or character is the latter
        raise ValueError(f"{file} is not YAML ({' '.join(str(error).split())}). Mend it.") from None
    stages = values.pop("stages", None) if isinstance(values, dict) else None
    if not isinstance(values, dict) or not isinstance(stages or {}, dict):
        raise ValueError(f"{file} holds no settings by name. Write lines like `max_steps: 2000`.")
    if unknown := sorted(set(stages or {}) - set(STAGES)):
        raise ValueError(f"{file} has the stages {unknown}. Known ones are {list(STAGES)}.")
    own = (stages or {}).get(stage) or {}
    if not isinstance(own, dict):
        raise ValueError(f"{file} holds no settings by name under stages: {stage}. Write lines there, too.")
    # YAML reads an unquoted date as one; the settings want text. An empty value is one that is not given.
    return {key: _plain(value) for key, value in {**values, **own}.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return (
        value if isinstance(value, int | float | bool) else os.path.expanduser(os.path.expandvars(str(value)))
    )


def _check_counts(config: TrainingConfig) -> None:
    least = {"lookback": 2, "horizon": 1, "max_steps": 1, "batch_size": 1, "accumulate": 1}
    least |= {"validate_every": 1, "validation_windows": 1, "rank_dates": 1, "stop_after": 0}
    least |= {"patience": 0, "save_every": 0, "seed": 0, "workers": 0}
    for name, smallest in least.items():
        if getattr(config, name) < smallest:
            raise ValueError(f"{name}={getattr(config, name)} is too small. Give at least {smallest}.")
    for name in ("learning_rate", "clip_norm"):
        if not getattr(config, name) > 0:
            raise ValueError(f"{name}={getattr(config, name)} is not positive. Give a positive one.")
    for name in ("warmup", "volume_dropout", "dropout", "token_dropout", "ema"):
        value = getattr(config, name)
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"{name}={value} is no share. Give one in [0, 1).")
    for name in ("weight_decay", "lookback_weight", "head_weight"):
        if not getattr(config, name) >= 0:
            raise ValueError(f"{name}={getattr(config, name)} is negative. Give 0 or more.")
    _check_columns(config.column_weights)
    if config.batch_size % config.accumulate:
        raise ValueError(
            f"batch_size={config.batch_size} does not split into accumulate={config.accumulate} equal parts. "
            "Choose a multiple."
        )
    for name in ("train_until", "validate_until"):
        if (text := getattr(config, name)) is not None:
            parse_date(name, text)


def _check_columns(weights: dict[str, float]) -> None:
    if unknown := sorted(set(weights) - set(FEATURES)):
        raise ValueError(f"column_weights has {unknown}. It may have {list(FEATURES)}.")
    filled = [weights.get(name, 1.0) for name in FEATURES]
    if not min(filled) >= 0 or not sum(filled) > 0:
        raise ValueError(
            f"column_weights={weights} are not weights. Give 0 or more, and one of them above 0."
        )
