"""QuantizeSummands: what a layer adds to a quantized tensor gets a scale that follows from those around it.

Tools that write for TensorRT give one of the two operands of a residual sum no Q. Without a scale the layer
that makes it would stay in float.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.formats import Format, format_of
from hwptq.ir.composite import Composite, is_layer, read_composite
from hwptq.ir.dataflow import Rewriter, bindings, constant, main_functions, rewrite, users
from hwptq.ir.provenance import Part
from hwptq.ir.qdq import dequantizes, quantizes, scale_and_zero
from hwptq.targets.op_kinds import WEIGHTED_OPS
from hwptq.targets.schema import Descriptor

from .variants import is_wide

_COARSEST = 2.1  # steps of a layer's sum in one of its result: requantization makes sums smaller


@tvm.transform.module_pass(opt_level=0, name="hwptq.QuantizeSummands")
class QuantizeSummands:
    """Q(clamp(layer + DQ r)) -> Q(clamp(DQ(Q(layer)) + DQ r)), in a wide format that the target has.

    Of the layer's values only those matter that bring the sum into the range of its Q: a range that the two
    scales give, so that no calibration is needed and nothing that counts is clipped. A step of it is one of r
    times a power of two, by which the sum is exact. Stands behind FuseConvRelu and NormalizeQDQ.
    """

    def __init__(self, target: Descriptor):
        self.target = target

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        form = _wide(self.target)
        if form is None:
            return mod
        found = {var: scale for _, f in main_functions(mod) for var, scale in self._found(mod, f, form)}

        def visit(r: Rewriter, var: Any, value: Any) -> Any:
            return _coded(r, r.keep(value), form, found[var]) if var in found else r.keep(value)

        return rewrite(mod, visit) if found else mod

    def _found(self, mod: tvm.IRModule, func: Any, form: Format) -> Iterator[tuple[Any, float]]:
        """The layers of a function whose results get a Q in `form`, with its scale."""
        values, readers = dict(bindings(func)), users(func)
        for var, value in values.items():
            unit = read_composite(mod, value)
            behind = [values.get(u) for u in readers.get(var, [])]
            if unit is None or unit.kind != "add" or len(behind) != 1 or not quantizes(behind[0]):
                continue
            for layer, other in (unit.args, unit.args[::-1]):
                step = _step(mod, values, values.get(layer))
                total, added = _range(behind[0]), _range(values.get(other))
                if step and total and added and readers[layer] == [var]:
                    needed = max(_reach(unit, total, added) / form.qmax, _COARSEST * step)
                    yield layer, added.step * 2.0 ** np.ceil(np.log2(needed / added.step))


def _wide(target: Descriptor) -> Format | None:
    """The wide format that some layers of a target have, if any do."""
    pairs = [pair for op in WEIGHTED_OPS if (rule := target.rule(op)) for pair in rule.pairs]
    return next((format_of(pair[0]) for pair in pairs if is_wide(pair)), None)


def _step(mod: tvm.IRModule, values: Mapping[Any, Any], value: Any) -> float | None:
    """The largest step of the sums of a layer on integers; None for all else."""
    unit = read_composite(mod, value)
    if unit is None or not is_layer(unit):
        return None
    data: Any
    weight: Any
    data, weight = (values.get(a) for a in unit.args[:2])
    if not (dequantizes(data) and dequantizes(weight)) or constant(weight.args[0]) is None:
        return None
    scales = [scale_and_zero(call)[0] for call in (data, weight)]
    known = [float(scale.max()) for scale in scales if scale is not None]
    return known[0] * known[1] if len(known) == len(scales) else None


@dataclass(frozen=True)
class _Range:
    """The least and the largest value of codes of one scale, and their step."""

    low: float
    high: float
    step: float


def _range(call: Any) -> _Range | None:
    """Of a quantize or dequantize of one scale; None for all else."""
    if not (quantizes(call) or dequantizes(call)):
        return None
    scale, zero = scale_and_zero(call)
    if scale is None or zero is None or scale.size != 1:
        return None
    form = format_of(str(call.ty.dtype if quantizes(call) else call.args[0].ty.dtype))
    step, at = scale.item(), zero.item()
    return _Range((form.qmin - at) * step, (form.qmax - at) * step, step)


def _reach(unit: Composite, total: _Range, other: _Range) -> float:
    """The largest value that can bring a sum with `other`, and a bias, into the range of its result."""
    bias = 0.0 if unit.bias is None else float(np.abs(unit.bias).max())
    return bias + max(abs(total.low - other.high), abs(total.high - other.low))


def _coded(r: Rewriter, expr: Any, form: Format, scale: float) -> Any:
    """DQ(Q(expr))."""
    given, params = r.emit(expr, r.origin), (relax.const(np.float32(scale)), relax.const(form.zero_dtype(0)))
    codes, real = r.origin.with_part(Part.CODES), r.origin.with_part(Part.REAL)
    ints = r.emit(relax.op.quantize(given, *params, axis=-1, out_dtype=form.held), codes)
    return r.emit(relax.op.dequantize(ints, *params, axis=-1, out_dtype="float32"), real)
