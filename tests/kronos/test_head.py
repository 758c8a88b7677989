"""ReturnHead: hidden states to expected ranks, and its files."""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kronos.head import HEAD_INFO, HEAD_WEIGHTS, HeadInfo, ReturnHead, find_head
from tests.kronos.builders import make_head

D = 16


@pytest.fixture
def hidden() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(7, D)).astype(np.float32)


@pytest.fixture
def head() -> ReturnHead:
    return make_head(D, markets=("A", "B"), trained_until="2019-12-31")


def test_an_output_is_the_weighted_sum_of_the_hidden_state(head: ReturnHead, hidden: np.ndarray) -> None:
    found = head(hidden)
    assert (found.shape, found.dtype) == ((7, 3), np.float32)
    for i in range(7):
        for k in range(3):
            by_hand = sum(float(a) * float(b) for a, b in zip(hidden[i], head.weight[k], strict=True))
            assert found[i, k] == pytest.approx(by_hand + float(head.bias[k]), rel=1e-5)


def test_an_output_does_not_depend_on_its_batch(head: ReturnHead, hidden: np.ndarray) -> None:
    for i in range(7):
        np.testing.assert_array_equal(head(hidden[i : i + 1])[0], head(hidden)[i])


def test_a_saved_head_is_loaded_unchanged(head: ReturnHead, hidden: np.ndarray, tmp_path: Path) -> None:
    back = ReturnHead.from_pretrained(head.save(tmp_path / "mine"))
    assert back.info == head.info
    assert back.name == "mine"
    assert back.sha256 == head.sha256
    np.testing.assert_array_equal(back(hidden), head(hidden))


def test_the_sha256_of_a_head_is_that_of_its_file(head: ReturnHead, tmp_path: Path) -> None:
    file = head.save(tmp_path) / HEAD_WEIGHTS
    assert head.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert ReturnHead.from_pretrained(tmp_path).sha256 == head.sha256
    assert make_head(D, seed=1).sha256 != head.sha256


@pytest.mark.parametrize("where", ["predictor", "."])
def test_a_head_is_found_in_a_predictors_folder_and_in_its_own_folder(
    head: ReturnHead, tmp_path: Path, where: str
) -> None:
    head.save(tmp_path / where)
    assert find_head(tmp_path) == tmp_path / where
    assert find_head(tmp_path / where) == tmp_path / where


def test_a_checkpoint_without_a_head_says_how_to_get_one(tmp_path: Path) -> None:
    assert find_head(tmp_path) is None
    with pytest.raises(FileNotFoundError, match=r"no return head\. Fit one with `kronos train head"):
        ReturnHead.from_pretrained(tmp_path)


def test_a_pickled_head_gives_the_same_outputs(head: ReturnHead, hidden: np.ndarray) -> None:
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(head))(hidden), head(hidden))


def test_states_of_another_width_are_refused(head: ReturnHead) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 5\), but head 0 reads \(N, 16\)"):
        head(np.zeros((2, 5), np.float32))


def test_a_description_with_what_joint_training_writes_is_enough(head: ReturnHead, tmp_path: Path) -> None:
    head.save(tmp_path)
    names = ("d_model", "lookback", "frequency", "markets", "trained_until", "horizons", "label")
    kept = {name: json.loads((tmp_path / HEAD_INFO).read_text())[name] for name in names}
    (tmp_path / HEAD_INFO).write_text(json.dumps(kept))
    assert ReturnHead.from_pretrained(tmp_path).info == replace(head.info, figures=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": 8}, r"requires \(3, 8\)"),
        ({"horizons": [1, 5]}, r"requires \(2, 16\)"),
        ({"horizons": [5, 5, 1]}, "different numbers of bars"),
        ({"kind": "forest"}, "kind='forest' is unknown"),
        ({"color": "blue"}, r"unknown keys \['color'\]"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    head: ReturnHead, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    head.save(tmp_path)
    info = json.loads((tmp_path / HEAD_INFO).read_text())
    (tmp_path / HEAD_INFO).write_text(json.dumps(info | change))
    with pytest.raises(ValueError, match=message):
        ReturnHead.from_pretrained(tmp_path)


def test_weights_that_are_missing_or_damaged_are_refused(head: ReturnHead, tmp_path: Path) -> None:
    head.save(tmp_path)
    (tmp_path / HEAD_WEIGHTS).write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"head.safetensors does not contain a head"):
        ReturnHead.from_pretrained(tmp_path)
    (tmp_path / HEAD_WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=r"head.safetensors is missing"):
        ReturnHead.from_pretrained(tmp_path)


def test_trees_are_saved_as_lightgbms_text(hidden: np.ndarray, tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    random = np.random.default_rng(0)
    x = random.normal(size=(400, D)).astype(np.float32)
    texts = {}
    for h in (5, 10):
        data = lightgbm.Dataset(x, x[:, h] + random.normal(size=400))
        models = (lightgbm.train({"verbosity": -1, "seed": s}, data, 5) for s in range(2))
        texts[h] = tuple(model.model_to_string() for model in models)
    head = ReturnHead(HeadInfo(D, (5, 10), "rank", 20, kind="lightgbm"), trees=texts)
    names = {path.name for path in head.save(tmp_path).iterdir()}
    assert names == {HEAD_INFO, *(f"head-{h}.{s}.txt" for h in (5, 10) for s in (0, 1))}
    back = ReturnHead.from_pretrained(tmp_path)
    np.testing.assert_array_equal(back(hidden), head(hidden))
    assert back.sha256 == head.sha256
    direct = [lightgbm.Booster(model_str=text).predict(hidden) for text in texts[10]]
    np.testing.assert_allclose(back(hidden)[:, 1], np.mean(direct, axis=0), rtol=1e-6)
    pickle.loads(pickle.dumps(back))(hidden)
    (tmp_path / "head-10.0.txt").unlink()
    (tmp_path / "head-10.1.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"head-10\.0\.txt is missing"):
        ReturnHead.from_pretrained(tmp_path)
