"""InsertDynamicQDQ: int8 activations whose rows get a scale each when they are computed, and weights in int8
with a scale for each channel, or in few bits with one for each group of inputs.

In a QDQ graph such an activation is the product of codes and scales that operators of operators/rows.py give.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.formats import INT8
from hwptq.ir.composite import read_composite, weight_of
from hwptq.ir.dataflow import Rewriter, bindings, entry_functions, main_functions, rewrite, shape_of
from hwptq.ir.mapped import is_mapped, page_out
from hwptq.ir.provenance import Part, origins
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.rules import family_of
from hwptq.operators.group_dense import emit_rows
from hwptq.operators.rows import RowQuantize, RowScale
from hwptq.quant.group_codes import GroupedRows
from hwptq.quant.group_rounding import nearest_rows
from hwptq.quant.layer_rounding import RoundingProblem, nearest_scale
from hwptq.quant.own_groups import own_rows
from hwptq.quant.qparams import quantize_weight, weight_scales
from hwptq.targets.schema import Descriptor

from .graph.group_plan import GroupChoice, GroupedWeight, grouped_weights
from .graph.own_integers import own_integers
from .graph.quantizable import with_float_reasons, with_layer_dtypes
from .round_weights import Track

_NOT_DENSE = "with dynamic activations dense layers alone are in integers"
_KEPT = "kept in float by the user"


@tvm.transform.module_pass(opt_level=0, name="hwptq.InsertDynamicQDQ")
class InsertDynamicQDQ:
    """Quantize every dense layer of a constant matrix: a scale for each row of its input (a token) and each
    column of its weight. All else stays in float; no statistics are needed.

    target: is to offer dense layers from int8 to float32; exclude: regular expression of node names that stay
    in float. groups: weights, and tables that rows are looked up in, have a scale for each group of
    neighbours in a row instead, rounded to nearest (RoundGroups does better); equal ones are the same rows.
    Weights that another tool has quantized keep their integers. track: passes grouped weights on, and so sees
    how far the rounding has come.
    """

    def __init__(
        self, target: Descriptor, exclude: str | None = None, groups: GroupChoice | None = None,
        track: Track | None = None,
    ):  # fmt: skip
        self.target, self.groups = target, groups
        self.track = track or (lambda items, total: items)
        self._excluded = re.compile(exclude) if exclude else None

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        dense: set[Any] = set()
        grouped: dict[Any, GroupedWeight] = {}
        reasons: dict[str, dict[str, str]] = {}
        dtypes: dict[str, dict[str, tuple[str, str]]] = {}
        for gv, func in main_functions(mod):
            why, pairs = reasons.setdefault(str(gv.name_hint), {}), dtypes.setdefault(str(gv.name_hint), {})
            named = origins(func)
            if self.groups:
                grouped |= grouped_weights(mod, func)
            for var, value in bindings(func):
                label = named[var].label
                if not _is_dense(mod, value):
                    if var in grouped and not self._keeps(label):
                        continue
                    grouped.pop(var, None)
                    if family_of(mod, value) is not None:
                        why[label] = _NOT_DENSE
                elif self._keeps(label):
                    why[label] = _KEPT
                    grouped.pop(var, None)
                else:
                    dense.add(var)
                    weight = self.groups.of(grouped[var])[0] if self.groups else INT8
                    pairs[label] = INT8.name, weight.name
        emitters: dict[int, _Rows] = {}
        mapped = any(is_mapped(mod[name]) for name in entry_functions(mod))
        rounded = _Rounded(self.groups, mapped) if self.groups else None
        weights = self.track(grouped.items(), len(grouped)) if rounded else ()
        made = {var: rounded.rows(weight) for var, weight in weights} if rounded else {}

        def visit(r: Rewriter, var: Any, value: Any) -> Any:
            if var not in dense and var not in grouped:
                return r.keep(value)
            if id(r) not in emitters:
                emitters[id(r)] = _Rows(r, self.target)
            rows = emitters[id(r)]
            if var in made:
                origin = r.origin.with_part(Part.WEIGHT)
                weight = emit_rows(rows.e, made[var], not grouped[var].is_table, origin)
            else:
                weight = _weight(r, value)
            if var not in dense:
                args = [weight, *map(r.get, value.args[1:])]
            else:
                args = [rows.activation(value.args[0]), weight, *map(r.get, value.args[2:])]
            return relax.Call(value.op, args, value.attrs, value.ty_args, value.span)

        out = rewrite(mod, visit)
        return with_layer_dtypes(with_float_reasons(out, reasons), dtypes)

    def _keeps(self, label: str) -> bool:
        return self._excluded is not None and self._excluded.search(label) is not None


class _Rounded:
    """Rounds weights by group to nearest; those that a table and a layer share, once.

    mapped: whether they lie in files, whose memory is given back then.
    """

    def __init__(self, formats: GroupChoice, mapped: bool):
        self._formats, self._mapped = formats, mapped
        self._shared: list[tuple[np.ndarray, GroupedRows]] = []  # by the array itself

    def rows(self, weight: GroupedWeight) -> GroupedRows:
        """Those of a layer or of a table, in the dtype that was chosen for it."""
        for known, rows in self._shared if weight.shared else ():
            if known is weight.rows:
                return rows
        how = self._formats.of(weight)
        rows = own_rows(weight.rows, *how) or nearest_rows(weight.rows, *how)
        if weight.shared:
            self._shared.append((weight.rows, rows))
        if self._mapped:
            page_out(weight.rows)
        return rows


def _is_dense(mod: tvm.IRModule, value: Any) -> bool:
    unit = read_composite(mod, value)
    if unit is None or unit.kind != "matmul":
        return False
    weight = weight_of(value)
    return weight is not None and weight.ndim == 2


def _weight(r: Rewriter, layer: Any) -> Any:
    """DQ of the constant weight [K,O] of a layer."""
    weight = weight_of(layer)
    assert weight is not None
    own = own_integers(layer)
    scale = own.scale if own else _scales(weight)
    values = relax.const(own.codes if own else quantize_weight(weight, scale, 1, INT8))
    zero = relax.const(np.zeros(scale.shape, INT8.zero_dtype))
    call = relax.op.dequantize(values, relax.const(scale), zero, axis=1, out_dtype="float32")
    return r.emit(call, r.origin.with_part(Part.WEIGHT))


def _scales(weight: np.ndarray) -> np.ndarray:
    """The scale [O] of each column of a weight [K,O] with which rounding to nearest loses least."""
    rows, least = weight.T[None].astype(np.float64), weight_scales(weight, 1, dtype=INT8)
    every, shape = np.eye(len(weight))[None], (1, weight.shape[1])
    limits = np.full(shape, least.min() / 4), np.full(shape, np.inf)
    return nearest_scale(RoundingProblem(rows, every, int(INT8.qmax), False, *limits))[0].astype(np.float32)


class _Rows:
    """Quantizes the inputs of layers, each once however many layers read it."""

    def __init__(self, rewriter: Rewriter, target: Descriptor):
        self._r = rewriter
        self.e = Emitter(rewriter, dict(bindings(rewriter.func)), target.accumulators)
        self._done: dict[Any, Any] = {}

    def activation(self, x: Any) -> Any:
        """codes * scale of a tensor."""
        if x not in self._done:
            e, shape, origin = self.e, shape_of(x), self._r.origins[x]
            real = self._r.get(x)
            scale = e.call(RowScale(), [real], (), (*shape[:-1], 1), "float32")
            codes = e.call(RowQuantize(), [real, scale], (), shape, "int8", origin.with_part(Part.CODES))
            back = self._r.emit(relax.op.astype(codes, "float32"))
            product = relax.op.multiply(back, scale)
            self._done[x] = self._r.emit(product, origin.with_part(Part.REAL))
        return self._done[x]
