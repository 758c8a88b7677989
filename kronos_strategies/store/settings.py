"""Model and settings of stored forecasts, which name their folder and are written to its manifest.

The bars are identified per date by the hash of its windows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kronos.config import SampleConfig, check_numbers
from kronos.forecast import Provenance
from kronos_strategies.forecasting import WindowsByDate
from kronos_strategies.store.files import date_files, locked, make_folder, write_record

log = logging.getLogger(__name__)

FORMAT = 4  # format of the files; another format has another folder
DTYPES = ("float32", "float16")
LONGEST_LABEL = 100  # characters of a checkpoint's name in that of a folder, which also has hashes
# Provenance fields that identify the model; all others are settings. The hash of the data is part of each date's
# file name.
MODEL_FIELDS = ("model", "revision", "weights_sha256", "trained_until")
# Postprocessing on reading (`kronos.postprocessing`); stored paths are as sampled.
READING_FIELDS = ("calibration", "limits", "candles")


@dataclass(frozen=True)
class WindowSpec:
    """Which windows are forecast.

    Attributes:
        universe: label of the set of instruments, e.g. the name of a Qlib market.
        lookback: maximum bars per window.
        horizon: bars to forecast.
        min_bars: minimum bars per window.
    """

    universe: str
    lookback: int
    horizon: int
    min_bars: int

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 2 <= self.min_bars <= self.lookback:
            raise ValueError(
                f"lookback={self.lookback} and min_bars={self.min_bars} do not satisfy 2 <= min_bars <= "
                "lookback. Change one of them."
            )

    def check(self, dated: WindowsByDate) -> None:
        """Check that windows match the specification.

        Raises:
            ValueError: the horizon differs, or a window is too long or too short.
        """
        windows = dated.windows
        if windows.horizon != self.horizon:
            raise ValueError(
                f"The windows ask for {windows.horizon} bars, their specification for horizon={self.horizon}. "
                "Make them agree."
            )
        shortest, longest = int(windows.lengths.min()), windows.width
        if shortest < self.min_bars or longest > self.lookback:
            raise ValueError(
                f"The windows have {shortest} to {longest} bars, their specification says "
                f"min_bars={self.min_bars} and lookback={self.lookback}. Make them agree."
            )


@dataclass(frozen=True)
class StoreSettings:
    """Model, settings and storage of a set of forecasts.

    Attributes:
        provenance: provenance of the forecasts; its hash of the data is ignored.
        spec: which windows are forecast.
        dtype: type of the stored paths, "float32" or "float16".

    Raises:
        ValueError: the networks were not loaded from files, so they have no checksum; or an unknown dtype.
    """

    provenance: Provenance
    spec: WindowSpec
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype='{self.dtype}' is not a type for paths. Choose one of {list(DTYPES)}.")
        if self.provenance.weights_sha256 is None:
            raise ValueError(
                f"The networks of '{self.provenance.model}' were not loaded from files, so nothing distinguishes "
                "their forecasts from others. Save both with save_pretrained() and load those files."
            )

    @property
    def model(self) -> dict[str, Any]:
        """The model, ready for JSON."""
        return {name: getattr(self.provenance, name) for name in MODEL_FIELDS}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of forecasts and storage, ready for JSON."""
        known, left_out = asdict(self.provenance), (*MODEL_FIELDS, *READING_FIELDS, "data_sha256")
        how = {name: value for name, value in known.items() if name not in left_out}
        return {"format": FORMAT, "dtype": self.dtype, "window_spec": asdict(self.spec), **how}

    @property
    def settings_sha256(self) -> str:
        """sha256 of `settings`; 1 and 1.0 are equal."""
        text = json.dumps(_canonical(self.settings), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """`<model>-<sha>/<settings sha>`, relative to the store."""
        return (
            Path(f"{label_of(self.provenance.model)}-{self.model['weights_sha256'][:12]}")
            / self.settings_sha256[:12]
        )

    @classmethod
    def from_json(cls, model: Mapping[str, Any], settings: Mapping[str, Any]) -> StoreSettings:
        """The settings whose `model` and `settings` these are.

        Raises:
            ValueError: another version of this package wrote them.
        """
        if settings.get("format") != FORMAT:
            raise ValueError(
                f"another version wrote it (its format is {settings.get('format')}, this version reads {FORMAT})"
            )
        how = {
            name: value for name, value in settings.items() if name not in ("format", "dtype", "window_spec")
        }
        try:
            sampling = SampleConfig(**how.pop("sampling"))
            provenance = Provenance(**model, **how, sampling=sampling, data_sha256="")
            return cls(provenance, WindowSpec(**settings["window_spec"]), settings["dtype"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"its settings were written by another version ({error})") from None


def label_of(model: str) -> str:
    """Checkpoint name within a folder name: the last part of a path, or a hub id with -- for its slash."""
    local = Path(model).is_absolute() or model.startswith((".", "~"))
    name = Path(model).expanduser().resolve().name if local else model
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.replace("/", "--"))[:LONGEST_LABEL].strip("-.") or "model"


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


# Engines that read a folder as one data set skip names with an underscore.
MANIFEST = "_manifest.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read model, settings and data from the manifest.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: it is not JSON.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {MANIFEST}, so it is not a folder of forecasts. Fill it with `kronos store fill`."
        )
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is not a JSON object ({error}). Filling the store writes it again."
        ) from None


def read_settings(folder: Path) -> StoreSettings:
    """Settings of the forecasts in a folder.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: another version wrote the manifest, or it was edited.
    """
    manifest = read_manifest(folder)
    try:
        settings = StoreSettings.from_json(manifest["model"], manifest["settings"])
        if manifest["settings_sha256"] != settings.settings_sha256:
            raise ValueError("its settings were edited or written by another version of kronos-strategies")
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{folder / MANIFEST} cannot be used: {error}. Restore it, or fill another store."
        ) from None
    return settings


def create_manifest(folder: Path, settings: StoreSettings) -> None:
    """Write the manifest of a folder that has none, or a damaged one; several processes may try at once.

    The name of the folder is the hash of its settings, so that nothing is lost with a manifest.
    """
    try:
        read_manifest(folder)
    except FileNotFoundError:
        make_folder(folder)
        update_manifest(folder, settings)
    except ValueError as error:
        log.warning("%s It is written again.", error)
        update_manifest(folder, settings)


def update_manifest(folder: Path, settings: StoreSettings) -> None:
    """Record the dates in a folder, and the hashes of their bars."""
    with locked(folder, "manifest"):
        files = list(date_files(folder))
        dates = [file.parent.name.removeprefix("date=") for file in files]
        lines = [f"{date} {file.name.partition('-')[0]}" for date, file in zip(dates, files, strict=True)]
        content = {
            "written_by": f"kronos-strategies {version('kronos-strategies')}",
            "model": settings.model,
            "settings": settings.settings,
            "settings_sha256": settings.settings_sha256,
            "data": {
                "dates": len(dates),
                "first": min(dates, default=None),
                "last": max(dates, default=None),
                "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
            },
        }
        write_record(folder / MANIFEST, content)
