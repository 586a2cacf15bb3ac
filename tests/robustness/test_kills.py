"""Compilations that are killed; benchmarks/kills.py does it 200 times."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_old_or_new_output_is_whole_and_nothing_is_left(runnable: Callable[[str], str]):
    runnable("x86-64-avx2")
    command = [sys.executable, ROOT / "benchmarks" / "kills.py", "--count", "2", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
