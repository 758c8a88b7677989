"""The pages of the project and the code blocks in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
PARSED, TESTED = "parsed only: ", "tested in "


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: its file.
        line: number of the line of its first fence.
        language: after the fence, "" where there is none.
        code: between the fences.
        mark: the HTML comment directly above, "parsed only: REASON" or "tested in FILE"; "" for code that runs.
    """

    page: Path
    line: int
    language: str
    code: str
    mark: str

    @property
    def runs(self) -> bool:
        """Whether the tests of this folder run it."""
        return not self.mark

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, match.start("language")) + 1,
            match["language"],
            match["code"],
            match["mark"] or "",
        )
        for match in _BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES if page.is_file() for block in blocks_of(page)]


def of(language: str) -> list[Block]:
    """All code blocks of a language."""
    return [block for block in BLOCKS if block.language == language]
