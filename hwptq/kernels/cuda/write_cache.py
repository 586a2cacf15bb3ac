"""Rows of caches are written where they lie."""

from __future__ import annotations

from math import prod

import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import TEMPLATE, Flat, constant
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import broadcast_strides

from .flat import LIMIT, PIPELINE, THREADS, indices

_EACH = 8  # elements of a thread, where one flag says what becomes of them


def write_where(here: TensorType, new: TensorType, past: TensorType) -> tvm.tirx.PrimFunc:
    """(here bool, new, past), which are broadcast to past: past[i] = new[i] wherever here[i], and no more is
    read of it. Raises ValueError for a cache of 2^31 elements or more."""
    size = prod(past.shape)
    if size >= LIMIT:
        raise ValueError(f"a cache of shape {past.shape} is too large for 32-bit offsets")
    told, given = (broadcast_strides(t.shape, past.shape) for t in (here, new))
    each = _EACH if past.shape[-1] % _EACH == 0 and not told[-1] else 1
    with IRBuilder() as builder, T.prim_func():
        T.func_name("kernel")
        fixed = {"tirx.noalias": True, "tirx.is_scheduled": True, PIPELINE: "s_tir"}
        T.func_attr({**fixed, TEMPLATE: "write_cache"})
        tensors = [here, new, past]
        params = [T.arg(f"p{i}", T.buffer(t.shape, t.dtype)) for i, t in enumerate(tensors)]
        where, rows, cache = (
            Flat(T.decl_buffer((prod(t.shape),), t.dtype, data=p.data), t.dtype, prod(t.shape))
            for p, t in zip(params, tensors, strict=True)
        )
        with (
            T.thread_binding(-(-size // (each * THREADS)), thread="blockIdx.x") as block,
            T.thread_binding(THREADS, thread="threadIdx.x") as thread,
        ):
            first = (block * THREADS + thread) * each
            with T.If(first < size), T.Then():
                at = indices(first, past.shape)
                flag = where.load(sum(i * s for i, s in zip(at, told, strict=True)))
                with T.If(flag != constant(0, here.dtype)), T.Then():
                    source = sum(i * s for i, s in zip(at, given, strict=True))
                    for e in range(each):
                        cache.store(first + e, rows.load(source + e * given[-1]))
    return builder.get().without_attr("global_symbol")
