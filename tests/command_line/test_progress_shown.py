"""Progress: always something new on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command import TARGET, write_files
from threadpoolctl import threadpool_info

from hwptq.backends.backend import why_not_run
from hwptq.blas import one_blas_thread
from hwptq.cli import progress_display
from hwptq.cli.progress_display import TerminalProgress
from hwptq.targets import load_target

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from progress_gaps import gaps

_REASON = why_not_run(load_target(TARGET))


@pytest.mark.skipif(_REASON is not None, reason=f"{TARGET}: {_REASON}")
def test_a_recorded_run_never_stands_still(tmp_path: Path) -> None:
    write_files(tmp_path)
    files = ["--target", TARGET, "--calibration-data", str(tmp_path / "data.npz")]
    output = ["--output", str(tmp_path / "out")]
    status, found = gaps(
        [sys.executable, "-m", "hwptq", "compile", str(tmp_path / "model.onnx"), *files, *output]
    )
    assert status == 0
    assert any("calibrate" in gap.shown for gap in found)
    first_shown = next(i for i, gap in enumerate(found) if gap.shown)
    assert max(gap.seconds for gap in found[first_shown:]) < 5


def test_a_gap_is_noticed() -> None:
    """Negative control: a program that draws the same twice, a second apart."""
    script = "import time\nfor i in range(2): print('same', flush=True, end='\\r'); time.sleep(0.6)\n"
    status, found = gaps([sys.executable, "-c", script])
    assert status == 0
    assert max(gap.seconds for gap in found if gap.shown) > 1


def test_a_stage_counts_pass_by_pass(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_display, "_SECONDS", 0.01)
    with TerminalProgress() as progress:
        with progress.stage("outer"):
            list(progress.track(range(3), 3))
            with progress.stage("inner"):
                list(progress.track(range(7), 7))
                time.sleep(0.02)
            list(progress.track(range(5), 5))
        with progress.stage("short"):
            pass
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" in ")[0] for line in lines] == ["inner: 7", "outer: 5"]
    assert list(progress.seconds) == ["inner", "outer", "short"]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_display, "_SECONDS", 0)
    with TerminalProgress(quiet=True) as progress, progress.stage("outer"):
        assert list(progress.track("ab", 2)) == ["a", "b"]
    assert capsys.readouterr() == ("", "")


def test_matrices_are_multiplied_by_one_thread() -> None:
    np.ones((4, 4)) @ np.ones((4, 4))

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    with one_blas_thread():
        assert set(threads()) == {1}
    assert threads() == before
