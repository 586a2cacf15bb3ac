"""CorrectBias: give every layer of a QDQ graph the mean output that it has in float.

Rounding shifts the mean of a layer's accumulator, channel by channel; the bias takes the shift back:
b' = b + E[W x + b in float] - E[what the integers compute].
Nagel et al. 2019, "Data-Free Quantization …", section 4.2, in its empirical form.

The means need only the mean input window of each layer, since a layer is linear in it. The float ones take
one pass over the data; the integer graph is walked once, layer by layer over all samples, so that a layer
sees what the corrected layers before it give.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tvm

from hwptq.evaluate.interpret import Interpreter
from hwptq.evaluate.lockstep import Lockstep, live_bytes
from hwptq.ir.composite import Composite
from hwptq.ir.dataflow import bindings, constant, shape_of
from hwptq.ir.operator import integer_operator
from hwptq.operators.layers import IntegerLayer
from hwptq.quant.fixed_point import ACCUMULATOR_LIMIT
from hwptq.quant.patches import conv_of_patch, patch_sums
from hwptq.targets.schema import Descriptor

from .graph.channel_links import layers
from .graph.quantizable import layer_name
from .graph.quantized_layers import (
    LayerConstants,
    QuantizedLayer,
    evaluated,
    quantized_layers,
    with_layer_constants,
)
from .lower_to_integer import LowerToInteger

#: Most samples to use, and bytes of integer activations to hold; a mean needs no more.
SAMPLES = 256
HELD_BYTES = 512 * 2**20


@tvm.transform.module_pass(opt_level=0, name="hwptq.CorrectBias")
class CorrectBias:
    """QDQ graph -> QDQ graph with corrected biases.

    float_module: the graph that InsertQDQ was given; batches: an iterable of its inputs, of which the first
    ones are used. Memory does not grow with their number. target: as in LowerToInteger.
    """

    def __init__(
        self, float_module: tvm.IRModule, batches: Iterable[dict[str, np.ndarray]], target: Descriptor
    ):  # fmt: skip
        self.float_module, self.batches, self.target = float_module, batches, target

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        integer = tvm.ir.transform.Sequential([LowerToInteger(self.target)])(mod)
        held = HELD_BYTES // max(1, live_bytes(integer["main"]))
        samples = list(islice(self.batches, max(1, min(SAMPLES, held))))
        if not samples:
            raise ValueError("CorrectBias needs at least one sample")
        wanted = float_means(self.float_module, samples)
        found, new = quantized_layers(mod), {}
        walk = Lockstep(integer, samples)
        for var, value in bindings(integer["main"]):
            op, name = integer_operator(integer, value), layer_name(str(var.name))
            if not isinstance(op, IntegerLayer) or not {name} <= found.keys() & wanted.keys():
                continue
            walk.run_to(var)
            inputs = [env[value.args[1].fields[0]] for env in walk.values]
            new[name] = corrected(found[name], op, value, inputs, wanted[name])
            walk.settle(list(map(evaluated(op, found[name], new[name]), inputs)))
        return with_layer_constants(mod, new)


def corrected(
    layer: QuantizedLayer, op: Any, call: Any, inputs: list[np.ndarray], wanted: np.ndarray
) -> LayerConstants:
    """A layer in integers with the bias that gives its accumulator the mean `wanted` (real, [O])."""
    weight, bias = (constant(a) for a in call.args[1].fields[1:3])
    assert weight is not None
    assert bias is not None
    window = _Window()
    for x in inputs:
        window.add(*(_row_sums(x) if weight.ndim == 2 else _integer_sums(op, weight, x)))
    if weight.ndim == 2:
        mean = weight.astype(np.float64) @ window.mean + bias
    else:
        mean = conv_of_patch(weight, window.mean, op.groups) + bias
    unit = layer.x_scale * layer.scale.astype(np.float64) / 2 ** (8 - layer.held_bits)
    limit = unit * (ACCUMULATOR_LIMIT // 4)
    held = np.rint(layer.bias.astype(np.float64) / unit)
    new = np.clip(wanted + (held - mean) * unit, -limit, limit)
    return LayerConstants(layer.values, layer.scale, new.astype(np.float32))


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
        return self.total / self.count


def float_means(mod: tvm.IRModule, batches: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean of W x + b of every layer of a float module over `batches`: float64 [channels], by name."""
    found = layers(mod, mod["main"])
    readers: dict[str, list[Any]] = {}
    for var, unit in found.items():
        readers.setdefault(str(unit.args[0].name), []).append(var)
    windows = {var: _Window() for var in found}

    def observe(name: str, value: np.ndarray) -> None:
        for var in readers.get(name, ()):
            windows[var].add(*_float_sums(found[var], value))

    interpreter = Interpreter(mod)
    for batch in batches:
        interpreter.run(batch, observe)
    return {str(var.name): _float_mean(unit, windows[var].mean) for var, unit in found.items()}


def _float_sums(unit: Composite, x: np.ndarray) -> tuple[np.ndarray, int]:
    if unit.kind == "matmul":
        return _row_sums(x)
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


def _integer_sums(op: Any, weight: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, int]:
    return patch_sums(x, weight.shape[1:3], op.strides, op.padding, op.dilation, op.in_zero_point)


def _row_sums(x: np.ndarray) -> tuple[np.ndarray, int]:
    rows = x.reshape(-1, x.shape[-1])
    return rows.sum(axis=0, dtype=np.float64), len(rows)
