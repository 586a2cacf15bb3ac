"""LowerConvTranspose: conv2d_transpose becomes a conv2d of stride 1 to all phases of an image, and a shuffle.

The shuffle is DepthToSpace: channel (r_h * s_w + r_w) * O + o of pixel (y, x) becomes channel o of pixel
(y * s_h + r_h, x * s_w + r_w). What the phases are: graph/subpixel.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import bindings, constant, main_functions, op_name, rewrite, shape_of, users
from hwptq.ir.provenance import origins

from .graph.quantizable import with_float_reasons
from .graph.subpixel import PhaseAxis, phase_axis, phase_weights

_TRANSPOSED = "nn.conv2d_transpose"
_NO_WEIGHT = "the weight of this transposed convolution is no constant, nor codes by output channel"
_CLAMPS = ("nn.relu", "clip")


@dataclass(frozen=True)
class _Weight:
    """[I,O/G,KH,KW] float32, or codes with their scales: one, or [O], group by group."""

    values: np.ndarray
    scale: np.ndarray | None = None


@dataclass(frozen=True)
class _Chain:
    """A transposed convolution, and what is computed on its phases too: bias, batch norm, clamp and codes."""

    weight: _Weight
    rows: PhaseAxis
    columns: PhaseAxis
    followers: tuple[Any, ...]  # vars, in order

    @property
    def phases(self) -> int:
        """How many there are."""
        return len(self.rows.taps) * len(self.columns.taps)


@tvm.transform.module_pass(opt_level=0, name="hwptq.LowerConvTranspose")
class LowerConvTranspose:
    """The outputs stay the same. Stands before FoldBatchNorm: what follows a transposed convolution channel
    by channel moves before the shuffle, where it can be folded.

    A layer in groups reads its input once for each phase: [N,I,H,W] concatenated with itself, so that every
    phase has groups of its own. One whose weight is neither a constant nor the codes of one, with zero points
    of 0 and scales of output channels, stays as it is. Where other tools have quantized the output, the
    shuffle moves what was quantized.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        chains: dict[Any, _Chain] = {}
        reasons: dict[str, dict[str, str]] = {}
        for gv, func in main_functions(mod):
            values, readers = dict(bindings(func)), users(func)
            for var, value in values.items():
                if op_name(value) != _TRANSPOSED:
                    continue
                why_not = _why_not(value)
                weight = None if why_not else _weight(value, values)
                if weight is not None:
                    chains[var] = _chain(var, value, weight, values, readers)
                else:
                    reasons.setdefault(str(gv.name_hint), {})[origins(func)[var].label] = (
                        why_not or _NO_WEIGHT
                    )
        if not chains and not reasons:
            return mod
        chain_of = {follower: head for head, chain in chains.items() for follower in chain.followers}
        phased: dict[Any, Any] = {}  # var of a chain -> the same of its phases, before the shuffle

        def visit(r: Any, var: Any, value: Any) -> Any:
            if var in chains:
                head, phased[var] = var, r.emit(_convolution(r, value, chains[var]), r.origin)
            elif var in chain_of:
                head, phased[var] = chain_of[var], _on_phases(r, var, value, phased, chains[chain_of[var]])
            else:
                return r.keep(value)
            chain = chains[head]
            is_last = var == (chain.followers or (head,))[-1]
            return _shuffled(r, phased[var], chain, shape_of(head)) if is_last else None

        return with_float_reasons(rewrite(mod, visit), reasons)


def _why_not(call: Any) -> str | None:
    """Why a transposed convolution stays as it is; None where it doesn't."""
    attrs = call.attrs
    if str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "IOHW":
        return f"a transposed convolution of layout {attrs.data_layout}/{attrs.kernel_layout}"
    return None


def _weight(call: Any, values: Any) -> _Weight | None:
    """The weight, where it is a constant or dequantized from one as layers take it."""
    found = constant(call.args[1])
    if found is not None:
        return _Weight(found) if found.dtype == np.float32 else None
    source, groups = values.get(call.args[1]), int(call.attrs.groups)
    if op_name(source) != "dequantize":
        return None
    codes, scale, zero = (constant(a) for a in source.args)
    if codes is None or scale is None or zero is None or zero.any():
        return None
    if scale.size == 1:
        return _Weight(codes, scale.reshape(()))
    if int(source.attrs.axis) == 1:
        return _Weight(codes, np.tile(scale, groups))
    # of input channels, each of which is a group
    return _Weight(codes, np.repeat(scale, codes.shape[1])) if groups == len(codes) > 1 else None


def _chain(var: Any, call: Any, weight: _Weight, values: Any, readers: Any) -> _Chain:
    attrs = call.attrs
    sizes = zip(shape_of(call.args[0])[2:], shape_of(call.args[1])[2:], shape_of(var)[2:], strict=True)
    rows, columns = (
        phase_axis(n, k, int(attrs.strides[i]), int(attrs.padding[i]), int(attrs.dilation[i]), out)
        for i, (n, k, out) in enumerate(sizes)
    )
    followers: list[Any] = []
    last = var
    while True:
        who = readers.get(last, [])
        value = values.get(who[0]) if len(who) == 1 else None
        if value is not None and _by_channel(value, last, shape_of(var)[1]):
            new = who
        else:
            new = _codes_and_back(value, who, values, readers)
        if not new:
            return _Chain(weight, rows, columns, tuple(followers))
        followers += new
        last = new[-1]


def _codes_and_back(value: Any, who: Any, values: Any, readers: Any) -> list[Any]:
    """A quantize and the dequantize behind it, where one scale serves all channels; else none."""
    if op_name(value) != "quantize":
        return []
    back = readers.get(who[0], [])
    both = [value, values.get(back[0]) if len(back) == 1 else None]
    scales = [constant(v.args[1]) for v in both if op_name(v) in ("quantize", "dequantize")]
    return (
        [who[0], back[0]] if len(scales) == 2 and all(s is not None and s.size == 1 for s in scales) else []
    )


def _by_channel(value: Any, source: Any, channels: int) -> bool:
    """Whether an operator does to each value of `source` what belongs to the channel of the value."""
    name = op_name(value)
    if isinstance(value, relax.TupleGetItem):
        return value.index == 0  # of the batch norm before it
    if name == "add":
        added = constant(value.args[1])
        return value.args[0] == source and added is not None and _is_bias(added, channels)
    if name == "nn.batch_norm":
        constants = all(constant(a) is not None for a in value.args[1:5])
        return constants and value.args[0] == source and int(value.attrs.axis) == 1
    return name in _CLAMPS


def _is_bias(value: np.ndarray, channels: int) -> bool:
    """Whether an addend of an image is a scalar or holds one value for each channel."""
    return value.size == 1 or (value.size == channels and value.shape[-3:] == (channels, 1, 1))


def _convolution(r: Any, call: Any, chain: _Chain) -> Any:
    weight, rows, columns = chain.weight.values, chain.rows, chain.columns
    data, groups = r.get(call.args[0]), int(call.attrs.groups)
    if groups > 1:
        weight = _joined_groups(weight, groups)
        data = _for_each(r, data, chain.phases) if chain.phases > 1 else data
    return relax.op.nn.conv2d(
        data,
        _phased_weight(r, phase_weights(weight, rows, columns), chain),
        padding=(rows.before, columns.before, rows.after, columns.after),
        groups=groups * chain.phases if groups > 1 else 1,
    )


def _for_each(r: Any, data: Any, phases: int) -> Any:
    """An image as often as there are phases, along its channels; codes in the scale that it has, if any."""
    joined = r.emit(relax.op.concat([data] * phases, axis=1))
    made = r.builder.lookup_binding(data) if data not in r.func.params else None
    if made is None or op_name(made) != "dequantize":
        return joined
    codes, *step = made.args
    held = r.emit(relax.op.quantize(joined, *step, axis=-1, out_dtype=str(codes.ty.dtype)))
    return r.emit(relax.op.dequantize(held, *step, axis=-1, out_dtype="float32"))


def _phased_weight(r: Any, values: np.ndarray, chain: _Chain) -> Any:
    """[SH*SW*O,I,TH,TW] as a constant, or dequantized."""
    scale = chain.weight.scale
    if scale is None:
        return relax.const(values)
    scale = np.tile(scale, chain.phases) if scale.ndim else scale
    zero = np.zeros(scale.shape, values.dtype)
    return r.emit(relax.op.dequantize(*map(relax.const, (values, scale, zero)), axis=0))


def _joined_groups(weight: np.ndarray, groups: int) -> np.ndarray:
    """A weight [I,O/G,KH,KW] of a transposed convolution in groups as [I/G,O,KH,KW]."""
    depth, channels, *window = len(weight) // groups, *weight.shape[1:]
    split = weight.reshape(groups, depth, channels, *window)
    return split.swapaxes(0, 1).reshape(depth, groups * channels, *window)


def _on_phases(r: Any, var: Any, value: Any, phased: dict[Any, Any], chain: _Chain) -> Any:
    """A follower of a transposed convolution, applied to its phases."""
    if isinstance(value, relax.TupleGetItem):
        return r.emit(relax.TupleGetItem(phased[value.tuple_value], value.index))
    args = [phased[a] if a in phased else _repeated(a, op_name(value), chain.phases) for a in value.args]
    return r.emit(relax.Call(value.op, args, value.attrs, value.ty_args))


def _repeated(arg: Any, name: str, times: int) -> Any:
    """A constant that has one value for each channel, for the channels of all phases."""
    value = constant(arg)
    if value is None or value.size == 1 or name in (*_CLAMPS, "quantize", "dequantize"):
        return arg
    return relax.const(np.concatenate([value] * times, axis=0 if name == "nn.batch_norm" else -3))


def _shuffled(r: Any, phases: Any, chain: _Chain, out: tuple[int, ...]) -> Any:
    """The image [N,O,OH,OW] that `phases` [N,SH*SW*O,QH,QW] are parts of."""
    n, channels, height, width = out
    sh, sw = len(chain.rows.taps), len(chain.columns.taps)
    *_, qh, qw = shape_of(phases)
    image = phases
    if chain.phases > 1:
        split = r.emit(relax.op.reshape(phases, (n, sh, sw, channels, qh, qw)))
        turned = r.emit(relax.op.permute_dims(split, [0, 3, 4, 1, 5, 2]))
        image = r.emit(relax.op.reshape(turned, (n, channels, qh * sh, qw * sw)))
    top, left = chain.rows.crop, chain.columns.crop
    if shape_of(image) == out:
        return image
    cut = relax.op.strided_slice(image, [2, 3], [top, left], [top + height, left + width], [1, 1])
    return r.emit(cut)
