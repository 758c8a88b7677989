"""LightGBM quantile regression on Alpha158 features as a forecaster: "lightgbm-quantiles:FOLDER".

One booster for each step and level predicts a quantile of the log return from the last close, in units of the
window's own volatility times the square root of the step, so that one model serves calm and volatile instruments.
Steps between two fitted ones are interpolated. A folder has text and JSON only; nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from kronos.bars import CLOSE
from kronos.head import import_lightgbm
from kronos.paths import trailing_volatility
from kronos.utils import explain_write_errors, write_atomic
from kronos.windows import Windows
from kronos_strategies.forecasters.alpha158 import NAMES, alpha158
from kronos_strategies.forecasters.base import PathForecaster, settings_sha256
from kronos_strategies.forecasters.candles import paths_from_quantiles
from kronos_strategies.forecasters.registry import ForecasterName, read_settings

KIND = "lightgbm-quantiles"
INFO = "quantiles.json"
TREES = "quantile-{step}-{level}.txt"  # LightGBM's text format
VERSION = 1  # of features and targets: a model of another version cannot be read


@dataclass(frozen=True)
class QuantileInfo:
    """Training data and settings of quantile models.

    Attributes:
        steps: bars ahead, ascending, one booster for each of them and each level.
        levels: quantile levels, ascending, in (0, 1).
        lookback: bars per training window.
        markets: names of the training markets.
        trained_until: last date of the training and validation data (ISO).
        features: names of the features.
        pinball: mean pinball loss on the validation dates by step: "model", and "constant", that of constant
            quantiles in the same units; a model that does not beat them has found nothing in the features.
        version: version of features and targets.

    Raises:
        ValueError: steps, levels, features or version are not valid.
    """

    steps: tuple[int, ...]
    levels: tuple[float, ...]
    lookback: int
    markets: tuple[str, ...]
    trained_until: str
    features: tuple[str, ...] = NAMES
    pinball: Mapping[str, Mapping[str, float]] | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1 or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(
                f"steps={list(self.steps)} are not valid. Pass ascending numbers of bars, 1 or more."
            )
        inside = [0 < level < 1 for level in self.levels]
        if len(self.levels) < 2 or not all(inside) or list(self.levels) != sorted(set(self.levels)):
            raise ValueError(
                f"levels={list(self.levels)} are not valid. Pass at least two, ascending, between 0 and 1."
            )
        if self.version != VERSION or self.features != NAMES:
            raise ValueError(
                "the models were fitted on other features than this version computes. Fit them again."
            )


class LightGBMQuantiles(PathForecaster):
    """Boosters that were fitted by `fit_quantiles`.

    Args:
        info: what they were fitted on.
        trees: text model by (step, level).
        name: name that loads them again.

    Raises:
        ValueError: a booster is missing or cannot be read.
        MissingExtra: LightGBM is not installed.
    """

    def __init__(self, info: QuantileInfo, trees: Mapping[tuple[int, float], str], name: str = KIND) -> None:
        self.info, self.trees = info, dict(trees)
        self._boosters = _read_boosters(info, self.trees)
        super().__init__(name, self._digest(), trained_until=info.trained_until)

    def sample(self, windows: Windows, uniforms: np.ndarray) -> np.ndarray:
        """See `PathForecaster.sample`.

        Raises:
            ValueError: the horizon is longer than the last fitted step.
        """
        quantiles = self.quantiles(windows)
        return paths_from_quantiles(windows, quantiles, np.array(self.info.levels), uniforms)

    def quantiles(self, windows: Windows) -> np.ndarray:
        """(N, H, Q) quantiles of the log of close over last close, not yet sorted by level.

        Raises:
            ValueError: the horizon is longer than the last fitted step.
        """
        steps, horizon = self.info.steps, windows.horizon
        if horizon > steps[-1]:
            raise ValueError(
                f"horizon={horizon} is longer than the {steps[-1]} bars that {self.name} was fitted for. Pass at "
                f"most {steps[-1]}, or fit a longer step: `kronos train quantiles --steps ... {horizon}`."
            )
        features = alpha158(windows)
        fitted = np.stack(
            [[booster.predict(features, num_threads=1) for booster in row] for row in self._boosters]
        )  # (K, Q, N)
        ahead = np.arange(1, horizon + 1)
        # Before the first fitted step, its quantiles hold; their unit grows with the square root of the step.
        right = np.searchsorted(steps, ahead)
        left = np.maximum(right - 1, 0)
        span = np.maximum(np.array(steps)[right] - np.array(steps)[left], 1)
        weight = ((ahead - np.array(steps)[left]) / span).clip(0, 1)[:, None, None]
        between = (1 - weight) * fitted[left] + weight * fitted[right]  # (H, Q, N)
        return np.moveaxis(between, 2, 0) * unit_of_returns(windows, horizon)[..., None]

    def save(self, folder: str | Path) -> Path:
        """Write quantiles.json and the text models; replaces earlier ones in the folder.

        Without quantiles.json there is no model: it is removed first and written last.

        Raises:
            OSError: the folder cannot be written, e.g. because the disk is full.
        """
        folder = Path(folder)
        with explain_write_errors(folder, "Choose another folder for the quantile models."):
            folder.mkdir(parents=True, exist_ok=True)
            for old in (folder / INFO, *folder.glob(TREES.format(step="*", level="*"))):
                old.unlink(missing_ok=True)
            for (step, level), text in self.trees.items():
                write_atomic(folder / TREES.format(step=step, level=level), text)
            write_atomic(folder / INFO, json.dumps(asdict(self.info), indent=1) + "\n")
        return folder

    @classmethod
    def from_pretrained(cls, folder: str | Path, name: str | None = None) -> LightGBMQuantiles:
        """Load a folder that `save` has written.

        Args:
            folder: the folder.
            name: name that loads it again; that of the folder when omitted.

        Raises:
            FileNotFoundError: it has no quantile models; says how to get some.
            ValueError: its files are inconsistent.
        """
        path = Path(folder).expanduser()
        if not (path / INFO).is_file():
            raise FileNotFoundError(
                f"'{folder}' has no {INFO}, so no quantile models. Fit some with `kronos train quantiles --output "
                f"{folder} ...`."
            )
        info = _read_info(path / INFO)
        files = {
            (step, level): path / TREES.format(step=step, level=level)
            for step in info.steps
            for level in info.levels
        }
        if absent := [file.name for file in files.values() if not file.is_file()]:
            raise ValueError(
                f"{path} lacks {len(absent)} of its models, the first {absent[0]}. Fit them again."
            )
        trees = {key: file.read_text(encoding="utf-8") for key, file in files.items()}
        return cls(info, trees, name or f"{KIND}:{folder}")

    def _digest(self) -> str:
        models = [
            f"{step} {level} {hashlib.sha256(text.encode()).hexdigest()}"
            for (step, level), text in sorted(self.trees.items())
        ]
        return settings_sha256(
            models=models, version=self.info.version, package=f"lightgbm {version('lightgbm')}"
        )


def load(name: ForecasterName, device: str | None = None) -> LightGBMQuantiles:
    """The forecaster of a name, e.g. `parse_name("lightgbm-quantiles:out/quantiles")`; it runs on the CPU.

    Raises:
        FileNotFoundError: the folder has no quantile models.
        ValueError: its files are inconsistent, or a setting is given.
    """
    read_settings(_NoSettings(), name)
    return LightGBMQuantiles.from_pretrained(name.which, str(name))


def unit_of_returns(windows: Windows, horizon: int) -> np.ndarray:
    """(N, H) unit of the log returns from the last close: trailing volatility times the square root of the step.

    Trailing volatility is that of `kronos.paths.trailing_volatility`, of 20 log returns; 0 where it is unknown.
    """
    deviation = trailing_volatility(windows.bars[:, CLOSE], windows.end_positions, windows.lengths)
    known = np.nan_to_num(deviation.astype(np.float64))
    unit: np.ndarray = known[:, None] * np.sqrt(np.arange(1, horizon + 1))
    return unit


@dataclass(frozen=True)
class _NoSettings:
    """The name of a folder says all."""


def _read_info(file: Path) -> QuantileInfo:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        known = {field.name for field in fields(QuantileInfo)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"it has unknown keys {unknown}")
        parts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return QuantileInfo(**parts)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} does not describe quantile models: {error} Fit them again with `kronos train quantiles`."
        ) from error


def _read_boosters(info: QuantileInfo, trees: Mapping[tuple[int, float], str]) -> list[list[Any]]:
    """Boosters by step and level."""
    lightgbm = import_lightgbm()
    found: list[list[Any]] = []
    for step in info.steps:
        row = []
        for level in info.levels:
            if (step, level) not in trees:
                raise ValueError(f"There is no model of step {step} and level {level}. Fit it.")
            try:
                row.append(lightgbm.Booster(model_str=trees[step, level]))
            except lightgbm.basic.LightGBMError as error:
                raise ValueError(
                    f"The model of step {step} and level {level} is not a text of LightGBM ({error}). Fit it again."
                ) from None
        found.append(row)
    return found
