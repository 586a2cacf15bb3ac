"""RoundGroups: levels and scales of weights by group from what reaches their layers, in graph order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.evaluate.lockstep import Lockstep, live_bytes
from hwptq.formats import format_of
from hwptq.ir.composite import composite_kind
from hwptq.ir.dataflow import bindings, constant, entry_functions, op_name, rewrite, shape_of, users
from hwptq.ir.operator import integer_operator
from hwptq.ir.provenance import Part, origins
from hwptq.operators.group_dense import GroupDense, GroupDequantize, GroupEmbedding
from hwptq.operators.rows import RowRescale
from hwptq.quant.group_codes import GroupedRows, group_values
from hwptq.quant.group_rounding import fitted_rows
from hwptq.quant.moments import Statistics
from hwptq.targets.schema import Descriptor

from .lower_to_integer import LowerToInteger
from .round_weights import Track

#: Rows (tokens) with which more samples tell little new.
ENOUGH = 2**14
_FEW_BITS = 2
#: Name of a function, label of a layer.
Place = tuple[str, str]


@tvm.transform.module_pass(opt_level=0, name="hwptq.RoundGroups")
class RoundGroups:
    """New levels and scales for the dense layers of a module that InsertDynamicQDQ gave weights by group.

    Layer by layer, on the codes that reach it with the layers before it already rounded: the target is the
    regression of the float layer's output on them, the error is weighed by their second moments
    (quant/group_rounding.py). Where the result is added to another tensor, a residual stream, each row counts
    as much as any other, however large it is, since a norm follows; and with weights of two bits the target
    is what the sum lacks, so that a layer makes up for those before it. (With those of four, whose errors are
    small, that fits the samples rather than the model.) Rows that a look-up reads too stay as they are.

    float_module: the module that InsertDynamicQDQ was given; samples: dicts of its inputs, of which there are
    `total`, None = nobody knows. At most `enough` rows of them are used, and as many as fit `memory` bytes;
    from all over where their number is known, since neighbours may be of one document. target: as in
    LowerToInteger; track: passes layers on, and so sees how far the rounding has come.
    """

    def __init__(
        self, float_module: tvm.IRModule, samples: Iterable[dict[str, np.ndarray]], target: Descriptor,
        total: int | None = None, enough: int = ENOUGH, memory: int = 3 * 2**29, track: Track | None = None,
    ):  # fmt: skip
        self.float_module, self.samples, self.target = float_module, samples, target
        self.total, self.enough, self.memory = total, enough, memory
        self.track = track or (lambda items, total: items)

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        integer = tvm.ir.transform.Sequential([LowerToInteger(self.target)])(mod)
        new: dict[Place, GroupedRows] = {}
        for function in entry_functions(integer):
            layers = _layers(self.float_module, integer, function)
            if layers:
                samples = self._samples(integer, function, layers)
                new |= self._function(integer, function, layers, samples)
        return _with_rows(mod, new)

    def _samples(
        self, integer: tvm.IRModule, function: str, layers: list[_Layer]
    ) -> list[dict[str, np.ndarray]]:
        needed = live_bytes(self.float_module[function]) + live_bytes(integer[function])
        rows = min(layer.tokens for layer in layers)
        most = max(1, min(self.memory // needed, -(-self.enough // rows)))
        names = [str(p.name) for p in integer[function].params]
        spread = islice(self.samples, 0, None, max(1, (self.total or 0) // most))
        found = [s for s in islice(spread, most) if all(name in s for name in names)]
        if not found:
            raise ValueError("RoundGroups needs at least one sample")
        return found

    def _function(
        self, integer: tvm.IRModule, function: str, layers: list[_Layer], samples: list[dict[str, np.ndarray]]
    ) -> dict[Place, GroupedRows]:
        """Round the layers of a function in their order."""
        exact = Lockstep(self.float_module, samples, function)
        quantized = Lockstep(integer, samples, function)
        looked_up = {
            value.args[1].fields[1]
            for _, value in bindings(integer[function])
            if isinstance(integer_operator(integer, value), GroupEmbedding)
        }
        tables = [array for array in map(constant, looked_up) if array is not None]
        new: dict[Place, GroupedRows] = {}
        for layer in self.track(layers, len(layers)):
            exact.run_to(layer.float_var)
            quantized.run_to(layer.var)
            rows = layer.rows
            values = _values(rows)
            own = np.allclose(values, layer.weight.T, rtol=1e-6, atol=0)  # nothing is lost
            if not own and not any(np.array_equal(rows.codes, table) for table in tables):
                rows = new[function, layer.label] = _rounded(layer, exact, quantized)
                values = _values(rows)
            products = [env[layer.codes].astype(np.float32) @ values.T for env in quantized.values]
            quantized.settle(products)  # the sums, but for the rounding of float32
        return new


def _values(rows: GroupedRows) -> np.ndarray:
    return group_values(rows.codes, rows.scales, rows.zeros, rows.weight, rows.size, rows.depth)


@dataclass(frozen=True)
class _Layer:
    """A GroupDense of an integer function, and the layer of the float function that it stands for."""

    label: str
    var: Any
    codes: Any
    scale: Any
    rows: GroupedRows
    float_var: Any
    float_input: Any
    weight: np.ndarray  # [K, O]
    stream: tuple[Any, Any] | None  # what its result is added to, in both functions
    tokens: int


def _layers(float_module: tvm.IRModule, integer: tvm.IRModule, function: str) -> list[_Layer]:
    """Those of a function, in order."""
    func, whole = integer[function], float_module[function]
    named, values = origins(func), dict(bindings(func))
    floats, of_float = dict(bindings(whole)), origins(whole)
    float_vars = {o.label: v for v, o in of_float.items() if o.part is Part.RESULT}
    vars_of = {o.label: v for v, o in named.items() if o.part is Part.RESULT}
    order = {v: i for i, v in enumerate(values)}
    readers, float_readers = users(func), users(whole)
    found = []
    for var, value in values.items():
        op = integer_operator(integer, value)
        scale = _scale_of(integer, values, readers.get(var, []))
        float_var = float_vars.get(named[var].label)
        if not isinstance(op, GroupDense) or scale is None or float_var is None:
            continue
        weight = constant(floats[float_var].args[1])
        arrays = [constant(a) for a in value.args[1].fields[1:]]
        if weight is None or len(arrays) > 2:
            continue
        other = _added_to(float_module, floats, float_var, float_readers.get(float_var, []))
        there = vars_of.get(of_float[other].label) if other is not None else None
        in_time = there is not None and order.get(there, -1) < order[var]
        stream = (other, there) if in_time else None
        tokens = int(np.prod([int(d) for d in var.ty.shape.values[:-1]]))
        codes = value.args[1].fields[0]
        rows = op.rows([a for a in arrays if a is not None])
        source = floats[float_var].args[0]
        found.append(
            _Layer(named[var].label, var, codes, scale, rows, float_var, source, weight, stream, tokens)
        )
    return found


def _scale_of(integer: tvm.IRModule, values: dict[Any, Any], readers: list[Any]) -> Any | None:
    """The scales of rows that the one reader of sums multiplies them by."""
    if len(readers) != 1 or readers[0] is None:
        return None
    value = values[readers[0]]
    return value.args[1].fields[1] if isinstance(integer_operator(integer, value), RowRescale) else None


def _added_to(mod: tvm.IRModule, values: dict[Any, Any], var: Any, readers: list[Any]) -> Any | None:
    """The tensor that a sum, the only reader of `var`, adds to it."""
    if len(readers) != 1 or readers[0] is None:
        return None
    value = values[readers[0]]
    if composite_kind(mod, value) != "add" and op_name(value) != "add":
        return None
    others = [a for a in value.args if a != var]
    alike = len(others) == 1 and isinstance(others[0], relax.Var)
    return others[0] if alike and shape_of(others[0]) == shape_of(var) else None


def _rounded(layer: _Layer, exact: Lockstep, quantized: Lockstep) -> GroupedRows:
    """The best levels and scales of a layer."""
    depth, channels = layer.weight.shape
    few = format_of(layer.rows.weight).bits <= _FEW_BITS
    xx, yx, count = np.zeros((depth, depth)), np.zeros((channels, depth)), 0
    for env, ints in zip(exact.values, quantized.values, strict=True):
        x = (ints[layer.codes] * ints[layer.scale]).reshape(-1, depth)
        y = env[layer.float_input].reshape(-1, depth) @ layer.weight
        if layer.stream:
            wanted, there = (
                e[v].reshape(-1, channels) for e, v in zip((env, ints), layer.stream, strict=True)
            )
            if few:
                y = y + (wanted - there)
            size = np.sqrt(np.mean(wanted * wanted, axis=1, keepdims=True)) + np.float32(1e-20)
            x, y = x / size, y / size
        xx += x.T @ x
        yx += y.T @ x
        count += len(x)
    zeros = np.zeros((1, depth)), np.zeros((1, channels))
    statistics = Statistics(count, *zeros, (xx / count)[None], (yx / count)[None])
    target, metric = statistics.regressed(layer.weight.T[None].astype(np.float64))
    return fitted_rows(target[0], metric[0], format_of(layer.rows.weight), layer.rows.size)


def _with_rows(mod: tvm.IRModule, new: dict[Place, GroupedRows]) -> tvm.IRModule:
    """A module whose layers have these rows."""

    def visit(r: Any, var: Any, value: Any) -> Any:
        op, origin = integer_operator(mod, value), r.origins[var]
        rows = new.get((r.name, origin.label))
        if rows is None or origin.part is not Part.WEIGHT or not isinstance(op, GroupDequantize):
            return r.keep(value)
        arrays = [relax.const(a) for a in rows.arrays]
        return relax.call_tir(value.args[0], arrays, relax.TensorType(var.ty.shape.values, var.ty.dtype))

    return rewrite(mod, visit)
