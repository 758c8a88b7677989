"""Everything upstream computed on the reference pair, computed again.

Unless stated otherwise, floats agree to 1e-5: activations here are of order 1 to 10 and sums run over up to
96 float32 products, so that another order of summation moves them by about 1e-6.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from kronos.bars import check_bars
from kronos.config import SampleConfig
from kronos.inference.fused import ExecutionConfig, FusedKronos, FusedTokenizer
from kronos.inference.generate import Prompt, decode, generate
from kronos.model import Kronos
from kronos.predictor import KronosPredictor
from kronos.sampling import TorchSampler
from kronos.tokenizer import KronosTokenizer, Tokens
from kronos.windows import Windows
from tests.kronos.oracle import rotated_logits, rotated_loss

CASES = json.loads(
    (Path(__file__).parents[1] / "reference" / "kronos_tiny" / "cases.json").read_text(encoding="utf-8")
)["cases"]
CASE_NAMES = [case["name"] for case in CASES]

Arrays = dict[str, np.ndarray]


def close(ours: Tensor, theirs: np.ndarray, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=rtol, atol=atol)


def module_tokens(expected: Arrays) -> Tokens:
    return Tokens(torch.from_numpy(expected["module_s1"]), torch.from_numpy(expected["module_s2"]))


def module_stamps(expected: Arrays) -> Tensor:
    return torch.from_numpy(expected["module_stamp"]).long()


@torch.no_grad()
def test_token_ids_are_upstreams(tokenizer: KronosTokenizer, expected: Arrays) -> None:
    tokens = tokenizer.encode(torch.from_numpy(expected["module_x"]))
    np.testing.assert_array_equal(tokens.s1, expected["module_s1"])
    np.testing.assert_array_equal(tokens.s2, expected["module_s2"])


@torch.no_grad()
def test_upstreams_composite_id_is_the_coarse_half_below_the_fine_half(
    tokenizer: KronosTokenizer, expected: Arrays
) -> None:
    tokens = tokenizer.encode(torch.from_numpy(expected["module_x"]))
    composite = tokens.s1 + (tokens.s2 << tokenizer.config.s1_bits)
    np.testing.assert_array_equal(composite, expected["module_ids"])


@torch.no_grad()
def test_bars_decoded_from_tokens_are_upstreams(tokenizer: KronosTokenizer, expected: Arrays) -> None:
    bars = tokenizer.decode(module_tokens(expected))
    close(bars, expected["module_decoded"])
    close(bars, expected["module_recon"])


@torch.no_grad()
def test_bars_rebuilt_from_the_coarse_half_alone_are_upstreams(
    tokenizer: KronosTokenizer, expected: Arrays
) -> None:
    codes = tokenizer.quantizer.codes(module_tokens(expected))
    coarse = tokenizer.post_quant_embed_pre(codes[..., : tokenizer.config.s1_bits])
    close(tokenizer.run_decoder(coarse), expected["module_recon_s1"])


@torch.no_grad()
def test_hidden_states_and_coarse_logits_are_upstreams(model: Kronos, expected: Arrays) -> None:
    tokens, stamps = module_tokens(expected), module_stamps(expected)
    hidden = model.hidden(tokens, stamps)
    close(hidden, expected["module_context"])
    close(model.s1_logits(hidden), expected["module_s1_logits"])


@torch.no_grad()
def test_fine_logits_at_decode_are_upstreams_with_an_unrotated_cross_attention(
    model: Kronos, expected: Arrays
) -> None:
    tokens, stamps = module_tokens(expected), module_stamps(expected)
    logits = model(tokens, stamps, next_s1=tokens.s1).s2[:, -1]
    close(logits, expected["module_s2_logits_last"][:, -1])
    rotated = rotated_logits(model, tokens, stamps, tokens.s1).s2[:, -1]
    assert (rotated - logits).abs().max() > 0.01  # so the reference does tell the two forms apart


def test_training_logits_are_upstreams_with_a_rotated_cross_attention(
    reference_folder: Path, expected: Arrays
) -> None:
    model = Kronos.from_pretrained(reference_folder).train()  # dropout is 0 in its config
    tokens, stamps = module_tokens(expected), module_stamps(expected)
    past = Tokens(tokens.s1[:, :-1], tokens.s2[:, :-1])
    logits = rotated_logits(model, past, stamps[:, :-1], tokens.s1[:, 1:])
    close(logits.s1.detach(), expected["train_s1_logits"])
    close(logits.s2.detach(), expected["train_s2_logits"])


def compare_gradients(network: nn.Module, loss: Tensor, norms: dict[str, float]) -> None:
    """Every parameter's gradient norm is upstream's.

    To a relative 1e-4: gradients of query and key biases nearly cancel (norms down to 2.6e-4, weights' of
    order 1), which costs them three of float32's seven digits where another order of summation is used; a wrong
    term in a loss moves some norm by 1e-3 at least. Norms below 1e-6 are zeros of which only rounding is left.
    """
    loss.backward()
    ours = {name: p.grad.norm().item() for name, p in network.named_parameters() if p.grad is not None}
    assert set(ours) == set(norms)
    for name, norm in norms.items():
        if norm > 1e-6:
            assert ours[name] == pytest.approx(norm, rel=1e-4), name
        else:
            assert ours[name] < 1e-5, name


def test_tokenizer_losses_and_gradients_are_upstreams(
    reference_folder: Path, expected: Arrays, reference_losses: dict[str, Any]
) -> None:
    tokenizer = KronosTokenizer.from_pretrained(reference_folder).train()
    losses, theirs = tokenizer.loss(torch.from_numpy(expected["module_x"])), reference_losses["tokenizer"]
    for name, loss in losses._asdict().items():
        assert loss.item() == pytest.approx(theirs[name], rel=1e-5), name
    compare_gradients(tokenizer, losses.loss, theirs["grad_norms"])


def test_predictor_losses_and_gradients_are_upstreams(
    reference_folder: Path, expected: Arrays, reference_losses: dict[str, Any]
) -> None:
    model = Kronos.from_pretrained(reference_folder).train()
    losses = rotated_loss(model, module_tokens(expected), module_stamps(expected))
    theirs = reference_losses["predictor"]
    for name, loss in losses._asdict().items():
        assert loss.item() == pytest.approx(theirs[name], rel=1e-5), name
    compare_gradients(model, losses.loss, theirs["grad_norms"])


def series(case: dict[str, Any], bars: pd.DataFrame) -> tuple[list[pd.DataFrame], list, list]:
    """Arguments of upstream's predict_batch: frames, their timestamps, the timestamps to forecast."""
    lookback, horizon = case["lookback"], case["pred_len"]
    rows = [bars.iloc[at : at + lookback + horizon] for at in case["offsets"]]
    frames = [
        row.iloc[:lookback].drop(columns=["timestamps", *case.get("drop", [])]).reset_index(drop=True)
        for row in rows
    ]
    return (
        frames,
        [row["timestamps"].iloc[:lookback] for row in rows],
        [row["timestamps"].iloc[lookback:] for row in rows],
    )


def settings(case: dict[str, Any]) -> dict[str, Any]:
    return {name: case[name] for name in ("pred_len", "T", "top_k", "top_p", "sample_count")}


@pytest.mark.parametrize("seeded", ["by torch.manual_seed", "by argument"])
@pytest.mark.parametrize("case", CASES, ids=CASE_NAMES)
def test_forecasts_are_upstreams_for_the_same_seed(
    case: dict[str, Any],
    seeded: str,
    model: Kronos,
    tokenizer: KronosTokenizer,
    reference_bars: pd.DataFrame,
    expected: Arrays,
) -> None:
    predictor = KronosPredictor(model, tokenizer, "cpu", case["max_context"])
    theirs = expected[f"case{CASES.index(case)}_forecast"]
    frames, x, y = series(case, reference_bars)

    def seed() -> int | None:
        torch.manual_seed(case["seed"] if seeded == "by torch.manual_seed" else 999)
        return None if seeded == "by torch.manual_seed" else case["seed"]

    forecasts = predictor.predict_batch(frames, x, y, verbose=False, seed=seed(), **settings(case))
    if case["batch"] == 1:
        alone = predictor.predict(frames[0], x[0], y[0], verbose=False, seed=seed(), **settings(case))
        pd.testing.assert_frame_equal(alone, forecasts[0])
    assert len(forecasts) == len(theirs)
    for frame, ours, wanted, timestamps in zip(frames, forecasts, theirs, y, strict=True):
        # 1e-5 of a normalized bar, in the bars' own units: each column times its spread over the lookback.
        spread = check_bars(frame).std(ddof=0).to_numpy()
        np.testing.assert_array_less(np.abs(ours - wanted), 1e-5 * (spread + np.abs(wanted)) + 1e-9)
        np.testing.assert_array_equal(ours.index, timestamps)
        assert list(ours.columns) == ["open", "high", "low", "close", "volume", "amount"]


@pytest.mark.parametrize("case", CASES, ids=CASE_NAMES)
@torch.inference_mode()
def test_sampled_tokens_are_upstreams_one_by_one(
    case: dict[str, Any],
    model: Kronos,
    tokenizer: KronosTokenizer,
    reference_bars: pd.DataFrame,
    expected: Arrays,
) -> None:
    windows = Windows.stack(
        [
            Windows.single("series", check_bars(frame).set_axis(pd.DatetimeIndex(x)), pd.DatetimeIndex(y))
            for frame, x, y in zip(*series(case, reference_bars), strict=True)
        ]
    )
    prompt = Prompt(
        tokenizer.encode(torch.from_numpy(windows.scale().apply(windows.values, clip=5))),
        torch.from_numpy(windows.lengths),
        torch.from_numpy(windows.stamps),
        torch.from_numpy(windows.future_stamps),
        even=len(set(windows.lengths)) == 1,
    )
    sampling = SampleConfig(case["sample_count"], case["T"], case["top_p"], case["top_k"])
    draws = TorchSampler(case["sample_count"], torch.Generator().manual_seed(case["seed"]))
    tokens = generate(FusedKronos(model, ExecutionConfig()), prompt, sampling, draws, case["max_context"])
    number = CASES.index(case)
    np.testing.assert_array_equal(tokens.s1, expected[f"case{number}_s1"])
    np.testing.assert_array_equal(tokens.s2, expected[f"case{number}_s2"])
    fused = FusedTokenizer(tokenizer, ExecutionConfig())
    close(
        decode(fused, prompt, tokens, case["max_context"]).paths, expected[f"case{number}_paths_normalised"]
    )
