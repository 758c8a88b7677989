"""Return heads.

fit.py computes their labels and fits them on a frozen checkpoint. sources.py fits a head on a file of bars.
selection.py loads heads and decides whether scores come from a head or from sampled paths. probes.py measures what
linear models read from hidden states, across markets.
"""
