"""Foundation models of other origin: Chronos-2 and Chronos-Bolt ("chronos:...") and TiRex ("tirex:...").

They read the log closes of a window, relative to its last one, and give quantiles of the log close at each step,
from which `paths_from_quantiles` makes paths of candles. Opens, highs, lows, volume and amount are not read. The
packages come with extras of this project and are imported when a model is loaded; weights come from a folder or
the hub.
"""

from __future__ import annotations

import copy
import io
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kronos.bars import CLOSE
from kronos.checkpoint import CONFIG, WEIGHTS
from kronos.config import card_trained_until
from kronos.hub import HUB, download_checkpoint, hash_file
from kronos.inference.settings import default_torch_state, find_device
from kronos.utils import MissingExtra
from kronos.windows import Windows
from kronos_strategies.forecasters.base import PathForecaster, settings_sha256
from kronos_strategies.forecasters.candles import equal_lengths, paths_from_quantiles
from kronos_strategies.forecasters.registry import ForecasterName, read_settings

CPU_BATCH, ACCELERATOR_BATCH = 64, 512  # windows in one pass of the network

_log = logging.getLogger(__name__)


class QuantileNetwork(ABC):
    """A network that reads a series and gives quantiles of its next values.

    Attributes:
        files: what its checkpoint consists of.
        package: the package that it is from, and the extra of this project that brings it.
        network: its module.
        levels: (Q,) ascending levels of its quantiles.
        max_context: longest series that it reads.
        max_horizon: most steps that it was trained to forecast; None without a limit.
    """

    files: ClassVar[tuple[str, ...]]
    package: ClassVar[str]
    network: nn.Module
    levels: np.ndarray
    max_context: int
    max_horizon: int | None = None

    @abstractmethod
    def __init__(self, folder: Path) -> None:
        """Load the network of a folder on the CPU, in float32.

        Raises:
            MissingExtra: its package is not installed.
            ValueError: the files are not those of such a network.
        """

    @abstractmethod
    def quantiles(self, series: Tensor, horizon: int) -> Tensor:
        """(N, T) series, NaN where unknown -> (N, H, Q) on the CPU."""


class ChronosNetwork(QuantileNetwork):
    """Chronos-2 or Chronos-Bolt by `chronos-forecasting`; each series on its own, without cross-learning."""

    files = (CONFIG, WEIGHTS)
    package = "chronos-forecasting"

    def __init__(self, folder: Path) -> None:
        with _extra("chronos", self.package):
            from chronos import BaseChronosPipeline, Chronos2Pipeline, ChronosBoltPipeline

        with _checkpoint_errors(folder, "Chronos-2 or Chronos-Bolt"), _without_progress_bar():
            self.pipeline: Any = BaseChronosPipeline.from_pretrained(str(folder), dtype=torch.float32)
            if not isinstance(self.pipeline, Chronos2Pipeline | ChronosBoltPipeline):
                raise ValueError(f"it is a {type(self.pipeline).__name__}")
            _check_weights(self.pipeline.model, folder / WEIGHTS)
        self.network = self.pipeline.model
        self.levels = np.asarray(self.pipeline.quantiles, np.float64)
        self.max_context = int(self.pipeline.model_context_length)
        self.max_horizon = int(self.pipeline.model_prediction_length)

    def quantiles(self, series: Tensor, horizon: int) -> Tensor:
        """See `QuantileNetwork.quantiles`."""
        found = self.pipeline.predict(list(series), prediction_length=horizon)
        # Chronos-Bolt returns (N, Q, H), Chronos-2 a list of (1, Q, H).
        return (found if isinstance(found, Tensor) else torch.cat(found)).transpose(1, 2)


class TirexNetwork(QuantileNetwork):
    """TiRex by `tirex-ts`."""

    files = ("model.ckpt",)
    package = "tirex-ts"

    def __init__(self, folder: Path) -> None:
        with _extra("tirex", self.package):
            from tirex import TiRexZero

        with _checkpoint_errors(folder, "TiRex"), redirect_stdout(io.StringIO()):  # it prints
            model = TiRexZero.from_pretrained(str(folder / self.files[0]), backend="torch", device="cpu")
        self.network = model
        self.levels = np.asarray(model.config.quantiles, np.float64)
        self.max_context = int(model.config.train_ctx_len)

    def quantiles(self, series: Tensor, horizon: int) -> Tensor:
        """See `QuantileNetwork.quantiles`."""
        model: Any = self.network
        quantiles, _ = model.forecast(
            series, output_type="torch", batch_size=len(series), prediction_length=horizon
        )
        return quantiles


NETWORKS: Mapping[str, type[QuantileNetwork]] = {"chronos": ChronosNetwork, "tirex": TirexNetwork}


@dataclass(frozen=True)
class FoundationSettings:
    """Settings in the name of a foundation model.

    Attributes:
        revision: commit, branch or tag of a model on the hub; empty for the main branch.
    """

    revision: str = ""


class FoundationForecaster(PathForecaster):
    """A foundation model of closes, see the head of this module.

    Args:
        model: its network.
        name: name that loads it again.
        weights_sha256: hash of its files and of the version of its package.
        revision: commit on the hub; None for a folder.
        trained_until: last date of its training data (ISO) by its model card; None if unknown.
        device: as in `KronosPredictor`.
    """

    chunk_paths = 2**17  # more than of baselines, since a network needs a batch of windows

    def __init__(
        self,
        model: QuantileNetwork,
        name: str,
        weights_sha256: str,
        revision: str | None = None,
        trained_until: str | None = None,
        device: str | None = None,
    ) -> None:
        self.model = model
        super().__init__(name, weights_sha256, revision, trained_until)
        self.device, self.max_context = find_device(device), model.max_context

    @default_torch_state()
    def sample(self, windows: Windows, uniforms: np.ndarray) -> np.ndarray:
        """See `PathForecaster.sample`.

        Raises:
            ValueError: the horizon is longer than the network was trained to forecast.
        """
        limit = self.model.max_horizon
        if limit is not None and windows.horizon > limit:
            raise ValueError(
                f"horizon={windows.horizon} is longer than the {limit} bars that {self.name} was trained to "
                f"forecast. Pass at most {limit}."
            )
        quantiles = np.empty((len(windows), windows.horizon, len(self.model.levels)))
        for rows in equal_lengths(windows):  # without padding, a series does not depend on the others
            series = torch.from_numpy(log_closes(windows[rows], self.model.max_context))
            quantiles[rows] = self.model.quantiles(series.to(self.device), windows.horizon).numpy()
        return paths_from_quantiles(windows, quantiles, self.model.levels, uniforms)

    def chunk_windows(self, samples: int) -> int:
        """One batch of the network, or fewer windows where there are many paths."""
        batch = CPU_BATCH if self.device.type == "cpu" else ACCELERATOR_BATCH
        return min(batch, super().chunk_windows(samples))

    def __setattr__(self, name: str, value: object) -> None:
        if name == "device":
            value = find_device(value)  # type: ignore[arg-type]
            self.model.network.to(value).eval()
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        model = self.model
        if self.device.type != "cpu":
            model = copy.deepcopy(model)  # the network stays where it is
            model.network.to("cpu")
        return self.__dict__ | {"model": model, "device": str(self.device)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        try:
            self.device = state["device"]
        except ValueError as error:
            self.device = find_device(None)
            _log.warning("%s The forecaster uses '%s' instead.", error, self.device)


def load(name: ForecasterName, device: str | None = None) -> FoundationForecaster:
    """The forecaster of a name, e.g. `parse_name("chronos:amazon/chronos-bolt-small")`.

    Raises:
        FileNotFoundError: no such checkpoint.
        MissingExtra: the package of the model is not installed.
        ValueError: other files, or an unknown setting.
    """
    network, settings = NETWORKS[name.kind], read_settings(FoundationSettings(), name)
    folder, revision = _resolve(name, network.files, settings.revision or None)
    model = network(folder)
    digest = settings_sha256(
        files={file: hash_file(folder / file) for file in network.files},
        package=f"{network.package} {version(network.package)}",
    )
    return FoundationForecaster(model, str(name), digest, revision, card_trained_until(folder), device)


def log_closes(windows: Windows, longest: int) -> np.ndarray:
    """(N, T) float32 log of each close over the last one, at most the `longest` last ones.

    NaN where a close is not positive. Windows have the same number of bars.
    """
    closes = windows.values[:, -longest:, CLOSE].astype(np.float64)
    positive = closes > 0
    logs = np.log(np.where(positive, closes, 1.0))
    return np.where(positive, logs - logs[:, -1:], np.nan).astype(np.float32)


def _resolve(name: ForecasterName, files: tuple[str, ...], revision: str | None) -> tuple[Path, str | None]:
    """The folder with a model's files, and its commit if it is from the hub."""
    folder = Path(name.which).expanduser()
    if not folder.is_dir():
        try:
            folder = download_checkpoint(name.which, revision, files, HUB)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error} Pass a folder with {' and '.join(files)} as '{name.kind}:FOLDER', or a Hugging Face id "
                f"while online or in the cache (`hf download {name.which}` fills it)."
            ) from error
        return folder, folder.name
    if revision is not None:
        raise ValueError(f"'{name}' sets a revision, which the folder {folder} does not have. Leave it out.")
    if absent := [file for file in files if not (folder / file).is_file()]:
        raise FileNotFoundError(f"{folder} lacks {absent}. Pass the folder with a checkpoint's files.")
    return folder, None


@contextmanager
def _extra(extra: str, package: str) -> Iterator[None]:
    """Name the extra that brings a package that cannot be imported."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(
            f"'{extra}:' models need {package} ({error}): pip install 'kronos-strategies[{extra}]'"
        ) from error


@contextmanager
def _checkpoint_errors(folder: Path, kind: str) -> Iterator[None]:
    """One sentence for what the packages raise about files that they cannot read, which has no common class."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise ValueError(
            f"{folder} is not a checkpoint of {kind} ({reason}). Pass a folder or hub id of one."
        ) from error


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Hide the progress bar of transformers, which is one for each file."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _check_weights(network: nn.Module, file: Path) -> None:
    """Refuse a file that lacks weights, which transformers would replace by random ones with only a warning."""
    try:
        with safe_open(file, "pt") as stored:
            known = set(stored.keys())
    except SafetensorError as error:
        raise ValueError(f"{file.name} is not a safetensors file: {error}") from None
    state = network.state_dict(keep_vars=True)
    loaded = {state[key].data_ptr() for key in known & set(state)}  # tied weights are stored once
    if absent := sorted(key for key, value in state.items() if value.data_ptr() not in loaded):
        raise ValueError(f"{file.name} lacks {len(absent)} weights, the first {absent[0]}")
