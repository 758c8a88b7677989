from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kronos.checkpoint import PRETRAINED, hash_weights
from kronos.config import ModelConfig, TokenizerConfig
from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer
from kronos.training.config import Source
from kronos.training.initialization import (
    FrozenTokenizer,
    check_output_tokenizer,
    check_start,
    check_starts,
    copy_sampling_config,
    copy_tokenizer,
    find_tokenizer,
    start_head,
    start_predictor,
    start_tokenizer,
)
from kronos.training.objectives import KronosWithHead
from kronos.training.run import run_stage
from kronos.utils import MissingExtra
from tests.kronos.builders import make_model, make_tokenizer
from tests.kronos.training.builders import PREDICTOR, TOKENIZER, make_config, make_run, same
from tests.kronos.training.test_objectives import make_head

NANO = PRETRAINED / "kronos-nano"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A first stage's output, its best tokenizer another than its last."""
    for seed, which in enumerate(("best", "last")):
        make_tokenizer(seed).save_pretrained(tmp_path / "out" / which / "tokenizer")
    return tmp_path / "out"


# Networks


def test_random_weights_have_the_sizes_given_or_those_of_kronos_nano(tmp_path: Path) -> None:
    given, plain = make_config(tmp_path), make_config(tmp_path, tokenizer_size=None, predictor_size=None)
    assert start_tokenizer(given).config == TOKENIZER
    assert start_tokenizer(plain).config == KronosTokenizer.from_pretrained("kronos-nano").config
    model = start_predictor(plain, NANO / "tokenizer").config
    nano = Kronos.from_pretrained("kronos-nano").config
    sizes = ("d_model", "n_layers", "n_heads", "ff_dim", "s1_bits", "s2_bits")
    assert [getattr(model, name) for name in sizes] == [getattr(nano, name) for name in sizes]


def test_a_predictor_from_random_weights_takes_the_tokenizers_bits(out: Path) -> None:
    config = make_config(out, predictor_size=None)
    network = start_predictor(config, out / "best" / "tokenizer")
    assert (network.config.s1_bits, network.config.s2_bits) == (5, 3)


def test_random_weights_depend_on_torchs_seed(tmp_path: Path) -> None:
    networks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        networks.append(dict(start_tokenizer(make_config(tmp_path)).state_dict()))
    assert same(networks[0], networks[1])
    assert not same(networks[0], networks[2])


def test_initial_weights_are_the_same_for_any_dropout(tmp_path: Path) -> None:
    sizes = {"tokenizer_size": None, "predictor_size": None, "pretrained": "kronos-nano"}
    for dropout in (None, 0.3):
        config = make_config(tmp_path, dropout=dropout, **sizes)
        tokenizer, predictor = start_tokenizer(config), start_predictor(config, NANO / "tokenizer")
        for network, kind in ((tokenizer, KronosTokenizer), (predictor, Kronos)):
            found = kind.from_pretrained("kronos-nano")
            assert same(dict(network.state_dict()), dict(found.state_dict()))
            names = ["ffn_dropout_p", "resid_dropout_p", *["token_dropout_p"][: kind is Kronos]]
            assert network.config == replace(
                found.config,
                **({} if dropout is None else dict.fromkeys(names, dropout)),
            )


def test_the_token_embedding_may_have_its_own_dropout(out: Path) -> None:
    size = ModelConfig(**{**vars(PREDICTOR), "s1_bits": 5, "s2_bits": 3, "token_dropout_p": 0.4})
    folder = out / "best" / "tokenizer"
    for dropout, token, want in ((0.2, 0.05, (0.2, 0.05)), (0.2, None, (0.2, 0.2)), (None, 0.0, (0.0, 0.0))):
        config = make_config(out, predictor_size=size, dropout=dropout, token_dropout=token)
        got = start_predictor(config, folder).config
        assert (got.ffn_dropout_p, got.token_dropout_p) == want
        assert got.resid_dropout_p == got.ffn_dropout_p


def test_attention_keeps_its_own_dropout(tmp_path: Path) -> None:
    size = ModelConfig(**{**vars(PREDICTOR), "attn_dropout_p": 0.2, "ffn_dropout_p": 0.4})
    tokenizer = make_tokenizer(s1_bits=4, s2_bits=4).save_pretrained(tmp_path / "tokenizer")
    network = start_predictor(make_config(tmp_path, predictor_size=size, dropout=0.1), tokenizer)
    assert network.config == replace(
        size, ffn_dropout_p=0.1, resid_dropout_p=0.1, token_dropout_p=0.1, attn_dropout_p=0.2
    )


def test_a_predictor_of_other_tokens_is_refused_with_both_sizes(out: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"The predictor has tokens of 4 \+ 4 bits, the tokenizer in .*out.best.tokenizer of 5",
    ):
        start_predictor(make_config(out), out / "best" / "tokenizer")


# The return head


def test_a_predictor_has_a_head_where_a_source_has_one(tmp_path: Path) -> None:
    sources = (Source(tmp_path / "a.parquet", head=True), Source(tmp_path / "b.parquet"))
    network = make_model()
    head = start_head(make_config(tmp_path, sources=sources), network, "2019-12-31", "1day")
    assert head.info.markets == ("a",)
    assert (head.info.d_model, head.info.lookback, head.info.frequency) == (16, 16, "1day")
    assert head.info.trained_until == "2019-12-31"
    assert start_head(make_config(tmp_path, sources=sources[1:]), network, None, "") is None
    assert start_head(make_config(tmp_path, sources=sources, head_weight=0.0), network, None, "1day") is None


def test_a_head_in_the_folder_of_the_initial_weights_is_trained_further(tmp_path: Path) -> None:
    KronosWithHead(make_model(), make_head()).save_pretrained(tmp_path / "start" / "predictor")
    sizes = {"tokenizer_size": None, "predictor_size": None, "pretrained": str(tmp_path / "start")}
    sources = (Source(tmp_path / "a.parquet", head=True),)
    head = start_head(make_config(tmp_path, sources=sources, **sizes), make_model(), None, "1day")
    assert same(dict(head.state_dict()), dict(make_head().state_dict()))


# The tokenizer of the second stage


def test_the_tokenizer_is_that_in_the_output_and_else_that_of_the_weights_to_refine(
    out: Path, tmp_path: Path
) -> None:
    sizes = {"tokenizer_size": None, "predictor_size": None, "pretrained": "kronos-nano"}
    assert find_tokenizer(make_config(out)).folder == out / "best" / "tokenizer"
    assert find_tokenizer(make_config(out, **sizes)).folder == out / "best" / "tokenizer"
    assert find_tokenizer(make_config(tmp_path / "new", **sizes)).folder == NANO / "tokenizer"
    with pytest.raises(
        FileNotFoundError, match=r"new.best contains no tokenizer\. Train the first stage with"
    ):
        find_tokenizer(make_config(tmp_path / "new"))


@pytest.mark.parametrize("spec", ["{out}", "{out}/best", "{out}/best/tokenizer"])
def test_the_output_of_a_first_stage_means_its_best_tokenizer(spec: str, out: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "new", tokenizer=spec.format(out=out))
    assert find_tokenizer(config).folder == out / "best" / "tokenizer"


def test_a_tokenizer_may_be_named(out: Path) -> None:
    # the one named wins over the one that is there
    assert find_tokenizer(make_config(out, tokenizer="kronos-nano")).folder == NANO / "tokenizer"
    assert find_tokenizer(make_config(out, tokenizer=str(out / "last"))).folder == out / "last" / "tokenizer"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_tokenizer(make_config(out, tokenizer=str(out / "nowhere")))


def test_the_tokenizer_is_copied_next_to_the_best_and_the_last_predictor(out: Path, tmp_path: Path) -> None:
    record = {"origin": "kronos-nano", "trained_until": "2020-01-01"}
    (out / "best" / "tokenizer" / "training.json").write_text(json.dumps(record))
    before = hash_weights(out / "best" / "tokenizer")
    best = FrozenTokenizer(out, out / "best" / "tokenizer")
    copy_tokenizer(best, out)  # in place: the last becomes the best, which was learned
    copy_tokenizer(best, tmp_path / "new")
    for folder in (out, tmp_path / "new"):
        for which in ("best", "last"):
            assert hash_weights(folder / which / "tokenizer") == before
            assert json.loads((folder / which / "tokenizer" / "training.json").read_text()) == record


def test_a_tokenizer_without_a_record_gets_one_of_what_is_known(tmp_path: Path) -> None:
    known = make_tokenizer().save_pretrained(tmp_path / "pair" / "tokenizer")
    (tmp_path / "pair" / "README.md").write_text("---\ntrained_until: 2019-12-31\n---\n")
    unknown = make_tokenizer().save_pretrained(tmp_path / "alone")
    for tokenizer, until in ((known, "2019-12-31"), (unknown, None)):
        output = tmp_path / f"out of {tokenizer.name}"
        copy_tokenizer(FrozenTokenizer(tokenizer, tokenizer), output)
        for which in ("best", "last"):
            record = json.loads((output / which / "tokenizer" / "training.json").read_text())
            assert record == {
                "origin": str(tokenizer),
                "sha256": hash_weights(tokenizer),
                "trained_until": until,
            }


def test_another_tokenizer_in_the_output_is_never_replaced(out: Path, tmp_path: Path) -> None:
    other = make_tokenizer(seed=5).save_pretrained(tmp_path / "other")
    with pytest.raises(
        FileExistsError, match=r"is another tokenizer than .*other\. Choose another --output\."
    ):
        check_output_tokenizer(FrozenTokenizer(other, other), out)
    shutil.copytree(out / "best" / "tokenizer", tmp_path / "copy")
    check_output_tokenizer(FrozenTokenizer("copy", tmp_path / "copy"), out)  # the same one, from elsewhere
    check_output_tokenizer(FrozenTokenizer(other, other), tmp_path / "nothing there yet")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A released pair as the hub's cache would hold it."""
    folders = {
        "NeoQuasar/Kronos-small": make_model(s1_bits=4, s2_bits=2).save_pretrained(tmp_path / "small"),
        "NeoQuasar/Kronos-Tokenizer-base": make_tokenizer(s1_bits=4, s2_bits=2, group_size=3).save_pretrained(
            tmp_path / "base"
        ),
    }
    monkeypatch.setattr("kronos.checkpoint._from_hub", lambda repo, *_: folders[repo])
    return folders


def test_a_released_model_is_refined_with_the_tokenizer_it_was_released_with(
    hub: dict[str, Path], tmp_path: Path
) -> None:
    sizes = {"tokenizer_size": None, "predictor_size": None}
    config = make_config(tmp_path / "out", pretrained="NeoQuasar/Kronos-small", **sizes)
    assert start_tokenizer(config).config == make_tokenizer(s1_bits=4, s2_bits=2, group_size=3).config
    frozen = find_tokenizer(config)
    assert frozen == ("NeoQuasar/Kronos-Tokenizer-base", hub["NeoQuasar/Kronos-Tokenizer-base"])
    assert start_predictor(config, frozen.folder).config.s1_bits == 4
    copy_tokenizer(frozen, config.output)
    record = json.loads((config.output / "best" / "tokenizer" / "training.json").read_text())
    assert record["origin"] == "NeoQuasar/Kronos-Tokenizer-base"
    assert record["trained_until"] == "2024-06-30"  # the paper's; no card of theirs says so


def test_the_sizes_that_are_given_are_those_of_a_tokenizer(tmp_path: Path) -> None:
    size = TokenizerConfig(
        d_model=8, n_heads=2, ff_dim=8, n_enc_layers=1, n_dec_layers=2, s1_bits=3, s2_bits=1
    )
    assert start_tokenizer(make_config(tmp_path, tokenizer_size=size, dropout=0.25)).config == replace(
        size, ffn_dropout_p=0.25, resid_dropout_p=0.25
    )


def test_sampling_settings_that_suit_the_weights_to_refine_suit_the_new_ones(tmp_path: Path) -> None:
    sizes = {"tokenizer_size": None, "predictor_size": None}
    start = make_model().save_pretrained(tmp_path / "start")
    copy_sampling_config(make_config(tmp_path / "plain", pretrained=str(start), **sizes))
    assert not (tmp_path / "plain").exists()  # nothing is known
    (start / "sampling.json").write_text('{"T": 0.8}')
    copy_sampling_config(make_config(tmp_path / "random"))
    assert not (tmp_path / "random").exists()
    copy_sampling_config(make_config(tmp_path / "out", pretrained=str(start), **sizes))
    for which in ("best", "last"):
        kept = tmp_path / "out" / which / "predictor" / "sampling.json"
        assert json.loads(kept.read_text()) == {"T": 0.8}


# Before anything is trained


SIZES = {"tokenizer_size": None, "predictor_size": None}


def test_a_folder_with_the_other_stages_network_alone_is_refused_with_the_way_out(tmp_path: Path) -> None:
    predictor = make_model().save_pretrained(tmp_path / "Kronos-small")
    tokenizer = make_tokenizer().save_pretrained(tmp_path / "Kronos-Tokenizer-base")
    half = tmp_path / "half"  # as a run leaves it whose second stage has not begun
    shutil.copytree(tokenizer, half / "tokenizer")
    one, two, three = (
        make_config(tmp_path, pretrained=str(p), **SIZES) for p in (predictor, tokenizer, half)
    )
    check_start("predictor", one)
    check_start("tokenizer", two)
    check_start("tokenizer", three)
    check_start("tokenizer", make_config(tmp_path))  # random weights
    with pytest.raises(
        ValueError,
        match=r"Kronos-small contains a predictor, but no tokenizer.*`stages: tokenizer:`.*--tokenizer",
    ):
        check_start("tokenizer", one)
    for config in (two, three):
        with pytest.raises(ValueError, match=r"contains a tokenizer, but no predictor.*`stages: predictor:`"):
            check_start("predictor", config)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        check_start("predictor", make_config(tmp_path, pretrained=str(tmp_path / "nowhere"), **SIZES))


def test_released_ids_are_found_for_both_stages(hub: dict[str, Path], tmp_path: Path) -> None:
    config = make_config(tmp_path, pretrained="NeoQuasar/Kronos-small", **SIZES)
    check_starts(config, config)


def test_stages_that_start_from_weights_of_other_tokens_are_refused_before_the_first(tmp_path: Path) -> None:
    predictor = make_model().save_pretrained(tmp_path / "predictor")  # 5 + 3 bits
    nano = make_config(tmp_path, pretrained="kronos-nano", **SIZES)
    other = make_config(tmp_path, pretrained=str(predictor), **SIZES)
    with pytest.raises(
        ValueError, match=r"tokens of 10 \+ 10 bits, the predictor of 5 \+ 3\. Set pretrained under `stages:`"
    ):
        check_starts(nano, other)
    check_starts(nano, nano)
    check_starts(nano, make_config(tmp_path, predictor_size=None))  # takes the tokenizer's


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and what is in it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_refused_first_attempt_leaves_the_folder_free(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are fewer than one batch of 100000"):
        run_stage("tokenizer", make_run(tmp_path, batch_size=100_000, max_steps=1))
    run_stage("tokenizer", make_run(tmp_path, max_steps=1))  # neither --resume nor --overwrite is asked for


def test_a_refused_overwrite_deletes_nothing(tmp_path: Path) -> None:
    config = make_run(tmp_path, max_steps=1)
    run_stage("tokenizer", config)
    before = contents(config.output)
    with pytest.raises(ValueError, match="are fewer than one batch"):
        run_stage("tokenizer", make_run(tmp_path, max_steps=1, batch_size=100_000, overwrite=True))
    other = make_tokenizer(seed=3).save_pretrained(tmp_path / "other")
    with pytest.raises(FileExistsError, match="another tokenizer"):
        run_stage("predictor", make_run(tmp_path, max_steps=1, tokenizer=str(other), overwrite=True))
    assert contents(config.output) == before


def test_weights_to_start_from_are_not_overwritten(tmp_path: Path) -> None:
    config = make_run(tmp_path, max_steps=1)
    run_stage("tokenizer", config)
    before = contents(config.output)
    again = make_run(
        tmp_path,
        pretrained=str(config.output / "best"),
        tokenizer_size=None,
        predictor_size=None,
        overwrite=True,
    )
    with pytest.raises(ValueError, match="would delete the initial weights"):
        run_stage("tokenizer", again)
    assert contents(config.output) == before


def test_a_bundled_name_is_not_a_folder_in_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_run(
        tmp_path,
        output=Path(),
        overwrite=True,
        pretrained="kronos-nano",
        tokenizer_size=None,
        predictor_size=None,
        max_steps=1,
    )
    assert run_stage("tokenizer", config).step == 1


def test_a_tracker_that_is_not_installed_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kronos.training.run.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra, match=r"tensorboard is not installed\. Install it: pip install tensorboard"
    ):
        run_stage("tokenizer", make_run(tmp_path, tracker="tensorboard"))


@pytest.mark.parametrize("max_steps", [1, 2, 10, 20])
def test_short_runs_have_a_schedule(max_steps: int, tmp_path: Path) -> None:
    progress = run_stage("tokenizer", make_run(tmp_path, max_steps=max_steps, warmup=0.1))
    assert progress.step == max_steps
