"""A second function of a library, `taps`: the same kernels, but all tensors between them are given.

Boards whose results differ are told by it which tensor is the first that does.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from hwptq.ir.dataflow import bindings, entry_functions, op_name, rewrite
from hwptq.ir.provenance import origins

TAPS = "taps"


def tap_names(mod: tvm.IRModule) -> list[str]:
    """The nodes whose tensors `taps` gives, in their order; empty where a module has not one function."""
    entries = entry_functions(mod)
    if len(entries) != 1:
        return []
    named = origins(mod[entries[0]])
    return [named[var].label for var in _tapped(mod[entries[0]])]


def with_taps(mod: tvm.IRModule) -> tvm.IRModule:
    """The module with `taps` beside its function."""
    entries = entry_functions(mod)
    if len(entries) != 1 or not tap_names(mod):
        return mod
    tensors = _tapped(mod[entries[0]])
    tapped = rewrite(
        mod,
        lambda r, var, value: r.keep(value),
        result=lambda r: relax.Tuple([r.get(var) for var in tensors]),
    )
    out = mod.clone()
    out[tvm.ir.GlobalVar(TAPS)] = tapped[entries[0]].with_attr("global_symbol", TAPS)
    return out


def _tapped(func: Any) -> list[Any]:
    """What kernels write, tuples aside."""
    return [
        var for var, value in bindings(func)
        if op_name(value) == "call_tir" and isinstance(var.ty, relax.TensorType)
    ]  # fmt: skip
