"""Versions of a model held against each other, date by date. Torch-free, engine-free."""
