"""Evaluation of sampled paths: whether outcomes fall where the predicted distribution says."""
