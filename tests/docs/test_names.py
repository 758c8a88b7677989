"""What the pages name exists: pages, files, modules, commands with flags, settings, fields, signals, extras."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from kronos.training.config import STAGES, Source, TrainingConfig
from kronos_strategies.backtest import TradingRules
from kronos_strategies.cli import app
from kronos_strategies.portfolio import PortfolioRules
from kronos_strategies.signal import SIGNALS

from .pages import PAGES, ROOT, of

DOCS, NANO = ROOT / "docs", ROOT / "kronos" / "pretrained" / "kronos-nano"
TREES = ("kronos/", "kronos_strategies/", "backtests/", "configs/", "docs/", "tests/")
UPSTREAM = "coming_from_upstream.md"  # names upstream's files and arguments as well
BY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def code_of(page: Path) -> list[str]:
    """What stands between backticks in the text and tables of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def table_after(page: str, heading: str) -> list[str]:
    """The lines of the first table after a heading."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"(?:^\|.*\n)+", text[text.index(f"## {heading}\n") :], re.MULTILINE)[0].splitlines()


def names_of(settings: type) -> set[str]:
    return {field.name for field in fields(settings)}  # type: ignore[arg-type]


def test_the_overview_links_to_every_page() -> None:
    overview = (DOCS / "index.md").read_text(encoding="utf-8")
    for page in [*DOCS.glob("*.md"), *DOCS.glob("*.ipynb")]:
        assert f"({page.name}" in overview or page.name == "index.md", page.name


@pytest.mark.parametrize(
    "page", [*PAGES, NANO / "README.md"], ids=lambda page: f"{page.parent.name}-{page.stem}"
)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        file = (page.parent / target) if target else page
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings], (
                heading
            )


@BY_PAGE
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    for name in code_of(page):
        if name.startswith(TREES) and re.fullmatch(r"[\w./-]+", name):
            assert (ROOT / name).exists(), name
        elif (
            re.fullmatch(r"\w+\.py", name)
            and page.name != UPSTREAM
            and f"module `{name}`" not in page.read_text()
        ):
            assert list(ROOT.glob(f"kronos*/**/{name}")), name


@BY_PAGE
def test_every_module_and_member_that_a_page_names_exists(page: Path) -> None:
    for name in code_of(page):
        if found := re.match(r"kronos(_strategies)?(\.\w+)+", name):
            folder, parts = ROOT, found[0].split(".")
            while parts and (folder / parts[0]).is_dir():
                folder /= parts.pop(0)
            module = folder / f"{parts[0]}.py" if parts else folder / "__init__.py"
            if module.is_file() and parts:
                parts.pop(0)
            source = (module if module.is_file() else folder / "__init__.py").read_text(encoding="utf-8")
            assert all(re.search(rf"\b{part}\b", source) for part in parts), name


@BY_PAGE
def test_every_command_in_the_text_of_a_page_exists_with_its_flags(page: Path) -> None:
    for code in code_of(page):
        if not re.match(r"kronos [a-z]", code):
            continue
        words, command = shlex.split(code)[1:], app
        while words and not words[0].startswith("-") and words[0] in command:
            command = command[words.pop(0)]
        assert command is not app, code
        if command is app["train"]:  # passes its flags on to both stages
            known = {f"--{name.replace('_', '-')}" for name in names_of(TrainingConfig)} | {"--config"}
            assert not words or words[0].startswith("-") or words[0] in (*STAGES, "evaluate"), code
        elif command.default_command is not None:
            known = {name for option in command.assemble_argument_collection() for name in option.names}
        else:
            assert not words or words[0].startswith("-"), f"`{code}` is not a command"
            known = set()
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert flags <= known | {"--help", "--offline"}, code


@pytest.mark.parametrize("block", of("bash"), ids=str)
def test_every_flag_of_a_script_is_in_its_source(block) -> None:
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        script = next((ROOT / word for word in words if re.fullmatch(r"backtests/\w+\.py", word)), None)
        if script is None:
            continue
        source = script.read_text(encoding="utf-8")
        for module in re.findall(r"^from backtests\.(\w+) import", source, re.MULTILINE):
            source += (ROOT / "backtests" / f"{module}.py").read_text(encoding="utf-8")
        for flag in (word for word in words if word.startswith("--")):
            assert re.search(rf"\b{flag[2:].replace('-', '_')}\b", source), f"{script.name} {flag}"


@pytest.mark.parametrize("page", [UPSTREAM, "training.md", "rolling.md", "heads.md"])
def test_every_setting_of_training_that_a_page_names_exists(page: str) -> None:
    known = names_of(TrainingConfig) | names_of(Source) | {"stages"}
    named = {found[1] for code in code_of(DOCS / page) if (found := re.match(r"(\w+):(?: |$)", code))}
    assert named <= known, named - known


@pytest.mark.parametrize(
    ("heading", "rules"), [("Rules", PortfolioRules()), ("Timing and execution", TradingRules())]
)
def test_the_tables_of_rules_have_every_field_with_its_default_and_no_other(
    heading: str, rules: object
) -> None:
    stated = {}
    for row in table_after("backtest.md", heading)[2:]:
        names, defaults = (row.split("|")[column] for column in (1, 2))
        named, values = re.findall(r"`(\w+)`", names), defaults.split(",")
        stated |= zip(named, values if len(values) > 1 else values * len(named), strict=True)
    assert set(stated) == names_of(type(rules))
    for name, default in stated.items():
        value = getattr(rules, name)
        shown = f"{value:.10g}" if isinstance(value, float) else str(value)
        assert default.strip() in (f"`{shown}`", "by region"), name


def test_the_table_of_signals_has_every_signal_and_no_other() -> None:
    first = [row.split("|")[1] for row in table_after("backtest.md", "Signals")]
    assert {name for cell in first for name in re.findall(r"`(\w+)`", cell)} == set(SIGNALS)


def test_the_table_of_extras_has_every_extra_for_users() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE)) - {"docs", "dev"}
    page = (DOCS / "getting_started.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page[page.index("| extra | for |") :], re.MULTILINE)
    table = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert extras <= table


def test_the_configuration_page_names_the_commands_that_read_a_variable() -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(KRONOS_\w+)` \|(.*)$", page, re.MULTILINE))
    seen = set()
    for command, option in options_below(app):
        for variable in option.parameter.env_var or ():
            if variable in rows and command != "picks":  # reads all that its workflow file reads
                seen.add(variable)
                assert re.search(rf"`(kronos )?{command}`", rows[variable]), (variable, command)
    assert len(seen) >= 3


def options_below(parent, *words: str):
    """Each (command, option) of a group of commands."""
    if parent.default_command is not None and parent is not app["train"]:
        yield from ((" ".join(words), option) for option in parent.assemble_argument_collection())
    for name in parent:
        if not name.startswith("-"):
            yield from options_below(parent[name], *words, name)
