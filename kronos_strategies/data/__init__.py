"""Bars -> a Qlib data directory, imported from files or simulated."""
