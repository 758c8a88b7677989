"""Months and years of a book. Torch-free, engine-free."""

from __future__ import annotations

import pandas as pd

from kronos.utils import MissingExtra
from kronos_strategies.evaluation.portfolio.returns import compounding

try:
    import empyrical
except ImportError as error:
    raise MissingExtra(
        "Books are judged with empyrical: pip install 'kronos-strategies[evaluation]'"
    ) from error

MONTHS = range(1, 13)


def month_table(returns: pd.Series) -> pd.DataFrame:
    """Compounded returns: years x months (1..12) plus column "year"; NaN where there is no bar.

    Args:
        returns: (bars,) by datetime, simple returns; a bar without one is left out.
    """
    returns = compounding(returns)
    if returns.empty:
        return pd.DataFrame(
            index=pd.Index([], name="year", dtype=int), columns=[*MONTHS, "year"], dtype=float
        )
    months = empyrical.aggregate_returns(returns, "monthly").unstack()
    years = empyrical.aggregate_returns(returns, "yearly")
    return months.reindex(columns=MONTHS).assign(year=years).rename_axis(index="year", columns=None)
