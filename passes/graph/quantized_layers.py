"""The layers of a QDQ function: composites of a quantized input and an int8 constant, read by a quantize.

Or a dense layer that only float operators read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.formats import INT8, Format, format_of, holds_floats
from hwptq.ir.composite import Composite, emit_layer, is_clamped, read_composite
from hwptq.ir.dataflow import bindings, constant, main_functions, op_name, rewrite, shape_of, users
from hwptq.ir.operator import Operator
from hwptq.ir.provenance import origins
from hwptq.ir.qdq import dequantizes, quantizes, scale_and_zero
from hwptq.operators.layers import IntegerLayer
from hwptq.quant.accumulator import accumulator_constants, accumulator_shift, in_output_scale
from hwptq.quant.weight_groups import group_ids

from .quantizable import layer_dtypes, weight_groups

#: Name of a function, label of a binding (ir/provenance.py).
Place = tuple[str, str]


@dataclass(frozen=True)
class QuantizedLayer:
    """A conv2d (weight [O,I/g,KH,KW]) or dense layer (weight [K,O]) between its Q and DQ."""

    function: str
    label: str  # of its origin
    var: Any
    unit: Composite
    weight_var: Any  # bound to dequantize(values, scale)
    values: np.ndarray  # int8
    scale: np.ndarray  # float32 [O]
    dtype: Format
    x_scale: float
    x_zero: int
    out_scale: float | None  # None: the result is float
    out_dtype: str = "int8"
    x_dtype: Format = INT8
    group: int = 0  # input channels that share a factor, which `values` hold; 0 = none

    @property
    def place(self) -> Place:
        """What tells it from all other layers of a module."""
        return self.function, self.label

    @property
    def columns(self) -> int:
        """Results a sample has of each output channel: pixels of its image, rows of its matrix."""
        shape = shape_of(self.var)
        return prod(shape[2:]) if self.unit.kind == "conv2d" else prod(shape[1:-1])

    @property
    def groups(self) -> int:
        return int(self.unit.head.attrs.groups) if self.unit.kind == "conv2d" else 1

    @property
    def bias(self) -> np.ndarray:
        """[O], real; zeros where the layer has none."""
        return np.broadcast_to(np.float32(0) if self.unit.bias is None else self.unit.bias, self.scale.shape)

    @property
    def held_bits(self) -> int:
        """Bits of `values`: those of the dtype, or 8 where factors of groups are multiplied in."""
        return 8 if self.group else self.dtype.bits

    @property
    def group_ids(self) -> np.ndarray:
        """The group of weights that each column of `rows` is in."""
        channels, *window = self.values.shape[1:] if self.values.ndim == 4 else self.values.shape[:1]
        return group_ids(channels, prod(window), self.group)

    @property
    def shared_scale(self) -> bool:
        """Whether all channels have one scale: weights are quantized per tensor."""
        return float(np.ptp(self.scale)) == 0.0

    def rows(self, weight: np.ndarray) -> np.ndarray:
        """A weight of this layer as [groups, outputs per group, inputs per output]."""
        matrix = weight if weight.ndim == 4 else weight.T
        return matrix.reshape(self.groups, matrix.shape[0] // self.groups, -1)

    def from_rows(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `rows`."""
        if self.values.ndim == 4:
            return rows.reshape(self.values.shape)
        return np.ascontiguousarray(rows.reshape(self.values.shape[::-1]).T)


@dataclass(frozen=True)
class LayerConstants:
    """New constants of a layer: int8 weight in its own layout, float32 scale [O], real bias float32 [O]."""

    values: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


def quantized_layers(mod: tvm.IRModule) -> dict[Place, QuantizedLayer]:
    """Every layer of a module, in the order of the graph."""
    found = {}
    for gv, func in main_functions(mod):
        values, readers, dtypes = dict(bindings(func)), users(func), layer_dtypes(func)
        groups, named = weight_groups(func), origins(func)
        for var, value in values.items():
            unit = read_composite(mod, value)
            if unit is None or unit.kind not in ("conv2d", "matmul"):
                continue
            place = str(gv.name_hint), named[var].label
            layer = _layer(place, var, unit, values, readers, dtypes)
            if layer is not None:
                found[place] = replace(layer, group=groups.get(layer.label, 0))
    return found


def _layer(
    place: Place, var: Any, unit: Composite, values: Any, readers: Any, dtypes: Any
) -> QuantizedLayer | None:
    x, weight_var = unit.args[:2]
    x_dq, w_dq = values.get(x), values.get(weight_var)
    if not dequantizes(x_dq) or not dequantizes(w_dq):
        return None
    out, real = _quantize_of(var, values, readers), _stays_real(var, unit, values, readers)
    ints, (scales, _) = constant(w_dq.args[0]), scale_and_zero(w_dq)
    if (out is None and not real) or ints is None or scales is None or constant(x_dq.args[0]) is not None:
        return None
    if ints.ndim not in (2, 4) or str(ints.dtype) != INT8.held:
        return None
    scale = np.broadcast_to(scales, (ints.shape[0 if ints.ndim == 4 else 1],))
    out_scale, out_dtype = (None, "float32") if out is None else (_params(out)[0], str(out.ty.dtype))
    dtype = format_of(dtypes.get(place[1], (INT8.name, INT8.name))[1])
    x_dtype = format_of(str(x_dq.args[0].ty.dtype))
    return QuantizedLayer(
        *place, var, unit, weight_var, ints, scale, dtype, *_params(x_dq), out_scale, out_dtype, x_dtype
    )


def _quantize_of(var: Any, values: Any, readers: Any) -> Any:
    """The quantize that alone reads `var`, perhaps behind the clip of an int4 tensor."""
    while len(who := readers.get(var, [])) == 1 and who[0] is not None:
        (var,) = who
        if op_name(values[var]) != "clip":
            return values[var] if quantizes(values[var]) else None
    return None


def _stays_real(var: Any, unit: Composite, values: Any, readers: Any) -> bool:
    """Whether a dense layer is read as numbers only."""
    followers = [values.get(u) for u in readers.get(var, [])]
    rounded = any(quantizes(v) or op_name(v) == "clip" for v in followers)
    return unit.kind == "matmul" and not is_clamped(unit) and not rounded


def _params(call: Any) -> tuple[float, int]:
    scale, zero = scale_and_zero(call)
    assert scale is not None
    assert zero is not None
    return float(scale.item()), int(zero.item())


def operator_constants(layer: QuantizedLayer, new: LayerConstants) -> tuple[np.ndarray, ...]:
    """What LowerToInteger makes of the layer with new constants. Raises ValueError where they don't fit."""
    given, bits = _given(layer, new), (layer.held_bits, layer.x_dtype.bits)
    if layer.out_scale is None or not holds_floats(layer.out_dtype):
        return accumulator_constants(*given, layer.out_scale, *bits)
    weight, bias, unit = accumulator_constants(*given, None, *bits)
    return weight, bias, in_output_scale(unit, layer.out_scale)


def evaluated(op: Operator, layer: QuantizedLayer, new: LayerConstants) -> Callable[[np.ndarray], np.ndarray]:
    """What the operator of a layer makes of its input, with new constants."""
    constants = operator_constants(layer, new)
    if isinstance(op, IntegerLayer):
        by = accumulator_shift(*_given(layer, new), layer.held_bits, layer.x_dtype.bits)
        op = replace(op, acc_shift=by)
    return lambda x: op.reference(x, *constants)


def _given(
    layer: QuantizedLayer, new: LayerConstants
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, int]:
    """Weights with the output channels first, their scales, bias, and scale and zero point of the input."""
    rows = layer.rows(new.values).reshape(new.scale.size, -1)
    if new.values.ndim == 4:
        rows = new.values.transpose(0, 2, 3, 1)
    return rows, new.scale, new.bias, layer.x_scale, layer.x_zero


def with_layer_constants(mod: tvm.IRModule, new: Mapping[Place, LayerConstants]) -> tvm.IRModule:
    """A module whose layers have `new` constants."""
    layers = {place: layer for place, layer in quantized_layers(mod).items() if place in new}
    weights = {layer.weight_var: new[place] for place, layer in layers.items()}
    units = {layer.var: (layer.unit, new[place]) for place, layer in layers.items()}

    def visit(r: Any, var: Any, value: Any) -> Any:
        if var in weights:
            w = weights[var]
            args = [relax.const(w.values), relax.const(w.scale.astype(np.float32)), value.args[2]]
            return relax.Call(value.op, args, value.attrs, value.ty_args)
        if var not in units:
            return r.keep(value)
        unit, w = units[var]
        data, weight = (r.get(a) for a in unit.args[:2])
        return emit_layer(r, unit, data, weight, w.bias, unit.bounds)

    return rewrite(mod, visit)
