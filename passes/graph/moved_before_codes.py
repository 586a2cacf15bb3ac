"""Tensors that are only moved before they are quantized: their codes can be moved instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

from hwptq.ir.dataflow import bindings, constant, op_name, users

#: (mod, value): whether the output of an operator holds values of its one input only.
Ties = Callable[[tvm.IRModule, Any], bool]


def moved_before_codes(mod: tvm.IRModule, func: Any, ties: Ties) -> dict[Any, Any]:
    """var -> the quantize behind what moves it, of the vars of a function that are read by nothing else.

    Rounding and moving may change places: the outputs stay the same. All that a var becomes has one scale.
    """
    values, readers = dict(bindings(func)), users(func)
    found: dict[
        Any, Any
    ] = {}  # var -> the one quantize that all of it comes to, of those that nothing else reads
    moves: set[Any] = set()
    for var in reversed(values):
        live = [u for u in readers.get(var, []) if u is None or readers.get(u)]
        ends = [_end(mod, values, found, var, u, ties) for u in live]
        if ends and all(e is not None and _same(e, ends[0]) for e in ends):
            found[var] = ends[0]
            if any(op_name(values[u]) != "quantize" for u in live):
                moves.add(var)
    return {v: found[v] for v in moves if op_name(values[v]) != "dequantize" and not ties(mod, values[v])}


def _end(mod: tvm.IRModule, values: Any, found: Any, var: Any, reader: Any, ties: Ties) -> Any:
    """The quantize that a reader of `var` is, or that what it gives comes to; None for another reader, as of
    places."""
    value = values.get(reader)
    if not isinstance(value, relax.Call) or not value.args or value.args[0] != var:
        return None
    if op_name(value) == "quantize":
        return value
    return found.get(reader) if ties(mod, value) else None


def _same(one: Any, other: Any) -> bool:
    """Whether two tensors are rounded to the same codes, with one scale."""
    pairs = [[constant(a) for a in q.args[1:3]] for q in (one, other)]
    if any(a is None or a.ndim for pair in pairs for a in pair):
        return False
    dtypes = [str(q.attrs.out_dtype) for q in (one, other)]
    return pairs[0] == pairs[1] and dtypes[0] == dtypes[1]
