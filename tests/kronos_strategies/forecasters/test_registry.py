"""Names of forecasters, their settings, and the errors of wrong ones."""

from __future__ import annotations

import pytest

from kronos.predictor import KronosPredictor
from kronos_strategies.forecasters import load_forecaster
from kronos_strategies.forecasters.registry import ForecasterName, parse_name
from tests.kronos_strategies.qlib.conftest import TINY

pytest.importorskip("arch")


@pytest.mark.parametrize(
    ("name", "kind", "which", "settings"),
    [
        ("baseline:ewma", "baseline", "ewma", {}),
        ("baseline:garch?o=1,refit=week", "baseline", "garch", {"o": "1", "refit": "week"}),
        ("baseline:garch?o=1&refit=week", "baseline", "garch", {"o": "1", "refit": "week"}),
        ("chronos:amazon/chronos-2", "chronos", "amazon/chronos-2", {}),
        ("lightgbm-quantiles:/tmp/a b", "lightgbm-quantiles", "/tmp/a b", {}),
    ],
)
def test_a_name_has_a_kind_and_settings(name, kind, which, settings):
    assert parse_name(name) == ForecasterName(kind, which, settings)


@pytest.mark.parametrize(
    "name", ["kronos-nano", "NeoQuasar/Kronos-small", str(TINY), "./a?b", "s3://bucket/x"]
)
def test_a_name_without_a_kind_is_a_checkpoint(name):
    assert parse_name(name) is None


def test_an_existing_folder_with_a_colon_is_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run:3").mkdir()
    assert parse_name("run:3") is None
    assert parse_name("run:4") is not None


def test_a_checkpoint_loads_as_a_predictor():
    assert isinstance(load_forecaster(TINY, device="cpu", max_context=64), KronosPredictor)
    assert load_forecaster(str(TINY), device="cpu", max_context=64).max_context == 64


def test_a_name_with_all_its_settings_loads_the_same_forecaster():
    made = load_forecaster("baseline:ewma?decay=0.90")
    assert made.name == "baseline:ewma?decay=0.9"
    assert load_forecaster(made.name).weights_sha256 == made.weights_sha256
    assert load_forecaster("baseline:ewma?decay=0.94").name == "baseline:ewma"


def test_settings_and_baselines_have_hashes_of_their_own():
    names = [
        "baseline:random-walk", "baseline:ewma", "baseline:ewma?decay=0.9", "baseline:har", "baseline:garch",
        "baseline:garch?o=1", "baseline:garch?refit=week", "baseline:bootstrap", "baseline:bootstrap?block=2",
    ]  # fmt: skip
    assert len({load_forecaster(name).weights_sha256 for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("baselin:ewma", "kind 'baselin', which does not exist. Did you mean 'baseline'?"),
        ("baseline:emwa", "'baseline:emwa' is not a baseline. Did you mean 'ewma'?"),
        ("baseline:zzz", r"Choose one of \['random-walk'"),
        ("baseline:EWMA", "'baseline:EWMA' is not a baseline. Did you mean 'ewma'?"),
        ("Random_Walk", "'Random_Walk' is not a Kronos checkpoint. Did you mean 'baseline:random-walk'?"),
        ("garhc?o=1", "'garhc?o=1' is not a Kronos checkpoint. Did you mean 'baseline:garch?o=1'?"),
        ("baseline", "'baseline' is a kind of forecasters. Name one of them, such as 'baseline:ewma'."),
        ("baseline:ewma?decay=0,94", "Write e.g. 'baseline:ewma?name=0.5', with a decimal point"),
        ("ewma", "'ewma' is not a Kronos checkpoint. Did you mean 'baseline:ewma'?"),
        ("baseline:ewma?decoy=0.9", "'baseline:ewma' has no setting 'decoy'. Did you mean 'decay'?"),
        ("baseline:random-walk?a=1", "has no setting 'a'. It has none."),
        ("baseline:ewma?decay=high", "sets decay=high, which is not a number"),
        ("baseline:bootstrap?block=1.5", "sets block=1.5, which is not a whole number"),
        ("baseline:ewma?decay", "has the setting 'decay', which is not one setting=value"),
        ("baseline:ewma?decay=1,decay=2", "which is not one setting=value"),
        ("baseline:ewma?decay=2", "decay=2.0 is not a weight between 0 and 1"),
        ("baseline:har?week=30", "do not satisfy 1 < week < month"),
        ("baseline:bootstrap?block=0", "block=0 draws no bar"),
        ("baseline:garch?o=2", "o=2 is not an order"),
        ("baseline:garch?bars=10", "bars=10 are too few"),
        ("baseline:garch?refit=moth", "refit=moth is not a period. Did you mean 'month'?"),
    ],
)
def test_a_wrong_name_is_refused_in_one_sentence(name, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?").replace("(", r"\(")):
        load_forecaster(name)


def test_a_hub_id_that_resembles_a_baseline_is_a_checkpoint():
    with pytest.raises(ValueError, match="Pass its tokenizer"):
        load_forecaster("lab/bootstrap")


def test_settings_of_checkpoints_are_refused_elsewhere():
    with pytest.raises(
        ValueError, match="revision is a setting of Kronos checkpoints, and 'baseline:ewma' is not one"
    ):
        load_forecaster("baseline:ewma", revision="abc")
