"""The loop of the wgmma kernel that multiplies what arrives in the ring and sums it in registers."""

# TVMScript is parsed and never run as Python.
# ruff: noqa: SIM102

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.script import tirx as T

from .tiling import ROWS, Tiling

_UNIT = 16  # bytes that an address in a matrix descriptor counts


def multiplier(t: Tiling) -> Callable[..., Any]:
    """(ring, its state, total, partial, descriptors of x and w, warp, lane): sum one tile into `total`.

    Promoted sums grow in `partial`, of as many registers as `total`, and are added to `total` in float32.
    """
    return _promoted(t) if t.promote_steps else _fast(t)


def _batch(t: Tiling) -> Callable[..., Any]:
    """(sums, its descriptors, stage, whether each instruction adds to `sums`): all products of a stage."""
    operand = t.problem.operand
    instruction = operand.instruction(t.columns)
    count = t.chunk // operand.step
    row_bytes = t.chunk * operand.bytes
    x_stage, w_stage = ROWS * row_bytes // _UNIT, t.columns * row_bytes // _UNIT
    advance = operand.step * operand.bytes // _UNIT
    registers = t.columns // 2

    @T.inline
    def batch(sums, x_desc, w_desc, stage, first):
        T.ptx.wgmma.fence.sync.aligned()
        for q in T.unroll(count):
            T.ptx[instruction](
                *[sums[i] for i in range(registers)],
                x_desc + T.Cast("uint64", stage * x_stage + q * advance),
                w_desc + T.Cast("uint64", stage * w_stage + q * advance),
                (first * count + q > 0), *operand.signs,
            )  # fmt: skip
        T.ptx.wgmma.commit_group.sync.aligned()

    return batch


@T.inline
def _release(ring, stage, warp, lane):
    """Tell the loader, once a warpgroup, that a stage has been read."""
    if warp == 0:
        if lane == 0:
            ring.empty.arrive(stage)


def _promoted(t: Tiling) -> Callable[..., Any]:
    batch, every, steps, registers = _batch(t), t.promote_steps, t.steps, t.columns // 2

    @T.inline
    def multiply(ring, now, total, partial, x_desc, w_desc, warp, lane):
        for j in T.unroll(registers):
            total[j] = T.float32(0)
        for k in T.serial(steps):
            ring.full.wait(now.stage, now.phase)
            batch(partial, x_desc, w_desc, now.stage, k % every)
            T.ptx.wgmma.wait_group.sync.aligned(0)
            _release(ring, now.stage, warp, lane)
            if (k % every == every - 1) or (k == steps - 1):
                for j in T.unroll(registers):
                    total[j] = total[j] + partial[j]
            now.advance()

    return multiply


def _fast(t: Tiling) -> Callable[..., Any]:
    batch, steps = _batch(t), t.steps

    @T.inline
    def multiply(ring, now, total, partial, x_desc, w_desc, warp, lane):
        previous: T.int32
        previous = -1
        for k in T.serial(steps):
            ring.full.wait(now.stage, now.phase)
            batch(total, x_desc, w_desc, now.stage, k)
            T.ptx.wgmma.wait_group.sync.aligned(1)
            if previous >= 0:
                _release(ring, previous, warp, lane)
            previous = now.stage
            now.advance()
        T.ptx.wgmma.wait_group.sync.aligned(0)
        _release(ring, previous, warp, lane)

    return multiply
