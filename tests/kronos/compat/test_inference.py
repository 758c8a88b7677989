"""Upstream's loop and its parts give upstream's numbers; see tests/kronos/test_reference.py for the tolerances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import kronos
from kronos import compat
from kronos.bars import check_bars
from kronos.compat import (
    Kronos,
    KronosPredictor,
    KronosTokenizer,
    auto_regressive_inference,
    calc_time_stamps,
    sample_from_logits,
    top_k_top_p_filtering,
)
from kronos.config import SampleConfig
from kronos.tokenizer import Tokens
from tests.benchmarks.plain import _filtered, _step
from tests.kronos.builders import make_model, make_stamps, make_tokenizer
from tests.kronos.test_reference import CASE_NAMES, CASES, series, settings

Arrays = dict[str, np.ndarray]


def normalized(case: dict[str, Any], bars: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arguments that upstream's `predict_batch` passes to its loop: bars (B, L, 6) and stamps of both sides."""
    frames, x, y = series(case, bars)
    values = np.stack([check_bars(frame).to_numpy(np.float32) for frame in frames])
    mean, std = values.mean(axis=1, keepdims=True), values.std(axis=1, keepdims=True)
    stamps = (np.stack([calc_time_stamps(times).to_numpy(np.float32) for times in side]) for side in (x, y))
    return ((values - mean) / (std + 1e-5), *stamps)


@pytest.mark.parametrize("case", CASES, ids=CASE_NAMES)
def test_the_loop_gives_upstreams_average_preceded_by_the_past_that_is_decoded_with_it(
    case: dict[str, Any],
    model: Kronos,
    tokenizer: KronosTokenizer,
    reference_bars: pd.DataFrame,
    expected: Arrays,
) -> None:
    x, x_stamp, y_stamp = map(torch.from_numpy, normalized(case, reference_bars))
    horizon, context = case["pred_len"], case["max_context"]
    rest = {name: case[name] for name in ("T", "top_k", "top_p", "sample_count")}
    torch.manual_seed(case["seed"])
    ours = auto_regressive_inference(tokenizer, model, x, x_stamp, y_stamp, context, horizon, **rest)
    assert isinstance(ours, np.ndarray)
    assert ours.shape == (len(x), min(x.shape[1] + horizon, context), 6)
    theirs = expected[f"case{CASES.index(case)}_paths_normalised"].mean(axis=1)
    np.testing.assert_allclose(ours[:, -horizon:], theirs, rtol=1e-5, atol=1e-5)
    torch.manual_seed(case["seed"])
    predictor = KronosPredictor(model, tokenizer, "cpu", context, 5)
    generated = predictor.generate(
        x.numpy(), x_stamp.numpy(), y_stamp.numpy(), horizon, verbose=False, **rest
    )
    np.testing.assert_allclose(generated, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("lookback", "horizon"), [(8, 3), (20, 3), (20, 16), (5, 16), (1, 4)])
@torch.no_grad()
def test_the_whole_answer_is_the_average_of_one_decode_a_path_over_the_last_of_the_context(
    lookback: int, horizon: int
) -> None:
    context, samples = 16, 3
    tokenizer, model = make_tokenizer(), make_model()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, lookback, 6, generator=generator) * 3  # some beyond the clip
    stamps = make_stamps(2, lookback + horizon)
    torch.manual_seed(5)
    ours = auto_regressive_inference(
        tokenizer,
        model,
        x,
        stamps[:, :lookback],
        stamps[:, lookback:],
        context,
        horizon,
        sample_count=samples,
    )
    torch.manual_seed(5)
    tokens = tokenizer.encode(x.clamp(-5, 5).repeat_interleave(samples, dim=0))
    for _ in range(horizon):
        tokens = _step(
            model, tokens, stamps.repeat_interleave(samples, 0), SampleConfig(samples, 1.0, 0.99), context
        )
    paths = tokenizer.decode(Tokens(*(half[:, -context:] for half in tokens)))
    np.testing.assert_allclose(ours, paths.unflatten(0, (2, samples)).mean(dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own", [True, False], ids=["networks of kronos", "networks of kronos.compat"])
def test_a_prediction_is_upstreams_through_either_modules_networks(
    own: bool,
    model: Kronos,
    tokenizer: KronosTokenizer,
    reference_folder: Any,
    reference_bars: pd.DataFrame,
    expected: Arrays,
) -> None:
    case = CASES[1]
    if own:
        model = kronos.Kronos.from_pretrained(reference_folder)
        tokenizer = kronos.KronosTokenizer.from_pretrained(reference_folder)
    frames, x, y = series(case, reference_bars)
    torch.manual_seed(case["seed"])
    predictor = KronosPredictor(model, tokenizer, max_context=case["max_context"], device="cpu")
    forecasts = predictor.predict_batch(frames, x, y, verbose=False, **settings(case))
    for ours, theirs in zip(forecasts, expected[f"case{CASES.index(case)}_forecast"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-3)


def test_the_predictor_names_its_columns_as_upstreams_does(model: Kronos, tokenizer: KronosTokenizer) -> None:
    predictor = KronosPredictor(model, tokenizer, "cpu")
    columns = [*predictor.price_cols, predictor.vol_col, predictor.amt_vol]
    assert columns == ["open", "high", "low", "close", "volume", "amount"]
    assert predictor.time_cols == ["minute", "hour", "weekday", "day", "month"]
    assert (predictor.max_context, predictor.clip) == (512, 5)


def test_the_plain_predictor_says_where_upstreams_attributes_are() -> None:
    plain = kronos.KronosPredictor(make_model(), make_tokenizer(), "cpu")
    for name in ("generate", "price_cols", "vol_col", "amt_vol", "time_cols"):
        with pytest.raises(AttributeError, match=rf"has no {name}\. Use kronos\.compat"):
            getattr(plain, name)
    assert not hasattr(plain, "forecasts")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": (2, 8, 5)}, r"x is \(2, 8, 5\)\. Pass normalized bars \(B, L, 6\)"),
        ({"x": (8, 6)}, r"x is \(8, 6\)"),
        ({"x_stamp": (2, 7, 5)}, r"x_stamp is \(2, 7, 5\)\. Pass the calendar fields \(2, 8, 5\)"),
        ({"y_stamp": (2, 2, 5)}, r"y_stamp is \(2, 2, 5\)\. Pass the calendar fields \(2, 3, 5\)"),
        ({"y_stamp": (1, 3, 5)}, r"y_stamp is \(1, 3, 5\)"),
        ({"pred_len": 17}, r"pred_len=17 does not fit max_context=16\. Pass 1 to 16"),
        ({"pred_len": 0}, "pred_len=0 "),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_the_loop_are_refused_in_one_sentence(
    changes: dict[str, Any], message: str
) -> None:
    shapes = {"x": (2, 8, 6), "x_stamp": (2, 8, 5), "y_stamp": (2, 3, 5), "pred_len": 3} | changes
    pred_len = shapes.pop("pred_len")
    tensors = {name: torch.ones(shape) for name, shape in shapes.items()}
    with pytest.raises(ValueError, match=message):
        auto_regressive_inference(
            make_tokenizer(), make_model(), **tensors, max_context=16, pred_len=pred_len
        )


@pytest.mark.parametrize("zone", [None, "Asia/Shanghai"])
def test_calendar_fields_are_those_of_upstream(zone: str | None) -> None:
    times = pd.Series(pd.date_range("2024-02-05 09:31", periods=3, freq="7h", tz=zone), index=[7, 8, 9])
    frame = calc_time_stamps(times)
    assert list(frame.columns) == ["minute", "hour", "weekday", "day", "month"]
    assert list(frame.index) == [7, 8, 9]
    fields = {name: name for name in frame} | {"weekday": "day_of_week"}
    for name, values in frame.items():
        pd.testing.assert_series_equal(values, getattr(times.dt, fields[name]), check_names=False)
    np.testing.assert_array_equal(calc_time_stamps(pd.DatetimeIndex(times)), frame)
    np.testing.assert_array_equal(calc_time_stamps(list(times)), frame)


def test_calendar_fields_of_anything_but_timestamps_are_refused() -> None:
    with pytest.raises(ValueError, match="x_timestamp has no timestamp in row 1"):
        calc_time_stamps(pd.Series(pd.DatetimeIndex(["2024-01-02", pd.NaT])))
    with pytest.raises(ValueError, match="x_timestamp does not contain timestamps"):
        calc_time_stamps(pd.Series([1, 2, 3]))


def logits() -> Tensor:
    return torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) * 2


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (5, 0.3), (0, 0.7), (0, 0.05), (99, 1.0)])
def test_filters_keep_what_upstreams_keep(top_k: int, top_p: float) -> None:
    wanted = _filtered(logits(), SampleConfig(1, 1.0, top_p, top_k))
    given = logits()
    assert torch.equal(top_k_top_p_filtering(given, top_k, top_p), wanted)
    assert torch.equal(given, logits())
    marked = top_k_top_p_filtering(given, top_k, top_p, filter_value=-7.5)
    assert torch.equal(marked, wanted.masked_fill(wanted.isinf(), -7.5))


@pytest.mark.parametrize("least", [1, 4])
def test_filters_keep_at_least_the_given_number_of_tokens(least: int) -> None:
    for filters in ({"top_k": 1}, {"top_p": 0.01}):
        kept = top_k_top_p_filtering(logits(), min_tokens_to_keep=least, **filters).isfinite()
        assert (kept.sum(dim=-1) == least).all()


def test_a_draw_is_torchs_from_the_filtered_distribution() -> None:
    for T, top_k, top_p in (
        (1.0, 5, 1.0),
        (0.5, 0, 0.9),
        (2.0, None, None),
        (1.0, 3, None),
        (1.0, None, 0.5),
    ):
        wanted = _filtered(logits() / T, SampleConfig(1, T, top_p or 1.0, top_k or 0)).softmax(dim=-1)
        torch.manual_seed(3)
        drawn = sample_from_logits(logits(), T, top_k, top_p)
        torch.manual_seed(3)
        assert torch.equal(drawn, torch.multinomial(wanted, 1))


@pytest.mark.parametrize("how", [{"sample_logits": False}, {"temperature": 0.0}, {"top_k": 1}], ids=str)
def test_the_most_likely_token_is_taken_when_nothing_is_sampled(how: dict[str, Any]) -> None:
    assert torch.equal(sample_from_logits(logits(), **how), logits().argmax(dim=-1, keepdim=True))


def test_every_name_of_upstream_exists_and_the_package_says_where() -> None:
    for name in compat.__all__:
        assert getattr(compat, name).__name__ == name
    with pytest.raises(AttributeError, match=r"upstream's calls are in kronos\.compat"):
        kronos.auto_regressive_inference  # noqa: B018 (the access is the test)


def test_upstreams_example_runs_by_a_change_of_import(
    reference_folder: Any, reference_bars: pd.DataFrame
) -> None:
    df, lookback, pred_len = reference_bars, 60, 12
    tokenizer = KronosTokenizer.from_pretrained(str(reference_folder / "tokenizer"))
    model = Kronos.from_pretrained(str(reference_folder / "predictor"))
    predictor = KronosPredictor(model, tokenizer, "cpu", 512)
    y_timestamp = df.loc[lookback : lookback + pred_len - 1, "timestamps"]
    pred_df = predictor.predict(
        df=df.loc[: lookback - 1, ["open", "high", "low", "close", "volume", "amount"]],
        x_timestamp=df.loc[: lookback - 1, "timestamps"],
        y_timestamp=y_timestamp,
        pred_len=pred_len,
        T=1.0,
        top_p=0.9,
        sample_count=1,
        verbose=False,
    )
    np.testing.assert_array_equal(pred_df.index, y_timestamp)
    assert np.isfinite(pred_df).all(axis=None)
