"""Rows of caches are written where they lie: a program holds each cache once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax
from tvm.script.ir_builder import tirx as T

from hwptq.ir.caches import caches_of, results
from hwptq.ir.dataflow import bindings, op_name, rewrite, shape_of, users
from hwptq.ir.operator import integer_operator
from hwptq.operators.write_rows import WriteRows
from hwptq.tir.builder import TEMPLATE, Expr, Flat, nest, primfunc
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import broadcast_strides, merged, row_major

#: Types of (here, new, past) -> a PrimFunc that writes past[i] = new[i] wherever here[i].
Writer = Callable[[TensorType, TensorType, TensorType], tvm.tirx.PrimFunc]


@tvm.transform.module_pass(opt_level=0, name="hwptq.WriteCachesInPlace")
class WriteCachesInPlace:
    """where(here, new, past) of a cache, or WriteRows of a prompt, becomes a kernel that writes into the
    cache what is new.

    Only where nothing else reads the past. A module without caches stays as it is. writer: what makes the
    kernel (here, new, past) of that where, one for a processor by default.
    """

    def __init__(self, writer: Writer | None = None):
        self.writer = writer or write_where

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        func = mod["main"]
        caches = caches_of(func)
        if caches is None:
            return mod
        given, readers, values = results(func), users(func), dict(bindings(func))
        written = set()
        for cache in caches.pairs:
            value: Any = values.get(given[cache.output])
            past = func.params[cache.input]
            alone = readers.get(past, []) == [given[cache.output]]
            by_where = op_name(value) == "where" and value.args[2] == past
            if alone and (by_where or isinstance(integer_operator(mod, value), WriteRows)):
                written.add(given[cache.output])

        def visit(r: Any, var: Any, value: Any) -> Any:
            if var not in written:
                return r.keep(value)
            args, kernel = self._kernel(mod, value)
            kind = relax.TensorType(shape_of(args[-1]), args[-1].ty.dtype)
            new = [r.get(a) for a in args]
            return relax.op.call_tir_inplace(r.add_function(kernel, "write_cache"), new, [len(new) - 1], kind)

        return rewrite(mod, visit)

    def _kernel(self, mod: tvm.IRModule, value: Any) -> tuple[list[Any], Any]:
        """What writes into a cache, the last of its arguments."""
        op = integer_operator(mod, value)
        if isinstance(op, WriteRows):
            past, *others = value.args[1].fields
            return [*others, past], op.in_place([_type(past), *map(_type, others)])
        return list(value.args), self.writer(*map(_type, value.args))


def _type(expr: Any) -> TensorType:
    return TensorType(shape_of(expr), str(expr.ty.dtype))


def write_where(here: TensorType, new: TensorType, past: TensorType) -> Any:
    """past[i] = new[i] wherever here[i]; both spread over the shape of `past`."""
    told, given = broadcast_strides(here.shape, past.shape), broadcast_strides(new.shape, past.shape)
    every, axes = row_major(past.shape), range(len(past.shape))
    asked = [axis for axis in axes if told[axis]]
    inner = [axis for axis in axes if not told[axis]]
    shape = [past.shape[axis] for axis in (*asked, *inner)]
    rest = merged([past.shape[axis] for axis in inner], [[s[axis] for axis in inner] for s in (given, every)])

    def emit(where: Flat, rows: Flat, cache: Flat) -> None:
        def test(*outer: Expr) -> None:
            place, source, target = (
                sum(i * s[axis] for i, axis in zip(outer, asked, strict=True)) for s in (told, given, every)
            )

            def write(*indices: Expr) -> None:
                at, to = (sum(i * s for i, s in zip(indices, steps, strict=True)) for steps in rest.strides)
                cache.store(target + to, rows.load(source + at))

            with T.If(where.load(place)), T.Then():
                nest(rest.extents, write)

        nest(shape[: len(asked)], test)

    return primfunc([here, new, past], {TEMPLATE: "write_cache"}, emit)
