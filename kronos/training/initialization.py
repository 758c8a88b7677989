"""Where a stage starts: its network, with random or pretrained weights, and the tokenizer that it keeps."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kronos.checkpoint import (
    CONFIG,
    SAMPLING,
    UPSTREAM_TOKENIZERS,
    WEIGHTS,
    hash_weights,
    resolve,
    resolve_tokenizer,
    trained_until,
)
from kronos.config import ModelConfig, TokenizerConfig
from kronos.head import HeadInfo
from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer
from kronos.training.bar_array import HORIZONS, LABEL
from kronos.training.config import RANDOM_WEIGHTS, STAGES, Stage, TrainingConfig
from kronos.training.model_card import RECORD
from kronos.training.objectives import RankHead
from kronos.utils import write_atomic


class FrozenTokenizer(NamedTuple):
    """The tokenizer of a second stage: how it was specified, and its folder."""

    spec: str | Path
    folder: Path


_Size = TypeVar("_Size", TokenizerConfig, ModelConfig)


# The sizes of kronos-nano, for random initial weights.
TOKENIZER_SIZE = TokenizerConfig(d_model=128, ff_dim=256, s1_bits=10, s2_bits=10)


PREDICTOR_SIZE = ModelConfig(d_model=128, n_layers=5, n_heads=4, ff_dim=384)


def weights_to_start_from(stage: Stage, config: TrainingConfig) -> str | None:
    """The checkpoint of a stage's initial weights; None for random weights."""
    if config.pretrained == RANDOM_WEIGHTS:
        return None
    # Upstream's predictors and tokenizers have different ids.
    return (
        UPSTREAM_TOKENIZERS.get(config.pretrained, config.pretrained)
        if stage == "tokenizer"
        else config.pretrained
    )


def check_start(stage: Stage, config: TrainingConfig) -> None:
    """Require that `pretrained` contains a network of this stage.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it contains only the other stage's network.
    """
    spec = weights_to_start_from(stage, config)
    if spec is None or _holds(spec, stage):
        return
    if stage == "tokenizer":
        raise ValueError(
            f"pretrained={spec} contains a predictor, but no tokenizer for the first stage. Set pretrained under "
            "`stages: tokenizer:` in the YAML file to the initial tokenizer, or train only the second stage with "
            "an existing tokenizer: `kronos train predictor --tokenizer ...`."
        )
    raise ValueError(
        f"pretrained={spec} contains a tokenizer, but no predictor for the second stage. Set pretrained under "
        "`stages: predictor:` in the YAML file to the initial predictor, or to none for random weights."
    )


def check_starts(tokenizer: TrainingConfig, predictor: TrainingConfig) -> None:
    """Require initial networks of both stages with the same token sizes, before the first one is trained.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it contains only the other stage's network, or the token sizes differ.
    """
    check_start("tokenizer", tokenizer)
    check_start("predictor", predictor)
    first, second = _bits("tokenizer", tokenizer), _bits("predictor", predictor)
    if first and second and first != second:
        raise ValueError(
            f"The initial tokenizer has tokens of {first[0]} + {first[1]} bits, the predictor of "
            f"{second[0]} + {second[1]}. Set pretrained under `stages:` in the YAML file to matching ones."
        )


def start_tokenizer(config: TrainingConfig) -> KronosTokenizer:
    """The tokenizer to train, with its initial weights and dropout."""
    spec = weights_to_start_from("tokenizer", config)
    if spec is None:
        return KronosTokenizer(_with_dropout(config.tokenizer_size or TOKENIZER_SIZE, config))
    found = KronosTokenizer.from_pretrained(spec)
    network = KronosTokenizer(_with_dropout(found.config, config))
    network.load_state_dict(found.state_dict())
    return network


def start_predictor(config: TrainingConfig, tokenizer: Path) -> Kronos:
    """The predictor to train, with its initial weights and dropout.

    Raises:
        ValueError: its token sizes differ from those of the tokenizer in that folder.
    """
    bits = KronosTokenizer.from_pretrained(tokenizer).quantizer.split
    if config.pretrained == RANDOM_WEIGHTS:
        size = config.predictor_size or replace(PREDICTOR_SIZE, s1_bits=bits[0], s2_bits=bits[1])
        network = Kronos(_with_dropout(size, config))
    else:
        found = Kronos.from_pretrained(config.pretrained)
        network = Kronos(_with_dropout(found.config, config))
        network.load_state_dict(found.state_dict())
    own = network.config.s1_bits, network.config.s2_bits
    if own != bits:
        raise ValueError(
            f"The predictor has tokens of {own[0]} + {own[1]} bits, the tokenizer in {tokenizer} of {bits[0]} + "
            f"{bits[1]}. Choose matching ones."
        )
    return network


def start_head(
    config: TrainingConfig, network: Kronos, trained_until: str | None, frequency: str
) -> RankHead | None:
    """The return head to train with a predictor, initialized from that of the initial weights if there is one.

    None if no source has a head, or its weight in the objective is 0.
    """
    sources = [source for source in config.all_sources() if source.head]
    if not sources or not config.head_weight:
        return None
    markets = tuple(source.label for source in sources)
    width = network.config.d_model
    head = RankHead(HeadInfo(width, HORIZONS, LABEL, config.lookback, frequency, markets, trained_until))
    if config.pretrained != RANDOM_WEIGHTS:
        head.load(resolve(config.pretrained, "predictor"))
    return head


def find_tokenizer(config: TrainingConfig) -> FrozenTokenizer:
    """The tokenizer of the second stage.

    Raises:
        FileNotFoundError: there is none, or none at `config.tokenizer`.
    """
    spec: str | Path
    own = config.output / "best"
    if config.tokenizer is not None:
        best = Path(config.tokenizer).expanduser() / "best"  # output directory of a first stage
        spec = best if (best / "tokenizer").is_dir() else config.tokenizer
    elif (own / "tokenizer").is_dir():
        spec = own
    elif config.pretrained != RANDOM_WEIGHTS:
        spec = resolve_tokenizer(config.pretrained)
    else:
        raise FileNotFoundError(
            f"{own} contains no tokenizer. Train the first stage with the same --output, or pass --tokenizer."
        )
    return FrozenTokenizer(spec, resolve(spec, "tokenizer"))


def check_output_tokenizer(frozen: FrozenTokenizer, output: Path) -> None:
    """Require that the tokenizer in an output directory, if there is one, is the given one.

    Raises:
        FileExistsError: it is another tokenizer.
    """
    own = output / "best" / "tokenizer"
    if (own / WEIGHTS).is_file() and hash_weights(own) != hash_weights(frozen.folder):
        raise FileExistsError(f"{own} is another tokenizer than {frozen.spec}. Choose another --output.")


def copy_tokenizer(frozen: FrozenTokenizer, output: Path) -> None:
    """Copy the tokenizer next to its predictor, so that best and last are pairs; last had a later tokenizer."""
    tokenizer = frozen.folder
    for which in ("best", "last"):
        target = output / which / "tokenizer"
        if target.resolve() == tokenizer.resolve():
            continue
        target.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, WEIGHTS):
            _write_new(target / name, (tokenizer / name).read_bytes())
        record = tokenizer / RECORD
        if record.is_file():
            _write_new(target / RECORD, record.read_bytes())
            continue
        known = trained_until(frozen.spec, "tokenizer")
        origin = {"origin": str(frozen.spec), "sha256": hash_weights(tokenizer), "trained_until": known}
        _write_new(target / RECORD, (json.dumps(origin, indent=1) + "\n").encode())


def _write_new(path: Path, content: bytes) -> None:
    """Write a file, unless it has this content: a finished run that is resumed changes nothing."""
    if not path.is_file() or path.read_bytes() != content:
        write_atomic(path, content)


def copy_sampling_config(config: TrainingConfig) -> None:
    """Copy the sampling settings of the initial weights, until others are chosen."""
    if config.pretrained == RANDOM_WEIGHTS:
        return
    known = resolve(config.pretrained, "predictor") / SAMPLING
    for which in ("best", "last"):
        target = config.output / which / "predictor"
        if known.is_file():
            target.mkdir(parents=True, exist_ok=True)
            write_atomic(target / SAMPLING, known.read_bytes())


def _bits(stage: Stage, config: TrainingConfig) -> tuple[int, int] | None:
    """Bits of the two halves of a token; None if unknown: random predictors use those of their tokenizer."""
    spec = weights_to_start_from(stage, config)
    if spec is not None:
        values = _sizes(resolve(spec, stage))
        return (values["s1_bits"], values["s2_bits"]) if {"s1_bits", "s2_bits"} <= values.keys() else None
    size = config.predictor_size if stage == "predictor" else config.tokenizer_size or TOKENIZER_SIZE
    return None if size is None else (size.s1_bits, size.s2_bits)


def _holds(spec: str, stage: Stage) -> bool:
    """Whether an existing checkpoint contains a stage's network."""
    try:
        values = _sizes(resolve(spec, stage))
    except FileNotFoundError:
        # A folder with only the other stage, such as `best` after a first stage.
        if any((Path(spec).expanduser() / other / CONFIG).is_file() for other in STAGES):
            return False
        raise
    return not values or ("n_enc_layers" in values) == (
        stage == "tokenizer"
    )  # only a tokenizer has an encoder


def _sizes(folder: Path) -> dict[str, Any]:
    """The config of a network; empty if it is invalid, which `from_pretrained` reports."""
    try:
        values = json.loads((folder / CONFIG).read_text())
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _with_dropout(size: _Size, config: TrainingConfig) -> _Size:
    """The config with another dropout of feed-forward, residual and token; attention keeps its own."""
    token = config.dropout if config.token_dropout is None else config.token_dropout
    wanted = {"ffn_dropout_p": config.dropout, "resid_dropout_p": config.dropout, "token_dropout_p": token}
    known = {field.name for field in fields(size)}
    changed = {name: p for name, p in wanted.items() if p is not None and name in known}
    return replace(size, **changed)  # type: ignore[arg-type]
