"""The site builds without a warning: no broken link or anchor, no page outside the navigation."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import PAGES, ROOT

import hwptq
from hwptq import errors

pytest.importorskip("mkdocs", reason="the extra docs is not installed")
sys.path.insert(0, str(ROOT / "scripts"))
import error_messages


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("material", "mkdocstrings"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"the extra docs is not installed: no {needed}")
    folder = tmp_path_factory.mktemp("site")
    # without --quiet, with which mkdocs counts no warnings
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # a proxy that nobody answers: what asks the network fails
    offline = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    environment = {**os.environ, **offline, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="https?://(?!127)[^"]*"', text), (
            page.name
        )


def test_every_public_name_has_a_docstring_in_the_reference(site: Path) -> None:
    text = (site / "reference.html").read_text(encoding="utf-8")
    missing = [n for n in hwptq.__all__ if n != "__version__" and f'.{n}"' not in text]
    assert missing == []
    undocumented = [n for n in hwptq.__all__ if isinstance(v := getattr(hwptq, n), type) and not v.__doc__]
    assert undocumented == []


def test_every_message_is_on_the_page_of_troubles(site: Path) -> None:
    text = (site / "troubleshooting.html").read_text(encoding="utf-8")
    found = list(error_messages.messages())
    assert len(found) > 100
    assert text.count("<tr>") >= len({m for _, _, m in found})


def test_every_message_has_a_remedy() -> None:
    assert [m for _, _, m in error_messages.messages() if error_messages.remedy(m) is None] == []


def test_the_exit_codes_of_the_messages_are_those_of_the_classes() -> None:
    classes = [v for v in vars(errors).values() if isinstance(v, type)]
    assert {c.__name__: c.exit_code for c in classes if hasattr(c, "exit_code")} == error_messages.CODES


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent == ROOT], ids=lambda p: p.name)
def test_links_of_the_pages_at_the_top(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link
