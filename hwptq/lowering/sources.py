"""What a node of a QDQ graph is made of: integers, short floats, or a result that was never rounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax

from hwptq.formats import holds_floats
from hwptq.ir.composite import is_clamped, is_layer, read_composite
from hwptq.ir.dataflow import constant, op_name
from hwptq.ir.qdq import dequantizes

from .elementwise import elementwise_root

Values = Mapping[Any, Any]


def reads_floats(mod: tvm.IRModule, values: Values, expr: Any) -> bool:
    """Whether `expr` is made of a tensor in a short float, or of the unrounded result of such a layer."""
    root = elementwise_root(expr, values)
    value: Any = values.get(root)
    if dequantizes(value):
        return _of_floats(value)
    if not isinstance(value, relax.Call):
        return False
    args = [f for a in value.args for f in (a.fields if isinstance(a, relax.Tuple) else [a])]
    sources = [values.get(a) for a in args if isinstance(a, relax.Var)]
    return any(is_float_layer(mod, values, s) or (dequantizes(s) and _of_floats(s)) for s in sources)


def is_float_layer(mod: tvm.IRModule, values: Values, value: Any) -> bool:
    """Whether `value` is a composite of a layer on one short float, with a constant weight."""
    dtypes = _layer_dtypes(mod, values, value)
    return len(dtypes) == 1 and all(map(holds_floats, dtypes))


def is_real_dense(mod: tvm.IRModule, values: Values, value: Any) -> bool:
    """Whether `value` is a dense layer on integers without a clamp, which may have a float32 result."""
    unit = read_composite(mod, value)
    if unit is None or unit.kind != "matmul" or is_clamped(unit):
        return False
    weight: Any = values.get(unit.args[1])
    if op_name(weight) != "dequantize":
        return False
    held = constant(weight.args[0])
    dtypes = _layer_dtypes(mod, values, value)
    return held is not None and held.ndim == 2 and bool(dtypes) and not any(map(holds_floats, dtypes))


def _layer_dtypes(mod: tvm.IRModule, values: Values, value: Any) -> set[str]:
    """The dtypes of input and weight of a layer's composite; none for anything else."""
    unit = read_composite(mod, value)
    if unit is None or not is_layer(unit):
        return set()
    sources: list[Any] = [values.get(a) for a in unit.args[:2]]
    if not all(map(dequantizes, sources)) or constant(sources[1].args[0]) is None:
        return set()
    return {str(dq.args[0].ty.dtype) for dq in sources}


def _of_floats(dequantize: Any) -> bool:
    return holds_floats(str(dequantize.args[0].ty.dtype))
