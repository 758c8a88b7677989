"""What a score ranks beyond a known exposure. Torch-free."""

from __future__ import annotations

import pandas as pd


def neutralise(score: pd.Series, exposure: pd.Series) -> pd.Series:
    """Residual, date by date, of the ranks of `score` regressed on the ranks of `exposure` and a constant.

    A score that only loads on a style, e.g. on calm names, has nothing left to rank with. Ranks are averaged
    over ties and scaled to mean 0; both are taken over names that have both.

    Args:
        score: indexed (datetime, instrument).
        exposure: of the same index, known at the same close.

    Returns:
        Of the same index; NaN without one of the two. Where the exposure does not vary, the centred ranks of
        the score; where the two have the same order or the opposite one, exactly 0, which ranks nothing.
    """
    both = score.notna() & exposure.notna()
    ranks = [values.where(both).groupby(level="datetime").rank() for values in (score, exposure)]
    y, x = (values - values.groupby(level="datetime").transform("mean") for values in ranks)
    by_date = pd.DataFrame({"xy": x * y, "xx": x * x}).groupby(level="datetime").transform("sum")
    slope = (by_date["xy"] / by_date["xx"].where(by_date["xx"] > 0)).fillna(0.0)
    return (y - slope * x).where(both)
