from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kronos.bars import FEATURES
from kronos.config import SampleConfig
from kronos.forecast import Forecast
from kronos.inference.cuda_graph import CudaGraphCache
from kronos.model import Kronos
from kronos.predictor import KronosPredictor
from kronos.windows import KEYS, Windows
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
def test_a_forecast_dated_t_uses_nothing_behind_the_close_of_bar_t(
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
    assert (provenance.model, provenance.weights_sha256) == ("Kronos", None)  # came from no file


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


def test_without_a_device_the_fastest_there_is_takes_both_networks() -> None:
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
def test_an_option_that_is_none_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        small(**options)
    assert "\n" not in str(refusal.value)


def test_a_loaded_predictor_has_the_options_it_was_asked_for(reference_folder: Path) -> None:
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
        "kronos.inference.pipeline.Replay",
        lambda device: replays.append(CudaGraphCache(device)) or replays[-1],
    )
    chunks: list[int] = []
    compiled = small(compile=True, memory=100_000).forecast(windows, SAMPLING, progress=chunks.append).paths
    assert len(replays) == 1
    assert len(chunks) > 1
    assert_same_paths(compiled, small().forecast(windows, SAMPLING).paths, windows.scale().width)


def paths_of(part: slice) -> np.ndarray:
    """Of some windows, computed in whatever process this runs in."""
    panel = Windows.rolling(make_panel(20, "A", "B"), 12, H, "B")
    return small().forecast(panel[part], SAMPLING).paths


@pytest.mark.slow
def test_two_processes_over_halves_give_the_forecast_of_one() -> None:
    windows = Windows.rolling(make_panel(20, "A", "B"), 12, H, "B")
    middle = len(windows) // 2
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        halves = list(pool.map(paths_of, (slice(0, middle), slice(middle, None))))
    assert_same_paths(np.concatenate(halves), paths_of(slice(None)), windows.scale().width)


# Weights


def step(network: torch.nn.Module) -> None:
    """By an optimizer, as training does."""
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    torch.optim.SGD(network.parameters(), lr=0.3).step()


def load(network: torch.nn.Module) -> None:
    other = make_model(seed=8) if isinstance(network, Kronos) else make_tokenizer(seed=8)
    network.load_state_dict(other.state_dict())


def assign(network: torch.nn.Module) -> None:
    other = make_model(seed=8) if isinstance(network, Kronos) else make_tokenizer(seed=8)
    network.load_state_dict(other.state_dict(), assign=True)


def edit(network: torch.nn.Module) -> None:
    """Behind torch's back, in a single one of the weights: no version is counted."""
    weight = dict(network.named_parameters())[
        "head.proj_s1.bias" if isinstance(network, Kronos) else "head.bias"
    ]
    weight.data[0] += 2.0


@pytest.mark.parametrize("change", [step, load, assign, edit], ids=lambda change: change.__name__)
@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_weights_changed_after_a_forecast_change_the_next_one(
    part: str, change: Callable[[torch.nn.Module], None], windows: Windows
) -> None:
    predictor, some = KronosPredictor(make_model(), make_tokenizer(), "cpu", 16), windows[:6]
    before = predictor.forecast(some, SAMPLING).paths
    change(getattr(predictor, part))
    after = predictor.forecast(some, SAMPLING).paths
    fresh = KronosPredictor(predictor.model, predictor.tokenizer, "cpu", 16)
    np.testing.assert_array_equal(after, fresh.forecast(some, SAMPLING).paths)
    assert not np.allclose(after, before)


def test_networks_are_rewritten_only_when_they_changed(predictor: KronosPredictor, windows: Windows) -> None:
    predictor.forecast(windows[:1], SAMPLING)
    made = predictor._made
    predictor.forecast(windows[1:3], SAMPLING)
    predictor.predict(**call())
    assert predictor._made is made


def test_networks_made_in_inference_mode_forecast_like_others(windows: Windows) -> None:
    with torch.inference_mode():
        predictor = small()
    wanted = small().forecast(windows[:2], SAMPLING).paths
    np.testing.assert_array_equal(predictor.forecast(windows[:2], SAMPLING).paths, wanted)
    with torch.inference_mode():
        np.testing.assert_array_equal(small().forecast(windows[:2], SAMPLING).paths, wanted)


# Upstream's doors


def call(**changes: Any) -> dict[str, Any]:
    """A call of `predict` that works, with changes."""
    bars = make_bars(10, freq="h")
    arguments = {
        "df": bars.reset_index(drop=True),
        "x_timestamp": pd.Series(bars.index),
        "y_timestamp": pd.Series(pd.date_range(bars.index[-1], periods=H + 1, freq="h")[1:]),
        "pred_len": H,
        "sample_count": 2,
        "verbose": False,
        "seed": 1,
    }
    return arguments | changes


def test_a_prediction_is_a_frame_of_features_by_time(predictor: KronosPredictor) -> None:
    arguments = call()
    before = arguments["df"].copy()
    frame = predictor.predict(**arguments)
    assert tuple(frame.columns) == FEATURES
    np.testing.assert_array_equal(frame.index, arguments["y_timestamp"])
    assert np.isfinite(frame).all(axis=None)
    pd.testing.assert_frame_equal(arguments["df"], before)


@pytest.mark.parametrize("verbose", [True, False])
def test_progress_is_shown_only_when_asked_for(
    verbose: bool,
    predictor: KronosPredictor,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich draws on a terminal only
    predictor.predict(**call(verbose=verbose))
    assert bool(capsys.readouterr().out) == verbose


def test_one_series_and_a_batch_of_one_are_the_same(predictor: KronosPredictor) -> None:
    arguments = call()
    rest = {
        name: value for name, value in arguments.items() if name not in ("df", "x_timestamp", "y_timestamp")
    }
    (batch,) = predictor.predict_batch(
        [arguments["df"]], [arguments["x_timestamp"]], [arguments["y_timestamp"]], **rest
    )
    pd.testing.assert_frame_equal(predictor.predict(**arguments), batch)


def test_greedy_series_of_different_lookbacks_are_predicted_together_as_alone(
    predictor: KronosPredictor,
) -> None:
    calls = []
    for count in (4, 10, 30):  # the last is longer than the context
        bars = make_bars(count, seed=count, freq="h")
        later = pd.date_range(bars.index[-1], periods=H + 1, freq="h")[1:]
        calls.append((bars, bars.index, later))
    batch = predictor.predict_batch(*zip(*calls, strict=True), pred_len=H, T=0, verbose=False)
    for (bars, x, y), frame in zip(calls, batch, strict=True):
        alone = predictor.predict(bars, x, y, H, T=0, verbose=False)
        # float noise of another batch, in units of each column's spread
        assert ((alone - frame).abs() <= 1e-4 * bars.std(ddof=0)).all(axis=None)


@pytest.mark.parametrize(
    "kind",
    [
        lambda times: pd.DatetimeIndex(times),
        lambda times: list(times.astype(str)),
        lambda times: times.astype(str),
        lambda times: times.to_numpy(),
        lambda times: times.set_axis(range(100, 100 + len(times))),
    ],
    ids=["DatetimeIndex", "list of text", "Series of text", "array", "Series of another index"],
)
def test_timestamps_may_come_in_any_of_pandas_forms(
    kind: Callable[[pd.Series], Any], predictor: KronosPredictor
) -> None:
    plain = call()
    other = call(x_timestamp=kind(plain["x_timestamp"]), y_timestamp=kind(plain["y_timestamp"]))
    pd.testing.assert_frame_equal(
        predictor.predict(**plain), predictor.predict(**other), check_index_type=False, check_freq=False
    )


@pytest.mark.parametrize(
    "kind",
    [
        lambda times: times,
        lambda times: pd.DatetimeIndex(times),
        lambda times: list(times),
        lambda times: list(times.astype(str)),
        lambda times: times.astype(object),
    ],
    ids=["Series", "DatetimeIndex", "list", "list of text", "Series of objects"],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/New_York"])
def test_timestamps_with_a_zone_are_read_by_the_local_clock_and_come_back_with_it(
    zone: str, kind: Callable[[pd.Series], Any], predictor: KronosPredictor
) -> None:
    plain = call()
    x, y = (plain[name].dt.tz_localize(zone) for name in ("x_timestamp", "y_timestamp"))
    frame = predictor.predict(**call(x_timestamp=kind(x), y_timestamp=kind(y)))
    np.testing.assert_array_equal(frame, predictor.predict(**plain))
    assert (frame.index == pd.DatetimeIndex(y)).all()
    assert frame.index.tz is not None


def test_an_hour_that_a_clock_shows_twice_is_two_bars(predictor: KronosPredictor) -> None:
    # New York sets its clocks back in the night to 3 November 2024: 01:00 comes twice.
    times = pd.Series(pd.date_range("2024-11-02 20:00", periods=10 + H, freq="h", tz="America/New_York"))
    assert times.dt.tz_localize(None).duplicated().any()
    frame = predictor.predict(**call(x_timestamp=times[:10], y_timestamp=times[10:]))
    assert np.isfinite(frame).all(axis=None)
    naive = times.dt.tz_localize(None)
    with pytest.raises(ValueError, match="twice"):
        predictor.predict(**call(x_timestamp=naive[:10], y_timestamp=naive[10:]))


@pytest.mark.parametrize(("x", "y"), [("UTC", None), (None, "UTC"), ("UTC", "Asia/Shanghai")])
def test_timestamps_of_two_zones_are_refused_together(
    x: str | None, y: str | None, predictor: KronosPredictor
) -> None:
    plain = call()
    changes = {
        name: plain[name].dt.tz_localize(zone)
        for name, zone in (("x_timestamp", x), ("y_timestamp", y))
        if zone
    }
    with pytest.raises(ValueError, match=rf"time zone {x}, y_timestamp in {y}\. Convert both to one"):
        predictor.predict(**call(**changes))


def test_bars_under_yfinances_columns_and_zone_are_predicted_like_plain_ones(
    predictor: KronosPredictor,
) -> None:
    plain = call()
    theirs = plain["df"].drop(columns="amount").rename(columns=str.capitalize)
    theirs.columns = pd.MultiIndex.from_product([theirs.columns, ["AAPL"]], names=["Price", "Ticker"])
    theirs.index = pd.DatetimeIndex(plain["x_timestamp"]).tz_localize("America/New_York")
    ours = predictor.predict(**call(df=plain["df"].drop(columns="amount")))
    pd.testing.assert_frame_equal(predictor.predict(**call(df=theirs)), ours)


def test_top_k_of_none_as_upstreams_callers_pass_it_is_off(predictor: KronosPredictor) -> None:
    pd.testing.assert_frame_equal(predictor.predict(**call(top_k=None)), predictor.predict(**call(top_k=0)))


def test_temperature_zero_is_greedy(predictor: KronosPredictor) -> None:
    greedy = predictor.predict(**call(T=0))
    pd.testing.assert_frame_equal(greedy, predictor.predict(**call(T=1.0, top_k=1)))
    pd.testing.assert_frame_equal(greedy, predictor.predict(**call(T=0, seed=2)))


def test_the_global_seed_and_the_argument_give_the_same_numbers(predictor: KronosPredictor) -> None:
    torch.manual_seed(1)
    pd.testing.assert_frame_equal(predictor.predict(**call(seed=None)), predictor.predict(**call(seed=1)))
    other = predictor.predict(**call(seed=None))  # the global stream has moved on
    assert not np.allclose(other, predictor.predict(**call(seed=1)))


def spoiled(column: str, value: Any) -> pd.DataFrame:
    frame = call()["df"]
    frame[column] = frame[column].astype(object if isinstance(value, str) else float)
    frame.loc[3, column] = value
    return frame


X, Y = call()["x_timestamp"], call()["y_timestamp"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"df": call()["df"].drop(columns="close")}, r"series 0 lacks the columns \['close'\]"),
        ({"df": spoiled("open", np.nan)}, "series 0 has 1 missing.*'open' at .*repair_bars"),
        ({"df": spoiled("amount", np.inf)}, "series 0 has 1 missing.*'amount' at .*repair_bars"),
        ({"df": spoiled("volume", -1.0)}, "series 0 has a negative volume"),
        ({"df": spoiled("high", 0.1)}, r"series 0 has open or close outside \[low, high\]"),
        ({"df": spoiled("low", "n/a")}, "series 0 has .*not numeric"),
        ({"df": call()["df"].iloc[:0], "x_timestamp": X[:0]}, "series 0 has no rows"),
        ({"df": call()["df"].iloc[:1], "x_timestamp": X[:1]}, "series 0 has 1 bar.*at least 2"),
        ({"x_timestamp": X[:-1]}, "x_timestamp of series 0 has 9 entries but 10 are needed"),
        ({"y_timestamp": Y[:-1]}, "y_timestamp of series 0 has 4 entries but 5 are needed"),
        ({"y_timestamp": Y[:0]}, "y_timestamp of series 0 has 0 entries but 5"),
        ({"pred_len": 0, "y_timestamp": Y[:0]}, "pred_len=0 .*at least 1"),
        ({"pred_len": -3}, "pred_len=-3 .*at least 1"),
        ({"y_timestamp": X[5:]}, "y_timestamp of series 0 starts at .*before its last bar.*Shift"),
        ({"x_timestamp": X[::-1]}, "x_timestamp of series 0 is not sorted by time"),
        ({"x_timestamp": X.where(X.index != 2, X[3])}, "x_timestamp of series 0 has the timestamp .* twice"),
        ({"x_timestamp": X.where(X.index != 2)}, "x_timestamp of series 0 has no timestamp in row 2"),
        ({"y_timestamp": Y[::-1]}, "y_timestamp of series 0 is not sorted by time"),
        ({"x_timestamp": ["soon"] * 10}, "x_timestamp of series 0 does not contain timestamps.*to_datetime"),
        ({"x_timestamp": None}, "x_timestamp of series 0 does not contain timestamps.*to_datetime"),
        ({"y_timestamp": "2030-01-01"}, "y_timestamp of series 0 does not contain timestamps.*to_datetime"),
        ({"x_timestamp": range(10)}, "x_timestamp of series 0 does not contain timestamps.*to_datetime"),
        ({"T": -1.0}, "T=-1.0 "),
        ({"top_p": 0.0}, "top_p=0.0 "),
        ({"top_p": 1.5}, "top_p=1.5 "),
        ({"top_k": -1}, "top_k=-1 "),
        ({"top_k": 2.5}, "top_k=2.5 "),
        ({"sample_count": 0}, "samples=0 "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_argument_is_refused_by_name_with_a_remedy(
    changes: dict[str, Any], message: str, predictor: KronosPredictor
) -> None:
    with pytest.raises(ValueError, match=message):
        predictor.predict(**call(**changes))


def test_what_is_no_frame_is_refused(predictor: KronosPredictor) -> None:
    with pytest.raises(TypeError, match=r"series 0 is a ndarray.*DataFrame"):
        predictor.predict(**call(df=np.ones((10, 6))))


def test_a_horizon_that_does_not_fit_the_context_is_refused(predictor: KronosPredictor) -> None:
    times = pd.Series(pd.date_range("2030-01-01", periods=17, freq="h"))
    with pytest.raises(ValueError, match=r"17 bars does not fit max_context=16.*fewer"):
        predictor.predict(**call(pred_len=17, y_timestamp=times))


def test_the_series_that_is_wrong_is_named_by_its_place_in_the_batch(predictor: KronosPredictor) -> None:
    good = call()
    with pytest.raises(ValueError, match=r"series 1 has 1 missing"):
        predictor.predict_batch([good["df"], spoiled("open", np.nan)], [X, X], [Y, Y], H, verbose=False)


@pytest.mark.parametrize(
    ("counts", "message"),
    [((2, 1, 2), "2 frames, 1 x_timestamps and 2 y_timestamps"), ((0, 0, 0), "0 frames.*at least one")],
)
def test_lists_that_do_not_pair_up_are_refused(
    counts: tuple[int, int, int], message: str, predictor: KronosPredictor
) -> None:
    frames, xs, ys = ([thing] * n for thing, n in zip((call()["df"], X, Y), counts, strict=True))
    with pytest.raises(ValueError, match=message):
        predictor.predict_batch(frames, xs, ys, H, verbose=False)


def test_keys_of_a_forecast_name_datetime_and_instrument(
    predictor: KronosPredictor, windows: Windows
) -> None:
    assert predictor.forecast(windows[:1], SAMPLING).index.names == list(KEYS)
