"""Moments of a layer: its quantized input beside what the float layer yields before its clamp."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwptq.interpret import Interpreter
from hwptq.quant import integer_ops as ops
from hwptq.quant import reference
from hwptq.quant.moments import Moments

from .dataflow import bindings, op_name
from .quantized_layers import QuantizedLayer

#: Columns (pixels of an output image, rows of a matrix) that a layer's moments are made of, over all samples.
COLUMNS = 2**16
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


class LayerMoments:
    """Collects the moments of one layer: x in units of its integers less the zero point, y real."""

    def __init__(self, layer: QuantizedLayer, op: ops.Conv2d | ops.Dense, samples: int, seed: int = 0):
        self._layer, self._op = layer, op
        self._per_sample = max(1, COLUMNS // samples)
        self._rng = np.random.default_rng(seed)
        groups, rows, depth = layer.rows(layer.values).shape
        self.moments = Moments.empty(groups, rows, depth)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """x: the operator's int8 input [N,H,W,I] or [..., K]; y: the float layer, [N,O,OH,OW] or [..., O]."""
        if isinstance(self._op, ops.Dense):
            x_rows, y_rows = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
            chosen = self._choose(len(x_rows))
            columns, results = x_rows[chosen].astype(np.int16)[None], y_rows[chosen][None]
            self.moments.add(columns - self._layer.x_zero, results)
            return
        groups, rows, depth = self.moments.yx.shape
        columns, results = self._patches(x, y)
        self.moments.add(
            columns.reshape(-1, groups, depth).transpose(1, 0, 2),
            results.reshape(-1, groups, rows).transpose(1, 0, 2),
        )

    def _patches(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Chosen pixels: the windows they see [P,I,KH,KW], less the zero point, and their values [P,O]."""
        op = self._op
        assert isinstance(op, ops.Conv2d)
        (top, left, bottom, right), size = op.padding, self._layer.values.shape[2:]
        padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=self._layer.x_zero)
        height, width = y.shape[2:]
        view = reference.windows(padded, size, op.strides, op.dilation, (height, width))
        n, at = np.divmod(self._choose(len(x) * height * width), height * width)
        row, column = np.divmod(at, width)
        return view[n, row, column].astype(np.int16) - self._layer.x_zero, y[n, :, row, column]

    def _choose(self, count: int) -> np.ndarray:
        if count <= self._per_sample:
            return np.arange(count)
        return np.sort(self._rng.choice(count, self._per_sample, replace=False))
