"""What decides the numbers of stored forecasts apart from the bars: it names their folder and fills its manifest.

The bars are left to each date's own address, the hash of its windows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kronos.config import SampleConfig, check_numbers
from kronos.forecast import Provenance
from kronos_strategies.forecasting import WindowsByDate
from kronos_strategies.store.files import SUFFIX, locked, make_folder, write_record

FORMAT = 4  # of the files; another format is another folder
DTYPES = ("float32", "float16")
# Which of a provenance's fields say who forecast, not how; every other one is a setting. That of the data is in
# each date's own address.
MODEL_FIELDS = ("model", "revision", "weights_sha256", "trained_until")
# What is done to paths when they are read (`kronos.postprocessing`); stored ones are as sampled.
READING_FIELDS = ("calibration", "limits", "candles")


@dataclass(frozen=True)
class WindowSpec:
    """Which windows are forecast.

    Attributes:
        universe: label of the set of instruments, e.g. the name of a Qlib market.
        lookback: bars of a window at most.
        horizon: bars to forecast.
        min_bars: bars of a window at least.
    """

    universe: str
    lookback: int
    horizon: int
    min_bars: int

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 2 <= self.min_bars <= self.lookback:
            raise ValueError(
                f"lookback={self.lookback} and min_bars={self.min_bars} fit no window: 2 <= min_bars <= lookback. "
                "Change one of them."
            )

    def check(self, dated: WindowsByDate) -> None:
        """Demand that windows are what this says they are.

        Raises:
            ValueError: another horizon, or a window longer or shorter than it may be.
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
                f"The windows hold {shortest} to {longest} bars, their specification says "
                f"min_bars={self.min_bars} and lookback={self.lookback}. Make them agree."
            )


@dataclass(frozen=True)
class StoreSettings:
    """Model, settings and storage of a set of forecasts.

    Attributes:
        provenance: of the forecasts; its hash of the data is not looked at.
        spec: which windows are forecast.
        dtype: of the stored paths, "float32" or "float16".

    Raises:
        ValueError: the networks came from no file, so that nothing could name them; or an unknown dtype.
    """

    provenance: Provenance
    spec: WindowSpec
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype='{self.dtype}' is not a type for paths. Choose one of {list(DTYPES)}.")
        if self.provenance.weights_sha256 is None:
            raise ValueError(
                f"The networks of '{self.provenance.model}' came from no file, so nothing can tell their forecasts "
                "from those of other weights. Save both with save_pretrained() and load those files."
            )

    @property
    def model(self) -> dict[str, Any]:
        """Who forecasts, ready for JSON."""
        return {name: getattr(self.provenance, name) for name in MODEL_FIELDS}

    @property
    def settings(self) -> dict[str, Any]:
        """How it forecasts and stores, ready for JSON."""
        known, left_out = asdict(self.provenance), (*MODEL_FIELDS, *READING_FIELDS, "data_sha256")
        how = {name: value for name, value in known.items() if name not in left_out}
        return {"format": FORMAT, "dtype": self.dtype, "window_spec": asdict(self.spec), **how}

    @property
    def settings_sha256(self) -> str:
        """Of `settings`; 1 and 1.0 are one number."""
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
        how = {
            name: value for name, value in settings.items() if name not in ("format", "dtype", "window_spec")
        }
        try:
            sampling = SampleConfig(**how.pop("sampling"))
            provenance = Provenance(**model, **how, sampling=sampling, data_sha256="")
            return cls(provenance, WindowSpec(**settings["window_spec"]), settings["dtype"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"its settings are of another version of kronos-strategies ({error})") from None


def label_of(model: str) -> str:
    """A checkpoint's name as part of a folder's: a path's last folder, a hub id with -- for its slash."""
    local = Path(model).is_absolute() or model.startswith((".", "~"))
    name = Path(model).expanduser().resolve().name if local else model
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.replace("/", "--")).strip("-.") or "model"


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
    """Model, settings and data, as JSON has them.

    Raises:
        FileNotFoundError: there is none, so no forecasts either.
        ValueError: not JSON.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {MANIFEST}, so it holds no forecasts. Fill a store with `kronos store fill`."
        )
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Restore it, or fill another store.") from None


def read_settings(folder: Path) -> StoreSettings:
    """What the forecasts in a folder are made with.

    Raises:
        FileNotFoundError: there are none.
        ValueError: another version wrote the manifest, or it was edited.
    """
    manifest = read_manifest(folder)
    try:
        settings = StoreSettings.from_json(manifest["model"], manifest["settings"])
        if manifest["settings_sha256"] != settings.settings_sha256:
            raise ValueError("its settings are edited, or of another version of kronos-strategies")
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{folder / MANIFEST} cannot be used: {error}. Restore it, or fill another store."
        ) from None
    return settings


def create_manifest(folder: Path, settings: StoreSettings) -> None:
    """Write the manifest of a folder that has none yet; several processes may try at once."""
    if not (folder / MANIFEST).is_file():
        make_folder(folder)
        update_manifest(folder, settings)


def update_manifest(folder: Path, settings: StoreSettings) -> None:
    """Write which dates are there, and of which bars."""
    with locked(folder, "manifest"):
        files = sorted(folder.glob(f"date=*/*{SUFFIX}"))
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
