"""A process that fills a store, for tests that kill it or run several: python -m ...filler STORE PAUSE GO.

It waits for the file GO, pauses before each chunk, and prints which dates it computed.
"""

import json
import sys
import time
from pathlib import Path

import kronos_strategies.forecasting
from kronos.predictor import KronosPredictor
from kronos_strategies.store import ForecastStore
from tests.kronos.builders import make_panel

from .conftest import NAMES, SAMPLING, SPEC, Spy, windows_of

if __name__ == "__main__":
    folder, pause, go = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    kronos_strategies.forecasting.CHUNK_WINDOWS = 8
    predictor = KronosPredictor.from_pretrained("kronos-nano", device="cpu")
    windows = windows_of(make_panel(60, *NAMES))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not go.exists():
        time.sleep(0.01)
    spy = Spy(predictor, before=lambda asked: time.sleep(pause))
    filled = ForecastStore(folder).fill(spy, windows, SPEC, SAMPLING)
    dates = [f"{date:%Y-%m-%d}" for date in spy.dates]
    sys.stdout.write(json.dumps({"computed": filled.computed, "dates": dates}))
