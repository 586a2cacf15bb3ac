from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import Command, write_files


@pytest.fixture
def hwptq(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The command, beside the files of the small model in tmp_path."""
    write_files(tmp_path)
    return Command(capsys, monkeypatch, tmp_path)
