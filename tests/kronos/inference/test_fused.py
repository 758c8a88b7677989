"""The fused networks compute the same functions as the plain ones that are trained, for all sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kronos.config import SampleConfig
from kronos.inference.fused import ExecutionConfig, FusedKronos, FusedTokenizer
from kronos.inference.generate import Prompt, decode, generate
from kronos.inference.kv_cache import Cursor, PrefixCache, causal
from kronos.inference.packed_linear import PackedLinear
from kronos.model import Kronos
from kronos.tokenizer import Tokens
from tests.kronos.builders import compiler, make_model, make_stamps, make_tokenizer, make_tokens, shared_draws

MODELS: dict[str, dict[str, Any]] = {
    "as elsewhere": {},
    "a fine half larger than the coarse": {"s1_bits": 2, "s2_bits": 7},
    "a coarse half larger than the fine": {"s1_bits": 7, "s2_bits": 1},
    "one block": {"n_layers": 1},
    "no block": {"n_layers": 0},
    "three heads": {"d_model": 24, "n_heads": 3},
    "five heads": {"d_model": 40, "n_heads": 5},
    "one head": {"d_model": 24, "n_heads": 1, "ff_dim": 7},
    "heads of two numbers": {"d_model": 16, "n_heads": 8},
    "fixed calendar": {"learn_te": False},
}
TOKENIZERS: dict[str, dict[str, int]] = {
    "as elsewhere": {},
    "a fine half larger than the coarse": {"s1_bits": 1, "s2_bits": 7},
    "a coarse half larger than the fine": {"s1_bits": 7, "s2_bits": 5},
    "no block at all": {"n_enc_layers": 1, "n_dec_layers": 1},
    "a decoder of one block": {"n_dec_layers": 2},
    "no decoder block": {"n_dec_layers": 1},
    "no encoder block": {"n_enc_layers": 1},
    "three heads": {"d_model": 18, "n_heads": 3},
    "one head": {"d_model": 10, "n_heads": 1, "ff_dim": 7},
}
PACK = pytest.mark.parametrize("pack", [True, False], ids=["packed", "plain"])


@pytest.fixture
def form(pack: bool, monkeypatch: pytest.MonkeyPatch) -> ExecutionConfig:
    """Execution in float32, with products packed or not."""
    if not pack:
        monkeypatch.setattr("kronos.inference.packed_linear.can_pack", lambda weight: False)
    return ExecutionConfig()


def close(ours: Tensor, theirs: Tensor) -> None:
    """Activations of order 1 to 10, a few float32 products deep, their sums in another order."""
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=3e-5)


class Read(NamedTuple):
    """All outputs of a model that the engine uses, at every position."""

    hidden: Tensor
    s1_logits: Tensor
    s2_logits: Tensor


@torch.no_grad()
def plain(model: Kronos, tokens: Tokens, stamps: Tensor, next_s1: Tensor) -> Read:
    hidden = model.hidden(tokens, stamps)
    return Read(hidden, model.s1_logits(hidden), model.s2_logits(hidden, next_s1))


@torch.no_grad()
def fused(
    model: FusedKronos,
    tokens: Tokens,
    stamps: Tensor,
    next_s1: Tensor,
    attend: Callable[..., Tensor] = causal,
) -> Read:
    rope_rotations = model.rope_rotations(torch.arange(tokens.s1.shape[1]))
    hidden = model.hidden(tokens, stamps, rope_rotations, [attend] * len(model.blocks))
    keys, values = model.cross_keys_values(hidden)
    s2_logits = model.s2_logits(hidden, next_s1, lambda q: attend(q, keys, values))
    return Read(hidden, model.s1_logits(hidden), s2_logits)


def reading(model: Kronos, rows: int = 3, length: int = 9) -> tuple[Tokens, Tensor, Tensor]:
    """Tokens, stamps and the coarse halves that follow."""
    tokens = make_tokens(model, rows, length)
    return tokens, make_stamps(rows, length), make_tokens(model, rows, length, seed=1).s1


def bars_of(rows: int, length: int) -> Tensor:
    return torch.randn(rows, length, 6, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def decoded(tokenizer: FusedTokenizer, tokens: Tokens, prefix: int) -> Tensor:
    """Bars from the last of the first `prefix` tokens on."""
    rows, length = tokens.s1.shape
    cursor = Cursor(torch.full((rows,), prefix), prefix, True, length - prefix)
    caches = [PrefixCache(cursor, 1, length - prefix) for _ in tokenizer.decoder]
    before = Tokens(*(half[:, :prefix] for half in tokens))
    last = tokenizer.read(before, cursor.lengths, tokenizer.rope_rotations(cursor.positions), caches)
    cursor.advance(0, length - prefix)
    rest = Tokens(*(half[:, prefix:] for half in tokens))
    bars = tokenizer.decode(rest, tokenizer.rope_rotations(torch.arange(prefix, length)), caches)
    return torch.cat([last[:, None], bars], dim=1)


# float32


@PACK
@pytest.mark.parametrize("sizes", MODELS.values(), ids=MODELS)
def test_a_fused_model_computes_what_the_plain_one_does(
    sizes: dict[str, Any], pack: bool, form: ExecutionConfig
) -> None:
    model = make_model(seed=2, **sizes)
    ours = FusedKronos(model, form)
    for got, wanted in zip(fused(ours, *reading(model)), plain(model, *reading(model)), strict=True):
        close(got, wanted)


@PACK
@pytest.mark.parametrize("sizes", TOKENIZERS.values(), ids=TOKENIZERS)
@torch.no_grad()
def test_a_fused_tokenizer_gives_the_tokens_and_bars_of_the_plain_one(
    sizes: dict[str, int], pack: bool, form: ExecutionConfig
) -> None:
    tokenizer = make_tokenizer(seed=2, **sizes)
    ours, bars = FusedTokenizer(tokenizer, form), bars_of(6, 30)
    tokens = tokenizer.encode(bars)
    for got, wanted in zip(ours.encode(bars), tokens, strict=True):
        assert torch.equal(got, wanted)
        assert len(wanted.unique()) > 1
    for prefix in (1, 20, 29):
        close(decoded(ours, tokens, prefix), tokenizer.decode(tokens)[:, prefix - 1 :])


def test_packing_is_what_the_two_forms_differ_in(monkeypatch: pytest.MonkeyPatch) -> None:
    there = PackedLinear(torch.ones(2, 2), None, torch.float32).packed
    assert FusedKronos(make_model(), ExecutionConfig()).head_s1.packed == there
    assert not FusedKronos(
        make_model(), ExecutionConfig(compiled=True)
    ).head_s1.packed  # torch.compile knows no such thing


def test_fusing_leaves_the_network_as_it_was() -> None:
    for network, kind in ((make_model(), FusedKronos), (make_tokenizer(), FusedTokenizer)):
        before = {name: weight.clone() for name, weight in network.state_dict().items()}
        kind(network, ExecutionConfig())
        kind(network, ExecutionConfig("bfloat16"))
        for name, weight in network.state_dict().items():
            assert torch.equal(weight, before[name]), name
        assert all(weight.requires_grad for weight in network.parameters())


def test_a_window_at_later_positions_is_read_the_same() -> None:
    # Rotary positions are relative: only a rolling window would notice an absolute one.
    model = make_model()
    ours, (tokens, stamps, _) = FusedKronos(model, ExecutionConfig()), reading(model)
    with torch.no_grad():
        early, late = (
            ours.hidden(tokens, stamps, ours.rope_rotations(torch.arange(9) + at), [causal] * 2)
            for at in (0, 40)
        )
    torch.testing.assert_close(early, late, rtol=1e-4, atol=1e-4)


# bfloat16


class Types(TorchDispatchMode):
    """Names of the operators that take or make a bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.low: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves((args, kwargs, out)):
            if isinstance(x, Tensor) and x.dtype == torch.bfloat16:
                self.low.add(str(func.overloadpacket).removeprefix("aten.").removeprefix("mkldnn."))
        return out


# Products, what is fused into them or stands between two of them, and the ways in and out.
LOW = {
    "_linear_pointwise",
    "linear",
    "addmm",
    "mm",
    "t",
    "view",
    "_unsafe_view",
    "silu",
    "mul",
    "_to_copy",
    "to",
}
LOW |= {
    "flatten",
    "slice",
    "constant_pad_nd",
    "pad",
    "new_empty",
    "copy_",
}  # rows by tiles: moved, not computed
LOW |= {"add"}  # of a product to the residual stream, which is float32: see the types of hidden states


@PACK
def test_only_matrix_products_are_bfloat16(pack: bool, form: ExecutionConfig) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    low = form._replace(precision="bfloat16")
    ours, fine = FusedKronos(model, low), FusedTokenizer(tokenizer, low)
    tokens = make_tokens(model, 2, 9)
    seen: list[Tensor] = []

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.extend([q, k, v, causal(q, k, v)])
        return seen[-1]

    with Types() as types:
        read = fused(ours, *reading(model), attend)
        bars = decoded(fine, tokens, 4)
    assert types.low & {"_linear_pointwise", "linear", "addmm", "mm"}  # there are some
    assert types.low <= LOW
    assert {x.dtype for x in (*read, *seen, *ours.cross_keys_values(read.hidden), bars)} == {torch.float32}
    for block, x in zip(ours.blocks, (read.hidden, read.hidden), strict=True):
        assert block._after(x, x).dtype == torch.float32


def divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean KL(theirs || ours) in nats of (..., V) logits."""
    ours, theirs = ours.log_softmax(-1), theirs.log_softmax(-1)
    return (theirs.exp() * (theirs - ours)).sum(-1).mean()


@PACK
def test_logits_from_bfloat16_products_are_near_the_float32_ones(pack: bool, form: ExecutionConfig) -> None:
    model = make_model(d_model=32, n_layers=4, s1_bits=7, s2_bits=6)
    inputs = reading(model, rows=8, length=30)
    low = fused(FusedKronos(model, form._replace(precision="bfloat16")), *inputs)
    exact = fused(FusedKronos(model, form), *inputs)
    for ours, theirs in ((low.s1_logits, exact.s1_logits), (low.s2_logits, exact.s2_logits)):
        assert not torch.equal(ours, theirs)
        # Eight bits of logits that spread over several nats; other tokens would be nats apart.
        assert 0 < divergence(ours, theirs) < 2e-3
        assert divergence(ours.roll(1, 1), theirs) > 0.5


@PACK
def test_a_bfloat16_tokenizer_gives_exactly_the_tokens_of_the_float32_one(
    pack: bool, form: ExecutionConfig
) -> None:
    tokenizer, bars = make_tokenizer(n_enc_layers=4), bars_of(32, 40)
    low = FusedTokenizer(tokenizer, form._replace(precision="bfloat16"))
    with torch.no_grad(), Types() as types:
        got = low.encode(bars)
    assert not types.low
    for ours, theirs in zip(got, tokenizer.encode(bars), strict=True):
        assert torch.equal(ours, theirs)
    # 32-bar decoders of bfloat16 do move, by hundredths of a deviation.
    low_bars, bars = decoded(low, got, 20), decoded(FusedTokenizer(tokenizer, form), got, 20)
    assert not torch.equal(low_bars, bars)
    assert (low_bars - bars).abs().mean() < 0.02 * bars.abs().mean()


# Compiled


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="torch.compile needs a C++ compiler")
def test_compiled_networks_give_the_same_tokens_and_bars() -> None:
    model, tokenizer = make_model(n_layers=2), make_tokenizer(n_enc_layers=2, n_dec_layers=2)
    horizon = 3
    draws = shared_draws(pd.date_range("2024-01-01", periods=2), 3, horizon)
    outcomes = []
    for form in (ExecutionConfig(), ExecutionConfig(compiled=True)):
        ours, fine = FusedKronos(model, form), FusedTokenizer(tokenizer, form)
        with torch.inference_mode():
            tokens = fine.encode(bars_of(2, 8))
            lengths = torch.tensor([8, 8])
            prompt = Prompt(tokens, lengths, make_stamps(2, 8), make_stamps(2, horizon, seed=1), even=True)
            paths = generate(ours, prompt, SampleConfig(3), draws, 16)
            outcomes.append((tokens, paths, decode(fine, prompt, paths, 16)))
    eager, compiled = outcomes
    for ours, theirs in zip((*compiled[0], *compiled[1]), (*eager[0], *eager[1]), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(compiled[2], eager[2], strict=True):
        close(ours, theirs)
