"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(?:<!-- ([^\n]*?) -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: the comment in front of it, its language, its text."""

    page: Path
    line: int
    comment: str
    language: str
    text: str

    @property
    def not_run(self) -> str | None:
        """The reason why it isn't run; None where it is."""
        kind, _, reason = self.comment.partition(":")
        return reason.strip() if kind == "not run" else None

    @property
    def file(self) -> str | None:
        """The name of the file that it is the text of."""
        kind, _, name = self.comment.partition(":")
        return name.strip() if kind == "file" else None


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        comment, language, body = match.groups()
        yield Block(page, text.count("\n", 0, match.start()) + 1, comment or "", language, body)
