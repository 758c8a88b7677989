"""Fill a store with workers: python -m ...fill STORE TRACES PAUSE WORKERS [RAY ADDRESS], for tests that end it."""

import sys
from pathlib import Path

import kronos_strategies.forecasting
from kronos.predictor import KronosPredictor
from kronos_strategies.distributed import worker_pool
from kronos_strategies.store import ForecastStore
from tests.kronos.builders import make_panel
from tests.kronos_strategies.distributed.workers import Slow
from tests.kronos_strategies.store.conftest import NAMES, SAMPLING, SPEC, windows_of

if __name__ == "__main__":
    store, traces, pause, workers, *ray = sys.argv[1:]
    kronos_strategies.forecasting.CHUNK_WINDOWS = 8
    predictor = KronosPredictor.from_pretrained("kronos-nano", device="cpu")
    pool = worker_pool(int(workers), *ray)
    slow = Slow(predictor, Path(traces), float(pause))
    ForecastStore(store).fill(slow, windows_of(make_panel(60, *NAMES)), SPEC, SAMPLING, pool=pool)
