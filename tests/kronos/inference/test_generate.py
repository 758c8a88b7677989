"""The engine against upstream's algorithm in plain code (oracle.py): the same tokens for every kind of overflow."""

from __future__ import annotations

from typing import get_args

import pandas as pd
import pytest
import torch
from torch import Tensor

from kronos.config import SampleConfig
from kronos.inference.generate import ContextOverflow, Prompt, decode, generate
from kronos.model import Kronos
from kronos.sampling import Sampler, SobolSampler, TorchSampler, probabilities
from kronos.tokenizer import Tokens
from tests.kronos.builders import fuse, make_model, make_stamps, make_tokenizer, make_tokens, shared_draws
from tests.kronos.oracle import Window, rebuild, recompute, roll

# (window, horizon, context)
REGIMES = {
    "everything fits": (10, 6, 64),
    "the last bar just fits": (10, 7, 16),  # 16 tokens are read before the seventh is drawn
    "one bar too many": (10, 8, 16),
    "the horizon overflows": (10, 14, 16),
    "the window fills the context": (16, 5, 16),
    "the window overflows": (25, 5, 16),
    "both overflow": (25, 15, 16),
    "one bar ahead": (9, 1, 16),
    "a context of two": (5, 4, 2),
}
FILTERS = {
    "greedy": {"T": 0.0},
    "top-1": {"T": 1.0, "top_k": 1},
    "top-k": {"T": 1.3, "top_k": 5},
    "top-p": {"T": 0.8, "top_p": 0.8},
    "temperature": {"T": 1.1, "top_p": 1.0},
}


class Recorder:
    """Sampler that also remember what they were asked to draw from."""

    def __init__(self, draws: Sampler) -> None:
        self.draws = draws
        self.seen: tuple[list[Tensor], list[Tensor]] = ([], [])

    def sample(self, probabilities: Tensor, step: int, half: int) -> Tensor:
        """Sample as the wrapped sampler does."""
        ids = self.draws.sample(probabilities, step, half)
        self.seen[half].append(probabilities.expand(*ids.shape, -1))
        return ids


def make_windows(model: Kronos, lengths: list[int], horizon: int) -> list[Window]:
    """Random windows, each of its own calendar."""
    windows = []
    for seed, length in enumerate(lengths):
        tokens = make_tokens(model, length, seed=seed)
        calendar = make_stamps(length + horizon, seed=seed)
        windows.append(Window(tokens, calendar[:length], calendar[length:]))
    return windows


def together(windows: list[Window], junk: int = 0) -> Prompt:
    """One prompt of all windows, aligned left; short ones are followed by `junk`."""
    lengths = torch.tensor([len(window.stamps) for window in windows])
    shape = (len(windows), int(lengths.max()))
    s1, s2, stamps = (torch.full(shape, junk), torch.full(shape, junk), torch.full((*shape, 5), junk))
    for i, window in enumerate(windows):
        s1[i, : lengths[i]], s2[i, : lengths[i]] = window.tokens
        stamps[i, : lengths[i]] = window.stamps
    future = torch.stack([window.future for window in windows])
    return Prompt(Tokens(s1, s2), lengths, stamps, future, even=len(set(lengths.tolist())) == 1)


def draws_of_dates(model: Kronos, rows: int, samples: int, horizon: int) -> SobolSampler:
    """Sampler of `rows` windows of different dates."""
    sizes = 2**model.config.s1_bits, 2**model.config.s2_bits
    return shared_draws(pd.date_range("2024-01-01", periods=rows), samples, horizon, sizes=sizes)


def assert_same(ours: Tokens, theirs: Tokens) -> None:
    assert torch.equal(ours.s1, theirs.s1)
    assert torch.equal(ours.s2, theirs.s2)


def against_oracle(
    model: Kronos,
    lengths: list[int],
    horizon: int,
    context: int,
    sampling: SampleConfig,
    context_overflow: ContextOverflow = "recompute",
) -> None:
    """Same tokens from the same logits."""
    windows = make_windows(model, lengths, horizon)
    draws = draws_of_dates(model, len(windows), sampling.samples, horizon)

    def choose(logits: Tensor, step: int, half: int) -> Tensor:
        return draws.sample(probabilities(logits, sampling), step, half)

    oracle = recompute if context_overflow == "recompute" else roll
    wanted = oracle(model, windows, sampling.samples, choose, context)
    recorder = Recorder(draws)
    got = generate(fuse(model), together(windows), sampling, recorder, context, context_overflow)
    assert_same(got, wanted.tokens)
    if sampling.T == 0:
        return
    for seen, logits in zip(recorder.seen, (wanted.s1_logits, wanted.s2_logits), strict=True):
        assert len(seen) == horizon
        ours, theirs = torch.stack(seen), probabilities(logits, sampling)
        assert torch.equal(ours > 0, theirs > 0)
        # Logits of order 10 after two float32 layers, summed in another order: 1e-4 of a nat.
        kept = theirs > 0
        torch.testing.assert_close(ours[kept].log(), theirs[kept].log(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize(("length", "horizon", "context"), REGIMES.values(), ids=REGIMES)
def test_tokens_are_those_of_plain_recomputation(
    length: int, horizon: int, context: int, filters: dict[str, float]
) -> None:
    samples = 1 if filters.get("T") == 0 else 3
    sampling = SampleConfig(samples, **{"top_p": 1.0} | filters)
    against_oracle(make_model(), [length, length], horizon, context, sampling)


@pytest.mark.parametrize("samples", [1, 2, 17])
def test_tokens_are_right_for_one_path_and_for_many(samples: int) -> None:
    against_oracle(make_model(), [10], 9, 16, SampleConfig(samples, T=1.0, top_p=1.0))


@pytest.mark.parametrize(
    "lengths",
    [[3, 10, 17], [17, 3, 10], [2, 25, 30], [1, 6]],
    ids=lambda lengths: "-".join(map(str, lengths)),
)
@pytest.mark.parametrize(("horizon", "context"), [(5, 64), (9, 16), (5, 16), (18, 16)])
def test_windows_of_different_lengths_share_a_batch(lengths: list[int], horizon: int, context: int) -> None:
    against_oracle(make_model(), lengths, horizon, context, SampleConfig(2, T=1.0, top_p=0.95))


@pytest.mark.parametrize(
    "sizes",
    [
        {"s1_bits": 2, "s2_bits": 6, "n_layers": 1, "d_model": 24, "n_heads": 3},
        {"s1_bits": 6, "s2_bits": 2, "n_layers": 3, "d_model": 32, "n_heads": 8},
        {"learn_te": False},
    ],
    ids=["fine", "coarse", "fixed calendar"],
)
def test_tokens_are_right_for_other_sizes_of_model(sizes: dict[str, int]) -> None:
    against_oracle(make_model(seed=5, **sizes), [6, 11], 8, 12, SampleConfig(2, T=1.0, top_p=1.0))


@pytest.mark.parametrize(("horizon", "context"), [(6, 64), (12, 16)])
def test_a_window_in_a_ragged_batch_gets_the_tokens_it_gets_alone(horizon: int, context: int) -> None:
    model, sampling = make_model(), SampleConfig(4, T=1.0, top_p=0.9)
    windows = make_windows(model, [4, 19, 10, 2], horizon)
    draws = draws_of_dates(model, 4, 4, horizon)
    batch = generate(fuse(model), together(windows), sampling, draws, context)
    for i, window in enumerate(windows):
        own = draws_of_dates(model, 4, 4, horizon)
        own.uniforms = own.uniforms[i : i + 1]
        alone = generate(fuse(model), together([window]), sampling, own, context)
        assert_same(Tokens(batch.s1[i : i + 1], batch.s2[i : i + 1]), alone)


@pytest.mark.parametrize(("horizon", "context"), [(6, 64), (12, 16)])
def test_padding_of_a_short_window_is_never_read(horizon: int, context: int) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    sampling, windows = SampleConfig(2, T=1.0, top_p=1.0), make_windows(make_model(), [4, 11], horizon)
    outcomes = []
    for junk in (0, 3):
        prompt = together(windows, junk)
        tokens = generate(fuse(model), prompt, sampling, draws_of_dates(model, 2, 2, horizon), context)
        outcomes.append((tokens, decode(fuse(tokenizer), prompt, tokens, context)))
    assert_same(outcomes[0][0], outcomes[1][0])
    assert torch.equal(outcomes[0][1].paths, outcomes[1][1].paths)
    assert torch.equal(outcomes[0][1].last_bar, outcomes[1][1].last_bar)


def test_upstreams_sampler_draws_in_upstreams_order() -> None:
    model, sampling = make_model(), SampleConfig(3, T=1.0, top_p=1.0)
    windows = make_windows(model, [8, 8], 5)
    theirs = TorchSampler(3, torch.Generator().manual_seed(4))

    def choose(logits: Tensor, step: int, half: int) -> Tensor:
        return theirs.sample(logits.softmax(-1), step, half)

    wanted = recompute(model, windows, 3, choose, context=64)
    ours = TorchSampler(3, torch.Generator().manual_seed(4))
    assert_same(generate(fuse(model), together(windows), sampling, ours, 64), wanted.tokens)


def test_the_calendar_of_the_future_reaches_the_model() -> None:
    model, sampling = make_model(), SampleConfig(1, T=0)
    windows = make_windows(model, [8, 8], 6)
    other = [window._replace(future=window.future.flip(0)) for window in windows]
    outcomes = [
        generate(fuse(model), together(w), sampling, draws_of_dates(model, 2, 1, 6), 64)
        for w in (windows, other)
    ]
    assert torch.equal(outcomes[0].s1[..., 0], outcomes[1].s1[..., 0])  # drawn before any future bar is read
    assert not torch.equal(outcomes[0].s1, outcomes[1].s1)


def test_later_steps_of_the_calendar_do_not_reach_earlier_bars() -> None:
    model, sampling = make_model(), SampleConfig(2, T=1.0, top_p=1.0)
    windows = make_windows(model, [8], 6)
    later = torch.cat([windows[0].future[:3], make_stamps(3, seed=9)])
    outcomes = [
        generate(fuse(model), together(w), sampling, draws_of_dates(model, 1, 2, 6), 64)
        for w in (windows, [windows[0]._replace(future=later)])
    ]
    # The stamp of bar 3 is read before bar 4 is drawn.
    assert torch.equal(outcomes[0].s1[..., :4], outcomes[1].s1[..., :4])
    assert torch.equal(outcomes[0].s2[..., :4], outcomes[1].s2[..., :4])


@pytest.mark.parametrize(("horizon", "context"), [(6, 64), (6, 10)])
def test_every_bar_of_the_horizon_is_announced_once(horizon: int, context: int) -> None:
    model, steps = make_model(), []
    prompt = together(make_windows(model, [8], horizon))
    draws = draws_of_dates(model, 1, 2, horizon)
    generate(fuse(model), prompt, SampleConfig(2), draws, context, on_step=lambda: steps.append(1))
    assert len(steps) == horizon


@pytest.mark.parametrize("lengths", [[10, 10], [3, 17, 30]], ids=["even", "ragged"])
@pytest.mark.parametrize(("horizon", "context"), [(6, 64), (9, 16), (15, 16), (16, 16)])
def test_paths_are_decoded_as_if_each_followed_its_window(
    lengths: list[int], horizon: int, context: int
) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    windows = make_windows(model, lengths, horizon)
    tokens = make_tokens(model, len(windows), 3, horizon, seed=7)
    bars = decode(fuse(tokenizer), together(windows), tokens, context).paths
    assert bars.shape == (len(windows), 3, horizon, 6)
    for row, wanted in zip(bars, rebuild(tokenizer, windows, tokens, context), strict=True):
        # Activations of order 10 after two float32 layers; positions that start elsewhere turn the same angles.
        torch.testing.assert_close(row, torch.stack(wanted), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("lengths", [[10, 10], [3, 17, 30]], ids=["even", "ragged"])
@pytest.mark.parametrize(("horizon", "context"), [(6, 64), (9, 16), (15, 16), (16, 16)])
@torch.no_grad()
def test_the_last_bar_of_each_window_is_decoded_where_its_paths_begin(
    lengths: list[int], horizon: int, context: int
) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    windows = make_windows(model, lengths, horizon)
    tokens = make_tokens(model, len(windows), 3, horizon, seed=7)
    last = decode(fuse(tokenizer), together(windows), tokens, context).last_bar
    for row, window in zip(last, windows, strict=True):
        seen = Tokens(*(half[None, -(context - horizon or context) :] for half in window.tokens))
        torch.testing.assert_close(row, tokenizer.decode(seen)[0, -1], rtol=1e-5, atol=1e-4)


def test_generate_does_not_change_its_prompt() -> None:
    model = make_model()
    prompt = together(make_windows(model, [8, 5], 6))
    before = [part.clone() for part in (*prompt.tokens, *prompt[1:4])]
    tokens = generate(fuse(model), prompt, SampleConfig(2), draws_of_dates(model, 2, 2, 6), 10)
    decode(fuse(make_tokenizer()), prompt, tokens, 10)
    for old, new in zip(before, (*prompt.tokens, *prompt[1:4]), strict=True):
        assert torch.equal(old, new)


# Rolling

ROLLING = {
    name: regime for name, regime in REGIMES.items() if regime[1] < regime[2]
}  # as the predictor demands


@pytest.mark.parametrize("filters", [FILTERS["greedy"], FILTERS["top-p"]], ids=["greedy", "top-p"])
@pytest.mark.parametrize(("length", "horizon", "context"), ROLLING.values(), ids=ROLLING)
def test_a_rolling_context_masks_its_oldest_tokens_and_recomputes_none(
    length: int, horizon: int, context: int, filters: dict[str, float]
) -> None:
    sampling = SampleConfig(1 if filters["T"] == 0 else 3, **filters)
    against_oracle(make_model(n_layers=3), [length, length], horizon, context, sampling, "rolling")


@pytest.mark.parametrize(
    "lengths",
    [[3, 10, 17], [17, 3, 10], [2, 25, 30], [1, 6]],
    ids=lambda lengths: "-".join(map(str, lengths)),
)
@pytest.mark.parametrize(("horizon", "context"), [(5, 64), (9, 16), (5, 16), (15, 16)])
def test_windows_of_different_lengths_roll_each_at_its_own_time(
    lengths: list[int], horizon: int, context: int
) -> None:
    sampling = SampleConfig(2, T=1.0, top_p=0.95)
    against_oracle(make_model(n_layers=3), lengths, horizon, context, sampling, "rolling")


@pytest.mark.parametrize("samples", [1, 2, 17])
def test_a_rolling_window_is_right_for_one_path_and_for_many(samples: int) -> None:
    against_oracle(make_model(), [10], 15, 16, SampleConfig(samples, T=1.0, top_p=1.0), "rolling")


@pytest.mark.parametrize("lengths", [[10, 10], [3, 10, 7]], ids=["even", "ragged"])
@pytest.mark.parametrize(("horizon", "same"), [(7, 7), (8, 7), (15, 7)])
def test_rolling_and_exact_are_one_until_a_window_overflows(
    lengths: list[int], horizon: int, same: int
) -> None:
    model, sampling = make_model(), SampleConfig(3, T=1.0, top_p=1.0)
    prompt = together(make_windows(model, lengths, horizon))
    exact, rolling = (
        generate(
            fuse(model),
            prompt,
            sampling,
            draws_of_dates(model, len(lengths), 3, horizon),
            16,
            context_overflow,
        )
        for context_overflow in get_args(ContextOverflow)
    )
    for ours, theirs in zip(rolling, exact, strict=True):
        assert torch.equal(ours[..., :same], theirs[..., :same])
    # So these tests do tell the two apart, at the latest some bars after the overflow.
    assert (horizon < 15) or not torch.equal(rolling.s1, exact.s1)


def test_a_window_in_a_ragged_batch_rolls_as_it_does_alone() -> None:
    model, sampling = make_model(), SampleConfig(4, T=1.0, top_p=0.9)
    windows = make_windows(model, [4, 19, 10, 2], 12)
    draws = draws_of_dates(model, 4, 4, 12)
    batch = generate(fuse(model), together(windows), sampling, draws, 16, "rolling")
    for i, window in enumerate(windows):
        own = draws_of_dates(model, 4, 4, 12)
        own.uniforms = own.uniforms[i : i + 1]
        alone = generate(fuse(model), together([window]), sampling, own, 16, "rolling")
        assert_same(Tokens(batch.s1[i : i + 1], batch.s2[i : i + 1]), alone)
