"""The mean of what a layer computes before its clamp, channel by channel.

A layer is linear in its input window, so the mean window is all that is needed of the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm

from hwptq.evaluate.hidden_tokens import HiddenTokens
from hwptq.evaluate.interpret import Observe, observe_all
from hwptq.ir.composite import Composite
from hwptq.ir.dataflow import constant, main_functions, shape_of
from hwptq.ir.provenance import Origin, origins
from hwptq.quant.patches import conv_of_patch, patch_sums

from .channel_links import layers
from .quantized_layers import Place

Tensor = tuple[str, Origin]  # name of its function, its origin

#: Most samples on which layers in floats are evaluated: their sums are slow to model.
FLOAT_SAMPLES = 32


@dataclass
class _Window:
    """The mean of what the windows of a layer see."""

    total: Any = 0.0
    count: int = 0

    def add(self, total: np.ndarray, count: int) -> None:
        """The sum over more windows, and their number."""
        self.total, self.count = self.total + total, self.count + count

    @property
    def mean(self) -> np.ndarray:
        return np.asarray(self.total / self.count)


def float_means(
    mod: tvm.IRModule, batches: Iterable[dict[str, np.ndarray]], hidden: HiddenTokens | None = None
) -> dict[Place, np.ndarray]:
    """The mean of W x + b of every layer of a float module over `batches`: float64 [channels].

    hidden: tokens of dense layers that don't count."""
    found: dict[Place, Composite] = {}
    readers: dict[Tensor, list[Place]] = {}
    for gv, func in main_functions(mod):
        function, named = str(gv.name_hint), origins(func)
        for var, unit in layers(mod, func).items():
            place = function, named[var].label
            found[place] = unit
            readers.setdefault((function, named[unit.args[0]]), []).append(place)
    windows = {place: _Window() for place in found}

    def watch(sample: Mapping[str, np.ndarray], _: Observe) -> Observe:
        def observe(function: str, origin: Origin, value: np.ndarray) -> None:
            for place in readers.get((function, origin), ()):
                tokens = hidden.rows(*place, sample) if hidden else None
                windows[place].add(*_float_sums(found[place], value, tokens))

        return observe

    observe_all(mod, batches, lambda *_: None, watch)
    seen = {place: window.mean for place, window in windows.items() if window.count}
    return {place: _float_mean(found[place], mean) for place, mean in seen.items()}


def mean_sum(
    op: Any, weight: np.ndarray, inputs: Sequence[np.ndarray], shown: Sequence[np.ndarray | None],
    zero: int = 0,
) -> np.ndarray:  # fmt: skip
    """The mean of sum w x over all pixels, or those rows of `inputs` that are `shown`: float64 [O]. weight
    [O,KH,KW,I] or [O,I]; inputs [N,H,W,I] or [...,I], whose padding holds `zero`.
    """
    window = _Window()
    for x, tokens in zip(inputs, shown, strict=True):
        if weight.ndim == 2:
            window.add(*_row_sums(x, tokens))
        else:
            window.add(*patch_sums(x, weight.shape[1:3], op.strides, op.padding, op.dilation, zero))
    if weight.ndim == 2:
        return weight.astype(np.float64) @ window.mean
    return conv_of_patch(weight, window.mean, op.groups)


def _float_sums(unit: Composite, x: np.ndarray, tokens: np.ndarray | None) -> tuple[np.ndarray, int]:
    if unit.kind == "matmul":
        return _row_sums(x, tokens)
    attrs = unit.head.attrs
    strides, padding, dilation = ([int(v) for v in p] for p in (attrs.strides, attrs.padding, attrs.dilation))
    return patch_sums(x.transpose(0, 2, 3, 1), shape_of(unit.args[1])[2:], strides, padding, dilation)


def _float_mean(unit: Composite, mean: np.ndarray) -> np.ndarray:
    weight = constant(unit.args[1])
    assert weight is not None
    bias = 0.0 if unit.bias is None else unit.bias.astype(np.float64)
    if unit.kind == "matmul":
        return mean @ weight.astype(np.float64) + bias
    return conv_of_patch(weight.transpose(0, 2, 3, 1), mean, int(unit.head.attrs.groups)) + bias


def _row_sums(x: np.ndarray, tokens: np.ndarray | None) -> tuple[np.ndarray, int]:
    rows = x.reshape(-1, x.shape[-1])
    if tokens is not None and len(tokens) == len(rows):
        rows = rows[tokens]
    return rows.sum(axis=0, dtype=np.float64), len(rows)
