"""ReturnHead: a model's last hidden state -> expected cross-sectional ranks of returns.

Its input is the output of `KronosPredictor.embed`. A head that is trained jointly with the predictor is in its
folder (`predictor/head.json`, `predictor/head.safetensors`); one that is fitted on a frozen checkpoint has its
own folder, whose head.json names that checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from kronos.config import PRETRAINED
from kronos.utils import MissingExtra, explain_write_errors, write_atomic

HEAD_INFO, HEAD_WEIGHTS = "head.json", "head.safetensors"
TREES = "head-{horizon}.{seed}.txt"  # LightGBM's text format, one file per horizon and seed
KINDS = ("linear", "ridge", "lightgbm")  # linear: trained jointly with the predictor


@dataclass(frozen=True)
class HeadInfo:
    """What a head was trained for.

    Attributes:
        d_model: width of the hidden state.
        horizons: holding period of each output, in bars from close(t + 1).
        label: description of the label whose expectation an output is.
        lookback: bars per training window.
        frequency: frequency of the bars.
        markets: names of the training sources.
        trained_until: last date of its training and validation data (ISO); None if unknown.
        kind: "linear" (trained together with the predictor), "ridge" or "lightgbm" (on a frozen one).
        checkpoint: for a head in its own folder, the checkpoint whose hidden state it reads.
        weights_sha256: sha256 of that checkpoint's weights; None for a head in the predictor's folder.
        figures: validation metrics by name.
    """

    d_model: int
    horizons: tuple[int, ...]
    label: str
    lookback: int
    frequency: str = "1day"
    markets: tuple[str, ...] = ()
    trained_until: str | None = None
    kind: str = "linear"
    checkpoint: str | None = None
    weights_sha256: str | None = None
    figures: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind='{self.kind}' is unknown. Choose one of {list(KINDS)}.")
        if not self.horizons or min(self.horizons) < 1 or len(set(self.horizons)) < len(self.horizons):
            raise ValueError(
                f"horizons={list(self.horizons)} are not valid. Give different numbers of bars, 1 or more."
            )


class ReturnHead:
    """Expected ranks of forward returns, from hidden states.

    An output is the expected rank of a return among the instruments of its date, in [-0.5, 0.5] * sqrt(12): 0 is
    the middle of the market, and only differences between instruments of one date are meaningful.

    Args:
        info: targets, data and checkpoint of its training.
        weight: (K, d_model) float32 weights of a linear head, one row per horizon.
        bias: (K,) float32.
        trees: for a LightGBM head, one text model per seed by horizon; their outputs are averaged.
        name: name in reports and messages.

    Raises:
        ValueError: weights and `info` do not fit.
    """

    def __init__(
        self,
        info: HeadInfo,
        weight: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        trees: Mapping[int, tuple[str, ...]] | None = None,
        name: str = "head",
    ) -> None:
        self.info, self.name = info, name
        self.weight, self.bias = weight, bias
        self.trees = dict(trees or {})
        self._boosters: dict[int, list[Any]] = {}
        self._content: dict[str, bytes] = {}  # of the files it was loaded from, so that its hash is theirs
        _check_fit(self)

    def __call__(self, hidden: np.ndarray) -> np.ndarray:
        """(N, d_model) hidden states -> (N, K) float32, one column per `info.horizons`.

        Raises:
            ValueError: hidden states of another width.
        """
        if hidden.ndim != 2 or hidden.shape[1] != self.info.d_model:
            raise ValueError(
                f"The hidden states have shape {hidden.shape}, but {self.name} reads (N, {self.info.d_model}). "
                "Embed with the checkpoint that it was trained on."
            )
        if self.weight is not None and self.bias is not None:
            # Row by row, since rounding in a matrix product depends on the shape of the batch.
            linear: np.ndarray = np.einsum("nd,kd->nk", hidden.astype(np.float64), self.weight) + self.bias
            return linear.astype(np.float32)
        columns = [
            np.mean([booster.predict(hidden, num_threads=1) for booster in self._models(horizon)], axis=0)
            for horizon in self.info.horizons
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    @cached_property
    def sha256(self) -> str:
        """sha256 of the weights in hexadecimal: of head.safetensors, or of all text models in order."""
        digest = hashlib.sha256()
        for _, content in sorted(self._weight_files().items()):
            digest.update(content)
        return digest.hexdigest()

    def save(self, folder: str | Path) -> Path:
        """Write head.json and the weights; replaces an earlier head in the folder.

        Without head.json there is no head: it is removed first and written last, so that a process that is killed
        leaves a whole head or none.

        Raises:
            OSError: the folder cannot be written, e.g. because the disk is full.
        """
        folder = Path(folder)
        with explain_write_errors(folder, "Choose another folder for the head."):
            folder.mkdir(parents=True, exist_ok=True)
            for old in (folder / HEAD_INFO, folder / HEAD_WEIGHTS, *folder.glob("head-*.*.txt")):
                old.unlink(missing_ok=True)
            for name, content in self._weight_files().items():
                write_atomic(folder / name, content)
            write_atomic(folder / HEAD_INFO, json.dumps(asdict(self.info), indent=1) + "\n")
        return folder

    @classmethod
    def from_pretrained(cls, spec: str | Path, name: str | None = None) -> ReturnHead:
        """Load the head of a bundled checkpoint, of a pair's folder, or from its own folder.

        Args:
            spec: bundled name or folder.
            name: name in reports; the last part of `spec` when omitted.

        Raises:
            FileNotFoundError: there is none; says how to get one.
            ValueError: its files are inconsistent.
        """
        folder = find_head(spec)
        if folder is None:
            raise FileNotFoundError(
                f"'{spec}' has no {HEAD_INFO}, so no return head. Fit one with `kronos train head {spec} ...`, or "
                "pass a checkpoint or a folder that has one."
            )
        info = _read_info(folder / HEAD_INFO)
        name = name or Path(spec).expanduser().resolve().name
        if info.kind == "lightgbm":
            return cls(info, trees=_read_trees(folder, info), name=name)
        head = cls(info, *_read_linear(folder / HEAD_WEIGHTS), name=name)
        head._content = {HEAD_WEIGHTS: (folder / HEAD_WEIGHTS).read_bytes()}
        return head

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_boosters": {}}  # rebuilt from their text

    def _weight_files(self) -> dict[str, bytes]:
        if self._content:
            return self._content
        if self.weight is not None and self.bias is not None:
            arrays = {"rank.bias": self.bias, "rank.weight": self.weight}
            return {HEAD_WEIGHTS: save(arrays, metadata={"format": "pt"})}
        return {
            TREES.format(horizon=horizon, seed=seed): text.encode()
            for horizon, texts in self.trees.items()
            for seed, text in enumerate(texts)
        }

    def _models(self, horizon: int) -> list[Any]:
        if horizon not in self._boosters:
            booster = import_lightgbm().Booster
            self._boosters[horizon] = [booster(model_str=text) for text in self.trees[horizon]]
        return self._boosters[horizon]


def find_head(spec: str | Path) -> Path | None:
    """The folder with the head.json of a bundled name, a pair, a predictor or a head; None without one."""
    path = Path(spec).expanduser()
    places = (PRETRAINED / str(spec) / "predictor", path / "predictor", path)
    return next((place for place in places if (place / HEAD_INFO).is_file()), None)


def import_lightgbm() -> Any:
    """Import LightGBM, which only models made of its trees need.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtra("This needs LightGBM: pip install 'kronos-strategies[head]'") from error
    return lightgbm


def _read_info(file: Path) -> HeadInfo:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        known = {field.name for field in fields(HeadInfo)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"it has unknown keys {unknown}")
        lists = {name: tuple(values[name]) for name in ("horizons", "markets") if name in values}
        return HeadInfo(**values | lists)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{file} does not describe a head ({error}). Download or fit the head again."
        ) from None


def _read_linear(file: Path) -> tuple[np.ndarray, np.ndarray]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing next to its {HEAD_INFO}. Download or fit the head again.")
    try:
        arrays = load(file.read_bytes())
        return arrays["rank.weight"].astype(np.float32), arrays["rank.bias"].astype(np.float32)
    except (SafetensorError, KeyError) as error:
        raise ValueError(
            f"{file} does not contain a head ({error}). Download or fit the head again."
        ) from None


def _read_trees(folder: Path, info: HeadInfo) -> dict[int, tuple[str, ...]]:
    trees = {}
    for horizon in info.horizons:
        files = [folder / TREES.format(horizon=horizon, seed=seed) for seed in range(100)]
        trees[horizon] = tuple(file.read_bytes().decode() for file in files if file.is_file())
        if not trees[horizon]:
            raise FileNotFoundError(f"{files[0]} is missing. Download or fit the head again.")
    return trees


def _check_fit(head: ReturnHead) -> None:
    info = head.info
    if info.kind == "lightgbm":
        if set(head.trees) != set(info.horizons):
            raise ValueError(
                f"{head.name} has trees for {sorted(head.trees)} bars, its {HEAD_INFO} says {list(info.horizons)}."
            )
        return
    shape = None if head.weight is None else head.weight.shape
    bias = None if head.bias is None else head.bias.shape
    wanted = (len(info.horizons), info.d_model)
    if shape != wanted or bias != wanted[:1]:
        raise ValueError(
            f"{head.name} has weights of shape {shape} and {bias}, but its {HEAD_INFO} requires {wanted} and "
            f"{wanted[:1]}. Download or fit the head again."
        )
