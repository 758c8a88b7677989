"""docs/architecture.md: its flow is the one that the code follows, and its tree is the one of the repository."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from .pages import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FLOW = re.findall(r"^(bars -> .*)$", PAGE, re.MULTILINE)[0].split(" -> ")
STEPS = dict(re.findall(r"^\| (\w+) \|.*\| `([\w.]+)` \|$", PAGE, re.MULTILINE))
TREE = PAGE[PAGE.index("## Tree") :]


def test_the_flow_is_described_the_same_way_everywhere() -> None:
    assert list(STEPS) == FLOW
    assert f"{' -> '.join(FLOW)}\n" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("step", FLOW)
def test_every_step_has_a_module_that_says_what_it_is(step: str) -> None:
    assert import_module(STEPS[step]).__doc__


def test_no_step_imports_a_later_one() -> None:
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("kronos", "kronos_strategies", cache_dir=None)
    for place, step in enumerate(FLOW):
        for later in FLOW[place + 1 :]:
            chain = graph.find_shortest_chain(STEPS[step], STEPS[later], as_packages=True)
            assert chain is None, f"{step} imports {later}: {' -> '.join(chain)}"


def test_everything_in_the_tree_exists_and_every_module_is_in_it() -> None:
    block = re.findall(r"```text\n(.*?)```", TREE, re.DOTALL)[0]
    folders: list[str] = []
    named: set[str] = set()
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        entries = line.strip().split("  ")[0].split()
        folders = folders[:depth]
        for entry in entries:
            path = "".join([*folders, entry])
            assert (ROOT / path).exists(), path
            named.add(path)
        if entries and entries[-1].endswith("/"):
            folders.append(entries[-1])
    for package in ("kronos", "kronos_strategies"):
        for child in (ROOT / package).iterdir():
            hidden = child.name.startswith(("_", "."))
            if not hidden and (child.suffix == ".py" or (child / "__init__.py").is_file()):
                assert f"{package}/{child.name}{'' if child.suffix else '/'}" in named, child
