from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "command_line"))
from command import Command


@pytest.fixture
def hwptq(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The command."""
    return Command(capsys, monkeypatch, tmp_path)
