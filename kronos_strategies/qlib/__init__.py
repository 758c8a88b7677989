"""Kronos inside Qlib: dataset, model, records and experiment manager for `qrun`. Needs the `qlib` extra."""

import os

from kronos.utils import MissingExtra

try:
    import qlib  # noqa: F401
except ImportError as error:
    raise MissingExtra(
        "The Qlib adapter needs Qlib, on Python 3.12 or earlier: pip install 'kronos-strategies[qlib]'"
    ) from error

# By default Qlib saves runs in files, which MLflow 3.13 and later refuse without this.
os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
