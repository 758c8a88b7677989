from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kronos.layers import Attention, Block, Dropout, FeedForward, RMSNorm, rope_table
from tests.kronos.oracle import rotate


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_position_zero_is_not_rotated() -> None:
    x = noise(1, 2, 1, 8)
    assert torch.equal(rotate(x, rope_table(torch.zeros(1), 8)), x)


def test_rotation_turns_each_pair_of_halves_by_position_times_its_frequency() -> None:
    width, position = 8, 3
    x = noise(1, 1, 1, width)
    turned = rotate(x, rope_table(torch.tensor([position]), width))[0, 0, 0]
    for i in range(width // 2):
        pair = torch.complex(x[0, 0, 0, i], x[0, 0, 0, i + width // 2])
        angle = torch.tensor(position * 10_000 ** (-2 * i / width))
        wanted = pair * torch.complex(angle.cos(), angle.sin())
        torch.testing.assert_close(turned[i], wanted.real)
        torch.testing.assert_close(turned[i + width // 2], wanted.imag)


def test_a_rotated_query_meets_a_rotated_key_by_their_distance_alone() -> None:
    q, k = noise(1, 1, 1, 16), noise(1, 1, 1, 16, seed=1)

    def score(at: int, back: int) -> Tensor:
        turned = [rotate(x, rope_table(torch.tensor([p]), 16)) for x, p in ((q, at), (k, at - back))]
        return (turned[0] * turned[1]).sum()

    # angles up to 400 radians in float32 are known to 1e-5
    torch.testing.assert_close(score(400, 7), score(7, 7), rtol=1e-3, atol=1e-3)
    assert (score(7, 7) - score(7, 2)).abs() > 0.1


def test_every_row_may_have_positions_of_its_own() -> None:
    x = noise(2, 3, 4, 8)
    positions = torch.tensor([[0, 1, 2, 3], [5, 6, 7, 8]])
    together = rotate(x, rope_table(positions[:, None], 8))  # (B, 1, T) with (B, heads, T)
    for row in range(2):
        alone = rotate(x[row : row + 1], rope_table(positions[row], 8))
        torch.testing.assert_close(together[row], alone[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_divides_by_the_root_mean_square_in_float32(dtype: torch.dtype) -> None:
    norm = RMSNorm(8).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(8))
    x = (100 * noise(3, 8)).to(dtype)
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt()
    assert norm(x).dtype == dtype
    rtol = 1e-6 if dtype == torch.float32 else 2**-7  # half a unit in the last place, twice
    torch.testing.assert_close(norm(x).double(), exact * torch.arange(8), rtol=rtol, atol=1e-6)


def test_feed_forward_gates_one_map_by_the_swish_of_the_other() -> None:
    ffn, x = FeedForward(6, 10, 0.0), noise(2, 6)
    gate, up = x @ ffn.w1.weight.T, x @ ffn.w3.weight.T
    torch.testing.assert_close(ffn(x), (gate * torch.sigmoid(gate) * up) @ ffn.w2.weight.T)


def plain_attention(attention: Attention, query: Tensor, context: Tensor) -> Tensor:
    """One head and one position at a time, without rotation."""
    q, k, v = attention.q_proj(query), attention.k_proj(context), attention.v_proj(context)
    width, out = attention.head_width, torch.zeros_like(q)
    for b in range(q.shape[0]):
        for head in range(attention.n_heads):
            part = slice(head * width, (head + 1) * width)
            for t in range(q.shape[1]):
                scores = torch.stack([q[b, t, part] @ k[b, s, part] for s in range(t + 1)]) / width**0.5
                out[b, t, part] = scores.softmax(0) @ v[b, : t + 1, part]
    return attention.out_proj(out)


@torch.no_grad()
def test_attention_is_softmax_over_the_past_head_by_head() -> None:
    attention = Attention(12, 3, 0.0, 0.0)
    query, context = noise(2, 5, 12), noise(2, 5, 12, seed=1)
    # float32 sums of at most 12 terms of order 1
    torch.testing.assert_close(
        attention(query, context, rope=None), plain_attention(attention, query, context), atol=1e-5, rtol=1e-5
    )


def test_attention_drops_weights_in_training_only() -> None:
    attention, x = Attention(8, 2, 0.5, 0.0), noise(1, 6, 8)
    torch.manual_seed(0)
    assert not torch.equal(attention.train()(x, x, None), attention.train()(x, x, None))
    assert torch.equal(attention.eval()(x, x, None), attention.eval()(x, x, None))


@torch.no_grad()
def test_a_block_adds_attention_and_then_feed_forward_to_its_input() -> None:
    block, x = Block(8, 2, 12, 0.0, 0.0, 0.0), noise(2, 5, 8)
    rope = rope_table(torch.arange(5), 4)
    normed = block.norm1(x)
    y = x + block.self_attn(normed, normed, rope)
    torch.testing.assert_close(block(x, rope), y + block.ffn(block.norm2(y)))


def test_the_norms_gradients_are_those_of_its_formula() -> None:
    norm, x, grad = RMSNorm(8), noise(3, 5, 8).requires_grad_(), noise(3, 5, 8, seed=2)
    with torch.no_grad():
        norm.weight.copy_(noise(8, seed=1))
    formula = x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight
    wanted = torch.autograd.grad(formula, (x, norm.weight), grad)
    torch.testing.assert_close(torch.autograd.grad(norm(x), (x, norm.weight), grad), wanted)


def test_dropout_drops_its_share_and_keeps_the_mean_and_the_gradient_goes_the_same_way() -> None:
    drop, x = Dropout(0.25), torch.ones(101, 997, requires_grad=True)
    torch.manual_seed(0)
    y = drop(x)
    assert y.unique().tolist() == pytest.approx([0.0, 4 / 3])
    # A share of 100,697 elements: five standard deviations.
    assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / x.numel()) ** 0.5)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], y.detach())


def test_dropout_rests_in_eval_mode_and_repeats_itself_for_a_seed() -> None:
    drop, x = Dropout(0.25), noise(7, 9)
    assert drop.eval()(x) is x
    drop.train()
    with torch.random.fork_rng():
        first, second = [(torch.manual_seed(s), drop(x))[1] for s in (1, 1)]
    assert torch.equal(first, second)


def test_a_block_computes_the_same_from_joined_projections_in_every_precision() -> None:
    block, x = Block(16, 2, 12, 0.0, 0.0, 0.0), noise(2, 5, 16)
    rope = rope_table(torch.arange(5), 8)
    wanted = block(x, rope)
    torch.testing.assert_close(block.double()(x.double(), rope).float(), wanted, rtol=1e-4, atol=1e-5)
    block.float()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(block(x, rope), wanted, rtol=0.05, atol=0.05)


def test_a_compiled_block_has_the_output_and_the_gradients_of_a_plain_one() -> None:
    block = Block(16, 2, 24, 0.0, 0.0, 0.0)
    rope = rope_table(torch.arange(5), 8)

    def learned(layer: torch.nn.Module) -> list[Tensor]:
        block.zero_grad()
        x = noise(3, 5, 16).requires_grad_()
        out = layer(x, rope)
        (out * noise(3, 5, 16, seed=1)).sum().backward()
        assert x.grad is not None
        return [
            out,
            x.grad,
            *(weight.grad.clone() for weight in block.parameters() if weight.grad is not None),
        ]

    plain, compiled = learned(block), learned(torch.compile(block, backend="eager"))
    assert len(plain) == 2 + len(list(block.parameters()))
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(one, other)
