"""What the language is worth: the same network and return head, trained with and without the token loss.

    python backtests/language_ablation.py DATA --output out/language

DATA is a folder with csi300_2005_2019.parquet, nifty50_2000_2020.parquet, sp500_2013_2018.parquet,
us_1995_2017.parquet and csi300_2020_2023.parquet: tidy bars. Small networks are trained on all or on a share of the
instruments of one market or of four, until the end of 2018, from random weights and for the same number of steps.
Their heads rank the held-out bars of csi300_2020_2023.parquet. Finished networks are reused, so that an interrupted
run resumes. In --output: language.md, and a folder for each network.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import cyclopts
import pandas as pd

from kronos import KronosPredictor, Windows
from kronos.config import ModelConfig
from kronos.training.config import Source, TrainingConfig
from kronos.training.run import run_stage
from kronos.utils import run_command, show_log
from kronos_strategies.checkpoint_evaluation import read_evaluation_data
from kronos_strategies.evaluation.distribution.scores import HorizonEvaluation
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.evaluation.significance import MeanTest
from kronos_strategies.heads.selection import load_readers

MARKETS = {"csi300_2005_2019": 0.25, "nifty50_2000_2020": 0.10, "sp500_2013_2018": 0.10, "us_1995_2017": 0.30}
HELD_OUT, START, END = "csi300_2020_2023", "2020-06-01", "2023-12-13"
SIZE = ModelConfig(s1_bits=10, s2_bits=10, d_model=64, n_layers=3, n_heads=4, ff_dim=192)
LOOKBACK, EVERY = 90, 5
FEWEST = (
    30  # instruments of a market: a head needs dates with 20, and not all instruments have bars on all dates
)
HORIZONS = (5, 10)  # bars
OBJECTIVES = {"language and head": 1.0, "head alone": 0.0}  # weight of the token loss

app = cyclopts.App(help=__doc__, version_flags=[])


@dataclass(frozen=True)
class Network:
    """Training data and objective of one network."""

    markets: int
    share: float
    objective: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.markets}-markets-{self.share:g}-{self.objective.replace(' ', '-')}-{self.seed}"


@app.default
def language_ablation(
    data: Path,
    *,
    output: Path = Path("out/language"),
    shares: Annotated[tuple[float, ...], cyclopts.Parameter(consume_multiple=True)] = (1.0, 0.3, 0.1),
    seeds: int = 2,
    steps: int = 800,
    batch_size: int = 256,
) -> None:
    """Train, score, compare.

    Args:
        data: folder with the five files.
        output: folder of all results.
        shares: shares of each market's instruments to train on, of at least 30.
        seeds: networks of each kind, which differ in initial weights and order of windows.
        steps: optimizer steps of each network.
        batch_size: windows per step.
    """
    held_out = read_evaluation_data([data / f"{HELD_OUT}.parquet"])
    windows = Windows.rolling(
        held_out.bars, LOOKBACK, 1, held_out.calendar, start=START, end=END, every=EVERY
    )
    prices = PricePanel.from_bars(held_out.bars)
    bars, scores = {}, {}
    for seed in range(seeds):
        for share in shares:
            for markets in (1, len(MARKETS)):
                for objective in OBJECTIVES:
                    network = Network(markets, share, objective, seed)
                    folder = output / network.name
                    train(network, folder, data, steps, batch_size)
                    bars[markets, share] = trained_bars(folder)
                    scores[network] = score(folder, windows)
        write(output, bars, scores, windows.index, prices, seed + 1)


def train(network: Network, folder: Path, data: Path, steps: int, batch_size: int) -> None:
    """Train a network, or the rest of it."""
    config = TrainingConfig(
        output=folder,
        sources=tuple(sources(network, data)),
        train_until="2018-12-31",
        validate_until="2019-12-31",
        lookback=LOOKBACK,
        horizon=17,
        pretrained="none",
        tokenizer="kronos-nano",
        predictor_size=SIZE,
        dropout=0.1,
        token_weight=OBJECTIVES[network.objective],
        max_steps=steps,
        batch_size=batch_size,
        accumulate=4,
        learning_rate=1.5e-3,
        weight_decay=0.1,
        clip_norm=1.0,
        validate_every=max(1, steps // 4),
        validation_windows=512,
        rank_dates=60,
        select_by="rank",  # the only criterion that both objectives share
        seed=network.seed,
        device="cpu",
        resume=(folder / "run" / "predictor" / "settings.json").is_file(),
    )
    run_stage("predictor", config)


def sources(network: Network, data: Path) -> Iterator[Source]:
    """A share of the instruments of each market, the same ones in every run."""
    for name, weight in list(MARKETS.items())[: network.markets]:
        file = data / f"{name}.parquet"
        known = pd.read_parquet(file, columns=["instrument"])["instrument"].unique()
        shuffled = sorted(known, key=lambda each: hashlib.sha256(str(each).encode()).digest())
        chosen = tuple(sorted(map(str, shuffled[: max(FEWEST, round(network.share * len(known)))])))
        yield Source(
            file, name, instruments=chosen, weight=weight, head=True, frequency="1day", derive_amount=True
        )


def trained_bars(folder: Path) -> int:
    """Training windows of a network, which are about as many as its bars."""
    record = pd.read_json(folder / "best" / "predictor" / "training.json", typ="series")
    return sum(entry["training_windows"] for entry in record["data"])


def score(folder: Path, windows: Windows) -> pd.DataFrame:
    """Outputs of the head on the held-out windows, a column for each of its horizons."""
    file = folder / "scores.parquet"
    if not file.is_file():
        load = partial(KronosPredictor.from_pretrained, device="cpu")
        (reader,) = load_readers(load(str(folder / "best")), (), load)
        outputs = reader.head(reader.predictor.embed(windows))
        columns = [str(horizon) for horizon in reader.head.info.horizons]
        pd.DataFrame(outputs, windows.index, columns).to_parquet(file)
    return pd.read_parquet(file)


def write(
    output: Path,
    bars: dict[tuple[int, float], int],
    scores: dict[Network, pd.DataFrame],
    index: pd.MultiIndex,
    prices: PricePanel,
    seeds: int,
) -> None:
    """One table for each horizon: RankIC of both objectives, averaged over seeds by date, and their difference."""
    lines = [
        f"{len(index):,} windows of {HELD_OUT}, {START} to {END}, every {EVERY}th date; {seeds} seed(s)."
    ]
    for horizon in HORIZONS:
        rows = HorizonEvaluation(pd.DataFrame(index=index), prices, horizon)
        label = rows.lookup(prices.forward_return(horizon))
        lines += ["", f"RankIC at {horizon} days", ""]
        lines += [
            f"| markets | windows | {' | '.join(OBJECTIVES)} | difference |",
            "|---:|---:|---:|---:|---:|",
        ]
        for (markets, share), count in bars.items():
            daily = {
                objective: sum(
                    rows.rank_ic(scores[Network(markets, share, objective, seed)][str(horizon)], label)
                    for seed in range(seeds)
                )
                / seeds
                for objective in OBJECTIVES
            }
            both = [interval(rows.test(each)) for each in daily.values()]
            first, second = daily.values()
            cells = [str(markets), f"{count:,}", *both, interval(rows.test(first - second))]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "± half of a 95 % interval over dates."]
    (output / "language.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def interval(test: MeanTest) -> str:
    """Mean ± half of the 95 % interval."""
    return f"{test.mean:+.4f} ± {test.high - test.mean:.4f}"


if __name__ == "__main__":
    show_log()
    run_command(app)
