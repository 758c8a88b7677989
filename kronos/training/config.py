"""Settings of one stage of training: one frozen dataclass, in YAML or as command-line flags.

A YAML file contains the fields of `TrainingConfig`; values under `stages:` apply to one stage only. Command-line
flags override both.
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
from kronos.utils import load_yaml

Stage = Literal["tokenizer", "predictor"]
STAGES: tuple[Stage, ...] = ("tokenizer", "predictor")
RANDOM_WEIGHTS = "none"  # as `pretrained`: start from random weights


@Parameter(name="*")
@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one stage of training.

    Attributes:
        output: output directory: best/ and last/ with the stage's weights, run/ with losses and state.
        sources: training data, each with the fields of `Source`; in YAML only.
        data: a single source instead: a Qlib data directory, a CSV or parquet file, or a folder of such files.
            Without any source the simulated market is used.
        market: universe of the Qlib data directory in `data` whose members to learn from.
        frequency: frequency of the bars for the cleaning rules, if a source does not set it: 1min, 5min, 15min,
            30min, 60min, 4h, 1day or 1week; auto infers it from the timestamps.
        train_until: last date of training windows; by default 80 % of each source's span.
        validate_from: first date of the horizons of validation windows; the day after `train_until` if omitted.
        validate_until: last date of validation windows, whose horizons start after `train_until`.
        lookback: number of bars that determine the scale of a window.
        horizon: number of bars after the lookback.
        volume_dropout: share of training windows whose volume and amount are set to 0.
        pretrained: bundled name, folder or hub id of the initial weights; `none` for random ones, with the sizes in
            tokenizer_size and predictor_size in YAML, else those of kronos-nano.
        tokenizer: tokenizer of the second stage: output directory of a first stage, bundled name, folder or hub
            id; by default that in `output`, else that of `pretrained`.
        tokenizer_size: size of a tokenizer with random initial weights.
        predictor_size: size of a predictor with random initial weights.
        dropout: dropout of feed-forward, residual and token embedding; that of the initial weights' config if
            omitted.
        token_dropout: dropout of the token embedding, if different from `dropout`.
        column_weights: weights of the tokenizer's squared errors by feature, 1 if omitted; scaled to mean 1.
        lookback_weight: weight of the predictor's positions before the last bar of the lookback; later ones have 1.
            Through the scale, positions within the lookback contain information about later bars.
        token_weight: weight of the token loss in the predictor's objective; 0 trains a head without the language.
        head_weight: weight of the return head's squared error in the objective; 0 trains no head.
        ema: decay of the moving average of the weights that is validated and saved; 0 saves the weights themselves.
        max_steps: number of optimizer steps in the learning-rate schedule.
        stop_after: stop after this number of steps without changing the schedule; 0 trains to `max_steps`.
        batch_size: windows per step, over all processes.
        accumulate: number of parts that a batch is processed in, to save memory. The tokenizer's codebook entropy
            is then computed per part.
        learning_rate: peak, after the warm-up.
        schedule: onecycle rises from a tenth of the peak and falls to 0, both as a cosine; cosine rises linearly.
        warmup: share of the steps in which the learning rate rises.
        weight_decay: weight decay of AdamW, on matrices only.
        clip_norm: maximum norm of the gradient.
        validate_every: number of steps between validations.
        validation_windows: number of validation windows.
        rank_dates: number of validation dates of each source with a head for its RankIC.
        select_by: criterion of `best`: the lowest validation loss, the highest volatility-neutral RankIC, or
            both, the loss minus the RankIC. Without a head it is the loss.
        patience: stop after this number of validations without improvement; 0 never stops early.
        save_every: number of steps between saved states, from which `--resume` continues; 0: at every validation.
        seed: seed of shuffling, initial weights and dropout.
        precision: dtype of matrix products; bfloat16 uses autocast.
        device: auto uses an accelerator if available.
        compile: compile the network first, for long runs.
        workers: number of processes that load windows; 0 loads them in this process.
        data_on_device: keep all bars on the accelerator and extract windows there; auto does so if they need less
            than half of its free memory.
        tracker: tensorboard or mlflow; its files are in run/.
        resume: continue from the last saved state in `output`.
        overwrite: replace an earlier result in `output`.
    """

    output: Path
    sources: Annotated[tuple[Source, ...], Parameter(show=False)] = ()
    data: Path | None = None
    market: str = "all"
    frequency: str = AUTO
    train_until: str | None = None
    validate_from: str | None = None
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
    token_weight: float = 1.0
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
            raise ValueError(
                "Some sources have a weight and some do not. Set it for all of them, or for none."
            )
        labels = [source.label for source in self.sources]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"Two sources are named {twice[0]}. Give each a different name.")
        if self.data is not None and self.sources:
            raise ValueError("Both --data and sources are set. Keep one of them.")
        check_frequency(self.frequency)
        if self.frequency != AUTO and self.data is None and not self.sources:
            raise ValueError(f"frequency={self.frequency} is set, but no bars. Set --data or sources, too.")
        if self.pretrained != RANDOM_WEIGHTS and (self.tokenizer_size or self.predictor_size):
            raise ValueError(
                f"Sizes are set, but those of pretrained={self.pretrained} are fixed. Set pretrained: "
                f"{RANDOM_WEIGHTS} to start from random weights."
            )
        if self.resume and self.overwrite:
            raise ValueError("Both --resume and --overwrite are set. Keep one of them.")
        for source in self.sources or (None,):
            train, validate = self.until(source)
            if (
                train
                and validate
                and parse_date("train_until", train) >= parse_date("validate_until", validate)
            ):
                raise ValueError(
                    f"validate_until={validate} is not after train_until={train}. Leave dates between them for "
                    "validation."
                )

            if train and self.validate_from and self.validate_from <= train:
                raise ValueError(
                    f"validate_from={self.validate_from} is not after train_until={train}. Validate on later dates."
                )

    @property
    def last_step(self) -> int:
        """Step at which training ends."""
        return min(self.stop_after or self.max_steps, self.max_steps)

    @property
    def window_length(self) -> int:
        """Number of bars per window, `lookback + horizon`."""
        return self.lookback + self.horizon

    def all_sources(self) -> tuple[Source, ...]:
        """All sources with their dates and frequencies; empty for the simulated market."""
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
        """Last dates of training and of validation windows of a source."""
        own = (source.train_until, source.validate_until) if source else (None, None)
        return own[0] or self.train_until, own[1] or self.validate_until


def read_yaml(file: Path, stage: Stage) -> dict[str, Any]:
    """The settings of one stage: common ones, overridden by those under `stages:`; expands $NAME variables.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, or not a mapping of settings.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file. Check --config.")
    try:
        values = load_yaml(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError for impossible dates and characters
        raise ValueError(f"{file} is not YAML ({' '.join(str(error).split())}). Fix it.") from None
    stages = values.pop("stages", None) if isinstance(values, dict) else None
    if not isinstance(values, dict) or not isinstance(stages or {}, dict):
        raise ValueError(f"{file} is not a mapping of settings. Write lines like `max_steps: 2000`.")
    if unknown := sorted(set(stages or {}) - set(STAGES)):
        raise ValueError(f"{file} has unknown stages {unknown}. Known ones are {list(STAGES)}.")
    own = (stages or {}).get(stage) or {}
    if not isinstance(own, dict):
        raise ValueError(
            f"{file} has no mapping of settings under stages: {stage}. Write lines like `max_steps: 2000`."
        )
    # YAML parses unquoted dates, but settings are text. Empty values are ignored.
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
            raise ValueError(f"{name}={getattr(config, name)} is too small. Pass at least {smallest}.")
    for name in ("learning_rate", "clip_norm"):
        if not getattr(config, name) > 0:
            raise ValueError(f"{name}={getattr(config, name)} is not positive. Pass a positive number.")
    for name in ("warmup", "volume_dropout", "dropout", "token_dropout", "ema"):
        value = getattr(config, name)
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"{name}={value} is not a share. Pass a number in [0, 1).")
    for name in ("weight_decay", "lookback_weight", "token_weight", "head_weight"):
        if not getattr(config, name) >= 0:
            raise ValueError(f"{name}={getattr(config, name)} is negative. Pass 0 or more.")
    _check_columns(config.column_weights)
    if config.batch_size % config.accumulate:
        raise ValueError(
            f"batch_size={config.batch_size} does not split into accumulate={config.accumulate} equal parts. "
            "Choose a multiple."
        )
    for name in ("train_until", "validate_from", "validate_until"):
        if (text := getattr(config, name)) is not None:
            parse_date(name, text)


def _check_columns(weights: dict[str, float]) -> None:
    if unknown := sorted(set(weights) - set(FEATURES)):
        raise ValueError(f"column_weights has unknown names {unknown}. Known ones are {list(FEATURES)}.")
    filled = [weights.get(name, 1.0) for name in FEATURES]
    if not min(filled) >= 0 or not sum(filled) > 0:
        raise ValueError(
            f"column_weights={weights} are not weights. Pass 0 or more, and one of them above 0."
        )
