"""Norms, and the reductions that others are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwptq.ir.dataflow import shape_of

from .writer import Converter, NotExportable, Writer, ints


def _reduce(op: str) -> Converter:
    def convert(w: Writer, call: Any, output: str) -> str:
        axes = call.attrs.axis
        rank = len(shape_of(call.args[0]))
        axes = range(rank) if axes is None else ints(axes)
        inputs = [w.name(call.args[0]), w.tensor(np.array(list(axes), np.int64))]
        return w.node(op, inputs, output, keepdims=int(call.attrs.keepdims))

    return convert


def _softmax(op: str) -> Converter:
    def convert(w: Writer, call: Any, output: str) -> str:
        return w.node(op, [w.name(call.args[0])], output, axis=int(call.attrs.axis))

    return convert


def _layer_norm(w: Writer, call: Any, output: str) -> str:
    axes, rank = ints(call.attrs.axes), len(shape_of(call))
    first = min(a % rank for a in axes)
    if sorted(a % rank for a in axes) != list(range(first, rank)):
        raise NotExportable(f"{output}: layer_norm over axes that are not the last ones")
    inputs = [w.name(a) for a in call.args]
    return w.node("LayerNormalization", inputs, output, axis=first, epsilon=float(call.attrs.epsilon))


def _rms_norm(w: Writer, call: Any, output: str) -> str:
    rank = len(shape_of(call))
    if [a % rank for a in ints(call.attrs.axes)] != [rank - 1]:
        raise NotExportable(f"{output}: rms_norm over other axes than the last")
    x, gamma = (w.name(a) for a in call.args)
    squares = w.node("Mul", [x, x], w.fresh(f"{output}_square"))
    mean = w.node("ReduceMean", [squares, w.tensor(np.array([-1], np.int64))], w.fresh(f"{output}_mean"))
    shifted = w.node("Add", [mean, w.tensor(np.float32(call.attrs.epsilon))], w.fresh(f"{output}_eps"))
    root = w.node("Sqrt", [shifted], w.fresh(f"{output}_root"))
    return w.node("Mul", [w.node("Div", [x, root], w.fresh(f"{output}_normal")), gamma], output)


def _group_norm(w: Writer, call: Any, output: str) -> str:
    """InstanceNormalization of [N, G, -1], which older opsets than that of GroupNormalization have."""
    shape, groups, axes = shape_of(call), int(call.attrs.num_groups), ints(call.attrs.axes)
    if int(call.attrs.channel_axis) != 1 or sorted(axes) != list(range(2, len(shape))):
        raise NotExportable(f"{output}: group_norm over other axes than those behind the channels")
    x, *vectors = (w.name(a) for a in call.args)
    epsilon = float(call.attrs.epsilon)
    if groups == shape[1]:
        return w.node("InstanceNormalization", [x, *vectors], output, epsilon=epsilon)
    ones, zeros = (w.tensor(np.full(groups, value, np.float32)) for value in (1, 0))
    rows = w.node("Reshape", [x, w.tensor(np.array([shape[0], groups, -1], np.int64))])
    normal = w.node("InstanceNormalization", [rows, ones, zeros], epsilon=epsilon)
    y = w.node("Reshape", [normal, w.tensor(np.array(shape, np.int64))])
    spread = w.tensor(np.array([-1, *(1 for _ in axes)], np.int64))
    scale, bias = (w.node("Reshape", [v, spread]) for v in vectors)
    return w.node("Add", [w.node("Mul", [y, scale]), bias], output)


CONVERTERS: dict[str, Converter] = {
    "mean": _reduce("ReduceMean"),
    "sum": _reduce("ReduceSum"),
    "max": _reduce("ReduceMax"),
    "min": _reduce("ReduceMin"),
    "prod": _reduce("ReduceProd"),
    "nn.softmax": _softmax("Softmax"),
    "nn.log_softmax": _softmax("LogSoftmax"),
    "nn.layer_norm": _layer_norm,
    "nn.rms_norm": _rms_norm,
    "nn.group_norm": _group_norm,
}
