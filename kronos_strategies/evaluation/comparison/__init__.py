"""Comparison of model versions with a reference, date by date."""
