"""A few cases of every kind; run.py does as many as one likes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_no_case_is_a_finding(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    command = [sys.executable, HERE / "run.py", "--count", "2", "--seed", "7", "--log", log]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "Warning" not in line]) == (0, [])
    assert len(log.read_text().splitlines()) >= 2 * 8
