"""Tensors that a scale is far too coarse for, because a tensor of greater values has it too."""

from __future__ import annotations

from collections.abc import Iterator

import tvm

from hwptq.calibration import CalibrationStats
from hwptq.formats import INT8, format_of
from hwptq.ir.dataflow import bindings, main_functions
from hwptq.ir.provenance import origins
from hwptq.ir.qdq import quantizes, scale_and_zero
from hwptq.notices import Warning

#: Ranges further apart than this leave the smaller less than 2 of 8 bits.
_FAR_APART = 64


def scale_warnings(stats: CalibrationStats, qdq: tvm.IRModule) -> list[Warning]:
    """One for each quantized tensor whose values span less than 1/64 of what its scale offers: of what it
    offers a byte where the tensor has more bits, which keep so much the more."""
    return [w for gv, func in main_functions(qdq) for w in _of_function(stats, str(gv.name_hint), func)]


def _of_function(stats: CalibrationStats, function: str, func: tvm.relax.Function) -> Iterator[Warning]:
    named = origins(func)
    spans: dict[tuple[float, int], list[tuple[float, str]]] = {}
    offered: dict[str, float] = {}
    for _, value in bindings(func):
        name = named[value.args[0]].label if quantizes(value) and value.args[0] in named else ""
        codec = format_of(str(value.ty.dtype)) if (function, name) in stats.observers else None
        if codec is None or codec.is_float:
            continue
        scale, zero = scale_and_zero(value)
        if scale is None or zero is None or scale.size != 1:
            continue
        low, high = stats.range_of(name, function=function)
        key = (float(scale.item()), int(zero.item()))
        spans.setdefault(key, []).append((high - low, name))
        offered[name] = key[0] * min(codec.qmax - codec.qmin, INT8.qmax - INT8.qmin)
    for tensors in spans.values():
        widest, other = max(tensors)
        for span, name in tensors:
            if 0 < span * _FAR_APART < offered[name]:
                why = (
                    f"the scale of {other!r}"
                    if widest > _FAR_APART * span
                    else "a scale that its layer needs"
                )
                text = (
                    f"its values span {span:.3g}, but it has {why}, which spans {offered[name]:.3g}, and "
                    f"keeps hardly a code: --keep-float the node that joins them"
                )
                yield Warning("scale", name, text)
