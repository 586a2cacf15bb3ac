"""FoldBatchNorm: y = gamma * (conv(x, w) + b - mean) / sqrt(var + eps) + beta becomes one conv and one add.

With s = gamma / sqrt(var + eps):  w' = s * w (per output channel),  b' = (b - mean) * s + beta.
Jacob et al. 2018, "Quantization and Training of Neural Networks …", eq. 14.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.formats import INT8
from hwptq.ir.dataflow import bindings, constant, main_functions, op_name, rewrite, shape_of, users
from hwptq.ir.provenance import Part, label_of

from .graph.affine_of_parts import move_affine
from .graph.canonical import canonical
from .graph.channel_affine import fold_channel_affine


@dataclass(frozen=True)
class _Fold:
    producer: Any  # the conv or matmul call
    replaced: tuple[Any, ...]  # vars of the producer and of its bias
    weight: np.ndarray
    bias: np.ndarray  # shaped to be added to the output
    scale: np.ndarray | None = None  # of codes, which `weight` holds then: one for each output channel


@tvm.transform.module_pass(opt_level=0, name="hwptq.FoldBatchNorm")
class FoldBatchNorm:
    """Fold BatchNorm into the convolution or matmul before it, with or without a bias between them.

    Only where the chain has no other reader, and weights and statistics are constants. Any other BatchNorm
    in inference becomes a multiplication and an addition per channel, before a concatenation that it stands
    behind, and in the table of a look-up. One that TVM decomposed is folded too.
    A weight of int8 codes keeps them, but for the sign, and has other scales.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        mod = canonical(mod)
        folds: dict[Any, _Fold] = {}
        for _, func in main_functions(mod):
            values, readers = dict(bindings(func)), users(func)
            for var, value in values.items():
                if op_name(value) == "nn.batch_norm":
                    fold = _match(var, value, values, readers)
                    if fold is not None:
                        folds[var] = fold

        replaced = {var for fold in folds.values() for var in fold.replaced}

        def visit(r: Any, var: Any, value: Any) -> Any:
            if var in replaced:
                return None
            if op_name(value) != "nn.batch_norm":
                return r.keep(value)
            scale, shift = _affine(var, value)
            if scale is None or shift is None:
                return r.keep(value)
            fold = folds.get(var)
            if fold is not None:
                call = fold.producer
                args = [r.get(call.args[0]), _weight(r, fold)]
                out = r.emit(
                    relax.Call(call.op, args, call.attrs, call.ty_args), r.origins[fold.replaced[-1]]
                )
                y = r.emit(relax.op.add(out, relax.const(fold.bias)))
            else:
                spread = _spread(value)
                y = r.emit(relax.op.multiply(r.get(value.args[0]), relax.const(scale.reshape(spread))))
                y = r.emit(relax.op.add(y, relax.const(shift.reshape(spread))), r.origin)
            return relax.Tuple([y, relax.const(np.zeros(1, "float32")), relax.const(np.zeros(1, "float32"))])

        return fold_channel_affine(move_affine(rewrite(mod, visit)))


def _affine(var: Any, call: Any) -> tuple[Any, Any]:
    """(s, beta - mean * s) of a batch_norm with constant statistics, float32 [C]; else (None, None)."""
    stats = [constant(a) for a in call.args[1:5]]
    if any(s is None for s in stats):
        return None, None
    gamma, beta, mean, variance = (np.asarray(s, dtype=np.float64) for s in stats)
    squares = variance + float(call.attrs.epsilon)
    if (squares <= 0).any():
        raise ValueError(
            f"{label_of(var, call)}: a variance of this batch norm is negative; repair the model's statistics"
        )
    scale = gamma / np.sqrt(squares)
    return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)


def _spread(call: Any) -> list[int]:
    shape = [1] * len(shape_of(call.args[0]))
    shape[int(call.attrs.axis)] = -1
    return shape


def _match(var: Any, call: Any, values: Any, readers: Any) -> _Fold | None:
    """The conv or matmul (and its bias) that `call` can be folded into."""
    scale, shift = _affine(var, call)
    source = call.args[0]
    if scale is None or len(readers.get(source, [])) != 1:
        return None
    replaced = [source]
    value, bias = values.get(source), None
    if op_name(value) == "add":
        bias = constant(value.args[1])
        if bias is None or len(readers.get(value.args[0], [])) != 1:
            return None
        replaced.append(value.args[0])
        value = values.get(value.args[0])
    kind = op_name(value)
    if kind not in ("nn.conv2d", "matmul"):
        return None
    held = _codes(values, value.args[1], 0 if kind == "nn.conv2d" else 1)
    weight = constant(value.args[1]) if held is None else held[0]
    if weight is None:
        return None
    axis, channels = int(call.attrs.axis), len(scale)
    spread = _spread(call)
    if kind == "nn.conv2d":
        if str(value.attrs.kernel_layout) != "OIHW" or axis != 1:
            return None
        weight = weight * _factor(scale, held).reshape(-1, 1, 1, 1)
    else:
        if weight.ndim != 2 or axis != len(shape_of(source)) - 1:
            return None
        weight = weight * _factor(scale, held)
    if bias is not None:
        if bias.size not in (1, channels):
            return None
        shift = np.broadcast_to(bias.reshape(-1), (channels,)) * scale + shift
    moved = shift.reshape(spread).astype(np.float32)
    if held is None:
        return _Fold(value, tuple(replaced), weight.astype(np.float32), moved)
    scales = np.where(scale == 0, 1.0, np.abs(scale) * held[1]).astype(np.float32)
    return _Fold(value, tuple(replaced), weight.astype(INT8.held), moved, scales)


def _codes(values: Any, weight: Any, axis: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(symmetric int8 codes, scales) of a constant weight behind a DQ, as it is imported; None for others."""
    value = values.get(weight)
    kept = values.get(value.args[0]) if op_name(value) == "dequantize" else None
    is_held = kept is not None and op_name(kept) == "builtin.stop_lift_params"
    codes = constant(kept.args[0]) if kept is not None and is_held else None
    scale, zero = (constant(a) for a in value.args[1:3]) if codes is not None else (None, None)
    if codes is None or scale is None or zero is None or np.any(zero) or str(codes.dtype) != INT8.held:
        return None
    by_channel = scale.size == 1 or int(value.attrs.axis) % codes.ndim == axis
    return (codes, scale.reshape(-1)) if by_channel and codes.min(initial=0) > INT8.qmin else None


def _factor(scale: np.ndarray, held: Any) -> np.ndarray:
    """What a weight is multiplied with for each output channel: codes take the sign alone."""
    return scale if held is None else np.sign(scale)


def _weight(r: Any, fold: _Fold) -> Any:
    if fold.scale is None:
        return relax.const(fold.weight)
    zero = relax.const(np.zeros(fold.scale.shape, INT8.zero_dtype))
    axis = 0 if fold.weight.ndim == 4 else 1
    scale = relax.const(fold.scale)
    call = relax.op.dequantize(relax.const(fold.weight), scale, zero, axis=axis, out_dtype="float32")
    return r.emit(call, r.origins[fold.replaced[-1]].with_part(Part.WEIGHT))
