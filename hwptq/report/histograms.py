"""What tensors hold, and the range that was chosen for them: histograms of activations and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tvm

from hwptq.formats import format_of
from hwptq.ir.dataflow import bindings, constant, reads
from hwptq.ir.provenance import origins
from hwptq.ir.qdq import dequantizes, quantizes, scale_and_zero
from hwptq.quant.histogram import BINS, Histogram

#: Samples whose activations are counted.
SAMPLES = 4
_BARS = 48

Range = tuple[float, float]


def histograms(graphs: Any, seen: Mapping[str, Histogram]) -> list[dict[str, Any]]:
    """The list `histograms` of the report: for each tensor its name, what it is ("activation" or "weight"),
    the least and the greatest value, counts of equal bars between them, and the range of its codes.

    graphs: Graphs of the pipeline; seen: by label what float32 activations held.
    """
    chosen = dict(_activation_ranges(graphs.qdq))
    rows = [_row(n, "activation", seen[n], (span, span)) for n, span in chosen.items() if n in seen]
    found = dict(_weights(graphs.float32))
    spans = dict(_weight_ranges(graphs.qdq))
    return rows + [
        _row(n, "weight", histogram_of(found[n]), spans[n]) for n in spans if n in found and found[n].size
    ]


def histogram_of(values: np.ndarray) -> Histogram:
    """Of the finite ones of float32 values of any shape, at least one."""
    flat = values.reshape(-1).astype(np.float32, copy=False)
    finite = flat[np.isfinite(flat)]
    return Histogram.of((finite if finite.size else np.zeros(1, np.float32))[None])


def _row(name: str, kind: str, held: Histogram, spans: tuple[Range, Range]) -> dict[str, Any]:
    """spans: the narrowest and the widest range, of its channels."""
    low, high = float(held.low[0]), float(held.high[0])
    (narrow_low, narrow_high), (wide_low, wide_high) = spans
    row = {"name": name, "kind": kind, "low": low, "high": high, "counts": _bars(held, low, high)}
    row |= {"range": [wide_low, wide_high]}
    if (narrow_low, narrow_high) != (wide_low, wide_high):
        row["narrowest_range"] = [narrow_low, narrow_high]
    return row


def _bars(held: Histogram, low: float, high: float) -> list[int]:
    """The counts of its fine bins in equal bars from low to high."""
    bars = np.zeros(_BARS, np.int64)

    def add(row: Any) -> Range:
        place = (row.centers - low) / ((high - low) or 1.0) * _BARS
        np.add.at(bars, np.clip(place, 0, _BARS - 1).astype(int), row.counts)
        return 0.0, 0.0

    held.map(add)
    assert len(held.counts[0]) == BINS
    return [int(count) for count in bars]


def _activation_ranges(qdq: tvm.IRModule) -> Iterator[tuple[str, Range]]:
    """The reals of the least and the greatest code of each tensor that is quantized with one scale."""
    named = origins(qdq["main"])
    for var, value in bindings(qdq["main"]):
        if not quantizes(value) or value.args[0] not in named:
            continue
        scale, zero = scale_and_zero(value)
        if scale is not None and zero is not None and scale.size == 1:
            low, high = _reals(str(var.ty.dtype), scale, zero)
            if np.isfinite([low, high]).all():
                yield named[value.args[0]].label, (float(low.min()), float(high.max()))


def _weight_ranges(qdq: tvm.IRModule) -> Iterator[tuple[str, tuple[Range, Range]]]:
    """The narrowest and the widest range of the channels of each layer's weights."""
    named = origins(qdq["main"])
    for var, value in bindings(qdq["main"]):
        if not dequantizes(value) or constant(value.args[0]) is None:
            continue
        scale, zero = scale_and_zero(value)
        if scale is not None and zero is not None:
            low, high = _reals(str(value.args[0].ty.dtype), scale, zero)
            least, most = int(high.argmin()), int(high.argmax())
            spans = (
                (float(low.flat[least]), float(high.flat[least])),
                (
                    float(low.flat[most]),
                    float(high.flat[most]),
                ),
            )
            yield named[var].label, spans


def _reals(dtype: str, scale: np.ndarray, zero: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes, shift = format_of(dtype), zero.astype(np.float64)
    return (codes.qmin - shift) * scale, (codes.qmax - shift) * scale


def _weights(float32: tvm.IRModule) -> Iterator[tuple[str, np.ndarray]]:
    """The largest float constant that each node reads: its weights."""
    named = origins(float32["main"])
    for var, value in bindings(float32["main"]):
        arrays = [a for a in map(constant, getattr(value, "args", ())) if a is not None and a.ndim > 1]
        if arrays and reads(value):
            yield named[var].label, max(arrays, key=lambda array: array.size)
