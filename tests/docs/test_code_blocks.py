"""Every code block of the README, CONTRIBUTING and docs runs, or says why it is only parsed."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from .pages import BLOCKS, PAGES, PARSED, ROOT, TESTED, Block, of

LANGUAGES = {"python", "bash", "yaml", "sql", "text"}
ASSIGNMENT = re.compile(r"[A-Z_]+=")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
VARIABLES = set(
    re.findall(r"`(KRONOS_[A-Z_]+)`", (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"))
)


def pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if any(block.page == page and block.runs for block in of(language))]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_has_a_language_and_a_known_mark(block: Block) -> None:
    assert block.language in LANGUAGES
    assert not block.mark or block.mark.startswith((PARSED, TESTED)), block.mark
    if block.mark.startswith(TESTED):
        test = ROOT / block.mark.removeprefix(TESTED)
        assert f"{block.page.name}" in test.read_text(encoding="utf-8")


def test_most_python_runs() -> None:
    blocks = of("python")
    assert len(blocks) > 12
    assert not [block for block in blocks if block.mark.startswith(PARSED)]


@pytest.mark.integration
@pytest.mark.parametrize("page", pages_with("python"), ids=lambda page: page.stem)
def test_the_python_of_a_page_runs_from_top_to_bottom(
    page: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "backtrader" in page.read_text(encoding="utf-8"):
        pytest.importorskip("backtrader")
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # Backtrader looks up the module of a strategy
    for block in of("python"):
        if block.page == page and block.runs:
            exec(compile("\n" * block.line + block.code, str(page), "exec"), module.__dict__)


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_is_valid(block: Block) -> None:
    ast.parse(block.code)


@pytest.mark.integration
@pytest.mark.parametrize("block", [block for block in of("bash") if block.runs], ids=str)
def test_a_command_without_a_mark_runs(block: Block, home: Path) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("block", of("bash"), ids=str)
def test_every_command_exists_with_the_flags_given(block: Block) -> None:
    lines = block.code.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    for words in filter(None, commands):
        while words and ASSIGNMENT.match(words[0]):
            name = words.pop(0).split("=")[0]
            assert name in VARIABLES or not name.startswith("KRONOS_"), f"{name} is not in configuration.md"
        words = [word for word in words if word != "..."]
        if words:
            check_command(Path(words[0]).name, words[1:])


def check_command(program: str, words: list[str]) -> None:
    """Fail unless the program takes these words."""
    if program == "make":
        assert {word for word in words if "=" not in word} <= TARGETS
    elif program == "qrun":
        assert (ROOT / "configs" / Path(words[0]).name).is_file(), words
    elif program in ("python", "python3", "torchrun"):
        launcher = ("--standalone", "--nproc_per_node", "--no-python", "--nnodes", "--node_rank", "--master_")
        words = [word for word in words if not word.startswith(launcher)]
        if words[0] == "kronos":
            parse_kronos(words[1:])
        elif words[0] == "-m":
            assert importlib.util.find_spec(words[1]) is not None
            if words[1] == "kronos.training":
                parse_training(words[2:])
        else:
            assert (ROOT / words[0]).is_file()
    elif program == "kronos":
        parse_kronos(words)
    else:
        assert program in {"pip", "git", "cd", "pre-commit", "ruff", "pytest", "ray"}, program


def parse_training(words: list[str]) -> None:
    from kronos.training.__main__ import app

    app.parse_args(words, exit_on_error=False, print_error=False)


def parse_kronos(words: list[str]) -> None:
    from kronos_strategies.cli import app

    app.parse_args(words, exit_on_error=False, print_error=False)
    if words[0] == "train" and words[1] not in ("head", "quantiles"):
        stage = [] if words[1] in ("tokenizer", "predictor", "evaluate") else ["predictor"]
        parse_training([*stage, *words[1:]])


@pytest.mark.integration
@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml_is_valid_and_names_classes_that_exist(block: Block) -> None:
    def check(node: object) -> None:
        if isinstance(node, dict) and str(node.get("module_path", "")).startswith("kronos_strategies."):
            pytest.importorskip("qlib")
            assert hasattr(import_module(node["module_path"]), node["class"])
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            check(child)

    content = yaml.safe_load(block.code)
    assert content
    check(content)


@pytest.mark.integration
@pytest.mark.parametrize("block", of("sql"), ids=str)
def test_sql_finds_the_paths_of_a_forecast_store(block: Block, home: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    rows = duckdb.sql(block.code).fetchall()
    assert len(rows) == 5
    assert all(0 <= row[-1] <= 1 for row in rows)
