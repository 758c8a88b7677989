"""A return head compared with sampled paths, bar features and Alpha158: which ranks significantly better?

    python backtests/head_compared.py
    python backtests/head_compared.py --data ~/csi300 --train-until 2021-12-31 --valid-until 2022-06-30 \
        --start 2022-07-20 --end 2023-12-15

LightGBM ranks by bar features (15) and by Alpha158 (Qlib's 158), fitted on the same dates and labels as heads. The
mean ranks of the head with each of the others are compared, too. Scores go to --output as parquet files, and
`kronos compare` compares them with the head: compare.html, compare.json.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import cyclopts
import pandas as pd
from qlib.contrib.data.handler import Alpha158

from kronos.head import ReturnHead
from kronos.windows import Windows
from kronos_strategies.cli import run_kronos
from kronos_strategies.data.simulate import default_store
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.heads.fit import FitSettings, centered_ranks, fit_head
from kronos_strategies.heads.sources import bar_features
from kronos_strategies.qlib.artifacts import read_price_panel
from kronos_strategies.qlib.data_access import init_qlib, member_windows, traded_bars
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.fit import every_date
from kronos_strategies.qlib.model import KronosModel

app = cyclopts.App(help=__doc__, version_flags=[])


@app.default
def head_compared(
    *,
    data: Annotated[Path | None, cyclopts.Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    market: str = "csi300",
    model: str = "kronos-nano",
    heads: str = "",
    fit: str = "",
    train_start: datetime = datetime(2021, 5, 17),
    train_until: datetime = datetime(2022, 6, 30),
    valid_until: datetime = datetime(2022, 12, 15),
    start: datetime = datetime(2023, 1, 3),
    end: datetime = datetime(2023, 12, 1),
    every: int = 5,
    rank_every: int = 1,
    hold: int = 5,
    horizon: int | None = None,
    samples: int = 10,
    alpha158: bool = True,
    device: str | None = None,
    store: Path | None = None,
    output: Path = Path("out/head_compared"),
) -> None:
    """Fit, score, compare.

    Args:
        data: Qlib data directory; the simulated market when omitted.
        market: universe to rank.
        model: checkpoint.
        heads: names of heads; the checkpoint's own when empty.
        fit: ridge or lightgbm to fit a head on the frozen checkpoint; empty takes `heads`.
        train_start: first training date.
        train_until: last date that a training label may use.
        valid_until: last date that a validation label may use.
        start: first date that is ranked.
        end: last date that is ranked.
        every: days between training dates.
        rank_every: days between the dates that are ranked.
        hold: days that a position is held.
        horizon: days that paths cover, hold + 1 when omitted; choose the one of an existing store to reuse it.
        samples: paths per window; 0 leaves paths out.
        alpha158: also compare Alpha158.
        device: cpu, cuda or mps.
        store: folder of forecasts, outputs of heads and hidden states; one in `output` when omitted.
        output: folder of all results.
    """
    output.mkdir(parents=True, exist_ok=True)
    init_qlib(data or default_store(), f"sqlite:///{output.resolve() / 'mlflow.db'}")
    segments = {
        "train": (f"{train_start:%Y-%m-%d}", f"{train_until:%Y-%m-%d}"),
        "valid": (f"{train_until:%Y-%m-%d}", f"{valid_until:%Y-%m-%d}"),
        "test": (f"{start:%Y-%m-%d}", f"{end:%Y-%m-%d}"),
    }
    dataset = ThinnedDataset(rank_every, segments, market=market, hold=hold, horizon=horizon)
    common = {"checkpoint": model, "device": device, "store": str(store or output / "forecasts")}
    ours = KronosModel(**common, samples=0, score="head", heads=heads, fit_head=fit or None, fit_every=every)
    ours.fit(dataset)
    scores = {"head": ours.predict(dataset)}
    if samples:
        scores["paths"] = KronosModel(**common, samples=samples, score="paths").predict(dataset)
    learned = learn_baselines(dataset, train_start, train_until, valid_until, every, alpha158)
    scores |= {name: score.reindex(scores["head"].index) for name, score in learned.items()}
    ranked = {name: centered_ranks(score) for name, score in scores.items()}
    scores |= {f"head and {name}": ranked["head"] + ranked[name] for name in ranked if name != "head"}
    for name, score in scores.items():
        score.rename("score").to_frame().to_parquet(output / f"{name}.parquet")
    save_labels(read_price_panel(scores["head"].index), scores["head"].index, hold, output / "labels.parquet")
    files = [f"{name}={output / name}.parquet" for name in scores]
    written = ["--html", output / "compare.html", "--json", output / "compare.json"]
    run_kronos(
        "compare",
        *files,
        "--labels",
        output / "labels.parquet",
        "--label-horizon",
        hold,
        "--every",
        rank_every,
        *written,
    )


class ThinnedDataset(KronosDataset):
    """One date in `rank_every` of a dataset."""

    def __init__(self, rank_every: int, *args: object, **kwargs: object) -> None:
        self.rank_every = rank_every
        super().__init__(*args, **kwargs)

    def windows(self, segment: str | slice = "test") -> Windows:
        """The windows of those dates."""
        return every_date(super().windows(segment), self.rank_every)


def learn_baselines(
    dataset: KronosDataset,
    train_start: datetime,
    train_until: datetime,
    valid_until: datetime,
    every: int,
    alpha158: bool,
) -> dict[str, pd.Series]:
    """Scores of the test dates by LightGBM on features that no Kronos has seen."""
    settings = FitSettings(pd.Timestamp(train_until), pd.Timestamp(valid_until), "lightgbm", (dataset.hold,))
    test = dataset.windows("test").index
    start = pd.Timestamp(train_start)
    past = member_windows(dataset.spec, start, settings.valid_until, every=every).index
    names = past.append(test).get_level_values("instrument").unique()
    panel = traded_bars(list(names), test.get_level_values("datetime").max())
    features = {"bar features": bar_features(panel, past.append(test))}
    if alpha158:
        span = {"start_time": train_start, "end_time": test.get_level_values("datetime").max()}
        handler = Alpha158(
            dataset.market, **span, fit_start_time=train_start, fit_end_time=train_until, infer_processors=[]
        )
        features["Alpha158"] = handler.fetch(col_set="feature").reindex(past.append(test))
    scores = {}
    for name, table in features.items():
        values = table.to_numpy("float32")
        head: ReturnHead = fit_head(
            values[: len(past)], past, panel, settings, lookback=dataset.spec.lookback, markets=()
        )
        scores[name] = pd.Series(head(values[len(past) :])[:, 0], index=test)
    return scores


def save_labels(market: PricePanel, keys: pd.MultiIndex, hold: int, file: Path) -> None:
    """Returns from the next close on, over 1, 5, 10 bars and the holding."""
    horizons = sorted({1, 5, 10, hold})
    columns = {str(h): market.lookup(market.forward_return(h), keys) for h in horizons}
    pd.DataFrame(columns).to_parquet(file)


if __name__ == "__main__":
    app()
