"""The kernels for HVX under qemu-hexagon: operators without weights, vectors with masked tails."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from elementwise_cases import KINDS
from program_batch import run_batch
from test_other_cpus import runnable

CASES = 16  # of each kind


@pytest.mark.parametrize("kind", KINDS)
def test_operators_without_weights(kind, tmp_path: Path):
    target = runnable("hexagon-v66-npu")
    cases = [kind(Random(seed)) for seed in range(CASES)]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))
