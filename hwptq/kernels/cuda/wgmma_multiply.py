"""The loop of the wgmma kernel that multiplies what arrives in a ring and sums it in registers."""

# TVMScript is parsed and never run as Python: conditions of the device can't be joined by `and`.
# ruff: noqa: SIM102

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.script import tirx as T

from .inline import inline
from .tiling import STRIP, Tiling
from .wgmma_turns import finish_turn, let_second_begin

_UNIT = 16  # bytes that an address in a matrix descriptor counts


def multiplier(t: Tiling) -> Callable[..., Any]:
    """(ring, its state, its first stage, turn, total, partial, descriptors of x and w, thread): sum a tile.

    `turn` counts the tiles of the warpgroup; `thread` is (warpgroup, warp, lane). Promoted sums grow in
    `partial`, which strips and steps of a warpgroup use one after the other, and are added to `total` in
    float32.
    """
    if not t.promote_steps:
        return _fast(t)
    return _promoted_in_pairs(t) if t.tile.pairs else _promoted(t)


def _batch(t: Tiling) -> Callable[..., Any]:
    """(sums, where they begin, strip, descriptors, stage, step): the products of a stage with a strip.

    At step 0 the first instruction overwrites the sums.
    """
    operand = t.problem.operand
    instruction = operand.instruction(t.columns)
    count = t.chunk // operand.step
    row_bytes = t.chunk * operand.bytes
    x_stage, w_stage = t.rows * row_bytes // _UNIT, t.columns * row_bytes // _UNIT
    x_strip = STRIP * row_bytes // _UNIT
    advance = operand.step * operand.bytes // _UNIT

    @inline
    def batch(sums, begin, strip, x_desc, w_desc, stage, step):
        for q in T.unroll(count):
            T.ptx[instruction](
                *[sums[begin + i] for i in range(t.strip_registers)],
                x_desc + T.Cast("uint64", stage * x_stage + (strip * x_strip + q * advance)),
                w_desc + T.Cast("uint64", stage * w_stage + q * advance),
                (step * count + q > 0), *operand.signs,
            )  # fmt: skip

    return batch


@inline
def _release(ring, stage, thread):
    """Tell the loader, once a warpgroup, that a stage has been read."""
    if thread[1] == 0:
        if thread[2] == 0:
            ring.empty.arrive(stage)


def _promoted(t: Tiling) -> Callable[..., Any]:
    batch, every, steps = _batch(t), t.promote_steps, t.steps
    strips, registers = t.tile.strips, t.strip_registers

    @inline
    def multiply(ring, now, base, turn, total, partial, x_desc, w_desc, thread):
        for j in T.unroll(strips * registers):
            total[j] = T.float32(0)
        for k in T.serial(steps):
            ring.full.wait(base + now.stage, now.phase)
            for strip in T.unroll(strips):
                T.ptx.wgmma.fence.sync.aligned()
                batch(partial, 0, strip, x_desc, w_desc, base + now.stage, k % every)
                T.ptx.wgmma.commit_group.sync.aligned()
                T.ptx.wgmma.wait_group.sync.aligned(0)
                if strip == strips - 1:
                    _release(ring, base + now.stage, thread)
                if (k % every == every - 1) or (k == steps - 1):
                    for j in T.unroll(registers):
                        total[strip * registers + j] = total[strip * registers + j] + partial[j]
            let_second_begin(t, turn, k, thread[0])
            now.advance()
        finish_turn(t, thread[0])

    return multiply


def _promoted_in_pairs(t: Tiling) -> Callable[..., Any]:
    """Every step is promoted: those of two are in flight, the first is added while the second runs."""
    batch, steps, registers = _batch(t), t.steps, t.strip_registers

    @inline
    def issue(ring, now, base, partial, half, x_desc, w_desc):
        ring.full.wait(base + now.stage, now.phase)
        T.ptx.wgmma.fence.sync.aligned()
        batch(partial, half * registers, 0, x_desc, w_desc, base + now.stage, 0)
        T.ptx.wgmma.commit_group.sync.aligned()

    @inline
    def finish(ring, stage, total, partial, half, thread):
        _release(ring, stage, thread)
        for j in T.unroll(registers):
            total[j] = total[j] + partial[half * registers + j]

    @inline
    def multiply(ring, now, base, turn, total, partial, x_desc, w_desc, thread):
        first: T.int32
        second: T.int32
        for j in T.unroll(registers):
            total[j] = T.float32(0)
        for _ in T.serial(steps // 2):
            first = base + now.stage
            issue(ring, now, base, partial, 0, x_desc, w_desc)
            now.advance()
            second = base + now.stage
            issue(ring, now, base, partial, 1, x_desc, w_desc)
            now.advance()
            T.ptx.wgmma.wait_group.sync.aligned(1)
            finish(ring, first, total, partial, 0, thread)
            T.ptx.wgmma.wait_group.sync.aligned(0)
            finish(ring, second, total, partial, 1, thread)
        if steps % 2 == 1:
            first = base + now.stage
            issue(ring, now, base, partial, 0, x_desc, w_desc)
            now.advance()
            T.ptx.wgmma.wait_group.sync.aligned(0)
            finish(ring, first, total, partial, 0, thread)
        finish_turn(t, thread[0])

    return multiply


def _fast(t: Tiling) -> Callable[..., Any]:
    batch, steps, strips, registers = _batch(t), t.steps, t.tile.strips, t.strip_registers

    @inline
    def multiply(ring, now, base, turn, total, partial, x_desc, w_desc, thread):
        previous: T.int32
        previous = -1
        for k in T.serial(steps):
            ring.full.wait(base + now.stage, now.phase)
            T.ptx.wgmma.fence.sync.aligned()
            for strip in T.unroll(strips):
                batch(total, strip * registers, strip, x_desc, w_desc, base + now.stage, k)
            T.ptx.wgmma.commit_group.sync.aligned()
            T.ptx.wgmma.wait_group.sync.aligned(1)
            if previous >= 0:
                _release(ring, previous, thread)
            previous = base + now.stage
            let_second_begin(t, turn, k, thread[0])
            now.advance()
        finish_turn(t, thread[0])
        T.ptx.wgmma.wait_group.sync.aligned(0)
        _release(ring, previous, thread)

    return multiply
