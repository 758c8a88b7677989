"""docs/configuration.md names every environment variable of the project, with its default."""

from __future__ import annotations

import re

import pytest

from .pages import ROOT

PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(KRONOS_\w+)` \| (.*?) \|", PAGE, re.MULTILINE))
VARIABLE = re.compile(r"\bKRONOS_[A-Z_]+\b")
PLACES = ("kronos", "kronos_strategies", "configs", "backtests", "tests/conftest.py", "Makefile")
NOT_READ = PAGE[PAGE.index("| does not read |") : PAGE.index("## Data and dates")].splitlines()
WORKFLOWS = sorted((ROOT / "configs").glob("*kronos_*.yaml"))
DEFAULT = re.compile(r"(KRONOS_[A-Z_]+) \| default\((?P<value>.*?), true\)")


def variables_of_the_code() -> set[str]:
    found: set[str] = set()
    for place in PLACES:
        top = ROOT / place
        for file in [top] if top.is_file() else [*top.rglob("*.py"), *top.rglob("*.yaml")]:
            found |= set(VARIABLE.findall(file.read_text(encoding="utf-8")))
    return found


def test_the_page_has_every_variable_of_the_code_and_no_other() -> None:
    assert set(ROWS) == variables_of_the_code()


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_the_defaults_of_a_workflow_file_are_those_of_the_page(file) -> None:
    defaults = list(DEFAULT.finditer(file.read_text(encoding="utf-8")))
    assert len(defaults) > 20
    for found in defaults:
        for value in re.findall(r"'([^']+)'", found["value"].split(" if KRONOS_SAMPLES")[0]):
            named = value in ("null", "KRONOS_REGION=") or f"`{value}`" in ROWS[found[1]]
            assert named, f"{file.name}: {found[1]} is {value} by default"


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_the_page_names_the_variables_that_a_workflow_file_does_not_read(file) -> None:
    usual = variables_of(ROOT / "configs" / "kronos_csi300.yaml")
    missing = {found for row in NOT_READ if f"`{file.name}`" in row for found in VARIABLE.findall(row)}
    assert usual - variables_of(file) == missing


def variables_of(workflow) -> set[str]:
    """The variables that a workflow file reads, those in its comments left out."""
    text = workflow.read_text(encoding="utf-8")
    return set(VARIABLE.findall(re.sub(r"^#.*$", "", text, flags=re.MULTILINE)))


def test_other_pages_name_no_unknown_variable() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert set(VARIABLE.findall(page.read_text(encoding="utf-8"))) <= set(ROWS), page.name
