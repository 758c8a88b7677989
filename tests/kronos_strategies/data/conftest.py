import pandas as pd
import pytest

from kronos_strategies.data.simulate import MarketConfig, SimulatedMarket, simulate_market


@pytest.fixture(scope="session")
def market() -> SimulatedMarket:
    """The market that ships."""
    return simulate_market(MarketConfig())


@pytest.fixture
def bars() -> pd.DataFrame:
    """Two names over five days; BBB lists a day late, skips a day, and splits 2:1 on the last."""
    days = pd.to_datetime(["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05", "2024-01-08"])
    closes = {"AAA": [10.0, 11.0, 12.0, 11.0, 10.0], "BBB": [None, 20.0, None, 22.0, 11.5]}
    rows = [
        (name, day, close, close + 1, close - 1, close, 100.0, 100.0 * close, 2.0 if close == 11.5 else 1.0)
        for name, series in closes.items()
        for day, close in zip(days, series, strict=True)
        if close is not None
    ]
    columns = ["instrument", "datetime", "open", "high", "low", "close", "volume", "amount", "factor"]
    return pd.DataFrame(rows, columns=columns)
