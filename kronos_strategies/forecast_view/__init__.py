"""Forecasts of any bars for a reader: `kronos forecast` and `kronos_strategies.plot`."""
