"""The product of two matrices on Hopper's tensor cores, for dense, batched products and convolutions.

A persistent grid of blocks with three or four warpgroups. One thread of the last loads tiles by TMA
(wgmma_load.py). The others multiply what has arrived (wgmma_multiply.py) and finish the tile
(wgmma_store.py). Weights are permuted so that every thread ends up with 16 neighbouring channels
(packing.py).
"""

# The kernel is TVMScript, which is parsed and never run as Python: names are declared by annotations, and
# conditions of the device can't be joined by `and`.
# ruff: noqa: F821, SIM102
# mypy: disable-error-code="valid-type"

from __future__ import annotations

from functools import cache
from typing import Any

import tvm
from tvm.backend.cuda.lang import Pipeline, PipelineState, SMEMPool
from tvm.script import tirx as T

from hwptq.tir.builder import TEMPLATE

from . import wgmma_turns as turns
from .flat import PIPELINE
from .inline import inline
from .operand import item_bytes
from .tiling import Tiling
from .wgmma_load import loader, map_arguments
from .wgmma_multiply import multiplier
from .wgmma_places import Places
from .wgmma_store import Epilogue, Outside, finisher

Shape = tuple[int, ...]
_REGISTERS = {
    2: (40, 232),
    3: (32, 160),
}  # warpgroups that multiply -> of a thread that loads, of one of theirs


@cache  # the parser of TVMScript takes most of a second, and layers of a model are alike
def wgmma_kernel(t: Tiling, epilogue: Epilogue, x_shape: Shape, y_shape: Shape) -> tvm.tirx.PrimFunc:
    """(x, residual, its factor, w, scale, bias) -> y, the last three packed as packing.py does.

    `x_shape` and `y_shape` are the shapes of x and y outside, of the same elements as those of the problem.
    A residual has y's shape, or [1,1] where the epilogue has none; in its place stands the epilogue's table,
    or the scales of rows.
    An epilogue in fixed point takes multipliers, shifts, and its zero points if it has some, one behind the
    other, for the scale. It is scheduled; TIRx's passes lower it.
    """
    p, dtype = t.problem, t.problem.operand.dtype
    y_size, fixed = p.rows * p.outputs, epilogue.fixed_point(t)
    scale_dtype, scales = ("int32", 2 + epilogue.zero_points) if fixed else ("float32", 1 + epilogue.rescaled)
    entries = epilogue.table // 4  # words
    r_shape, r_dtype = (y_shape if epilogue.residual else (1, 1)), epilogue.residual_dtype
    if entries:
        r_shape, r_dtype = (epilogue.table,), "int8"
    if epilogue.rescaled:
        r_shape, r_dtype = (*y_shape[:-1], 1), "float32"
    x_layout, w_layout = map_arguments(t)
    load, consume = loader(t), _consumer(t, epilogue)
    summand_bytes = item_bytes(epilogue.residual_dtype)
    threads = 128 * (t.tile.warpgroups + 1)
    stages, readers, workers = t.stages * t.rings, t.readers, t.tile.warpgroups
    loader_registers, registers = _REGISTERS[workers]

    @T.prim_func(check_well_formed=False)
    def main(
        X: T.Buffer(x_shape, dtype),
        R: T.Buffer(r_shape, r_dtype),
        F: T.Buffer((1,), "float32"),
        W: T.Buffer((p.groups_of_weights * t.weight_rows, t.weight_depth), dtype),
        S: T.Buffer((scales * t.weight_rows,), scale_dtype),
        B: T.Buffer((t.weight_rows,), p.operand.sums),
        Y: T.Buffer(y_shape, epilogue.dtype),
    ):
        x_map: T.let[T.handle("tensormap")] = T.tvm_stack_alloca("tensormap", 1)
        T.call_packed("runtime.cuTensorMapEncodeTiled", x_map, dtype, 4, X.data, *x_layout)
        w_map: T.let[T.handle("tensormap")] = T.tvm_stack_alloca("tensormap", 1)
        T.call_packed("runtime.cuTensorMapEncodeTiled", w_map, dtype, 2, W.data, *w_layout)
        T.device_entry()
        y = T.decl_buffer((y_size,), epilogue.dtype, data=Y.data)
        words = T.decl_buffer((max(1, y_size // 4),), "uint32", data=Y.data)
        summand = T.decl_buffer((y_size,), r_dtype, data=R.data)
        row_scales = T.decl_buffer((p.rows,), r_dtype, data=R.data)
        summand_words = T.decl_buffer((max(1, y_size * summand_bytes // 4),), "uint32", data=R.data)
        block = T.cta_id([t.blocks])
        group = T.warpgroup_id([workers + 1])
        warp = T.warp_id_in_wg([4])
        lane = T.lane_id([32])
        pool = T.meta_var(SMEMPool())
        xs = pool.alloc((stages, t.rows, t.chunk), dtype, align=1024)
        ws = pool.alloc((stages, t.columns, t.chunk), dtype, align=1024)
        ring = T.meta_var(Pipeline(pool, stages, full="tma", empty="mbar", init_full=1, init_empty=readers))
        table = pool.alloc((max(4, entries),), "uint32", align=16)
        pool.commit()
        if entries > 0:
            for i in T.serial(-(-entries // threads)):
                at = T.meta_var(i * threads + (group * 4 + warp) * 32 + lane)
                if at < entries:
                    table[at] = summand_words[at]
        T.ptx.fence.proxy.async_.shared__cta()
        T.cuda.cta_sync()
        if group == workers:
            T.ptx.setmaxnreg.dec.sync.aligned.u32(loader_registers)
            if warp < t.rings:
                if T.cuda.elect_sync():
                    load(ring, xs, ws, x_map, w_map, block, warp if t.rings > 1 else 0)
        else:
            T.ptx.setmaxnreg.inc.sync.aligned.u32(registers)
            outside = T.meta_var(Outside(S, B, summand, summand_words, F, y, words, table, row_scales))
            consume(ring, xs, ws, outside, block, (group, warp, lane))

    attributes = {"tirx.is_scheduled": True, PIPELINE: "tirx", TEMPLATE: "wgmma"}
    return main.without_attr("global_symbol").with_attrs(attributes)


def _consumer(t: Tiling, epilogue: Epilogue) -> Any:
    """(ring, stages of x and of w, outside, block, (warpgroup, warp, lane)): sum and finish tiles."""
    at_tile, multiply, store = Places(t), multiplier(t), finisher(t, epilogue)
    tiles, together, apart = at_tile.tiles, t.together, t.rings > 1
    every = 1 if together else 2  # tiles until the next of a warpgroup
    rounds = -(-at_tile.rounds // every)
    sums = t.problem.operand.registers
    row_stride = 8 * t.chunk * t.problem.operand.bytes // 16

    @inline
    def consume(ring, xs, ws, outside, block, thread):
        group = T.meta_var(thread[0])
        now = T.meta_var(PipelineState(t.stages, 0))
        total = T.alloc_local([t.tile.strips * t.strip_registers], sums)
        partial = T.alloc_local([t.partial_registers], sums)
        x_desc: T.uint64
        w_desc: T.uint64
        first = T.meta_var(group * t.group_rows if together else 0)
        base = T.meta_var(group * t.stages if apart else 0)
        T.cuda.wgmma.encode_matrix_descriptor(
            T.address_of(x_desc), xs.ptr_to([0, first, 0]), 1, row_stride, t.swizzle
        )
        T.cuda.wgmma.encode_matrix_descriptor(
            T.address_of(w_desc), ws.ptr_to([0, 0, 0]), 1, row_stride, t.swizzle
        )
        turns.begin(t, now, group)
        for i in T.serial(rounds):
            index = T.meta_var(block + (i * every + (0 if together else group)) * t.blocks)
            turns.wait_for_turn(t, group)
            if index < tiles:
                tile = T.meta_var(at_tile.tile(index))
                multiply(ring, now, base, i, total, partial, x_desc, w_desc, thread)
                turns.skip_turn(t, now)
                store(total, outside, tile, first, thread)
            else:
                turns.finish_turn(t, group)
        turns.end(t, group)

    return consume
