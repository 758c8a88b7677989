"""The manifest of a folder of forecasts: what made them, and which data were in at the end of the last fill."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kronos_strategies.store.files import SUFFIX, locked, write_atomically
from kronos_strategies.store.recipe import Recipe

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
            f"{folder} has no {MANIFEST}, so it holds no forecasts. Fill a store with `kronos forecast`."
        )
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Restore it, or fill another store.") from None


def read_recipe(folder: Path) -> Recipe:
    """What the forecasts in a folder are made with.

    Raises:
        FileNotFoundError: there are none.
        ValueError: another version wrote the manifest, or somebody has edited it.
    """
    manifest = read_manifest(folder)
    try:
        recipe = Recipe.from_json(manifest["model"], manifest["settings"])
        if manifest["settings_sha256"] != recipe.settings_sha256:
            raise ValueError("its settings are edited, or of another version of kronos-strategies")
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{folder / MANIFEST} cannot be used: {error}. Restore it, or fill another store."
        ) from None
    return recipe


def create_manifest(folder: Path, recipe: Recipe) -> None:
    """Write the manifest of a folder that has none yet; several processes may try at once."""
    if not (folder / MANIFEST).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        update_manifest(folder, recipe)


def update_manifest(folder: Path, recipe: Recipe) -> None:
    """Write which dates are there, and of which bars."""
    with locked(folder, "manifest"):
        files = sorted(folder.glob(f"date=*/*{SUFFIX}"))
        dates = [file.parent.name.removeprefix("date=") for file in files]
        lines = [f"{date} {file.name.partition('-')[0]}" for date, file in zip(dates, files, strict=True)]
        content = {
            "written_by": f"kronos-strategies {version('kronos-strategies')}",
            "model": recipe.model,
            "settings": recipe.settings,
            "settings_sha256": recipe.settings_sha256,
            "data": {
                "dates": len(dates),
                "first": min(dates, default=None),
                "last": max(dates, default=None),
                "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
            },
        }
        write_atomically(folder / MANIFEST, (json.dumps(content, indent=2) + "\n").encode())
