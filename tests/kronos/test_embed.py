"""KronosPredictor.embed: the hidden state at each window's last bar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kronos.head import ReturnHead
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.conftest import SHARED_DATA
from tests.kronos.builders import make_model, make_panel, make_tokenizer

CONTEXT = 16


@pytest.fixture(scope="module")
def predictor() -> KronosPredictor:
    return KronosPredictor(make_model(), make_tokenizer(), "cpu", max_context=CONTEXT)


@pytest.fixture(scope="module")
def windows() -> Windows:
    """Lookbacks from 3 to 20 bars; the longest exceed the context."""
    panel = make_panel(30, "A", "B", "C")
    panel["B"] = panel["B"].iloc[9:]
    return Windows.rolling(panel, 20, 4, "B", start=panel["A"].index[11], min_bars=3)


@torch.no_grad()
def plain(predictor: KronosPredictor, windows: Windows) -> np.ndarray:
    """Each window by itself through the plain networks."""
    normalized, rows = windows.scale().apply(windows.values, predictor.clip), []
    for i, length in enumerate(windows.lengths):
        tokens = predictor.tokenizer.encode(torch.from_numpy(normalized[i : i + 1, :length]))
        kept = type(tokens)(*(half[:, -predictor.max_context :] for half in tokens))
        stamps = torch.from_numpy(windows.stamps[i : i + 1, :length])[:, -predictor.max_context :]
        rows.append(predictor.model.hidden(kept, stamps)[0, -1].numpy())
    return np.stack(rows)


def test_the_embedding_is_the_hidden_state_of_the_last_bar_in_the_plain_model(
    predictor: KronosPredictor, windows: Windows
) -> None:
    assert windows.lengths.min() < CONTEXT < windows.lengths.max()
    found = predictor.embed(windows)
    assert (found.shape, found.dtype) == ((len(windows), predictor.model.config.d_model), np.float32)
    np.testing.assert_allclose(found, plain(predictor, windows), rtol=1e-4, atol=1e-5)


def test_windows_of_one_length_give_the_same_as_among_others(
    predictor: KronosPredictor, windows: Windows
) -> None:
    even = windows.lengths == 20
    assert even.sum() > 3
    np.testing.assert_allclose(
        predictor.embed(windows[even]), predictor.embed(windows)[even], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_networks_of_any_depth_are_read(layers: int, windows: Windows) -> None:
    predictor = KronosPredictor(make_model(n_layers=layers), make_tokenizer(), "cpu", max_context=CONTEXT)
    np.testing.assert_allclose(predictor.embed(windows), plain(predictor, windows), rtol=1e-4, atol=1e-5)


def test_neither_order_nor_chunks_nor_the_bars_to_forecast_matter(windows: Windows) -> None:
    networks = make_model(), make_tokenizer()
    whole = KronosPredictor(*networks, "cpu", max_context=CONTEXT).embed(windows)
    small = KronosPredictor(*networks, "cpu", max_context=CONTEXT, memory=1)
    order = np.random.default_rng(0).permutation(len(windows))
    done: list[int] = []
    np.testing.assert_allclose(small.embed(windows[order], done.append), whole[order], rtol=1e-4, atol=1e-5)
    assert done == [1] * len(windows)


def test_a_later_bar_changes_no_earlier_state(predictor: KronosPredictor) -> None:
    panel = make_panel(30, "A", "B")
    before = Windows.rolling(panel, 12, 2, "B")
    panel["A"].iloc[20:] *= 3
    after = Windows.rolling(panel, 12, 2, "B")
    early = before.index.get_level_values("datetime") < panel["A"].index[20]
    np.testing.assert_array_equal(predictor.embed(before[early]), predictor.embed(after[early]))


def test_embedding_samples_no_path(
    predictor: KronosPredictor, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kronos.inference.pipeline.generate", None)  # every call fails
    monkeypatch.setattr("kronos.inference.pipeline.decode", None)
    predictor.embed(windows)


def test_weights_that_were_trained_since_change_the_embedding(windows: Windows) -> None:
    predictor = KronosPredictor(make_model(), make_tokenizer(), "cpu", max_context=CONTEXT)
    before = predictor.embed(windows)
    with torch.no_grad():
        predictor.model.norm.weight.mul_(2)
    np.testing.assert_allclose(predictor.embed(windows), 2 * before, rtol=1e-5)


def test_embedding_without_a_window_is_refused(predictor: KronosPredictor, windows: Windows) -> None:
    with pytest.raises(ValueError, match="no windows to embed"):
        predictor.embed(windows[:0])


def test_the_trained_head_ranks_real_windows_as_its_weights_say(shared_data: Path, tmp_path: Path) -> None:
    """Tested on the checkpoint with a head, where it exists: hidden states are of standard size, scores differ."""
    import json
    import shutil

    made = SHARED_DATA.parent / "checkpoints" / "kronos-nano-2"
    if not made.is_dir():
        pytest.skip(f"no checkpoint with a head in {made}")
    for part in ("tokenizer", "predictor"):
        shutil.copytree(made / part, tmp_path / part, copy_function=shutil.copy)
    (tmp_path / "predictor").chmod(0o755)
    shutil.copy(made / "head.safetensors", tmp_path / "predictor")
    info = {"d_model": 128, "horizons": [1, 5, 10], "label": "rank", "lookback": 90, "frequency": "1day"}
    (tmp_path / "predictor" / "head.json").write_text(json.dumps(info))
    predictor = KronosPredictor.from_pretrained(tmp_path, device="cpu")
    head = ReturnHead.from_pretrained(tmp_path)
    assert head.sha256.startswith("886b55e856729359")
    windows = Windows.rolling(make_panel(95, "A", "B", "C"), 90, 1, "B")
    hidden = predictor.embed(windows)
    np.testing.assert_allclose(hidden, plain(predictor, windows), rtol=1e-3, atol=1e-4)
    scores = head(hidden)
    assert scores.shape == (len(windows), 3)
    assert 0.005 < scores.std() < 1
