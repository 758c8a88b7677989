from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kronos import sampling
from kronos.bars import FEATURES
from kronos.config import SampleConfig
from kronos.sampling import SobolSampler, TorchSampler, probabilities, sobol_uniforms, token_price_order
from kronos.tokenizer import Tokens
from tests.kronos.builders import make_tokenizer, shared_draws

EXAMPLES = settings(deadline=None, max_examples=60)
DAY = pd.DatetimeIndex(["2024-03-01"])
ALMOST_ONE = np.nextafter(np.float32(1), np.float32(0))  # the largest float32 that a draw can be


def config(T: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> SampleConfig:
    return SampleConfig(T=T, top_k=top_k, top_p=top_p)


def draws_of(uniform: float | np.ndarray, size: int, rows: int = 1, samples: int = 1) -> SobolSampler:
    """Draws whose uniforms are chosen by hand, from vocabularies of `size`."""
    draws = shared_draws(DAY.repeat(rows), samples, 1, sizes=(size, size))
    draws.uniforms = torch.as_tensor(uniform, dtype=torch.float32).expand(draws.uniforms.shape).clone()
    return draws


# Filters

LOGITS = st.lists(st.integers(-400, 400), min_size=1, max_size=12, unique=True).map(
    lambda hundredths: [x / 100 for x in hundredths]  # unique: ties are a test of their own
)


def plain_probabilities(logits: list[float], T: float, top_k: int, top_p: float) -> np.ndarray:
    """Filters as their definitions say, in float64 and a loop."""
    scaled = np.array(logits, float) / T
    chances = np.exp(scaled - scaled.max())
    chances /= chances.sum()
    ranked = np.argsort(-chances)
    if top_k:
        kept = ranked[:top_k]
    else:
        kept, mass = [], 0.0
        for token in ranked:  # the smallest set whose mass exceeds top_p
            kept.append(token)
            mass += chances[token]
            if mass > top_p:
                break
    filtered = np.zeros_like(chances)
    filtered[kept] = chances[kept]
    return filtered / filtered.sum()


@EXAMPLES
@given(
    logits=LOGITS,
    T=st.sampled_from([0.3, 0.6, 1.0, 2.5]),
    top_k=st.integers(0, 14),
    # never where a cumulated mass could round to either side
    top_p=st.sampled_from([0.123457, 0.543211, 0.898989, 0.976543, 1.0]),
)
def test_probabilities_are_softmax_after_temperature_and_one_filter(
    logits: list[float], T: float, top_k: int, top_p: float
) -> None:
    ours = probabilities(torch.tensor([logits]), config(T, top_k, top_p))[0]
    np.testing.assert_allclose(ours, plain_probabilities(logits, T, top_k, top_p), rtol=1e-4, atol=1e-6)


@EXAMPLES
@given(logits=LOGITS, top_p=st.floats(0.01, 1), order=st.randoms(use_true_random=False))
def test_no_filter_depends_on_the_order_of_the_vocabulary(
    logits: list[float], top_p: float, order: object
) -> None:
    shuffled = list(range(len(logits)))
    order.shuffle(shuffled)
    for setting in (config(top_p=top_p), config(top_k=3), config(T=0)):
        plain = probabilities(torch.tensor(logits), setting)
        moved = probabilities(torch.tensor([logits[i] for i in shuffled]), setting)
        assert torch.equal(moved > 0, plain[shuffled] > 0)


def test_the_nucleus_keeps_the_token_that_crosses_and_drops_the_next() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    kept = {
        p: int((probabilities(logits, config(top_p=p)) > 0).sum())
        for p in (0.01, 0.49, 0.51, 0.79, 0.81, 0.96, 1)
    }
    assert kept == {0.01: 1, 0.49: 1, 0.51: 2, 0.79: 2, 0.81: 3, 0.96: 4, 1: 4}


def test_tokens_that_are_kept_keep_their_proportions() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    torch.testing.assert_close(probabilities(logits, config(top_k=2)), torch.tensor([0.625, 0.375, 0.0, 0.0]))


def test_top_k_overrides_top_p() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert torch.equal(
        probabilities(logits, config(top_k=3, top_p=0.1)), probabilities(logits, config(top_k=3))
    )


def test_top_k_beyond_the_vocabulary_keeps_all() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0])
    torch.testing.assert_close(probabilities(logits, config(top_k=99)), logits.softmax(0))


def test_temperature_zero_puts_all_mass_on_the_most_likely_token_as_top_1_does() -> None:
    logits = torch.randn(5, 4, 7, generator=torch.Generator().manual_seed(0))
    greedy = probabilities(logits, config(T=0))
    assert torch.equal(greedy.argmax(-1), logits.argmax(-1))
    assert torch.equal(greedy.max(-1).values, torch.ones(5, 4))
    torch.testing.assert_close(probabilities(logits, config(top_k=1)), greedy)


def test_filtering_does_not_change_the_logits() -> None:
    logits = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    for setting in (config(0.5), config(top_k=2), config(top_p=0.5), config(T=0)):
        probabilities(logits, setting)
    assert torch.equal(logits, before)


# Uniforms


def test_a_dates_first_samples_are_the_same_however_many_are_drawn() -> None:
    few, many = (sobol_uniforms(7, DAY, samples, 5) for samples in (3, 20))
    np.testing.assert_array_equal(few, many[:, :3])


def test_rows_of_one_date_share_their_draws_and_dates_do_not() -> None:
    dates = pd.DatetimeIndex(["2024-03-01", "2024-03-04", "2024-03-01"])
    uniforms = sobol_uniforms(0, dates, 4, 3)
    np.testing.assert_array_equal(uniforms[0], uniforms[2])
    assert not np.intersect1d(uniforms[0], uniforms[1]).size


def test_a_dates_uniforms_do_not_depend_on_other_dates() -> None:
    dates = pd.date_range("2024-03-01", periods=9)
    together = sobol_uniforms(3, dates, 4, 3)
    for i, date in enumerate(dates):
        np.testing.assert_array_equal(sobol_uniforms(3, pd.DatetimeIndex([date]), 4, 3)[0], together[i])
    np.testing.assert_array_equal(sobol_uniforms(3, dates[::-1], 4, 3), together[::-1])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_same_moment_has_the_same_draws_in_any_unit(unit: str) -> None:
    np.testing.assert_array_equal(sobol_uniforms(0, DAY.as_unit(unit), 2, 2), sobol_uniforms(0, DAY, 2, 2))


def test_every_seed_and_every_moment_has_draws_of_its_own() -> None:
    moments = ["1931-01-02", "1970-01-01", "2024-03-01", "2024-03-01 00:00:01", "2024-03-02", "2099-12-31"]
    streams = [
        sobol_uniforms(seed, pd.DatetimeIndex([moment]), 1, 8).ravel()
        for seed in (0, 1, 2**40)
        for moment in moments
    ]
    assert len(np.unique(np.stack(streams), axis=0)) == len(streams)


def test_the_stream_is_the_one_that_forecasts_already_stored_were_made_with() -> None:
    # By value: were this to change, no stored forecast could be made again.
    first = sobol_uniforms(0, DAY, 2, 2)[0, :, 0] * 2**24
    np.testing.assert_array_equal(first.astype(int), [[1266146, 11383998], [10977533, 4605847]])


def test_every_point_is_uniform_and_its_halves_and_steps_are_independent() -> None:
    # One point a date: the points of a date are less alike than chance would have them, by design.
    uniforms = sobol_uniforms(0, pd.date_range("2000-01-01", periods=2000), 2, 3)[:, 1:]
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    pairs = {
        "halves": (uniforms[..., 0], uniforms[..., 1]),
        "steps": (uniforms[:, :, :-1], uniforms[:, :, 1:]),
        "dates": (uniforms[:-1], uniforms[1:]),
    }
    for name, (a, b) in pairs.items():
        counts, _, _ = np.histogram2d(a.ravel(), b.ravel(), bins=8, range=[[0, 1], [0, 1]])
        expected = a.size / 64
        # 99.99 % of a chi-square with 63 degrees of freedom
        assert ((counts - expected) ** 2 / expected).sum() < 114.8, name


@pytest.mark.parametrize("samples", [4, 16, 64])
def test_the_points_of_a_date_fill_every_column_evenly(samples: int) -> None:
    uniforms = sobol_uniforms(5, DAY, samples, 7)[0].reshape(samples, -1)
    strata = np.sort((uniforms * samples).astype(int), axis=0)
    np.testing.assert_array_equal(strata, np.tile(np.arange(samples)[:, None], strata.shape[1]))


# Draws


def test_tokens_are_sampled_with_their_probabilities() -> None:
    logits = torch.tensor([1.0, -1.0, 0.5, 2.0, -0.5, 0.0, 1.5, -3.0])
    for setting in (config(), config(T=0.7), config(top_k=4), config(top_p=0.8)):
        chances = probabilities(logits, setting)
        draws = shared_draws(DAY, 20_000, 1, seed=5, sizes=(8, 8))
        for half in (0, 1):
            ids = draws.sample(chances.expand(1, 20_000, 8), step=0, half=half)
            counts = torch.bincount(ids.flatten(), minlength=8).double()
            assert not counts[chances == 0].any()
            wanted = 20_000 * chances[chances > 0].double()
            # 99.99 % of a chi-square with at most 7 degrees of freedom
            assert ((counts[chances > 0] - wanted) ** 2 / wanted).sum() < 29.9


def test_each_step_and_half_uses_its_own_uniform() -> None:
    draws = shared_draws(DAY, 3, 4, sizes=(1024, 1024))
    even = torch.full((1, 3, 1024), 1 / 1024)  # the id is the uniform's first ten bits
    for step in range(4):
        for half in (0, 1):
            ids = draws.sample(even, step, half)
            np.testing.assert_array_equal(ids, (draws.uniforms[:, :, step, half] * 1024).floor())


@EXAMPLES
@given(
    weights=st.lists(st.sampled_from([0.0, 0.0, 1e-6, 0.01, 0.3, 1.0]), min_size=1, max_size=9).filter(any),
    uniform=st.one_of(st.just(0.0), st.just(float(ALMOST_ONE)), st.floats(0, float(ALMOST_ONE), width=32)),
    total=st.sampled_from([1.0, 0.9999, 1.0001]),
)
def test_a_token_without_probability_is_never_drawn(
    weights: list[float], uniform: float, total: float
) -> None:
    chances = torch.tensor(weights) / sum(weights) * total  # rounding may leave any total near 1
    token = draws_of(uniform, len(weights)).sample(chances[None, None], step=0, half=0).item()
    assert chances[token] > 0
    assert chances[:token].double().sum() <= uniform * total + 1e-6
    assert chances[: token + 1].double().sum() >= uniform * total - 1e-6


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (float(ALMOST_ONE), 3)])
def test_the_ends_of_the_uniforms_draw_the_first_and_the_last_possible_token(
    uniform: float, token: int
) -> None:
    chances = torch.tensor([[[0.0, 0.25, 0.5, 0.25, 0.0, 0.0]]])
    assert draws_of(uniform, 6).sample(chances, step=0, half=1).item() == token


def test_a_vocabulary_of_a_thousand_and_the_largest_uniform_stay_inside() -> None:
    logits = torch.randn(40, 5, 1024, generator=torch.Generator().manual_seed(0)) * 3
    chances = probabilities(logits, config(top_p=0.9))
    ids = draws_of(float(ALMOST_ONE), 1024, rows=40, samples=5).sample(chances, step=0, half=0)
    assert (chances.gather(-1, ids[..., None]) > 0).all()


def test_upstreams_draws_are_multinomial_over_rows_series_by_series() -> None:
    chances = torch.rand(3, 4, 10, generator=torch.Generator().manual_seed(0))
    ids = TorchSampler(chances.shape[1], torch.Generator().manual_seed(8)).sample(chances, step=0, half=0)
    wanted = torch.multinomial(chances.reshape(12, 10), 1, generator=torch.Generator().manual_seed(8))
    assert torch.equal(ids, wanted.reshape(3, 4))
    assert torch.equal(ids, _global_draws(chances, seed=8))


def _global_draws(chances: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return TorchSampler(chances.shape[1]).sample(chances, step=0, half=0)


# The nucleus, found without sorting


def spread(kind: str, rows: int, size: int) -> Tensor:
    """(rows, size) logits."""
    random = torch.Generator().manual_seed(rows + size)
    normal = torch.randn(rows, size, generator=random)
    return {
        "normal": 3 * normal,
        "flat": 0.01 * normal,
        "heavy": normal.sign() * normal.abs() ** 4,
        "a peak": 0.1 * normal + 30 * torch.eye(size)[torch.arange(rows) % size],
        "steps": torch.linspace(0, -40, size) + 0 * normal,
    }[kind]


@pytest.mark.parametrize("kind", ["normal", "flat", "heavy", "a peak", "steps"])
@pytest.mark.parametrize("size", [2, 17, 256, 1024])
@pytest.mark.parametrize("rows", [1, 8, 100])  # few rows are searched in 64 parts at a time, many in 2
@pytest.mark.parametrize(
    "split_size", [sampling.SPLIT_SIZE, sampling.WIDE_SPLIT_SIZE], ids=["cpu", "accelerator"]
)
def test_the_nucleus_is_that_of_sorted_probabilities(
    split_size: int, rows: int, size: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "SPLIT_SIZE", split_size)
    logits = spread(kind, rows, size)
    for T in (0.05, 0.3, 1.0, 4.0, 50.0):
        chances = probabilities(logits, config(T)).double()
        ranked, places = chances.sort(dim=-1, descending=True)
        above = (ranked.cumsum(-1) - ranked).gather(-1, places.argsort(-1))  # mass of what is likelier
        for top_p in (0.01, 0.3, 0.5, 0.9, 0.99, 0.9999):
            ours = probabilities(logits, config(T, top_p=top_p)) > 0
            wanted = (above <= top_p) & (chances > 0)
            last = chances.masked_fill(~wanted, torch.inf).amin(-1, keepdim=True)
            # As likely as the last that is in, or where float32 cannot tell the mass from top_p.
            near = ((chances / last).log2().abs() < 2e-5) | ((above - top_p).abs() < 2e-6)
            assert torch.equal(ours | near, wanted | near), (T, top_p)
            assert ours.any(-1).all()
            assert (
                near.sum() < 0.1 * near.numel() + 2 * rows or kind == "flat" or T == 50
            )  # else it says little


def test_a_row_has_the_nucleus_among_many_that_it_has_alone() -> None:
    logits = spread("normal", 100, 256)
    together = probabilities(logits, config(top_p=0.9))
    for row, chances in zip(logits, together, strict=True):
        assert torch.equal(probabilities(row, config(top_p=0.9)) > 0, chances > 0)


# Frequencies


def chi_square_is_likely(counts: np.ndarray, expected: np.ndarray) -> bool:
    """Whether p > 1e-4, by the cube-root approximation (Wilson & Hilferty 1931)."""
    freedom = len(expected) - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    spread = 2 / (9 * freedom)
    return (statistic / freedom) ** (1 / 3) < 1 - spread + 3.719 * spread**0.5


@pytest.fixture(scope="module")
def many_dates() -> Tensor:
    """(2000, 5, 1, 2) uniforms."""
    return shared_draws(pd.date_range("2000-01-01", periods=2000), 5, 1).uniforms


@pytest.mark.parametrize(
    ("T", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.0, 4, 1.0), (1.5, 0, 0.8), (0.5, 0, 0.6)]
)
def test_both_halves_are_drawn_as_often_as_their_definition_says(
    T: float, top_k: int, top_p: float, many_dates: Tensor
) -> None:
    # One point of each of many dates: those of one date are more even than chance.
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    draws = SobolSampler(many_dates, Tokens(order, order.flip(0)))
    halves = [[0.5, -1.0, 1.2, 0.1, -0.4, 0.9], [2.0, 0.3, -0.5, 0.4, 1.1, -2.0]]
    ids, wanted = [], []
    for half, logits in enumerate(halves):
        chances = probabilities(torch.tensor(logits), config(T, top_k, top_p))
        ids.append(draws.sample(chances.expand(2000, 5, 6), step=0, half=half)[:, 3])
        wanted.append(plain_probabilities(logits, T, top_k, top_p))
    counts = torch.bincount(ids[0] * 6 + ids[1], minlength=36).numpy()
    expected = 2000 * np.outer(*wanted).ravel()
    assert not counts[expected == 0].any()
    possible = expected > 0
    assert chi_square_is_likely(counts[possible], expected[possible])
    assert not chi_square_is_likely(counts[possible][::-1], expected[possible])  # the test can tell


def test_samples_of_a_date_are_as_likely_whichever_of_them_is_looked_at(many_dates: Tensor) -> None:
    chances = torch.tensor([0.1, 0.2, 0.3, 0.4])
    draws = SobolSampler(many_dates, Tokens(torch.arange(4), torch.arange(4)))
    ids = draws.sample(chances.expand(2000, 5, 4), step=0, half=0)
    for sample in range(5):
        counts = torch.bincount(ids[:, sample], minlength=4).numpy()
        assert chi_square_is_likely(counts, 2000 * chances.numpy())


@pytest.mark.parametrize("uniform", [0.0, 2.0**-24, 0.5, float(ALMOST_ONE)])
@pytest.mark.parametrize("kept", [1, 2, 40, 1023])
def test_no_order_and_no_uniform_draws_a_token_that_a_filter_removed(kept: int, uniform: float) -> None:
    random = torch.Generator().manual_seed(kept)
    logits = 2 * torch.randn(30, 3, 1024, generator=random)
    chances = probabilities(logits, config(top_k=kept))
    draws = draws_of(uniform, 1024, rows=30, samples=3)
    for _ in range(5):
        order = torch.randperm(1024, generator=random)
        draws.order = Tokens(order, order)
        for half in (0, 1):
            ids = draws.sample(chances, step=0, half=half)
            assert (chances.gather(-1, ids[..., None]) > 0).all()


def test_samples_that_share_their_probabilities_draw_as_if_each_had_its_own() -> None:
    chances = probabilities(torch.randn(5, 1, 64, generator=torch.Generator().manual_seed(1)), config())
    draws = shared_draws(pd.date_range("2024-01-01", periods=5), 9, 2, sizes=(64, 64))
    for half in (0, 1):
        own = draws.sample(chances.expand(5, 9, 64), step=1, half=half)
        assert torch.equal(draws.sample(chances, step=1, half=half), own)


# Order of price


def test_ids_are_ordered_by_the_close_of_the_mean_bar_that_they_stand_for() -> None:
    tokenizer = make_tokenizer(s1_bits=4, s2_bits=6, group_size=5)
    orders = token_price_order(tokenizer)
    s1, s2 = torch.cartesian_prod(torch.arange(16), torch.arange(64)).T
    codes = tokenizer.quantizer.codes(Tokens(s1, s2)).view(16, 64, 10)
    with torch.no_grad():
        for half, order in enumerate(orders):
            mean = codes.mean(dim=1 - half)  # over all ids of the other half
            close = tokenizer.run_decoder(tokenizer.post_quant_embed(mean)[:, None])[
                :, 0, FEATURES.index("close")
            ]
            assert torch.equal(order.sort().values, torch.arange(len(close)))
            assert (close[order].diff() > -1e-5).all()
            assert close.max() - close.min() > 0.1


def test_finding_the_order_does_not_change_the_tokenizer() -> None:
    tokenizer = make_tokenizer(dropout=0.5).train()
    before = {name: weight.clone() for name, weight in tokenizer.state_dict().items()}
    once, again = token_price_order(tokenizer), token_price_order(tokenizer)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))  # dropout is off
    assert tokenizer.training
    for name, weight in tokenizer.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, before[name])


def test_the_price_rises_with_the_uniform() -> None:
    order = torch.tensor([2, 0, 3, 1])  # from the lowest close to the highest
    draws = SobolSampler(
        torch.tensor([0.05, 0.3, 0.6, 0.95]).view(1, 4, 1, 1).expand(1, 4, 1, 2), Tokens(order, order)
    )
    ids = draws.sample(torch.full((1, 1, 4), 0.25), step=0, half=0)
    assert ids.tolist() == [order.tolist()]
