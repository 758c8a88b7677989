"""Evaluation of a score: how well it ranks the returns that follow."""
