"""The product of two e4m3 matrices on Hopper's tensor cores, for dense, batched products and convolutions.

A persistent grid of blocks with three warpgroups. One thread of the third loads tiles by TMA: the operand x
straight from the NHWC tensor through a 4-D tensor map, whose zero fill beyond the tensor is the padding and
whose element strides are those of the convolution; no im2col. The other two multiply (wgmma) what has
arrived in a ring of stages, promote their sums to float32 registers, and finish the tile: scale, bias,
residual, clamp and e4m3. Weights are permuted so that every thread ends up with 16 neighbouring channels
(packing.py).
"""

# The kernel is TVMScript, which is parsed and never run as Python: names are declared by annotations, and
# conditions of the device can't be joined by `and`.
# ruff: noqa: F821, SIM102
# mypy: disable-error-code="valid-type"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx
from tvm.backend.cuda.lang import Pipeline, PipelineState, SMEMPool
from tvm.script import tirx as T

from hwptq.quant import fp8

from .tiling import ROWS, Tiling

Shape = tuple[int, ...]
STEP = 32  # products of e4m3 that an instruction sums
WIDTH = 16  # neighbouring channels of a thread
_COPY = "cp.async.bulk.tensor.{}d.shared::cluster.global.mbarrier::complete_tx::bytes"


@dataclass(frozen=True)
class Epilogue:
    """What becomes of a sum: fma(sum, scale, bias), fma(residual, factor, that), a clamp, and `dtype`."""

    dtype: str
    lo: float
    hi: float
    residual: bool = False


def wgmma_kernel(
    t: Tiling, epilogue: Epilogue, x_shape: Shape, y_shape: Shape, attributes: dict[str, Any]
) -> tvm.tirx.PrimFunc:
    """(x, residual, its factor, w, scale, bias) -> y, the last three packed as packing.py does.

    `x_shape` and `y_shape` are the shapes of x and y outside, of the same elements as those of the problem.
    A residual has y's shape, or [1,1] where the epilogue has none.
    """
    p = t.problem
    n, h, w, c = p.images
    oh, ow = p.out_shape
    tiles_n, tiles_h, tiles_w, tiles_o = t.grid
    box_n, box_h, box_w = t.box
    row_tiles = tiles_n * tiles_h * tiles_w
    tiles = row_tiles * tiles_o
    rounds = -(-tiles // t.blocks)
    outputs, columns, chunk, stages, steps = p.outputs, t.columns, t.chunk, t.stages, t.steps
    box_rows = box_n * box_h * box_w
    sums = columns // 2  # per thread
    instructions = chunk // p.step
    promoted = t.promote_steps > 0
    every = max(t.promote_steps, 1)
    partial_sums = sums if promoted else 1
    row_stride = 8 * chunk // 16
    multiply = f"wgmma.mma_async.sync.aligned.m64n{columns}k32.f32.e4m3.e4m3"
    copy_x, copy_w = _COPY.format(4), _COPY.format(2)
    wide = outputs % WIDTH == 0
    to_e4m3 = epilogue.dtype == fp8.DTYPE
    with_lo, with_hi = epilogue.lo > -float("inf"), epilogue.hi < float("inf")
    lo, hi = (epilogue.lo if with_lo else 0.0), (epilogue.hi if with_hi else 0.0)
    with_residual = epilogue.residual
    piece = 4 if epilogue.dtype == "float32" else 8  # elements of a store of 16 bytes
    y_words = max(1, p.rows * outputs // 4)
    per_image = p.groups_of_weights > 1

    def tile_of(index: Any) -> tuple[Any, Any]:
        """(row tile, column tile) of a tile: `group` row tiles share their weights in the cache."""
        first = index // (t.group * tiles_o) * t.group
        size = tirx.min(row_tiles - first, t.group)
        within = index % (t.group * tiles_o)
        return first + within % size, within // size

    def x_position(row_tile: Any, step: Any) -> list[Any]:
        tap = step // t.chunks
        return [
            (step % t.chunks) * chunk,
            (row_tile % tiles_w) * (box_w * p.strides[1]) + tap % p.kernel[1] * p.dilation[1] - p.padding[1],
            (row_tile // tiles_w % tiles_h) * (box_h * p.strides[0])
            + tap // p.kernel[1] * p.dilation[0]
            - p.padding[0],
            (row_tile // (tiles_w * tiles_h)) * box_n,
        ]

    def w_row(row_tile: Any, column_tile: Any) -> Any:
        image = row_tile // (tiles_w * tiles_h) * t.weight_rows if per_image else 0
        return image + column_tile * columns

    def pixel_of(row_tile: Any, row: Any) -> tuple[Any, Any]:
        """The output pixel that a row of a tile holds, and whether there is one."""
        x = (row_tile % tiles_w) * box_w + row % box_w
        y = (row_tile // tiles_w % tiles_h) * box_h + row // box_w % box_h
        image = (row_tile // (tiles_w * tiles_h)) * box_n + row // (box_w * box_h)
        return (image * oh + y) * ow + x, tirx.all(row < box_rows, x < ow, y < oh, image < n)

    def fma(a: Any, b: Any, c: Any) -> Any:
        return T.call_pure_extern("float32", "__fmaf_rn", a, b, c)

    def registers(buffer: Any) -> list[Any]:
        return [buffer[i] for i in range(sums)]

    @T.prim_func(check_well_formed=False)
    def main(
        X: T.Buffer(x_shape, "float8_e4m3fn"),
        R: T.Buffer(y_shape if with_residual else (1, 1), "float8_e4m3fn"),
        F: T.Buffer((1,), "float32"),
        W: T.Buffer((p.groups_of_weights * t.weight_rows, t.weight_depth), "float8_e4m3fn"),
        S: T.Buffer((t.weight_rows,), "float32"),
        B: T.Buffer((t.weight_rows,), "float32"),
        Y: T.Buffer(y_shape, epilogue.dtype),
    ):
        T.func_attr(attributes)
        x_map: T.let[T.handle("tensormap")] = T.tvm_stack_alloca("tensormap", 1)
        T.call_packed(
            "runtime.cuTensorMapEncodeTiled", x_map, "float8_e4m3fn", 4, X.data, c, w, h, n,
            c, w * c, h * w * c, chunk, box_w * p.strides[1], box_h * p.strides[0], box_n,
            1, p.strides[1], p.strides[0], 1, 0, t.swizzle, 2, 0,
        )  # fmt: skip
        w_map: T.let[T.handle("tensormap")] = T.tvm_stack_alloca("tensormap", 1)
        T.call_packed(
            "runtime.cuTensorMapEncodeTiled", w_map, "float8_e4m3fn", 2, W.data, t.weight_depth,
            p.groups_of_weights * t.weight_rows, t.weight_depth, chunk, columns, 1, 1, 0, t.swizzle, 2, 0,
        )  # fmt: skip
        T.device_entry()
        y = T.decl_buffer((p.rows * outputs,), epilogue.dtype, data=Y.data)
        words = T.decl_buffer((y_words,), "uint32", data=Y.data)
        summand = T.decl_buffer((p.rows * outputs,), "float8_e4m3fn", data=R.data)
        block = T.cta_id([t.blocks])
        group = T.warpgroup_id([3])
        warp = T.warp_id_in_wg([4])
        lane = T.lane_id([32])
        pool = T.meta_var(SMEMPool())
        xs = pool.alloc((stages, ROWS, chunk), "float8_e4m3fn", align=1024)
        ws = pool.alloc((stages, columns, chunk), "float8_e4m3fn", align=1024)
        ring = T.meta_var(Pipeline(pool, stages, full="tma", empty="mbar", init_full=1, init_empty=2))
        pool.commit()
        T.ptx.fence.proxy.async_.shared__cta()
        T.cuda.cta_sync()
        if group == 2:
            T.ptx.setmaxnreg.dec.sync.aligned.u32(40)
            if warp == 0:
                if T.cuda.elect_sync():
                    at = T.meta_var(PipelineState(stages, 1))
                    for i in T.serial(rounds):
                        if block + i * t.blocks < tiles:
                            tile = T.meta_var(tile_of(block + i * t.blocks))
                            for k in T.serial(steps):
                                ring.empty.wait(at.stage, at.phase)
                                ring.full.arrive(at.stage, (box_rows + columns) * chunk)
                                T.ptx[copy_x](
                                    xs.ptr_to([at.stage, 0, 0]), T.address_of(x_map), *x_position(tile[0], k),
                                    ring.full.ptr_to([at.stage]),
                                )  # fmt: skip
                                T.ptx[copy_w](
                                    ws.ptr_to([at.stage, 0, 0]), T.address_of(w_map), k * chunk,
                                    w_row(tile[0], tile[1]), ring.full.ptr_to([at.stage]),
                                )  # fmt: skip
                                at.advance()
        else:
            T.ptx.setmaxnreg.inc.sync.aligned.u32(232)
            now = T.meta_var(PipelineState(stages, 0))
            total = T.alloc_local([sums], "float32")
            partial = T.alloc_local([partial_sums], "float32")
            value = T.alloc_local([WIDTH], "float32")
            scales = T.alloc_local([WIDTH], "float32")
            biases = T.alloc_local([WIDTH], "float32")
            word = T.alloc_local([4], "uint32")
            x_desc: T.uint64
            w_desc: T.uint64
            T.cuda.wgmma.encode_matrix_descriptor(
                T.address_of(x_desc), xs.ptr_to([0, group * 64, 0]), 1, row_stride, t.swizzle
            )
            T.cuda.wgmma.encode_matrix_descriptor(
                T.address_of(w_desc), ws.ptr_to([0, 0, 0]), 1, row_stride, t.swizzle
            )
            previous: T.int32
            for i in T.serial(rounds):
                if block + i * t.blocks < tiles:
                    mine = T.meta_var(tile_of(block + i * t.blocks))
                    previous = -1
                    if promoted:
                        for j in T.unroll(sums):
                            total[j] = T.float32(0)
                    for k in T.serial(steps):
                        ring.full.wait(now.stage, now.phase)
                        T.ptx.wgmma.fence.sync.aligned()
                        for q in T.unroll(instructions):
                            if promoted:
                                T.ptx[multiply](
                                    *registers(partial),
                                    x_desc + T.Cast("uint64", now.stage * (ROWS * chunk // 16) + q * 2),
                                    w_desc + T.Cast("uint64", now.stage * (columns * chunk // 16) + q * 2),
                                    ((k % every) * instructions + q > 0), 1, 1,
                                )  # fmt: skip
                            else:
                                T.ptx[multiply](
                                    *registers(total),
                                    x_desc + T.Cast("uint64", now.stage * (ROWS * chunk // 16) + q * 2),
                                    w_desc + T.Cast("uint64", now.stage * (columns * chunk // 16) + q * 2),
                                    (k * instructions + q > 0), 1, 1,
                                )  # fmt: skip
                        T.ptx.wgmma.commit_group.sync.aligned()
                        if promoted:
                            T.ptx.wgmma.wait_group.sync.aligned(0)
                            if warp == 0:
                                if lane == 0:
                                    ring.empty.arrive(now.stage)
                            if (k % every == every - 1) or (k == steps - 1):
                                for j in T.unroll(sums):
                                    total[j] = total[j] + partial[j]
                        else:
                            T.ptx.wgmma.wait_group.sync.aligned(1)
                            if previous >= 0:
                                if warp == 0:
                                    if lane == 0:
                                        ring.empty.arrive(previous)
                            previous = now.stage
                        now.advance()
                    if not promoted:
                        T.ptx.wgmma.wait_group.sync.aligned(0)
                        if warp == 0:
                            if lane == 0:
                                ring.empty.arrive(previous)
                    for g in T.unroll(columns // 64):
                        column = T.meta_var(mine[1] * columns + g * 64 + (lane % 4) * WIDTH)
                        if column < outputs:
                            for j in T.unroll(WIDTH // 4):
                                for e in T.vectorized(4):
                                    scales[j * 4 + e] = S[column + j * 4 + e]
                                for e in T.vectorized(4):
                                    biases[j * 4 + e] = B[column + j * 4 + e]
                            for half in T.unroll(2):
                                row = T.meta_var(group * 64 + warp * 16 + lane // 4 + half * 8)
                                pixel = T.meta_var(pixel_of(mine[0], row))
                                if pixel[1]:
                                    at_y = T.meta_var(pixel[0] * outputs + column)
                                    for j in T.unroll(WIDTH):
                                        value[j] = fma(
                                            total[(g * 8 + j // 2) * 4 + half * 2 + j % 2],
                                            scales[j],
                                            biases[j],
                                        )
                                        if wide or column + j < outputs:
                                            if with_residual:
                                                value[j] = fma(
                                                    T.Cast("float32", summand[at_y + j]), F[0], value[j]
                                                )
                                            if with_lo:
                                                value[j] = T.max(value[j], T.float32(lo))
                                            if with_hi:
                                                value[j] = T.min(value[j], T.float32(hi))
                                    if wide:
                                        if to_e4m3:
                                            for j in T.unroll(4):
                                                word[j] = T.cuda.fp8x4_e4m3_from_float4(
                                                    *[value[j * 4 + e] for e in range(4)]
                                                )
                                            for j in T.vectorized(4):
                                                words[at_y // 4 + j] = word[j]
                                        else:
                                            for j in T.unroll(WIDTH // piece):
                                                for e in T.vectorized(piece):
                                                    y[at_y + j * piece + e] = T.Cast(
                                                        epilogue.dtype, value[j * piece + e]
                                                    )
                                    else:
                                        for j in T.unroll(WIDTH):
                                            if column + j < outputs:
                                                y[at_y + j] = T.Cast(epilogue.dtype, value[j])

    return main.without_attr("global_symbol")
