"""Dense layers whose weights have a scale for each group, in a float module and in its integers; new rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.composite import composite_kind
from hwptq.ir.dataflow import bindings, constant, op_name, rewrite, shape_of, users
from hwptq.ir.operator import integer_operator
from hwptq.ir.provenance import Part, origins
from hwptq.operators.group_dense import GroupDense, GroupDequantize, GroupEmbedding
from hwptq.operators.rows import RowRescale
from hwptq.quant.group_codes import GroupedRows, group_values

#: Name of a function, label of a layer.
Place = tuple[str, str]


def row_values(rows: GroupedRows) -> np.ndarray:
    """The weights that rows stand for, float32 [R, K]."""
    return group_values(rows.codes, rows.scales, rows.zeros, rows.weight, rows.size, rows.depth)


def looked_up(integer: tvm.IRModule, function: str) -> dict[str, GroupedRows]:
    """The tables that rows are looked up in, by the label of the look-up."""
    func = integer[function]
    named, found = origins(func), {}
    for var, value in bindings(func):
        op = integer_operator(integer, value)
        if isinstance(op, GroupEmbedding):
            arrays = [constant(a) for a in value.args[1].fields[1:]]
            found[named[var].label] = op.rows([a for a in arrays if a is not None])
    return found


@dataclass(frozen=True)
class GroupLayer:
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
    tied: bool  # to a table: its rows are looked up too

    @property
    def can_change(self) -> bool:
        """Whether other rows may be nearer to the weight: it is rounded, and its rows are its own."""
        return not self.tied and not np.allclose(row_values(self.rows), self.weight.T, rtol=1e-6, atol=0)


def group_layers(float_module: tvm.IRModule, integer: tvm.IRModule, function: str) -> list[GroupLayer]:
    """Those of a function, in order."""
    func, whole = integer[function], float_module[function]
    named, values = origins(func), dict(bindings(func))
    floats, of_float = dict(bindings(whole)), origins(whole)
    float_vars = {o.label: v for v, o in of_float.items() if o.part is Part.RESULT}
    vars_of = {o.label: v for v, o in named.items() if o.part is Part.RESULT}
    order = {v: i for i, v in enumerate(values)}
    readers, float_readers = users(func), users(whole)
    tables = [rows.codes for rows in looked_up(integer, function).values()]
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
        source, tied = floats[float_var].args[0], any(np.array_equal(rows.codes, table) for table in tables)
        made = (var, codes, scale, rows, float_var, source, weight, stream, tokens, tied)
        found.append(GroupLayer(named[var].label, *made))
    return found


def some_samples(
    who: str,
    samples: Iterable[Mapping[str, np.ndarray]],
    names: Collection[str],
    most: int,
    total: int | None,
) -> list[dict[str, np.ndarray]]:
    """At most so many of `total` samples (None: nobody knows) that have all inputs, from all over: neighbours
    may be of one document. Raises ValueError that says `who` has none.
    """
    spread = islice(samples, 0, None, max(1, (total or 0) // most))
    found = [dict(s) for s in islice(spread, most) if all(name in s for name in names)]
    if not found:
        raise ValueError(f"{who} needs at least one sample")
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


def with_rows(mod: tvm.IRModule, new: Mapping[Place, GroupedRows]) -> tvm.IRModule:
    """A module whose layers have these rows."""

    def visit(r: Any, var: Any, value: Any) -> Any:
        op, origin = integer_operator(mod, value), r.origins[var]
        rows = new.get((r.name, origin.label))
        if rows is None or origin.part is not Part.WEIGHT or not isinstance(op, GroupDequantize):
            return r.keep(value)
        arrays = [relax.const(a) for a in rows.arrays]
        return relax.call_tir(value.args[0], arrays, relax.TensorType(var.ty.shape.values, var.ty.dtype))

    return rewrite(mod, visit)
