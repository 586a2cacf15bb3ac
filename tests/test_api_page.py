"""docs/api.md: the names that it calls stable are the public ones, and its example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import hwptq
from hwptq.errors import HwptqError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
DEMO = ROOT / "examples" / "digits"


def test_every_public_name_is_on_the_page() -> None:
    table = PAGE[PAGE.index("## Stable") : PAGE.index("## Open sets")]
    named = set(re.findall(r"`(\w+)`", table))
    assert set(hwptq.__all__) - {"__version__"} <= named


def test_errors_have_the_exit_codes_of_the_command() -> None:
    errors = [value for name in hwptq.__all__ if isinstance(value := getattr(hwptq, name), type)]
    codes = {e.__name__: e.exit_code for e in errors if issubclass(e, HwptqError)}
    assert codes == {
        "HwptqError": 2, "InputError": 2, "UnsupportedError": 3, "BudgetError": 4, "AccuracyError": 5,
        "StrictError": 5, "MismatchError": 6,
    }  # fmt: skip


def test_the_example_runs(
    runnable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runnable("x86-64-vnni")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "model.onnx").write_bytes((DEMO / "digits.onnx").read_bytes())
    (tmp_path / "preprocess.toml").write_bytes((DEMO / "preprocess.toml").read_bytes())
    monkeypatch.chdir(tmp_path)
    data = {name: str(DEMO / f"{name}.npz") for name in ("calibration", "evaluation")}
    exec(compile(code, "api.md", "exec"), data)
    assert re.match(r"100% quantized, -?0\.\d+ lost, \d+ warnings", capsys.readouterr().out)
