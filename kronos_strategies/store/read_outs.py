"""Where hidden states and the outputs of heads lie in a store, by what computes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kronos.head import ReturnHead
from kronos_strategies.store.recipe import WindowSpec, label_of
from kronos_strategies.store.rows import StoredRows, settings_sha256
from kronos_strategies.stream import Embedder

FORMAT = 1  # of the files; another format is another folder


def head_rows(
    folder: Path, embedder: Embedder, head: ReturnHead, spec: WindowSpec, lifetime: object = None
) -> StoredRows:
    """`<model>-<sha>/heads/<head>-<sha>-<settings sha>` in the store `folder`: a column for each horizon.

    Raises:
        ValueError: the networks came from no file.
    """
    model, settings = _read(embedder, spec)
    settings |= {"horizons": list(head.info.horizons)}
    name = f"{label_of(head.name)}-{head.sha256[:12]}-{settings_sha256(settings)[:12]}"
    columns = [f"rank_{horizon}" for horizon in head.info.horizons]
    described = {"head": head.name, "head_sha256": head.sha256, "settings": settings}
    return StoredRows(folder / model / "heads" / name, columns, described, lifetime)


def embedding_rows(folder: Path, embedder: Embedder, spec: WindowSpec, lifetime: object = None) -> StoredRows:
    """`<model>-<sha>/embeddings/<settings sha>` in the store `folder`: one column of vectors.

    Raises:
        ValueError: the networks came from no file.
    """
    model, settings = _read(embedder, spec)
    where = folder / model / "embeddings" / settings_sha256(settings)[:12]
    return StoredRows(where, (), {"settings": settings}, lifetime)


def _read(embedder: Embedder, spec: WindowSpec) -> tuple[str, dict[str, Any]]:
    """The model's folder, and all settings that decide a hidden state."""
    known = embedder.provenance(embedder.sampling, "")
    if known.weights_sha256 is None:
        raise ValueError(
            f"The networks of '{known.model}' came from no file, so nothing can tell their hidden states from "
            "those of other weights. Save both with save_pretrained() and load those files."
        )
    settings = {
        "format": FORMAT,
        "universe": spec.universe,
        "lookback": spec.lookback,
        "min_bars": spec.min_bars,
        "max_context": known.max_context,
        "clip": known.clip,
        "precision": known.precision,
    }
    return f"{label_of(known.model)}-{known.weights_sha256[:12]}", settings
