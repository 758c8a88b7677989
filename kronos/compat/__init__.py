"""Upstream's own names and signatures, over this package's networks: a change of import is all a script needs.

    from kronos.compat import Kronos, KronosPredictor, KronosTokenizer, auto_regressive_inference

in place of `from model import ...` or `from model.kronos import ...`. Weights, numbers under a seed and the files
that are saved are upstream's; docs/coming_from_upstream.md lists what differs. New code is better off with `kronos`
itself: here a flag may change what is returned, because that is upstream's contract.
"""

from kronos.compat.inference import (
    KronosPredictor,
    auto_regressive_inference,
    calc_time_stamps,
    sample_from_logits,
    top_k_top_p_filtering,
)
from kronos.compat.networks import Kronos, KronosTokenizer

__all__ = [
    "Kronos",
    "KronosPredictor",
    "KronosTokenizer",
    "auto_regressive_inference",
    "calc_time_stamps",
    "sample_from_logits",
    "top_k_top_p_filtering",
]
