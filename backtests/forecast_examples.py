"""The example scripts of upstream, a command each: forecast held back bars, and draw the forecast with them.

    python backtests/forecast_examples.py series --output out.png

The bars are those of SH600977 in steps of 5 minutes where shared/data has them, else of a simulated share.
"""

from pathlib import Path

import cyclopts
import pandas as pd

from kronos import FEATURES, KronosPredictor, SampleConfig, adjust_bars
from kronos.paths import china_limits
from kronos_strategies import MarketConfig, save_forecast_plot, simulate_market

FILE = Path(__file__).parents[2] / "shared" / "data" / "sh600977_5min_2024.parquet"
SAMPLING = SampleConfig(samples=20, T=1.0, top_p=0.9)
load = KronosPredictor.from_pretrained
app = cyclopts.App(help=__doc__)


def load_bars() -> tuple[str, pd.DataFrame]:
    """Name and bars of one share, indexed by datetime."""
    simulated = MarketConfig(instruments=2)
    tidy = pd.read_parquet(FILE) if FILE.is_file() else adjust_bars(simulate_market(simulated).bars)
    name = str(tidy["instrument"].iloc[0])
    return name, tidy[tidy["instrument"] == name].set_index("datetime")[list(FEATURES)]


@app.command
def series(output: Path = Path("out.png"), *, model: str = "kronos-nano", volume: bool = True) -> None:
    """One series, 120 bars ahead of 400; with --no-volume the model reads prices alone."""
    _, bars = load_bars()
    bars = bars if volume else bars.drop(columns=["volume", "amount"])
    forecast = load(model).forecast(bars.iloc[:-120], SAMPLING, horizon=120, lookback=400)
    print(forecast, forecast.frame(), save_forecast_plot(forecast, output, bars), sep="\n")


@app.command
def batch(output: Path = Path("out.png"), *, model: str = "kronos-nano") -> None:
    """Several series in one call; here the same share until five dates, 30 bars apart."""
    _, bars = load_bars()
    known = {f"until {bars.index[-end - 1]}": bars.iloc[:-end] for end in range(120, 270, 30)}
    forecast = load(model).forecast(known, SAMPLING, horizon=120, lookback=400)
    print(forecast, save_forecast_plot(forecast, output, dict.fromkeys(known, bars)), sep="\n")


@app.command
def a_share(output: Path = Path("out.png"), *, model: str = "kronos-nano") -> None:
    """Daily bars of a Chinese share, with the holidays of the exchange and its price limits."""
    name, bars = load_bars()
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum", "amount": "sum"}
    days = {name: bars.groupby(bars.index.normalize()).agg(how)}
    known = {name: days[name].iloc[:-10]}
    forecast = load(model).forecast(known, SAMPLING, horizon=10, lookback=40, calendar="XSHG")
    forecast = forecast.limited(china_limits)
    print(forecast, forecast.frame(), save_forecast_plot(forecast, output, days), sep="\n")


if __name__ == "__main__":
    app()
