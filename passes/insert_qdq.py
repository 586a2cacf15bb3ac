"""InsertQDQ: put R.quantize / R.dequantize around every node that the target computes in integers or short
floats; around a tensor in bfloat16, casts (graph/qdq.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import main_functions, rewrite
from hwptq.ir.provenance import Origin, Part
from hwptq.quant.qparams import QParams

from .fit_integers import FitIntegers
from .graph.embeddings import embedding_tables
from .graph.layer_weights import QuantizedWeight
from .graph.quantizable import assignment, with_float_reasons, with_layer_dtypes, with_weight_groups
from .graph.quantization_plan import Choices, Pair, QuantizationPlan, Stats


@tvm.transform.module_pass(opt_level=0, name="hwptq.InsertQDQ")
class InsertQDQ:
    """Quantize activations (asymmetric, per tensor) and weights (symmetric) of the nodes that `target` lists,
    with ranges from `stats` (hwptq.calibrate). Tensors tied by concat, pooling or data movement share a
    scale.

    granularity: "channel" | "tensor" | "group" (of int4 weights) overrides the descriptor's; exclude: regular
    expression of node names that stay float; assignment: (activation, weight) dtypes by layer, else what
    AssignBitWidths recorded, else the descriptor's first pair. What an operator in float makes, others in
    float read unrounded. A tensor in fewer bits than the dtype that holds it, as int4 in int8, is clipped to
    its steps. Weights with a zero point have more steps than an int8: FitIntegers makes two codes of them.
    """

    def __init__(
        self,
        target: Any,
        stats: Any,
        granularity: str | None = None,
        exclude: str | None = None,
        assignment: Mapping[str, Pair] | None = None,
    ):
        self.target, self.stats = target, stats
        self.choices = Choices(granularity, exclude, assignment)

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        _check_composites(mod)
        _check_statistics(mod, self.stats)
        plans = [
            QuantizationPlan(mod, str(gv.name_hint), self.target, self.stats, self._choices(f))
            for gv, f in main_functions(mod)
        ]
        writer = _Writer(plans)
        reasons = {plan.function: plan.reasons for plan in plans}
        groups = {
            plan.function: {plan.labels[v]: w.group for v, w in plan.weights.items() if w.group}
            for plan in plans
        }
        out = rewrite(mod, writer.visit, writer.begin, writer.result)
        out = with_weight_groups(with_float_reasons(out, reasons), groups)
        out = with_layer_dtypes(out, {plan.function: _dtypes(plan) for plan in plans})
        zero_points = any(w.from_zero for w in writer.weights.values())
        return tvm.ir.transform.Sequential([FitIntegers()])(out) if zero_points else out

    def _choices(self, func: Any) -> Choices:
        if self.choices.assignment is not None:
            return self.choices
        return replace(self.choices, assignment=assignment(func))


class _Writer:
    """The new functions, binding by binding. unrounded: what operators in float, and the graph's user, read
    as it is; narrowed: wide tensors as products read them."""

    def __init__(self, plans: Sequence[QuantizationPlan]):
        self.quantized = {v: q for plan in plans for v, q in plan.qparams.items()}
        self.weights = {v: w for plan in plans for v, w in plan.weights.items()}
        self.tables = {v: w for plan in plans for v, w in embedding_tables(plan).items()}
        self.narrow = {v: q for plan in plans for v, q in plan.narrow.items()}
        self.bytes_read = {v for plan in plans for v in plan.values if plan.reads_bytes(v)}
        self.kinds = {v: kind for plan in plans for v, kind in plan.kinds.items()}
        self.unrounded: dict[Any, Any] = {}
        self.narrowed: dict[Any, Any] = {}

    def begin(self, r: Any) -> None:
        for p in r.func.params:
            if p in self.quantized:
                self.unrounded[p] = p
                r.env[p] = self._rounded(r, p, p, r.origins[p])

    def visit(self, r: Any, var: Any, value: Any) -> Any:
        in_float = self.kinds[var] is None
        with r.reading(self.unrounded if in_float else self.narrowed if var in self.bytes_read else {}):
            new = r.keep(value)
        if var in self.weights:
            weight = _weight(r, self.weights[var])
            new = relax.Call(new.op, [new.args[0], weight, *new.args[2:]], new.attrs, new.ty_args)
        if var in self.tables:
            rows = _weight(r, self.tables[var])
            new = relax.Call(new.op, [rows, *new.args[1:]], new.attrs, new.ty_args)
        if var not in self.quantized:
            return new
        tensor = r.emit(new, r.origin)
        if in_float:
            self.unrounded[var] = tensor
        return self._rounded(r, var, tensor, r.origin)

    def result(self, r: Any) -> Any:
        with r.reading(self.unrounded):
            return r.get(r.func.body.body)

    def _rounded(self, r: Any, var: Any, tensor: Any, origin: Origin) -> Any:
        """DQ(Q(tensor)), and the same in bytes where products read those."""
        real = _activation(r, tensor, origin, self.quantized[var])
        if var in self.narrow:
            self.narrowed[var] = _activation(r, real, origin, self.narrow[var])
        return real


def _check_statistics(mod: tvm.IRModule, stats: Stats) -> None:
    """Raise ValueError where the statistics are of other functions: everything would stay in float."""
    seen = {function for function, _ in stats.observers}
    names = [str(gv.name_hint) for gv, _ in main_functions(mod)]
    if not seen & set(names):
        there = ", ".join(sorted(seen)) or "nothing"
        raise ValueError(
            f"{', '.join(names)}: there are statistics of {there} only; calibrate the module itself"
        )


def _dtypes(plan: QuantizationPlan) -> dict[str, Pair]:
    """The (activation, weight) dtypes of the layers of a function, by label."""
    return {plan.labels[v]: (plan.input_dtype(v).name, w.dtype.name) for v, w in plan.weights.items()}


def _check_composites(mod: tvm.IRModule) -> None:
    """Raise ValueError where annotate_codegen, which asks no pattern, has taken our composites too."""
    for gv, func in mod.functions.items():
        if str((func.attrs or {}).get("Codegen", "")) == "hwptq":
            raise ValueError(
                f"{gv.name_hint}: FuseOpsByPattern has given our composites to a code generator; with "
                "annotate_codegen it may stand before FuseConvRelu or behind SelectKernels"
            )


def _activation(r: Any, tensor: Any, origin: Origin, q: QParams) -> Any:
    """DQ(Q(tensor)): the parts CODES and REAL of `origin`."""
    codes_of, real = origin.with_part(Part.CODES), origin.with_part(Part.REAL)
    if not q.dtype.scaled:
        codes = r.emit(relax.op.astype(tensor, q.dtype.held), codes_of)
        return r.emit(relax.op.astype(codes, "float32"), real)
    if q.dtype.widened:
        tensor = r.emit(relax.op.clip(tensor, *q.bounds), origin.with_part(Part.CLIPPED))
    scale, zero = relax.const(np.float32(q.scale)), relax.const(q.dtype.zero_dtype(q.zero_point))
    ints = r.emit(relax.op.quantize(tensor, scale, zero, axis=-1, out_dtype=q.dtype.held), codes_of)
    return r.emit(relax.op.dequantize(ints, scale, zero, axis=-1, out_dtype="float32"), real)


def _weight(r: Any, w: QuantizedWeight) -> Any:
    """DQ of the constant weight of the layer that is rewritten."""
    origin = r.origin.with_part(Part.WEIGHT)
    if not w.dtype.scaled:
        return r.emit(relax.op.astype(relax.const(w.values), "float32"), origin)
    zero_dtype = w.dtype.zero_dtype if w.dtype.is_float else w.values.dtype
    zero = relax.const(np.zeros(w.scale.shape, zero_dtype))
    call = relax.op.dequantize(
        relax.const(w.values), relax.const(w.scale), zero, axis=w.axis, out_dtype="float32"
    )
    return r.emit(call, origin)
