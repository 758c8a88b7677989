"""Return heads at work.

labels.py what they learn; fit.py fits them on a frozen checkpoint; choice.py says whether scores come from a head
or from sampled paths; readers.py loads them with their checkpoints.
"""
