"""Files of bars as vendors write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

DAYS = pd.bdate_range("2024-01-02", periods=12)


def make_prices(index: pd.DatetimeIndex, seed: int = 0) -> pd.DataFrame:
    """Bars with cents and whole volumes."""
    rng = np.random.default_rng(seed)
    close = (20 * np.exp(np.cumsum(rng.normal(0, 0.02, len(index))))).round(2)
    opens = np.r_[20.0, close[:-1]]
    high, low = np.maximum(opens, close) + 0.2, np.minimum(opens, close) - 0.2
    volume = rng.integers(100_000, 1_000_000, len(index)).astype(float)
    bars = pd.DataFrame(
        {"open": opens, "high": high.round(2), "low": low.round(2), "close": close, "volume": volume},
        index=index,
    )
    return bars.rename_axis("datetime")


Row = Callable[[pd.Timestamp, pd.Series], str]


def write_lines(file: Path, header: str, bars: pd.DataFrame, row: Row, encoding: str = "utf-8") -> Path:
    """A text file of a header, where not empty, and one line per bar."""
    lines = [header] if header else []
    for time, bar in bars.iterrows():
        lines.append(row(pd.Timestamp(str(time)), bar))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding=encoding)
    return file


def ohlcv(bar: pd.Series, separator: str = ",") -> str:
    """The five values of a bar."""
    return separator.join(f"{bar[name]:.15g}" for name in ("open", "high", "low", "close", "volume"))
