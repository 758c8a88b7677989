from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kronos.config import SampleConfig
from kronos.forecast import Forecast
from kronos.inference.cuda_graph import CudaGraphCache
from kronos.panels import KEYS
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.benchmarks.plain import plain_forecast
from tests.kronos.builders import compiler, make_bars, make_model, make_panel, make_tokenizer

H = 5
SAMPLING = SampleConfig(samples=4, T=1.0, top_p=0.95, seed=3)


@pytest.fixture(scope="module")
def predictor() -> KronosPredictor:
    return KronosPredictor(make_model(), make_tokenizer(), "cpu", max_context=16)


@pytest.fixture(scope="module")
def windows() -> Windows:
    """Three instruments, ten dates, lookbacks from 3 to 12 bars."""
    panel = make_panel(20, "A", "B", "C")
    panel["B"] = panel["B"].iloc[6:]  # listed later
    return Windows.rolling(panel, 12, H, "B", start=panel["A"].index[8], min_bars=3)


def assert_same_paths(ours: np.ndarray, theirs: np.ndarray, scale: np.ndarray) -> None:
    """Equal up to 1e-5 of a normalized bar: a token drawn otherwise moves a path by tenths."""
    np.testing.assert_array_less(np.abs(ours - theirs) / scale[:, None], 1e-4)


# Windows -> Forecast


def test_a_forecast_has_a_path_for_every_window_sample_step_and_feature(
    predictor: KronosPredictor, windows: Windows
) -> None:
    forecast = predictor.forecast(windows, SAMPLING)
    assert forecast.paths.shape == (len(windows), 4, H, 6)
    assert forecast.paths.dtype == np.float32
    assert np.isfinite(forecast.paths).all()
    assert forecast.index.equals(windows.index)
    np.testing.assert_array_equal(forecast.timestamps, windows.future)
    np.testing.assert_array_equal(forecast.last_bar, windows.last_bar)


def test_the_same_forecast_twice_is_the_same_to_the_bit(predictor: KronosPredictor, windows: Windows) -> None:
    once, again = (predictor.forecast(windows, SAMPLING) for _ in range(2))
    np.testing.assert_array_equal(once.paths, again.paths)
    assert once.provenance == again.provenance


def test_another_seed_is_another_forecast(predictor: KronosPredictor, windows: Windows) -> None:
    other = SampleConfig(samples=4, T=1.0, top_p=0.95, seed=4)
    paths = [predictor.forecast(windows, s).paths for s in (SAMPLING, other)]
    assert not np.allclose(*paths)


def test_a_forecast_does_not_touch_or_follow_torchs_global_stream(
    predictor: KronosPredictor, windows: Windows
) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    once = predictor.forecast(windows, SAMPLING).paths
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    np.testing.assert_array_equal(predictor.forecast(windows, SAMPLING).paths, once)


def test_a_window_alone_has_the_forecast_it_has_among_others(
    predictor: KronosPredictor, windows: Windows
) -> None:
    together, scale = predictor.forecast(windows, SAMPLING).paths, windows.scale().width
    for i in range(len(windows)):
        alone = predictor.forecast(windows[i : i + 1], SAMPLING).paths
        assert_same_paths(alone, together[i : i + 1], scale[i : i + 1])


def test_the_order_of_windows_does_not_change_their_forecasts(
    predictor: KronosPredictor, windows: Windows
) -> None:
    order = np.random.default_rng(0).permutation(len(windows))
    shuffled = predictor.forecast(windows[order], SAMPLING).paths
    assert_same_paths(
        shuffled, predictor.forecast(windows, SAMPLING).paths[order], windows.scale().width[order]
    )


@pytest.mark.parametrize("memory", [1, 50_000, 200_000])
def test_the_size_of_chunks_does_not_change_a_forecast(
    memory: int, predictor: KronosPredictor, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predictor.forecast(windows, SAMPLING).paths
    monkeypatch.setattr(predictor, "memory", memory)  # others share this predictor
    chunks: list[int] = []
    pieces = predictor.forecast(windows, SAMPLING, progress=chunks.append).paths
    assert len(chunks) > 1
    assert sum(chunks) == len(windows)
    assert_same_paths(pieces, whole, windows.scale().width)


def test_the_number_of_threads_does_not_change_a_forecast(predictor: KronosPredictor) -> None:
    windows = Windows.rolling(make_panel(20, "A", "B"), 8, 2, "B")
    sampling = SampleConfig(samples=64, T=1.0, top_p=0.95)  # large enough for torch to split the work
    paths, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            paths.append(predictor.forecast(windows, sampling).paths)
    finally:
        torch.set_num_threads(threads)
    assert_same_paths(*paths, windows.scale().width)


@pytest.mark.parametrize("samples", [1, 3])
def test_the_first_paths_are_the_same_however_many_are_drawn(
    samples: int, predictor: KronosPredictor, windows: Windows
) -> None:
    few = SampleConfig(samples=samples, T=1.0, top_p=0.95, seed=3)
    many = predictor.forecast(windows, SAMPLING).paths[:, :samples]
    assert_same_paths(predictor.forecast(windows, few).paths, many, windows.scale().width)


def twins(first: str, second: str) -> Windows:
    """The same bars as two instruments, each on its own dates, years apart."""
    bars = make_bars(10)
    panel = {"A": bars.set_axis(pd.date_range(first, periods=10))}
    panel["B"] = bars.set_axis(pd.date_range(second, periods=10))
    return Windows.rolling(panel, 10, H, "D")


def test_instruments_of_one_date_share_their_draws(predictor: KronosPredictor) -> None:
    windows = twins("2001-01-01", "2001-01-01")
    paths = predictor.forecast(windows, SAMPLING).paths
    assert_same_paths(paths[:1], paths[1:], windows.scale().width[:1])


def test_dates_do_not_share_their_draws(predictor: KronosPredictor) -> None:
    # The calendars of 2001 and 2007 agree day by day, so that nothing but the draws can differ.
    windows = twins("2001-01-01", "2007-01-01")
    np.testing.assert_array_equal(windows.stamps[0], windows.stamps[1])
    paths = predictor.forecast(windows, SAMPLING).paths
    assert not np.allclose(paths[0], paths[1])
    greedy = predictor.forecast(windows, SampleConfig(samples=1, T=0)).paths
    assert_same_paths(greedy[:1], greedy[1:], windows.scale().width[:1])


def test_paths_of_one_window_differ_unless_they_are_greedy(predictor: KronosPredictor) -> None:
    window = twins("2001-01-01", "2007-01-01")[:1]
    for sampling, distinct in (
        (SAMPLING, 4),
        (SampleConfig(samples=4, T=0), 1),
        (SampleConfig(4, top_k=1), 1),
    ):
        paths = predictor.forecast(window, sampling).paths[0] / window.scale().width[0]
        # Equal tokens in other rows of a product may round differently; other tokens are far apart.
        apart = np.abs(paths[:, None] - paths).max(axis=(2, 3)) > 1e-3  # (S, S)
        assert len(np.unique(apart, axis=0)) == distinct


@pytest.mark.parametrize("context_overflow", ["recompute", "rolling"])
@pytest.mark.parametrize("max_context", [8, 16])
def test_a_forecast_dated_t_uses_nothing_after_the_close_of_bar_t(
    max_context: int, context_overflow: Any
) -> None:
    predictor = KronosPredictor(
        make_model(), make_tokenizer(), "cpu", max_context, context_overflow=context_overflow
    )
    panel = make_panel(24, "A", "B")
    asof = panel["A"].index[14]

    def forecast(panel: dict[str, pd.DataFrame]) -> Forecast:
        cut = Windows.rolling(panel, 12, H, "B", start=panel["A"].index[11], end=asof)
        return predictor.forecast(cut, SAMPLING)

    now = forecast(panel)
    scrambled = {
        name: pd.concat([bars[:asof], bars[asof:].iloc[1:] * [7, 7, 7, 7, 0, 3]])
        for name, bars in panel.items()
    }
    truncated = {name: bars[:asof] for name, bars in panel.items()}
    for other in (scrambled, truncated):
        then = forecast(other)
        np.testing.assert_array_equal(now.paths, then.paths)
        np.testing.assert_array_equal(now.timestamps, then.timestamps)
        assert now.provenance == then.provenance


def test_a_forecast_says_what_it_was_made_with(predictor: KronosPredictor, windows: Windows) -> None:
    provenance = predictor.forecast(windows, SAMPLING).provenance
    assert provenance.sampling == SAMPLING
    assert provenance.max_context == 16
    assert provenance.data_sha256 == windows.digest()
    assert (provenance.model, provenance.weights_sha256) == ("Kronos", None)  # not loaded from a file


def test_settings_left_out_are_the_defaults(predictor: KronosPredictor, windows: Windows) -> None:
    some = windows[:2]
    np.testing.assert_array_equal(
        predictor.forecast(some).paths, predictor.forecast(some, SampleConfig()).paths
    )


def test_the_clip_reaches_the_tokenizer() -> None:
    window = Windows.rolling({"A": make_bars(12)}, 12, H, "B")
    tight, wide, wider = (
        KronosPredictor(make_model(), make_tokenizer(), "cpu", 16, clip=clip).forecast(window, SAMPLING).paths
        for clip in (0.5, 5, 50)
    )
    assert not np.allclose(tight, wide)
    np.testing.assert_array_equal(wide, wider)  # no bar is five deviations away


def test_no_windows_at_all_are_refused_or_give_an_empty_forecast(
    predictor: KronosPredictor, windows: Windows
) -> None:
    none = windows[np.zeros(len(windows), bool)]
    try:
        forecast = predictor.forecast(none, SAMPLING)
    except ValueError as error:
        assert "no window" in str(error)  # noqa: PT017 (either way is right)
    else:
        assert forecast.paths.shape == (0, 4, H, 6)


# Dropout


def droppy() -> tuple[Any, Any]:
    return make_model(dropout=0.5), make_tokenizer(dropout=0.5)


@pytest.mark.parametrize("when", ["before the predictor is built", "after it is built"])
def test_dropout_is_off_in_a_forecast_though_the_networks_were_in_training_mode(
    when: str, windows: Windows
) -> None:
    model, tokenizer = droppy()
    wanted = KronosPredictor(*droppy(), "cpu", 16).forecast(windows[:4], SAMPLING).paths
    model.train()
    tokenizer.train()
    predictor = KronosPredictor(model, tokenizer, "cpu", 16)
    if when == "after it is built":
        model.train()
        tokenizer.train()
    for _ in range(2):
        np.testing.assert_array_equal(predictor.forecast(windows[:4], SAMPLING).paths, wanted)


# Building


def test_a_tokenizer_of_other_bits_is_refused_with_both_sides() -> None:
    with pytest.raises(ValueError, match=r"\(5, 3\) bits .* writes \(3, 5\).*trained with"):
        KronosPredictor(make_model(), make_tokenizer(s1_bits=3, s2_bits=5), "cpu")


def test_without_a_device_both_networks_are_on_the_fastest_one() -> None:
    predictor = KronosPredictor(make_model(), make_tokenizer(), max_context=16)
    fastest = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert predictor.device.type == fastest
    assert {w.device.type for n in (predictor.model, predictor.tokenizer) for w in n.parameters()} == {
        fastest
    }


def test_a_context_without_room_for_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_context=1 .*at least 2"):
        KronosPredictor(make_model(), make_tokenizer(), "cpu", max_context=1)


def test_a_horizon_longer_than_the_context_is_refused(predictor: KronosPredictor) -> None:
    windows = Windows.rolling(make_panel(8, "A"), 4, 17, "B")
    with pytest.raises(ValueError, match=r"horizon of 17 bars .*max_context=16"):
        predictor.forecast(windows, SAMPLING)
    longest = Windows.rolling(make_panel(8, "A"), 4, 16, "B")
    assert np.isfinite(predictor.forecast(longest, SAMPLING).paths).all()


@pytest.mark.parametrize("lookback", [4, 16, 20])
@pytest.mark.parametrize("horizon", [15, 16])
def test_a_horizon_as_long_as_the_context_is_decoded_from_the_path_alone_as_upstream_does(
    horizon: int, lookback: int, predictor: KronosPredictor
) -> None:
    bars = make_bars(lookback, freq="h") * [2, 2, 2, 2, 1, 2]  # near 100, where both rules of a scale are one
    later = pd.date_range(bars.index[-1], periods=horizon + 1, freq="h")[1:]
    torch.manual_seed(3)
    plain = plain_forecast(
        predictor.model,
        predictor.tokenizer,
        Windows.single("A", bars, later),
        SampleConfig(2, 1.0, 0.9),
        max_context=16,
    )
    ours = predictor.predict(bars, bars.index, later, horizon, sample_count=2, verbose=False, seed=3)
    assert ((ours - plain.mean[0]).abs() <= 1e-4 * bars.std(ddof=0)).all(axis=None)


def test_windows_of_any_lookback_have_the_longest_forecast_that_they_have_alone() -> None:
    windows = Windows.rolling(make_panel(20, "A", "B"), 12, 8, "B", min_bars=2)
    whole, scale = small().forecast(windows, SAMPLING).paths, windows.scale().width
    for i in range(0, len(windows), 5):
        alone = small().forecast(windows[i : i + 1], SAMPLING).paths
        assert_same_paths(alone, whole[i : i + 1], scale[i : i + 1])


# Options


def small(**options: Any) -> KronosPredictor:
    """A predictor of a context that these windows outgrow."""
    return KronosPredictor(make_model(), make_tokenizer(), "cpu", 8, **options)


def test_rolling_and_exact_are_one_forecast_until_a_window_outgrows_the_context(windows: Windows) -> None:
    for context, same in ((16, True), (8, False)):
        exact, rolling = (
            KronosPredictor(make_model(), make_tokenizer(), "cpu", context, context_overflow=context_overflow)
            .forecast(windows, SAMPLING)
            .paths
            for context_overflow in ("recompute", "rolling")
        )
        apart = np.abs(exact - rolling) / windows.scale().width[:, None] > 1e-3
        assert apart.any() != same
        fits = windows.lengths <= 8 - H + 1
        assert fits.any()
        assert not apart[fits].any()


@pytest.mark.parametrize("context_overflow", ["recompute", "rolling"])
def test_windows_that_slide_have_the_forecast_they_have_alone_in_any_order_and_chunk(
    context_overflow: Any, windows: Windows
) -> None:
    predictor, scale = small(context_overflow=context_overflow), windows.scale().width
    whole = predictor.forecast(windows, SAMPLING).paths
    order = np.random.default_rng(1).permutation(len(windows))
    assert_same_paths(predictor.forecast(windows[order], SAMPLING).paths, whole[order], scale[order])
    for memory in (1, 100_000):
        assert_same_paths(
            small(context_overflow=context_overflow, memory=memory).forecast(windows, SAMPLING).paths,
            whole,
            scale,
        )


@pytest.mark.parametrize("context_overflow", ["recompute", "rolling"])
@pytest.mark.parametrize("lookback", [2, 8, 12])
def test_the_longest_horizon_is_the_context_and_one_less_where_a_window_rolls(
    context_overflow: Any, lookback: int
) -> None:
    most = 8 if context_overflow == "recompute" else 7
    longest = Windows.rolling(make_panel(12, "A"), lookback, most, "B")[:2]
    assert np.isfinite(small(context_overflow=context_overflow).forecast(longest, SAMPLING).paths).all()
    with pytest.raises(ValueError, match=f"horizon of {most + 1} bars"):
        small(context_overflow=context_overflow).forecast(
            Windows.rolling(make_panel(12, "A"), lookback, most + 1, "B"), SAMPLING
        )


def test_a_bfloat16_forecast_is_another_one_and_always_the_same(windows: Windows) -> None:
    exact = small().forecast(windows, SAMPLING).paths
    once, again = (small(precision="bfloat16").forecast(windows, SAMPLING).paths for _ in range(2))
    assert np.isfinite(once).all()
    assert not np.array_equal(once, exact)
    np.testing.assert_array_equal(once, again)


def test_a_forecast_says_how_its_windows_slide_and_how_precise_it_is(windows: Windows) -> None:
    for context_overflow, precision in (
        ("recompute", "float32"),
        ("rolling", "float32"),
        ("recompute", "bfloat16"),
    ):
        predictor = small(context_overflow=context_overflow, precision=precision)
        provenance = predictor.forecast(windows[:1], SAMPLING).provenance
        assert (provenance.context_overflow, provenance.precision, provenance.max_context) == (
            context_overflow,
            precision,
            8,
        )
        made = predictor.provenance(SAMPLING, windows[:1].digest())
        assert provenance == replace(made, candles="valid")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"context_overflow": "sliding"},
            r"context_overflow='sliding' is unknown\. Choose one of \['recompute', 'rolling'\]",
        ),
        (
            {"context_overflow": ""},
            r"context_overflow='' is unknown\. Choose one of \['recompute', 'rolling'\]",
        ),
        (
            {"precision": "float16"},
            r"precision='float16' is unknown\. Choose one of \['float32', 'bfloat16'\]",
        ),
        ({"anchor": "open"}, r"anchor='open' is unknown\. Choose one of \['last_close', 'decoded_close'\]"),
        ({"memory": 0}, "memory=0 is not a positive number of bytes.* None"),
        ({"memory": -5}, "memory=-5 is not a positive number of bytes.* None"),
    ],
    ids=str,
)
def test_an_invalid_option_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        small(**options)
    assert "\n" not in str(refusal.value)


def test_a_loaded_predictor_has_the_given_options(reference_folder: Path) -> None:
    options: dict[str, Any] = {
        "max_context": 32,
        "clip": 4,
        "context_overflow": "rolling",
        "precision": "bfloat16",
        "compile": True,
        "memory": 123_456,
        "anchor": "decoded_close",
    }
    predictor = KronosPredictor.from_pretrained(reference_folder, device="cpu", **options)
    assert {name: getattr(predictor, name) for name in options} == options
    assert predictor.device.type == "cpu"


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="torch.compile needs a C++ compiler")
def test_compiled_and_replayed_chunks_are_the_forecast_of_plain_ones(
    windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays = []
    monkeypatch.setattr(
        "kronos.inference.pipeline.CudaGraphCache",
        lambda device: replays.append(CudaGraphCache(device)) or replays[-1],
    )
    chunks: list[int] = []
    compiled = small(compile=True, memory=100_000).forecast(windows, SAMPLING, progress=chunks.append).paths
    assert len(replays) == 1
    assert len(chunks) > 1
    assert_same_paths(compiled, small().forecast(windows, SAMPLING).paths, windows.scale().width)


def paths_of(part: slice) -> np.ndarray:
    """Forecast some windows in the current process."""
    panel = Windows.rolling(make_panel(20, "A", "B"), 12, H, "B")
    return small().forecast(panel[part], SAMPLING).paths


@pytest.mark.slow
def test_two_processes_over_halves_give_the_forecast_of_one() -> None:
    windows = Windows.rolling(make_panel(20, "A", "B"), 12, H, "B")
    middle = len(windows) // 2
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        halves = list(pool.map(paths_of, (slice(0, middle), slice(middle, None))))
    assert_same_paths(np.concatenate(halves), paths_of(slice(None)), windows.scale().width)


def test_networks_made_in_inference_mode_forecast_like_others(windows: Windows) -> None:
    with torch.inference_mode():
        predictor = small()
    wanted = small().forecast(windows[:2], SAMPLING).paths
    np.testing.assert_array_equal(predictor.forecast(windows[:2], SAMPLING).paths, wanted)
    with torch.inference_mode():
        np.testing.assert_array_equal(small().forecast(windows[:2], SAMPLING).paths, wanted)


def test_the_index_of_a_forecast_has_the_levels_datetime_and_instrument(
    predictor: KronosPredictor, windows: Windows
) -> None:
    assert predictor.forecast(windows[:1], SAMPLING).index.names == list(KEYS)
