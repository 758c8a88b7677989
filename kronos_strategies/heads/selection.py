"""Whether a score comes from return heads or from sampled paths, and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import pandas as pd

from kronos.head import ReturnHead, find_head
from kronos_strategies.forecasters.protocol import Embedder, Forecaster

Score = Literal["auto", "head", "paths"]
DEFAULT_HORIZONS = (5, 10)  # horizons whose ranks are averaged if no head has the holding period


@dataclass(frozen=True)
class ScoreUse:
    """The use of a score.

    Attributes:
        hold: bars that a position is held; None if unknown.
        lookback: bars of the windows.
        price: price at which trades execute; None if the engine decides.
        frequency: bar frequency.
        market: name of the market of the bars, as in the head's training markets; None if unknown.
    """

    hold: int | None
    lookback: int
    price: str | None = "close"
    frequency: str = "1day"
    market: str | None = None


@dataclass(frozen=True)
class ScoreChoice:
    """The source of scores: heads or paths.

    Attributes:
        heads: heads whose outputs are averaged; empty if the score comes from paths.
        horizons: horizons of the outputs that are used, in bars.
        why: a sentence, for the log and the report.
        warnings: sentences that a reader of the scores must see.
    """

    heads: tuple[ReturnHead, ...]
    horizons: tuple[int, ...]
    why: str
    warnings: tuple[str, ...] = ()

    @property
    def described(self) -> str:
        """What produces the score, for a report: heads by name, sha256 and horizon, or paths."""
        if not self.heads:
            return f"sampled paths: {self.why}"
        names = ", ".join(f"{head.name} (sha256 {head.sha256[:16]})" for head in self.heads)
        outputs = len(self.heads) * len(self.horizons)
        mean = "mean of the ranks of " if outputs > 1 else ""
        return f"{mean}return head{'s' * (len(self.heads) > 1)} {names}, {_listed(self.horizons)} bars: {self.why}"

    @property
    def identity(self) -> str:
        """Short identifier of the kind of score: paths, or sha256 and horizons of heads."""
        shas = "+".join(head.sha256[:16] for head in self.heads)
        return f"head {shas} {'+'.join(map(str, self.horizons))}" if self.heads else "paths"

    def training_overlap_warnings(self, first: pd.Timestamp) -> list[str]:
        """A warning for each head that may have been trained on the test dates, which start at `first`."""
        return [
            f"The return head {head.name} was trained until {head.info.trained_until}, after "
            "the first test dates."
            for head in self.heads
            if head.info.trained_until and pd.Timestamp(head.info.trained_until) >= first.normalize()
        ]

    def columns(self, head: ReturnHead) -> list[int]:
        """Positions of the outputs that are used."""
        return [head.info.horizons.index(horizon) for horizon in self.horizons]

    def average(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """(N,) mean of the outputs themselves, (N, K) of each head: a row's score depends on its own window only.

        For one head the ranking is that of `combine`, up to the spreads of its horizons, which are nearly equal.
        """
        chosen = [part[:, self.columns(head)] for head, part in zip(self.heads, outputs, strict=True)]
        mean: np.ndarray = np.concatenate(chosen, axis=1).astype(np.float64).mean(axis=1)
        return mean

    def combine(self, outputs: Sequence[np.ndarray], keys: pd.MultiIndex) -> pd.Series:
        """One score from the outputs of all heads.

        A single output is the score itself, an expected rank in [-0.5, 0.5] * sqrt(12). Several are averaged as
        ranks among the windows of a date, on the same scale, so that heads of different spread have equal weight.

        Args:
            outputs: (N, K) of each head, in the order of `heads`.
            keys: (N,) (datetime, instrument).
        """
        chosen = np.concatenate(
            [part[:, self.columns(head)] for head, part in zip(self.heads, outputs, strict=True)], axis=1
        )
        frame = pd.DataFrame(chosen.astype(np.float64), index=keys)
        if frame.shape[1] > 1:
            by_date = frame.groupby(level="datetime")
            counts = by_date.transform("count")
            frame = ((by_date.rank() - 1) / (counts - 1).clip(lower=1) - 0.5) * 12**0.5
            frame = frame.where(counts > 1, 0.0)
        return frame.mean(axis=1).rename("score")


def check_score(score: str) -> None:
    """Check that the kind of score is known.

    Raises:
        ValueError: the kind is unknown.
    """
    if score not in get_args(Score):
        raise ValueError(f"score='{score}' is unknown. Choose one of {list(get_args(Score))}.")


def choose_score(score: str, heads: Sequence[ReturnHead], use: ScoreUse) -> ScoreChoice:
    """Decide where scores come from.

    "auto" uses the heads if there are any and the use is the one they were trained for: their bar frequency and
    lookback, close prices, and a holding period that is one of their horizons. "head" always uses them, with
    warnings; for any other holding period the score is the mean of the ranks at 5 and 10 bars.

    Raises:
        ValueError: an unknown score, "head" without a head, or heads without a horizon in common.
    """
    check_score(score)
    if score == "paths":
        return ScoreChoice((), (), "score='paths' was requested")
    if not heads:
        if score == "auto":
            return ScoreChoice((), (), "the checkpoint has no return head")
        raise ValueError(
            "score='head' needs a return head, and the checkpoint has none. Fit one with `kronos train head`, name "
            "one with heads=..., or choose score='paths'."
        )
    common = [h for h in heads[0].info.horizons if all(h in head.info.horizons for head in heads)]
    if not common:
        known = {head.name: list(head.info.horizons) for head in heads}
        raise ValueError(f"The heads {known} have no common horizon. Choose heads that share one.")
    misfits = [reason for head in heads for reason in _misfits(head, use, common)]
    misfits = list(dict.fromkeys(misfits))
    if score == "auto" and misfits:
        return ScoreChoice((), (), f"the return head does not fit: {'; '.join(misfits)}")
    horizons = _horizons(use.hold, common)
    why = f"score='{score}'" if score == "head" else "the head was trained for this use"
    warnings = [
        f"The return head is used outside of what it was trained for: {reason}." for reason in misfits
    ]
    warnings += [warning for head in heads for warning in _strange_market(head, use.market)]
    return ScoreChoice(tuple(heads), horizons, why, tuple(warnings))


def _misfits(head: ReturnHead, use: ScoreUse, common: Sequence[int]) -> list[str]:
    info, found = head.info, []
    if use.frequency != info.frequency:
        found.append(f"bars are of {use.frequency}, those of {head.name} of {info.frequency}")
    if use.price not in (None, "close"):
        found.append(f"trades happen at the {use.price}, labels are from close to close")
    if use.lookback != info.lookback:
        found.append(f"lookback is {use.lookback} bars, that of {head.name} {info.lookback}")
    if use.hold is not None and use.hold not in common:
        found.append(f"a holding period of {use.hold} bars is not one of {_listed(common)}")
    return found


def _horizons(hold: int | None, common: Sequence[int]) -> tuple[int, ...]:
    if hold in common:
        assert hold is not None
        return (hold,)
    return tuple(h for h in common if h in DEFAULT_HORIZONS) or tuple(common)


def _strange_market(head: ReturnHead, market: str | None) -> list[str]:
    known = {_plain(name) for name in head.info.markets}
    if market is None or not known or _plain(market) in known:
        return []
    return [
        f"{head.name} was not trained on the market '{market}' but on {', '.join(head.info.markets)}: its ranking "
        "may not carry over."
    ]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _listed(values: Sequence[int]) -> str:
    return " and ".join(", ".join(map(str, values)).rsplit(", ", 1))


class HeadReader(NamedTuple):
    """A head and the predictor that embeds windows for it."""

    predictor: Embedder
    head: ReturnHead


def head_names(heads: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of heads from a sequence or from text with commas, as environment variables have it."""
    parts = (heads or "").split(",") if isinstance(heads, str) or heads is None else heads
    return tuple(part.strip() for part in parts if part.strip())


def load_readers(
    predictor: Forecaster | Embedder,
    heads: Sequence[str],
    load: Callable[[str], Forecaster | Embedder],
    fitted: ReturnHead | None = None,
) -> list[HeadReader]:
    """The heads of a run.

    Args:
        predictor: predictor of the run's checkpoint, or a forecaster of another kind, which has no head of its own.
        heads: names or folders, each a checkpoint with a head or a head that was fitted on one; when empty, the
            head in the folder of the predictor, if there is one.
        load: loads another checkpoint by its name.
        fitted: a head just fitted on `predictor`; it comes first.

    Raises:
        FileNotFoundError: a name without a head.
        ValueError: a head that was fitted on other weights than its checkpoint has now.
    """
    found = [] if fitted is None else [HeadReader(_embedder(predictor), fitted)]
    known = predictor.provenance(predictor.sampling, "")
    own = known.model if known.weights_sha256 else None  # without a hash there is no folder
    if not heads and fitted is None:
        if own is None or not find_head(own):
            return []
        return [HeadReader(_embedder(predictor), ReturnHead.from_pretrained(own))]
    for spec in heads:
        head = ReturnHead.from_pretrained(spec)
        found.append(HeadReader(_trunk(head, spec, predictor, load), head))
    return found


def _trunk(
    head: ReturnHead,
    spec: str,
    predictor: Forecaster | Embedder,
    load: Callable[[str], Forecaster | Embedder],
) -> Embedder:
    name, wanted = head.info.checkpoint or spec, head.info.weights_sha256
    known = predictor.provenance(predictor.sampling, "")
    if known.weights_sha256 is not None and (
        known.weights_sha256 == wanted or (wanted is None and known.model == name)
    ):
        return _embedder(predictor)
    other = _embedder(load(name))
    if wanted not in (None, other.provenance(other.sampling, "").weights_sha256):
        raise ValueError(
            f"The head {spec} was fitted on weights of '{name}' that differ from the current ones. Fit it again "
            "with `kronos train head`."
        )
    return other


def _embedder(predictor: Forecaster | Embedder) -> Embedder:
    if not hasattr(predictor, "embed"):
        model = predictor.provenance(predictor.sampling, "").model
        raise ValueError(
            f"'{model}' has no hidden states that a return head could read. Name a Kronos checkpoint, or leave out "
            "the head."
        )
    return cast(Embedder, predictor)
