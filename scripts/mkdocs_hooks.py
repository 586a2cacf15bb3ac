"""Hooks of mkdocs: links out of docs/ become text, mkdocstrings finds passes/ and targets/."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\s*(\.\./[^)#\s]+)(?:#[^)]*)?\s*\)")


def on_startup(**_: Any) -> None:
    """Make the folder of links that mkdocs.yml names, in which both lie where they are imported from."""
    package = ROOT / "build" / "docs" / "hwptq"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for path in [*(ROOT / "hwptq").iterdir(), ROOT / "passes", ROOT / "targets"]:
        if path.name != "__pycache__":
            (package / path.name).symlink_to(path)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Files of the repository are no pages of the site: name them, and see that they are there."""

    def named(match: re.Match[str]) -> str:
        text, link = match.groups()
        if not (ROOT / "docs" / page.file.src_uri).parent.joinpath(link).exists():
            raise ValueError(f"{page.file.src_uri}: there is no {link}")
        return text if link.removeprefix("../") in text else f"{text} (`{link.removeprefix('../')}`)"

    if "<!-- messages -->" in markdown:
        markdown = markdown.replace("<!-- messages -->", _tables_of_errors())
    return _OUTSIDE.sub(named, markdown)


def _tables_of_errors() -> str:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from error_messages import tables
    finally:
        sys.path.pop(0)
    return tables()
