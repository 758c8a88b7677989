"""The scores of a segment with their origin: one model for all of its dates, or one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import pandas as pd

from kronos.forecast import Forecast, Provenance
from kronos.postprocessing import Postprocessing
from kronos_strategies.evaluation.warnings import training_overlap_warnings
from kronos_strategies.heads.selection import ScoreChoice
from kronos_strategies.progress import Countable
from kronos_strategies.qlib.dataset import KronosDataset


class Origin(NamedTuple):
    """What the scores of some dates were made by.

    Attributes:
        first: first date that is scored.
        provenance: checkpoint and settings.
        choice: source of the scores: heads or paths.
        postprocessing: postprocessing of the paths on reading.
    """

    first: pd.Timestamp
    provenance: Provenance
    choice: ScoreChoice
    postprocessing: Postprocessing

    def warnings(self) -> list[str]:
        """Warnings about what checkpoint, calibration and heads have seen of the dates that they score."""
        return [
            *self.choice.warnings,
            *training_overlap_warnings(self.provenance, self.first),
            *self.postprocessing.warnings(self.first),
            *self.choice.training_overlap_warnings(self.first),
        ]

    @property
    def described(self) -> str:
        """Weights, calibration and score in a line."""
        known, read = self.provenance, self.postprocessing.calibration
        words = [
            f"weights {(known.weights_sha256 or 'unknown')[:12]}",
            f"trained until {known.trained_until or 'an unknown date'}",
            f"calibration {'none' if read is None else read.id}",
            f"score: {self.choice.identity}",
        ]
        return ", ".join(words)


@dataclass(frozen=True)
class Scored:
    """A scored segment, for later records in the same process.

    Attributes:
        dataset: dataset that was scored.
        span: first and last bar of the segment.
        signals: frame indexed (datetime, instrument).
        forecasts: forecasts as sampled, one per date; None if nothing was sampled.
        origins: what scored, by ascending first date; one of them for an ordinary model.
        model: name of all origins together; that of the checkpoint when empty.
    """

    dataset: KronosDataset
    span: tuple[pd.Timestamp, pd.Timestamp]
    signals: pd.DataFrame
    forecasts: Countable[Forecast] | None
    origins: tuple[Origin, ...]
    model: str = ""

    @classmethod
    def joined(
        cls, parts: Sequence[Scored], span: tuple[pd.Timestamp, pd.Timestamp], model: str = ""
    ) -> Scored:
        """Successive parts of a segment as one.

        Args:
            parts: scored parts in order of time, one at least.
            span: first and last bar of the whole segment.
            model: name of all parts together.
        """
        sampled = [part.forecasts for part in parts if part.forecasts is not None]
        return cls(
            parts[0].dataset,
            span,
            pd.concat([part.signals for part in parts]),
            _Successive(sampled) if sampled else None,
            tuple(chain.from_iterable(part.origins for part in parts)),
            model,
        )

    @property
    def provenance(self) -> Provenance:
        """That of the first origin; of several, with the hash of all their weights."""
        first, *others = (origin.provenance for origin in self.origins)
        named = replace(first, model=self.model or first.model)
        if not others:
            return named
        text = "+".join(known.weights_sha256 or "" for known in (first, *others))
        return replace(named, weights_sha256=hashlib.sha256(text.encode()).hexdigest())

    @property
    def choice(self) -> ScoreChoice:
        """That of the first origin."""
        return self.origins[0].choice

    @property
    def score_identity(self) -> str:
        """Short identifier of the kind of score, of all origins."""
        return "; ".join(dict.fromkeys(origin.choice.identity for origin in self.origins))

    @property
    def calibration_identity(self) -> str:
        """The ids of the calibrations, "none" where there is none."""
        read = (origin.postprocessing.calibration for origin in self.origins)
        return "; ".join(dict.fromkeys("none" if each is None else each.id for each in read))

    def warnings(self) -> list[str]:
        """The warnings of all origins; one that not all of them share begins with the dates that it is about."""
        dated = [(text, origin.first) for origin in self.origins for text in dict.fromkeys(origin.warnings())]
        about = {text: [first for each, first in dated if each == text] for text, _ in dated}
        return [
            text if len(found) == len(self.origins) else f"Scores from {_listed(found)}: {text}"
            for text, found in about.items()
        ]

    def postprocess(self, forecast: Forecast) -> Forecast:
        """Calibrate and repair the forecasts of one date, as its origin does."""
        date = pd.Timestamp(forecast.index.get_level_values("datetime")[0])
        last = max((o for o in self.origins if o.first <= date), key=lambda origin: origin.first)
        return last.postprocessing(forecast)


class _Successive:
    """Forecasts of several sets, one set after the other."""

    def __init__(self, parts: Sequence[Countable[Forecast]]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[Forecast]:
        return chain.from_iterable(self._parts)


def _listed(dates: Iterable[pd.Timestamp]) -> str:
    return ", ".join(f"{date:%Y-%m-%d}" for date in dates)
