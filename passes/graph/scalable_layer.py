"""A layer whose channels are scaled, on the side that it writes or on the one that it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hwptq.ir.composite import Composite, emit_layer
from hwptq.ir.dataflow import constant


@dataclass
class ScalableLayer:
    """A conv2d or matmul composite while it is scaled, in float64; `weight` as the graph holds it."""

    unit: Composite
    weight: np.ndarray
    bias: np.ndarray
    bounds: tuple[Any, Any]

    @classmethod
    def of(cls, unit: Composite) -> ScalableLayer:
        weight = constant(unit.args[1])
        assert weight is not None
        channels = weight.shape[0] if unit.kind == "conv2d" else weight.shape[-1]
        bias = np.zeros(channels) if unit.bias is None else np.broadcast_to(unit.bias, channels)
        return cls(unit, weight.astype(np.float64), bias.astype(np.float64), unit.bounds)

    def by_output(self) -> np.ndarray:
        """The weight as a view [output channels, rest]."""
        return self.weight.reshape(len(self.weight), -1) if self.unit.kind == "conv2d" else self.weight.T

    def output_range(self) -> np.ndarray:
        """The largest absolute weight of each output channel."""
        return np.abs(self.by_output()).max(axis=1)

    def input_range(self) -> np.ndarray:
        """The largest absolute weight that reads each input channel."""
        if self.unit.kind != "conv2d":
            return np.abs(self.weight).max(axis=-1)
        return np.abs(self._grouped()).max(axis=(1, 3)).reshape(-1)

    def silent(self) -> np.ndarray:
        """Which output channels stay at zero where their weights do: to scale them up costs no range."""
        return (self.bias <= 0) if np.all(np.asarray(self.bounds[0]) == 0) else self.bias == 0

    def scale_output(self, scale: np.ndarray) -> None:
        """Divide each output channel by its scale."""
        view = self.by_output()
        view /= scale[:, None]
        self.bias = self.bias / scale
        self.bounds = tuple(b if not np.any(b) or np.all(np.isinf(b)) else b / scale for b in self.bounds)

    def scale_input(self, scale: np.ndarray) -> None:
        """Multiply the weights of each input channel by its scale."""
        if self.unit.kind != "conv2d":
            self.weight *= scale[:, None]
            return
        view = self._grouped()
        view *= scale.reshape(view.shape[0], 1, view.shape[2], 1)

    def _grouped(self) -> np.ndarray:
        """A conv2d weight as a view [groups, outputs a group, inputs a group, KH * KW]."""
        o, i, kh, kw = self.weight.shape
        groups = int(self.unit.head.attrs.groups)
        return self.weight.reshape(groups, o // groups, i, kh * kw)

    def emit(self, r: Any) -> Any:
        """The layer as it is by now, in place of the binding that a rewriter is at."""
        weight, bias = self.weight.astype(np.float32), self.bias.astype(np.float32)
        return emit_layer(r, self.unit, r.get(self.unit.args[0]), weight, bias, self.bounds)
