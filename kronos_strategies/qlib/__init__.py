"""Kronos inside Qlib: dataset, model, records and experiment manager for `qrun`. Needs the `qlib` extra."""

try:
    import qlib  # noqa: F401
except ImportError as error:
    raise ImportError("The Qlib adapter needs Qlib: pip install 'kronos-strategies[qlib]'") from error
