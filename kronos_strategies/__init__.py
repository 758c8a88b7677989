"""Kronos where quants work: data, signals, evaluation, reports, and adapters for trading engines."""
