"""Evaluation of signals, predicted distributions and portfolios: pure functions without torch or engines."""
