"""The plain algorithm gives the forecasts of upstream and of the predictor; only then is a ratio of times fair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kronos.bars import check_bars
from kronos.config import SampleConfig
from kronos.model import Kronos
from kronos.predictor import KronosPredictor
from kronos.tokenizer import KronosTokenizer
from kronos.upstream_calls import series_windows
from tests.benchmarks.plain import plain_forecast
from tests.kronos.builders import make_bars, make_model, make_tokenizer
from tests.kronos.test_reference import CASE_NAMES, CASES, series

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # networks this small only wait for a second one


@pytest.mark.parametrize("case", CASES, ids=CASE_NAMES)
def test_the_plain_loop_draws_upstreams_tokens_and_forecasts_upstreams_bars(case: dict[str, Any]) -> None:
    folder, number = REFERENCE / "kronos_tiny", CASES.index(case)
    bars = pd.read_csv(REFERENCE / "bars.csv", parse_dates=["timestamps"])
    frames, x, y = series(case, bars)
    windows = series_windows(frames, x, y, case["pred_len"])
    sampling = SampleConfig(case["sample_count"], case["T"], case["top_p"], case["top_k"])
    model, tokenizer = Kronos.from_pretrained(folder).eval(), KronosTokenizer.from_pretrained(folder).eval()
    torch.manual_seed(case["seed"])
    plain = plain_forecast(model, tokenizer, windows, sampling, case["max_context"])
    with np.load(folder / "expected.npz") as expected:
        np.testing.assert_array_equal(plain.tokens.s1, expected[f"case{number}_s1"])
        np.testing.assert_array_equal(plain.tokens.s2, expected[f"case{number}_s2"])
        for frame, ours, theirs in zip(frames, plain.mean, expected[f"case{number}_forecast"], strict=True):
            # 1e-5 of a normalized bar, in the bars' own units.
            spread = check_bars(frame).std(ddof=0).to_numpy()
            np.testing.assert_array_less(np.abs(ours - theirs), 1e-5 * (spread + np.abs(theirs)) + 1e-9)


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize(("lookback", "horizon", "context"), [(12, 7, 64), (12, 9, 16), (20, 9, 16)])
def test_the_plain_loop_and_the_predictor_forecast_the_same_bars_from_the_same_seed(
    lookback: int, horizon: int, context: int, samples: int
) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    bars = [make_bars(lookback + horizon, seed) for seed in range(3)]
    frames = [frame.iloc[:lookback] for frame in bars]
    x, y = [frame.index for frame in frames], [frame.index[lookback:] for frame in bars]
    predictor = KronosPredictor(model, tokenizer, "cpu", context)
    torch.manual_seed(3)
    ours = predictor.predict_batch(frames, x, y, horizon, sample_count=samples, verbose=False)
    torch.manual_seed(3)
    windows = series_windows(frames, x, y, horizon)
    plain = plain_forecast(model, tokenizer, windows, SampleConfig(samples, T=1.0, top_p=0.9), context)
    np.testing.assert_allclose(np.stack([frame.to_numpy() for frame in ours]), plain.mean, rtol=1e-4)
