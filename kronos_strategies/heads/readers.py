"""Heads together with the checkpoints whose hidden states they read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kronos.head import ReturnHead, find_head
from kronos_strategies.stream import Embedder


class HeadReader(NamedTuple):
    """A head and the predictor that embeds windows for it."""

    predictor: Embedder
    head: ReturnHead


def head_names(heads: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of heads from a sequence or from text with commas, as environment variables have it."""
    parts = (heads or "").split(",") if isinstance(heads, str) or heads is None else heads
    return tuple(part.strip() for part in parts if part.strip())


def load_readers(
    predictor: Embedder,
    heads: Sequence[str],
    load: Callable[[str], Embedder],
    fitted: ReturnHead | None = None,
) -> list[HeadReader]:
    """The heads of a run.

    Args:
        predictor: of the run's checkpoint.
        heads: names or folders, each a checkpoint with a head or a head that was fitted on one; when empty, the
            head that lies beside the predictor, if there is one.
        load: loads another checkpoint by its name.
        fitted: a head that was fitted on `predictor` just now; it comes first.

    Raises:
        FileNotFoundError: a name that has no head.
        ValueError: a head that was fitted on other weights than its checkpoint has now.
    """
    found = [] if fitted is None else [HeadReader(predictor, fitted)]
    known = predictor.provenance(predictor.sampling, "")
    own = known.model if known.weights_sha256 else None  # networks that came from no file have no folder
    if not heads and fitted is None:
        return [HeadReader(predictor, ReturnHead.from_pretrained(own))] if own and find_head(own) else []
    for spec in heads:
        head = ReturnHead.from_pretrained(spec)
        found.append(HeadReader(_trunk(head, spec, predictor, load), head))
    return found


def _trunk(head: ReturnHead, spec: str, predictor: Embedder, load: Callable[[str], Embedder]) -> Embedder:
    name, wanted = head.info.checkpoint or spec, head.info.weights_sha256
    known = predictor.provenance(predictor.sampling, "")
    if known.weights_sha256 is not None and (
        known.weights_sha256 == wanted or (wanted is None and known.model == name)
    ):
        return predictor
    other = load(name)
    if wanted not in (None, other.provenance(other.sampling, "").weights_sha256):
        raise ValueError(
            f"The head {spec} was fitted on other weights of '{name}' than are there now. Fit it again with "
            "`kronos train head`."
        )
    return other
