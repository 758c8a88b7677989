from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kronos.quantizer import Tokens
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


def test_the_loss_is_the_mean_of_both_errors_and_the_quantisers() -> None:
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
