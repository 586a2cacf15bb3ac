"""Columns of a layer: its quantized input beside what the float layer yields before its clamp."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hwptq.evaluate.interpret import Interpreter
from hwptq.ir.dataflow import bindings, op_name
from hwptq.operators.conv2d import Conv2d, Conv2dToFloat
from hwptq.operators.layers import IntegerLayer, LayerToFloat
from hwptq.quant.clamped_target import clamped_target
from hwptq.quant.moments import Moments, Statistics
from hwptq.quant.window import windows

from .quantized_layers import QuantizedLayer

#: Columns (pixels of an output image, rows of a matrix) that are kept of a layer, over all samples …
COLUMNS = 2**16
#: … no more than so many for each weight of an output, which then are known well enough …
COLUMNS_A_WEIGHT = 2**9
#: … and the most values of inputs, int16: fewer columns where they are long.
VALUES = 2**26
CHUNK = 2**12  #: of them that are summed at once
_CLAMPS = ("nn.relu", "clip", "maximum", "minimum")


def float_layer(interpreter: Interpreter, value: Any, env: dict[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The (unclamped, clamped) result of a composite of the float module, given the values it reads."""
    func = interpreter.mod[value.op]
    inner = {p: interpreter.evaluate(a, env) for p, a in zip(func.params, value.args, strict=True)}
    unclamped = None
    for var, step in bindings(func):
        if op_name(step) in _CLAMPS and unclamped is None:
            unclamped = inner[step.args[0]]
        inner[var] = interpreter.evaluate(step, inner)
    result = inner[func.body.body]
    return (result if unclamped is None else unclamped), result


class LayerColumns:
    """Chosen columns of one layer: x [G,N,K] in units of its integers less the zero point, y [G,N,R] real."""

    def __init__(self, layer: QuantizedLayer, op: IntegerLayer | LayerToFloat, samples: int, seed: int = 0):
        self._layer, self._op = layer, op
        self._groups, self._rows, self._depth = layer.rows(layer.values).shape
        columns = min(COLUMNS, COLUMNS_A_WEIGHT * self._depth, VALUES // (self._groups * self._depth))
        self._per_sample = max(1, columns // samples)
        self._rng = np.random.default_rng(seed)
        self._x: list[np.ndarray] = []
        self._y: list[np.ndarray] = []

    def add(self, x: np.ndarray, y: np.ndarray, tokens: np.ndarray | None = None) -> None:
        """x: the operator's int8 input [N,H,W,I] or [..., K]; y: the float layer, [N,O,OH,OW] or [..., O].
        tokens: the rows of a matrix that count, all if None."""
        if self._layer.values.ndim == 2:
            x_rows, y_rows = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
            if tokens is not None and len(tokens) == len(x_rows):
                x_rows, y_rows = x_rows[tokens], y_rows[tokens]
            chosen = self._choose(len(x_rows))
            columns, results = x_rows[chosen].astype(np.int16) - self._layer.x_zero, y_rows[chosen]
        else:
            columns, results = self._patches(x, y)
        self._x.append(columns.reshape(-1, self._groups, self._depth).transpose(1, 0, 2))
        self._y.append(results.reshape(-1, self._groups, self._rows).transpose(1, 0, 2))

    def _patches(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Chosen pixels: the windows they see [P,I,KH,KW], less the zero point, and their values [P,O]."""
        op = self._op
        assert isinstance(op, Conv2d | Conv2dToFloat)
        (top, left, bottom, right), size = op.padding, self._layer.values.shape[2:]
        padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=self._layer.x_zero)
        height, width = y.shape[2:]
        view = windows(padded, size, op.strides, op.dilation, (height, width))
        n, at = np.divmod(self._choose(len(x) * height * width), height * width)
        row, column = np.divmod(at, width)
        return view[n, row, column].astype(np.int16) - self._layer.x_zero, y[n, :, row, column]

    def _choose(self, count: int) -> np.ndarray:
        if count <= self._per_sample:
            return np.arange(count)
        return np.sort(self._rng.choice(count, self._per_sample, replace=False))

    def statistics(self) -> Statistics:
        """Of x in real units, and y."""
        moments = Moments.empty(self._groups, self._rows, self._depth)
        shift = [_mean(values) for values in (self._x, self._y)]
        for x, y in self._chunks():
            for values, by in zip((x, y), shift, strict=True):
                values -= by[:, None, :]
            moments.add(x, y)
        return moments.statistics().shifted(*shift).scaled(self._layer.x_scale)

    def _chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The columns, float32, in parts worth a product whose sums a float32 holds."""
        taken: list[int] = []
        for i, x in enumerate(self._x):
            taken.append(i)
            if i + 1 == len(self._x) or sum(self._x[j].shape[1] for j in taken) + x.shape[1] > CHUNK:
                yield _joined([self._x[j] for j in taken]), _joined([self._y[j] for j in taken])
                taken = []

    def clamped(self, statistics: Statistics, weight: np.ndarray, bias: np.ndarray) -> Statistics:
        """The statistics with the targets that the layer's clamp leaves, if it now has `weight` [G,R,K] and
        `bias` [G,R], both real. See quant/clamped_target.py.
        """
        low, high = (self._bound(b) for b in self._layer.unit.bounds)
        factors = (weight * self._layer.x_scale).astype(np.float32).transpose(0, 2, 1)
        count, mean, cross = 0, np.zeros((self._groups, self._rows)), np.zeros_like(weight)
        for real, y in self._chunks():
            now = real @ factors + bias[:, None, :].astype(np.float32)
            target = clamped_target(y, now, low, high)
            count += real.shape[1]
            mean += target.sum(axis=1, dtype=np.float64)
            cross += target.transpose(0, 2, 1) @ real
        return statistics.retargeted(mean / count, cross / count * self._layer.x_scale)

    def _bound(self, bound: Any) -> np.ndarray:
        channels = np.broadcast_to(np.asarray(bound, np.float32), (self._groups * self._rows,))
        return channels.reshape(self._groups, 1, self._rows)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """[G,N,…] of several samples, contiguous in float32."""
    groups, _, width = parts[0].shape
    out = np.empty((groups, sum(part.shape[1] for part in parts), width), np.float32)
    return np.concatenate(parts, axis=1, out=out, casting="unsafe")


def _mean(parts: list[np.ndarray]) -> np.ndarray:
    """Near the mean of all columns [G,K], float32: that of the first samples."""
    return np.concatenate(parts[:8], axis=1).mean(axis=1, dtype=np.float64).astype(np.float32)
