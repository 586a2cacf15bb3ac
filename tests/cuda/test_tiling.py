"""Tiles of the wgmma kernel: they cover the output, and hold what the instructions and TMA ask for."""

from __future__ import annotations

import numpy as np
import pytest

from hwptq.formats import fp8
from hwptq.kernels.cuda.packing import packed_weights, permutation
from hwptq.kernels.cuda.tiling import Problem, candidates, choose
from hwptq.targets import load_target

KERNEL = load_target("nvidia-hopper-fp8").kernels["wgmma"]
PROBLEMS = [
    Problem((1, 1, 300, 48), 10, out_shape=(1, 300)),
    Problem((1, 1, 8, 2048), 1000, out_shape=(1, 8), promote=0),
    Problem((2, 9, 7, 16), 16, (3, 3), (1, 1), (1, 1), (1, 1), (9, 7)),
    Problem((4, 56, 56, 64), 64, (3, 3), (1, 1), (1, 1), (1, 1), (56, 56)),
    Problem((3, 7, 7, 96), 130, (3, 3), (2, 2), (1, 1), (1, 1), (4, 4)),
    Problem((5, 1, 70, 80), 130, out_shape=(1, 70), groups_of_weights=5),
]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_output_is_in_exactly_one_tile(problem: Problem) -> None:
    for t in candidates(problem, KERNEL):
        seen = np.zeros((problem.images[0], *problem.out_shape), int)
        for n, y, x in np.ndindex(*t.grid[:3]):
            b, h, w = t.box
            seen[n * b : (n + 1) * b, y * h : (y + 1) * h, x * w : (x + 1) * w] += 1
        assert (seen == 1).all()
        assert t.grid[3] * t.columns >= problem.outputs
        assert t.box[0] * t.box[1] * t.box[2] <= t.rows


@pytest.mark.parametrize("problem", PROBLEMS)
def test_limits_of_the_device(problem: Problem) -> None:
    for t in candidates(problem, KERNEL):
        assert t.rings * t.stages * (t.rows + t.columns) * t.chunk <= KERNEL.shared_memory
        assert t.stages >= 2
        assert t.chunk % problem.step == 0
        assert problem.promote % t.chunk == 0
        assert max(t.box[1] * problem.strides[0], t.box[2] * problem.strides[1]) <= 256
        assert 1 <= t.blocks <= KERNEL.multiprocessors
    assert choose(problem, KERNEL) in list(candidates(problem, KERNEL))


def test_a_tap_starts_at_a_step_of_the_accumulator() -> None:
    """Zeros may follow the last channel of a tap, but not more than the emulator counts."""
    for channels in (16, 32, 48, 64, 96, 128, 160, 192):
        problem = Problem((1, 8, 8, channels), 64, (3, 3), (1, 1), (1, 1), (1, 1), (8, 8))
        assert choose(problem, KERNEL).weight_depth == problem.depth


@pytest.mark.parametrize("width", [16, 8, 4])
def test_threads_own_neighbouring_channels(width: int) -> None:
    """Thread q of a quad owns the columns 8 j + 2 q + e of an instruction: channels from width * q on."""
    order, unit = permutation(128, width), 4 * width
    assert sorted(order) == list(range(128))
    for g, q in np.ndindex(128 // unit, 4):
        owned = [order[g * unit + 8 * j + 2 * q + e] for j in range(width // 2) for e in range(2)]
        assert owned == list(range(g * unit + width * q, g * unit + width * (q + 1)))


def test_weights_lie_where_the_threads_expect_them() -> None:
    problem = Problem((1, 4, 4, 48), 10, (3, 3), (1, 1), (1, 1), (1, 1), (4, 4))
    t = choose(problem, KERNEL)
    w = np.random.default_rng(0).integers(1, 127, (10, 9, 48)).astype(np.uint8)
    packed = fp8.as_codes(packed_weights(fp8.as_float8(w), t))
    taps = packed[np.argsort(permutation(64, 16))].reshape(64, 9, -1)
    assert np.array_equal(taps[:10, :, :48], w)
    assert not taps[10:].any()
    assert not taps[:, :, 48:].any()
