from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kronos.config import TokenizerConfig
from kronos.tokenizer import BinaryQuantizer, Tokens, l2_normalize
from tests.kronos.builders import make_tokenizer

T = 12


def bars(seed: int = 0, batch: int = 3) -> Tensor:
    return torch.randn(batch, T, 6, generator=torch.Generator().manual_seed(seed)).clamp(-5, 5)


@torch.no_grad()
@pytest.mark.parametrize("now", range(T))
def test_the_tokens_up_to_now_do_not_move_when_later_bars_change(now: int) -> None:
    tokenizer = make_tokenizer(s1_bits=9, s2_bits=7)
    past = bars()
    changed = torch.cat([past[:, : now + 1], bars(seed=1)[:, now + 1 :]], dim=1)
    before, after = tokenizer.encode(past), tokenizer.encode(changed)
    for half, other in zip(before, after, strict=True):
        assert torch.equal(half[:, : now + 1], other[:, : now + 1])
    if now < T - 1:
        assert not torch.equal(before.s1, after.s1)  # so that the change was one to be seen


@torch.no_grad()
@pytest.mark.parametrize("now", range(T))
def test_the_bars_decoded_up_to_now_do_not_move_when_later_tokens_change(now: int) -> None:
    tokenizer = make_tokenizer()
    past, other = tokenizer.encode(bars()), tokenizer.encode(bars(seed=1))
    changed = Tokens(
        *(torch.cat([a[:, : now + 1], b[:, now + 1 :]], 1) for a, b in zip(past, other, strict=True))
    )
    before, after = tokenizer.decode(past), tokenizer.decode(changed)
    # equal up to the order of summation, which the masked future may change
    torch.testing.assert_close(before[:, : now + 1], after[:, : now + 1], rtol=0, atol=1e-6)
    if now < T - 1:
        assert (before[:, now + 1 :] - after[:, now + 1 :]).abs().max() > 0.1


@torch.no_grad()
def test_a_decoded_bar_depends_on_the_tokens_before_it() -> None:
    tokenizer = make_tokenizer()
    tokens, other = tokenizer.encode(bars()), tokenizer.encode(bars(seed=1))
    changed = Tokens(*(torch.cat([b[:, :1], a[:, 1:]], 1) for a, b in zip(tokens, other, strict=True)))
    assert (tokenizer.decode(tokens) - tokenizer.decode(changed))[:, -1].abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(("s1_bits", "s2_bits"), [(1, 7), (5, 3), (10, 2)])
def test_halves_of_unequal_bits_work_and_fill_their_ranges(s1_bits: int, s2_bits: int) -> None:
    tokenizer = make_tokenizer(s1_bits=s1_bits, s2_bits=s2_bits)
    tokens = tokenizer.encode(bars(batch=64))
    assert tokens.s1.shape == tokens.s2.shape == (64, T)
    assert tokens.s1.dtype == tokens.s2.dtype == torch.int64
    for ids, width in zip(tokens, (s1_bits, s2_bits), strict=True):
        assert ids.min() >= 0
        assert 2 ** (width - 1) <= ids.max() < 2**width  # the highest bit is in use
    assert tokenizer.decode(tokens).shape == (64, T, 6)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_n_layers_build_one_block_fewer_as_released(layers: int) -> None:
    tokenizer = make_tokenizer(n_enc_layers=layers, n_dec_layers=layers + 1)
    assert (len(tokenizer.encoder), len(tokenizer.decoder)) == (layers - 1, layers)


def test_the_loss_is_the_mean_of_both_errors_and_the_quantizers() -> None:
    tokenizer = make_tokenizer()
    x = bars()
    losses = tokenizer.loss(x)
    torch.testing.assert_close(losses.loss, (losses.recon_s1 + losses.recon + losses.bsq) / 2)
    rebuilt = tokenizer.decode(tokenizer.encode(x))
    torch.testing.assert_close(losses.recon, (rebuilt - x).square().mean(), rtol=1e-5, atol=1e-6)


def test_the_coarse_error_looks_at_the_coarse_half_alone() -> None:
    tokenizer = make_tokenizer()
    before = tokenizer.loss(bars())
    with torch.no_grad():
        tokenizer.quant_embed.weight[tokenizer.config.s1_bits :] *= -1  # every fine bit flips
        tokenizer.quant_embed.bias[tokenizer.config.s1_bits :] *= -1
    after = tokenizer.loss(bars())
    torch.testing.assert_close(before.recon_s1, after.recon_s1)
    assert (before.recon - after.recon).abs() > 1e-3


def test_every_weight_of_the_tokenizer_learns() -> None:
    tokenizer = make_tokenizer().train()
    tokenizer.loss(bars()).loss.backward()
    for name, weight in tokenizer.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


EXAMPLES = settings(deadline=None, max_examples=50)


def quantizer(s1_bits: int, s2_bits: int, **weights: float) -> BinaryQuantizer:
    return BinaryQuantizer(TokenizerConfig(s1_bits=s1_bits, s2_bits=s2_bits, group_size=1, **weights))


def latents(*shape: int, seed: int = 0) -> Tensor:
    return l2_normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


@EXAMPLES
@given(data=st.data(), s1_bits=st.integers(1, 14), s2_bits=st.integers(1, 14))
def test_ids_become_corners_and_the_same_ids_again(data: st.DataObject, s1_bits: int, s2_bits: int) -> None:
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, 2**s1_bits - 1), st.integers(0, 2**s2_bits - 1)), min_size=1)
    )
    s1, s2 = torch.tensor(pairs).T
    codes = quantizer(s1_bits, s2_bits).codes(Tokens(s1, s2))
    back = quantizer(s1_bits, s2_bits).tokens(codes)
    assert torch.equal(back.s1, s1)
    assert torch.equal(back.s2, s2)
    assert torch.equal(codes.abs(), torch.full_like(codes, (s1_bits + s2_bits) ** -0.5))


@EXAMPLES
@given(s1_bits=st.integers(1, 6), s2_bits=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_latent_becomes_the_corner_that_its_ids_stand_for(s1_bits: int, s2_bits: int, seed: int) -> None:
    q = quantizer(s1_bits, s2_bits)
    codes = q(latents(2, 3, s1_bits + s2_bits, seed=seed))
    tokens = q.tokens(codes)
    assert int(tokens.s1.max()) < 2**s1_bits
    assert int(tokens.s2.max()) < 2**s2_bits
    # Passing the gradient through costs the forward value a rounding or two.
    torch.testing.assert_close(q.codes(tokens), codes, rtol=1e-6, atol=0)


def test_the_coarse_half_comes_first_and_the_lowest_bit_of_each_half_first() -> None:
    code = torch.tensor([[[+1.0, -1.0, -1.0, +1.0, +1.0]]])  # s1 = 0b001, s2 = 0b11
    tokens = quantizer(3, 2).tokens(code)
    assert (tokens.s1.item(), tokens.s2.item()) == (1, 3)


def test_a_latent_of_zero_counts_as_negative() -> None:
    assert quantizer(1, 1)(torch.zeros(1, 1, 2)).lt(0).all()


def test_the_gradient_passes_straight_through_at_the_corners_scale() -> None:
    q, z = quantizer(3, 2), latents(2, 4, 5).requires_grad_()
    weights = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1))
    (q(z) * weights).sum().backward()
    torch.testing.assert_close(z.grad, weights * 5**-0.5)


def test_unit_latents_have_length_one_and_their_direction() -> None:
    z = torch.tensor([[3.0, -4.0]])
    torch.testing.assert_close(l2_normalize(z), torch.tensor([[0.6, -0.8]]))


def plain_loss(q: BinaryQuantizer, z: np.ndarray) -> float:
    """Commitment and entropies bit by bit, in float64 and loops."""
    config, bits = q.config, z.shape[-1]
    rows = z.reshape(-1, bits)

    def entropy(p: float) -> float:
        return -(p * np.log(p + 1e-8) + (1 - p) * np.log(1 - p + 1e-8))

    commit = np.mean([sum((np.sign(x) / bits**0.5 - x) ** 2 for x in row) for row in rows])
    plus = 1 / (1 + np.exp(-4 * rows / bits**0.5))
    per_sample = np.mean([sum(entropy(p) for p in row) for row in plus])
    # Upstream's released tokenizers were trained with the entropy of each bit's mean, not of groups of bits.
    codebook = sum(entropy(plus[:, bit].mean()) for bit in range(bits))
    return config.beta * commit + config.zeta * (config.gamma0 * per_sample - config.gamma * codebook)


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"beta": 1.0, "zeta": 0.0},
        {"beta": 0.0, "zeta": 1.0, "gamma": 0.0},
        {"beta": 0.0, "zeta": 1.0, "gamma0": 0.0},
    ],
    ids=["all", "commitment", "per sample", "codebook"],
)
@pytest.mark.parametrize("group_size", [1, 2, 4])
def test_the_loss_is_commitment_plus_entropies_of_the_bits(
    weights: dict[str, float], group_size: int
) -> None:
    q = BinaryQuantizer(TokenizerConfig(s1_bits=5, s2_bits=3, group_size=group_size, **weights))
    z = latents(3, 7, 8)
    # float32 sums of 168 terms of order 1
    assert q.loss(z).item() == pytest.approx(plain_loss(q, z.double().numpy()), rel=1e-5, abs=1e-6)


def test_one_latent_alone_is_as_uncertain_as_the_codebook_so_that_equal_weights_cancel() -> None:
    q = quantizer(4, 4, beta=0.0, zeta=1.0, gamma0=1.0, gamma=1.0)
    assert q.loss(latents(1, 1, 8)).item() == pytest.approx(0, abs=1e-6)
    assert q.loss(latents(4, 9, 8)).item() < -0.01  # many latents use more of the codebook than each does


def test_the_commitment_does_not_pull_the_corners() -> None:
    q, z = quantizer(2, 2, beta=1.0, zeta=0.0), latents(1, 1, 4).requires_grad_()
    q.loss(z).backward()
    torch.testing.assert_close(z.grad, 2 * (z - q(z)).detach())


def test_halves_of_a_batch_that_pool_their_means_have_the_gradient_of_the_whole() -> None:
    q = quantizer(4, 4)
    # halves that lie apart, so that each uses another part of the codebook
    halves = [l2_normalize(latents(3, 5, 8, seed=seed) + shift) for seed, shift in ((0, 0.4), (1, -0.4))]
    joined = torch.cat(halves).requires_grad_()
    q.loss(joined).backward()
    mean = torch.sigmoid(4 * q.scale * joined.detach()).mean(dim=(0, 1))

    def pool(own: Tensor) -> Tensor:
        return mean + own - own.detach()

    def gradient(half: Tensor, pool: Callable[[Tensor], Tensor] | None) -> Tensor:
        part = half.clone().requires_grad_()
        q.loss(part, pool).backward()
        return part.grad / 2  # each half counts as much

    pooled = torch.cat([gradient(half, pool) for half in halves])
    torch.testing.assert_close(pooled, joined.grad)
    alone = torch.cat([gradient(half, None) for half in halves])
    assert (alone - joined.grad).abs().max() > 0.1 * joined.grad.abs().max()
