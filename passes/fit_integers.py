"""FitIntegers: weights of a QDQ model made elsewhere as the int8 codes that layers compute with.

Exact where it can be. Codes of 9 bits (uint8 with a zero point) are sums of two codes, of which the second
reads the channels that it needs once more: dense(x, a + b) = dense([x, x], [a, b]); in groups, each of them
does. Where the step of a sum is more than half a step of the output, which requantization can't do, codes are
2^k times as large and steps as much smaller. In a dead channel, whose weights are so small that its bias
counts too many of their steps, steps are 2^k times as large. What is left is rounded to the nearest int8.
Whatever is rounded is noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.formats import INT8, format_of
from hwptq.ir.composite import Composite, emit_layer, is_layer, read_composite
from hwptq.ir.dataflow import Rewriter, bindings, constant, main_functions, op_name, rewrite, shape_of, users
from hwptq.ir.provenance import Part, origins
from hwptq.ir.qdq import dequantizes, quantizes, scale_and_zero
from hwptq.quant.qparams import quantize_weight, weight_scales
from hwptq.quant.split_codes import SplitCodes, split_codes

from .graph.quantizable import layer_dtypes, with_rounded_weights

_LARGEST = 0.4999  # requantize multiplier
_LARGEST_BIAS = 2.0**28  # in steps of the sum
_MOST_RUNS = 4  # of channels that are read twice, before all of them are


@dataclass(frozen=True)
class _Fitted:
    """int8 codes and a scale for each index of `axis`; second: what reads channels once more."""

    codes: np.ndarray
    scale: np.ndarray
    axis: int
    second: SplitCodes | None = None
    lost: float | None = None  # SQNR in dB, where the weight was rounded


@tvm.transform.module_pass(opt_level=0, name="hwptq.FitIntegers")
class FitIntegers:
    """New weights for layers and tables whose codes LowerToInteger doesn't take; others stay as they are.

    Stands behind NormalizeQDQ. Rounded weights are noted in the attribute hwptq.rounded_weights, with their
    SQNR in dB.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        fitted: dict[Any, _Fitted] = {}
        rounded: dict[str, dict[str, float]] = {}
        dead: set[Any] = set()
        for gv, func in main_functions(mod):
            found, named = dict(_fitted(mod, func)), origins(func)
            notes = {named[v].label: f.lost for v, f in found.items() if f.lost is not None}
            rounded[str(gv.name_hint)] = notes
            values, readers = dict(bindings(func)), users(func)
            sources = {_weight_var(values[v]) for v in found}
            dead |= {w for w in sources if all(u in found for u in readers.get(w, []))}
            fitted |= found

        def visit(r: Rewriter, var: Any, value: Any) -> Any:
            if var in dead:
                return None
            return _rewritten(r, value, fitted[var]) if var in fitted else r.keep(value)

        return with_rounded_weights(rewrite(mod, visit), rounded) if fitted else mod


def _weight_var(call: Any) -> Any:
    """What a layer or a look-up takes its constant from."""
    return call.args[0] if op_name(call) == "take" else call.args[1]


def _fitted(mod: tvm.IRModule, func: Any) -> Iterator[tuple[Any, _Fitted]]:
    values, readers, dtypes, named = dict(bindings(func)), users(func), layer_dtypes(func), origins(func)
    for var, value in values.items():
        unit = read_composite(mod, value)
        table = op_name(value) == "take"
        if not table and (unit is None or not is_layer(unit)):
            continue
        held = values.get(_weight_var(value))
        codes = constant(held.args[0]) if held is not None and dequantizes(held) else None
        scale = scale_and_zero(held)[0] if codes is not None else None
        if codes is None or scale is None or codes.dtype.kind != "i":
            continue
        found: _Fitted | None
        if table:
            found = None if _fits(codes) else _rounded(codes, scale, 0)
        elif named[var].label in dtypes and format_of(dtypes[named[var].label][1]).bits < INT8.bits:
            continue  # narrow codes are large steps of an int8 already
        else:
            assert unit is not None
            found = _layer(unit, codes, scale, _steps(var, unit, values, readers))
        if found is not None:
            yield var, found


@dataclass(frozen=True)
class _Steps:
    """The scale of what a layer reads, and that of its result, where it has one."""

    x: float
    y: float | None


def _steps(var: Any, unit: Composite, values: Any, readers: Any) -> _Steps | None:
    """Those of a layer; None where its input is not quantized."""
    x = values.get(unit.args[0])
    quantize = next((values[u] for u in readers.get(var, []) if u in values and quantizes(values[u])), None)
    scales = [
        scale_and_zero(q)[0] if q is not None else None for q in (x if dequantizes(x) else None, quantize)
    ]
    first, second = (float(s.item()) if s is not None and s.size == 1 else None for s in scales)
    return None if first is None else _Steps(first, second)


def _layer(unit: Composite, codes: np.ndarray, scale: np.ndarray, steps: _Steps | None) -> _Fitted | None:
    """The codes of a layer that fit; None where they are as they should be, or can't be."""
    axis = 0 if codes.ndim == 4 else codes.ndim - 1
    scales = np.broadcast_to(scale.astype(np.float64), (codes.shape[axis],))
    shift = np.zeros(scales.shape, int)
    if steps is not None:
        with np.errstate(divide="ignore"):
            if steps.y is not None:
                shift = np.maximum(0, np.ceil(np.log2(steps.x / steps.y * scales / _LARGEST))).astype(int)
            bias = np.abs(0.0 if unit.bias is None else unit.bias) / (steps.x * scales)
            shift = np.where(bias > 2 * _LARGEST_BIAS, -np.ceil(np.log2(bias / _LARGEST_BIAS)), shift).astype(
                int
            )
    if _fits(codes) and not shift.any():
        return None
    spread = [1] * codes.ndim
    spread[axis] = -1
    exact = codes * 2.0 ** shift.reshape(spread)
    finer = np.rint(exact).astype(np.int64)
    held = (scales / 2.0**shift).astype(np.float32)
    error = (finer - exact) * held.reshape(spread)
    lost = _sqnr(codes * scales.reshape(spread), error)
    if _fits(finer):
        return _Fitted(finer.astype(INT8.held), held, axis, lost=lost)
    split = split_codes(finer, 1 - axis) if codes.ndim == 2 or unit.kind == "conv2d" else None
    if split is not None:
        return _Fitted(split.first, held, axis, split, lost)
    return None if _fits(codes) else _rounded(codes, scale, axis)


def _sqnr(real: np.ndarray, error: np.ndarray) -> float | None:
    """In dB; None where there is no error."""
    if not error.any():
        return None
    return float(20 * np.log10(np.linalg.norm(real) / np.linalg.norm(error)))


def _rounded(codes: np.ndarray, scale: np.ndarray, axis: int) -> _Fitted:
    spread = [1] * codes.ndim
    spread[axis] = -1
    real = codes.astype(np.float32) * (scale.reshape(spread) if scale.size > 1 else scale.reshape(()))
    new = weight_scales(real, axis)
    kept = quantize_weight(real, new, axis)
    return _Fitted(kept, new, axis, lost=_sqnr(real, kept * new.reshape(spread) - real))


def _fits(codes: np.ndarray) -> bool:
    return bool(codes.min(initial=0) >= INT8.qmin and codes.max(initial=0) <= INT8.qmax)


def _rewritten(r: Rewriter, value: Any, fitted: _Fitted) -> Any:
    """The layer or look-up on the new codes."""
    codes, split = fitted.codes, fitted.second
    if split is not None:
        data, second = _repeated(r, value, split, 1 - fitted.axis)
        codes = np.concatenate([codes, second], axis=1 - fitted.axis)
    zero = relax.const(np.zeros(fitted.scale.shape, INT8.zero_dtype))
    weight = relax.op.dequantize(
        relax.const(codes), relax.const(fitted.scale), zero, axis=fitted.axis, out_dtype="float32"
    )
    weight = r.emit(weight, r.origin.with_part(Part.WEIGHT))
    if op_name(value) == "take":
        return relax.Call(value.op, [weight, *map(r.get, value.args[1:])], value.attrs, value.ty_args)
    if split is None:
        args = [r.get(value.args[0]), weight, *map(r.get, value.args[2:])]
        return relax.Call(value.op, args, value.attrs, value.ty_args)
    unit = read_composite(r.mod, value)
    assert unit is not None
    channels = len(fitted.scale)
    bias = np.zeros(channels) if unit.bias is None else np.broadcast_to(unit.bias, (channels,))
    return emit_layer(r, unit, data, weight, bias.astype(np.float32), unit.bounds)


def _repeated(r: Rewriter, layer: Any, split: SplitCodes, axis: int) -> tuple[Any, np.ndarray]:
    """(what a layer reads, and in each group behind it the channels that are read once more; the second codes
    of these)."""
    runs, second, count = _runs(split.channels), split.second, split.first.shape[axis]
    if len(runs) > _MOST_RUNS:  # as many copies of parts cost more than all of it
        runs = [(0, count)]
        every = [*split.second.shape]
        every[axis] = count
        second = np.zeros(every, split.second.dtype)
        np.moveaxis(second, axis, 0)[list(split.channels)] = np.moveaxis(split.second, axis, 0)
    data, shape = r.get(layer.args[0]), shape_of(layer.args[0])
    made = r.builder.lookup_binding(data)

    def in_codes(moved: Any) -> Any:
        return _in_codes(r, moved, made.args[1], made.args[2], str(made.args[0].ty.dtype))

    along = axis if len(shape) == 4 else len(shape) - 1
    groups = shape[along] // count
    if groups > 1:  # each has its channels side by side
        data, along = in_codes(relax.op.reshape(data, (shape[0], groups, count, *shape[2:]))), along + 1
    parts = [data]
    for begin, end in runs:
        whole = (begin, end) == (0, count)
        parts.append(data if whole else in_codes(relax.op.strided_slice(data, [along], [begin], [end])))
    joined = in_codes(relax.op.concat(parts, along))
    if groups > 1:
        joined = in_codes(relax.op.reshape(joined, (shape[0], -1, *shape[2:])))
    return joined, second


def _in_codes(r: Rewriter, moved: Any, scale: Any, zero: Any, held: str) -> Any:
    """Moved values between Q and DQ, in the scale that they have."""
    tensor = r.emit(moved)
    codes = r.emit(relax.op.quantize(tensor, scale, zero, axis=-1, out_dtype=held))
    return r.emit(relax.op.dequantize(codes, scale, zero, axis=-1, out_dtype="float32"))


def _runs(channels: tuple[int, ...]) -> list[tuple[int, int]]:
    """(begin, end) of neighbours. (0, 1, 5) -> [(0, 2), (5, 6)]."""
    runs: list[tuple[int, int]] = []
    for c in channels:
        if runs and runs[-1][1] == c:
            runs[-1] = runs[-1][0], c + 1
        else:
            runs.append((c, c + 1))
    return runs
