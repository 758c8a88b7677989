"""Evaluation of a backtest: performance after costs, compared with benchmarks."""
