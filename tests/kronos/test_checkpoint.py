from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kronos import checkpoint
from kronos.checkpoint import UPSTREAM_REVISIONS, bundled, checkpoint_info, hash_weights, resolve
from kronos.config import SampleConfig
from kronos.model import Kronos
from kronos.predictor import KronosPredictor
from kronos.tokenizer import KronosTokenizer
from kronos.windows import Windows
from tests.kronos.builders import make_bars, make_model, make_tokenizer

PARTS = {"tokenizer": KronosTokenizer, "predictor": Kronos}
Network = type[Kronos] | type[KronosTokenizer]


@pytest.fixture
def copy(reference_folder: Path, tmp_path: Path) -> Path:
    """The reference pair, to spoil."""
    return shutil.copytree(reference_folder, tmp_path / "copy")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


def publish(hub: Path, repo: str, files: Path, revision: str, ref: str | None = None) -> None:
    """Lay `files` out as `hf download` leaves them."""
    folder = hub / f"models--{repo.replace('/', '--')}"
    shutil.copytree(files, folder / "snapshots" / revision, dirs_exist_ok=True)
    if ref is not None:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / ref).write_text(revision)


def assert_same_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    state, other = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(other)
    for name, weight in state.items():
        assert torch.equal(weight, other[name]), name


# Files


@pytest.mark.parametrize(
    "make",
    [
        make_model,
        make_tokenizer,
        lambda: make_model(learn_te=False),
        lambda: make_tokenizer(s1_bits=2, s2_bits=6),
    ],
    ids=["model", "tokenizer", "model of fixed calendar", "tokenizer of unequal halves"],
)
def test_saved_weights_are_loaded_bit_for_bit(
    make: Callable[[], Kronos | KronosTokenizer], tmp_path: Path
) -> None:
    network = make()
    folder = network.save_pretrained(tmp_path / "deep" / "folder")
    loaded = type(network).from_pretrained(folder)
    assert loaded.config == network.config
    assert_same_weights(loaded, network)


@pytest.mark.parametrize("part", PARTS)
def test_a_file_saved_here_has_exactly_the_contents_of_upstreams_file(
    part: str, reference_folder: Path, tmp_path: Path
) -> None:
    # Keys, shapes, dtypes and values, constants included: so that it loads there too, strictly.
    saved = PARTS[part].from_pretrained(reference_folder).save_pretrained(tmp_path)
    ours, theirs = (load_file(f / "model.safetensors") for f in (saved, reference_folder / part))
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name
    configs = [json.loads((f / "config.json").read_text()) for f in (saved, reference_folder / part)]
    assert configs[0] == configs[1]


def test_fixed_calendar_tables_are_saved_under_upstreams_names(tmp_path: Path) -> None:
    saved = load_file(make_model(learn_te=False).save_pretrained(tmp_path) / "model.safetensors")
    names = {name for name in saved if name.startswith("time_emb")}
    fields = ("minute", "hour", "weekday", "day", "month")
    assert names == {f"time_emb.{field}_embed.emb.weight" for field in fields}


def test_a_half_precision_checkpoint_keeps_its_precision_of_value(tmp_path: Path) -> None:
    network = make_model()
    folder = network.save_pretrained(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    halves = {name: t.bfloat16() if t.is_floating_point() else t for name, t in tensors.items()}
    save_file(halves, folder / "model.safetensors")
    loaded = Kronos.from_pretrained(folder)
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, halves[name].float()), name


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("whole_pair", [True, False], ids=["pair", "own folder"])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_network_loads_from_a_pair_or_from_its_own_folder(
    part: str, whole_pair: bool, kind: Callable[[Path], str | Path], reference_folder: Path
) -> None:
    folder = reference_folder if whole_pair else reference_folder / part
    network = PARTS[part].from_pretrained(kind(folder))
    theirs = load_file(reference_folder / part / "model.safetensors")
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, theirs[name])


@pytest.mark.parametrize("part", PARTS)
def test_a_loaded_network_is_in_evaluation_mode(part: str, reference_folder: Path) -> None:
    network = PARTS[part].from_pretrained(reference_folder)
    assert not any(module.training for module in network.modules())


def test_a_pair_is_loaded_ready_to_forecast_with_dropout_off(tmp_path: Path) -> None:
    make_model(dropout=0.5).save_pretrained(tmp_path / "pair" / "predictor")
    make_tokenizer(dropout=0.5).save_pretrained(tmp_path / "pair" / "tokenizer")
    predictor = KronosPredictor.from_pretrained(tmp_path / "pair", device="cpu", max_context=16)
    assert not any(m.training for n in (predictor.model, predictor.tokenizer) for m in n.modules())
    windows = Windows.rolling({"A": make_bars(12)}, 8, 3, "B")
    paths = [predictor.forecast(windows, SampleConfig(2)).paths for _ in range(2)]
    assert (paths[0] == paths[1]).all()


def test_saving_a_trained_network_saves_no_gradients_and_does_not_change_it(tmp_path: Path) -> None:
    network = make_model().train()
    network.save_pretrained(tmp_path)
    assert network.training
    assert all(weight.requires_grad for weight in network.parameters())


# Files that are wrong


def test_a_file_that_is_not_safetensors_is_refused_by_name(copy: Path) -> None:
    (copy / "predictor" / "model.safetensors").write_bytes(b"<html>Not found</html>" * 10)
    with pytest.raises(ValueError, match=r"predictor/model\.safetensors is not a safetensors file.*Download"):
        Kronos.from_pretrained(copy)


def test_a_file_cut_short_is_refused_by_name(copy: Path) -> None:
    file = copy / "tokenizer" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"tokenizer/model\.safetensors is not a safetensors file.*Download"):
        KronosTokenizer.from_pretrained(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 64}, "size mismatch"),
        ({"n_layers": 4}, "Missing key"),
        ({"n_layers": 2}, "Unexpected key"),
    ],
)
def test_weights_that_do_not_fit_their_config_are_refused_by_name(
    changes: dict[str, int], message: str, copy: Path
) -> None:
    file = copy / "predictor" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=rf"(?s)predictor/model\.safetensors does not match.*{message}"):
        Kronos.from_pretrained(copy)


def test_an_unknown_key_in_config_json_is_refused_with_file_and_key(copy: Path) -> None:
    file = copy / "predictor" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rope_base": 500}))
    with pytest.raises(ValueError, match=r"predictor/config\.json has unknown keys \['rope_base'\]"):
        Kronos.from_pretrained(copy)


@pytest.mark.parametrize("text", ["{", "", "[]"])
def test_a_config_that_is_not_a_json_object_is_refused_by_name(text: str, copy: Path) -> None:
    (copy / "predictor" / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"predictor/config\.json"):
        Kronos.from_pretrained(copy)


@pytest.mark.parametrize(("network", "other"), [(Kronos, "tokenizer"), (KronosTokenizer, "predictor")])
def test_the_checkpoint_of_the_other_network_is_refused(
    network: Network, other: str, reference_folder: Path
) -> None:
    with pytest.raises(ValueError, match=rf"{other}/config\.json has unknown keys"):
        network.from_pretrained(reference_folder / other)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused_with_what_it_lacks(
    name: str, reference_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(reference_folder / "predictor", tmp_path / "half")
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"half lacks \['{name}'\].*checkpoint's files"):
        Kronos.from_pretrained(folder)


def test_a_model_alone_asks_for_its_tokenizer(reference_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"(?i)pass its tokenizer.*tokenizer='NeoQuasar"):
        KronosPredictor.from_pretrained(reference_folder / "predictor", device="cpu")
    predictor = KronosPredictor.from_pretrained(
        reference_folder / "predictor", tokenizer=reference_folder / "tokenizer", device="cpu"
    )
    assert predictor.tokenizer.config.s1_bits == 6


# The hub, offline


def test_a_hub_id_loads_from_the_cache_its_main_branch_or_a_named_revision(
    hub: Path, reference_folder: Path, tmp_path: Path
) -> None:
    old, new = make_model(seed=1), make_model(seed=2)
    publish(hub, "acme/tiny", old.save_pretrained(tmp_path / "old"), "a" * 40)
    publish(hub, "acme/tiny", new.save_pretrained(tmp_path / "new"), "b" * 40, ref="main")
    assert_same_weights(Kronos.from_pretrained("acme/tiny"), new)
    assert_same_weights(Kronos.from_pretrained("acme/tiny", revision="b" * 40), new)
    assert_same_weights(Kronos.from_pretrained("acme/tiny", revision="a" * 40), old)
    assert_same_weights(Kronos.from_pretrained("acme/tiny", revision="main"), new)


def test_a_released_id_loads_the_tested_revision_regardless_of_main(hub: Path, tmp_path: Path) -> None:
    tested, main = make_model(seed=1), make_model(seed=2)
    repo = "NeoQuasar/Kronos-small"
    publish(hub, repo, tested.save_pretrained(tmp_path / "tested"), UPSTREAM_REVISIONS[repo])
    publish(hub, repo, main.save_pretrained(tmp_path / "main"), "c" * 40, ref="main")
    assert_same_weights(Kronos.from_pretrained(repo), tested)
    assert_same_weights(Kronos.from_pretrained(repo, revision="main"), main)


@pytest.mark.parametrize(
    ("model", "tokenizer"),
    [
        ("NeoQuasar/Kronos-mini", "NeoQuasar/Kronos-Tokenizer-2k"),
        ("NeoQuasar/Kronos-small", "NeoQuasar/Kronos-Tokenizer-base"),
        ("NeoQuasar/Kronos-base", "NeoQuasar/Kronos-Tokenizer-base"),
    ],
)
def test_a_released_model_brings_the_tokenizer_it_was_trained_with(
    model: str, tokenizer: str, hub: Path, tmp_path: Path
) -> None:
    own = make_tokenizer(seed=4)
    publish(hub, model, make_model().save_pretrained(tmp_path / "m"), UPSTREAM_REVISIONS[model])
    publish(hub, tokenizer, own.save_pretrained(tmp_path / "t"), UPSTREAM_REVISIONS[tokenizer])
    predictor = KronosPredictor.from_pretrained(model, device="cpu", max_context=16)
    assert_same_weights(predictor.tokenizer, own)
    provenance = predictor.forecast(Windows.rolling({"A": make_bars(9)}, 8, 3, "B")).provenance
    assert provenance.model == model
    assert provenance.revision == UPSTREAM_REVISIONS[model]


@pytest.mark.parametrize("spec", ["acme/unknown", "kronos-unheard-of", "no/such/folder/here", "./missing"])
def test_the_error_for_an_unknown_name_lists_every_way_to_get_a_checkpoint(spec: str, hub: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Kronos.from_pretrained(spec)
    message = str(caught.value)
    for part in (spec, "bundled name", "folder with config.json", "Hugging Face id", "hf download"):
        assert part in message


def test_a_revision_that_is_not_in_the_cache_is_named(hub: Path, tmp_path: Path) -> None:
    publish(hub, "acme/tiny", make_model().save_pretrained(tmp_path / "m"), "b" * 40, ref="main")
    with pytest.raises(FileNotFoundError, match=rf"'acme/tiny' at revision {'d' * 40}"):
        Kronos.from_pretrained("acme/tiny", revision="d" * 40)


def test_provenance_has_the_commit_that_a_branch_was_at(hub: Path, tmp_path: Path) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    publish(hub, "acme/model", model.save_pretrained(tmp_path / "m"), "a" * 40, ref="main")
    publish(hub, "acme/tokenizer", tokenizer.save_pretrained(tmp_path / "t"), "b" * 40, ref="main")
    predictors = [
        KronosPredictor.from_pretrained("acme/model", "acme/tokenizer", revision, device="cpu")
        for revision in (None, "main", "a" * 40)
    ]
    infos = [predictor.checkpoint_info for predictor in predictors]
    assert {info.revision for info in infos} == {"a" * 40}
    assert {info.sha256 for info in infos} == {hash_weights(tmp_path / "m", tmp_path / "t")}


def test_an_id_without_a_commit_is_logged_with_the_one_to_pin(
    hub: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(hub, "acme/tiny", make_model().save_pretrained(tmp_path / "m"), "b" * 40, ref="main")
    with caplog.at_level("INFO", "kronos.hub"):
        Kronos.from_pretrained("acme/tiny", revision="b" * 40)
        assert not caplog.records
        Kronos.from_pretrained("acme/tiny")
    assert f"acme/tiny is at commit {'b' * 40} of main" in caplog.text


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_offline_is_read_from_the_environment_of_the_moment(
    value: str, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, "acme/tiny", make_model().save_pretrained(tmp_path / "m"), "b" * 40, ref="main")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    Kronos.from_pretrained("acme/tiny")
    with pytest.raises(
        FileNotFoundError, match=rf"not in the cache {hub}, and downloads are off.*hf download"
    ) as gone:
        Kronos.from_pretrained("acme/other")
    assert "\n" not in str(gone.value)


@pytest.mark.integration
def test_the_environment_alone_sets_the_cache_and_keeps_the_network_out(tmp_path: Path) -> None:
    # As a user would: a fresh interpreter with HF_HOME and HF_HUB_OFFLINE, nothing patched.
    home = tmp_path / "home"
    publish(home / "hub", "acme/tiny", make_model().save_pretrained(tmp_path / "m"), "b" * 40, ref="main")
    script = (
        "from kronos import Kronos\n"
        "print(Kronos.from_pretrained('acme/tiny').config.s1_bits)\n"
        "try: Kronos.from_pretrained('acme/other')\n"
        "except FileNotFoundError as error: print('hf download acme/other' in str(error))\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = kept | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["5", "True"]


# Origins, bundles, cards


def test_an_origin_changes_with_any_file_of_the_pair_and_with_nothing_else(copy: Path) -> None:
    before = checkpoint_info(copy, copy / "predictor", copy / "tokenizer")
    (copy / "notes.txt").write_text("hello")
    assert checkpoint_info(copy, copy / "predictor", copy / "tokenizer") == before
    digests = {before.sha256}
    for part in PARTS:
        for name in ("config.json", "model.safetensors"):
            with (copy / part / name).open("ab") as file:
                file.write(b" ")
            digests.add(checkpoint_info(copy, copy / "predictor", copy / "tokenizer").sha256)
    assert len(digests) == 5
    assert (before.name, before.revision) == (str(copy), None)


@pytest.mark.parametrize(
    ("card", "date"),
    [
        ("---\nlicense: mit\ntrained_until: 2024-06-30\n---\n# Tiny\n", "2024-06-30"),
        ("---\ntrained_until: '2024-06-30'\n---\n", "2024-06-30"),
        ("# Tiny\nIt was trained on something.\n", None),
        (None, None),
    ],
    ids=["date", "quoted", "silent", "no card"],
)
@pytest.mark.parametrize("place", [".", "predictor"], ids=["of the pair", "of the predictor"])
def test_the_last_date_of_training_is_read_from_the_model_card(
    card: str | None, date: str | None, place: str, copy: Path
) -> None:
    if card is not None:
        (copy / place / "README.md").write_text(card)
    spec = copy if place == "." else copy / "predictor"
    predictor = KronosPredictor.from_pretrained(spec, tokenizer=copy, device="cpu")
    forecast = predictor.forecast(Windows.rolling({"A": make_bars(9)}, 8, 3, "B"), SampleConfig(1))
    assert forecast.provenance.trained_until == date


def test_a_part_is_found_in_a_folder_with_nothing_else(copy: Path) -> None:
    # What a first stage of training leaves: best/tokenizer, and no predictor yet.
    shutil.rmtree(copy / "predictor")
    assert resolve(copy, "tokenizer") == copy / "tokenizer"
    KronosTokenizer.from_pretrained(copy)
    with pytest.raises(FileNotFoundError, match=r"predictor|lacks"):
        Kronos.from_pretrained(copy)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ('{"T": 1.0, "top_p": 0.95}', SampleConfig(T=1.0, top_p=0.95)),
        ('{"top_k": 7}', SampleConfig(top_k=7)),
        (None, SampleConfig()),
    ],
)
@pytest.mark.parametrize("place", [".", "predictor"], ids=["pair", "predictor"])
def test_a_forecast_that_names_no_settings_takes_those_that_suit_the_checkpoint(
    text: str | None, settings: SampleConfig, place: str, copy: Path
) -> None:
    if text is not None:
        (copy / "predictor" / "sampling.json").write_text(text)
    predictor = KronosPredictor.from_pretrained(copy / place, tokenizer=copy, device="cpu")
    assert predictor.sampling == settings
    windows = Windows.rolling({"A": make_bars(9)}, 8, 3, "B")
    forecast = predictor.forecast(windows)
    assert forecast.provenance.sampling == settings
    np.testing.assert_array_equal(forecast.paths, predictor.forecast(windows, settings).paths)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"temperature": 1}', r"sampling\.json has unknown keys \['temperature'\]"),
        ('{"seed": 1}', r"unknown keys \['seed'\].*T, top_p and top_k"),
        ('{"T": -1}', "T=-1 is not a temperature"),
        ("[1]", "contains a list"),
        ("{", "is not JSON"),
    ],
)
def test_invalid_settings_of_a_checkpoint_are_refused(text: str, message: str, copy: Path) -> None:
    (copy / "predictor" / "sampling.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        KronosPredictor.from_pretrained(copy, device="cpu")


def test_a_pair_in_the_package_is_bundled_and_loads_by_name(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(copy, tmp_path / "pretrained" / "kronos-pico")
    monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path / "pretrained")
    assert bundled() == ["kronos-pico"]
    predictor = KronosPredictor.from_pretrained("kronos-pico", device="cpu")
    assert predictor.checkpoint_info.name == "kronos-pico"
    assert predictor.checkpoint_info.revision is None
    assert predictor.model.config.d_model == 48


def test_every_checkpoint_that_ships_forecasts_and_says_when_its_training_ended() -> None:
    assert "kronos-nano" in bundled()
    for name in bundled():
        predictor = KronosPredictor.from_pretrained(name, device="cpu")
        forecast = predictor.forecast(Windows.rolling({"A": make_bars(60)}, 60, 3, "B"))
        closes = forecast.path("close")
        assert ((closes > 10) & (closes < 250)).all(), (
            name
        )  # bars near 50: a trained model stays in sight of them
        assert forecast.provenance.trained_until is not None, name
        assert sum(file.stat().st_size for file in (checkpoint.PRETRAINED / name).rglob("*")) < 12e6, name
