"""Fixtures for tests of target descriptors."""

from __future__ import annotations

from pathlib import Path

import pytest
from descriptors import Refuse

from hwptq.errors import InputError
from hwptq.targets import load_target, loader


@pytest.fixture
def refuse(tmp_path: Path) -> Refuse:
    """refuse(text) -> the lines of the message that this descriptor is refused with, without the folder."""

    def run(text: str | bytes, trust: bool = False) -> list[str]:
        path = tmp_path / "chip.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(InputError) as caught:
            load_target(path, trust=trust)
        assert caught.value.exit_code == 2
        lines = str(caught.value).replace(f"{tmp_path}/", "").split("\n")
        assert all(line.startswith("chip.toml: ") and line.isprintable() for line in lines), lines
        return lines

    return run


@pytest.fixture
def no_llvm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave LLVM out, for tests about everything else."""
    monkeypatch.setattr(loader, "check_llvm", lambda values, problems: None)
