"""Kronos inside Qlib: dataset, model, records and experiment manager for `qrun`. Needs the `qlib` extra."""

from kronos.extras import MissingExtra

try:
    import qlib  # noqa: F401
except ImportError as error:
    raise MissingExtra("The Qlib adapter needs Qlib: pip install 'kronos-strategies[qlib]'") from error
