"""One form for what means the same, whichever importer or pass of TVM a float module comes from."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from hwptq.ir.dataflow import bindings, constant, main_functions, op_name, rewrite
from hwptq.ir.movement import order_of_axes

_COMMUTATIVE = ("add", "multiply")
#: The layouts that passes know, as ConvertLayout has them.
_LAYOUTS = {"relax.nn.conv2d": ["NCHW", "OIHW"]}


def canonical(mod: tvm.IRModule) -> tvm.IRModule:
    """The same outputs, in dataflow blocks: constants folded, and behind what they are added to or multiplied
    with; convolutions in NCHW."""
    steps = [] if _dataflow(mod) else [relax.transform.ConvertToDataflow(1)]
    steps += [relax.transform.FoldConstant()]  # of dataflow blocks only
    if _other_layouts(mod):
        steps += [relax.transform.ConvertLayout(_LAYOUTS), relax.transform.FoldConstant()]
    return rewrite(tvm.ir.transform.Sequential(steps)(mod), _canonical)


def _dataflow(mod: tvm.IRModule) -> bool:
    return all(isinstance(b, relax.DataflowBlock) for _, f in main_functions(mod) for b in f.body.blocks)


def _other_layouts(mod: tvm.IRModule) -> bool:
    values = [value for _, f in main_functions(mod) for _, value in bindings(f)]
    return any(
        [str(v.attrs.data_layout), str(v.attrs.kernel_layout)] != _LAYOUTS["relax.nn.conv2d"]
        for v in values
        if op_name(v) == "nn.conv2d"
    )


def _canonical(r: Any, var: Any, value: Any) -> Any:
    name = op_name(value)
    if name in _COMMUTATIVE and constant(value.args[0]) is not None and constant(value.args[1]) is None:
        first, second = value.args
        return relax.Call(value.op, [r.get(second), first], value.attrs, value.ty_args)
    return _turned(r, value) if name == "permute_dims" else r.keep(value)


def _turned(r: Any, call: Any) -> Any:
    """A transpose, joined with the one before it; what leaves everything in its place is its source."""
    source, axes = r.get(call.args[0]), order_of_axes(call)
    before: Any = r.builder.lookup_binding(source) if isinstance(source, relax.Var) else None
    if op_name(before) == "permute_dims":
        first = order_of_axes(before)
        source, axes = before.args[0], tuple(first[axis] for axis in axes)
    return source if list(axes) == sorted(axes) else relax.op.permute_dims(source, axes)
