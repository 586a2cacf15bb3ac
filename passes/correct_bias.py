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
from itertools import islice
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.interpret import Interpreter
from hwptq.quant import integer_ops as ops
from hwptq.quant.fixed_point import ACCUMULATOR_LIMIT
from hwptq.quant.patches import conv_of_patch, patch_sums

from .channel_links import layers
from .composite import Composite, emit_layer, read_composite
from .dataflow import bindings, constant, op_name, reads, rewrite, shape_of
from .lower_to_integer import LowerToInteger
from .quantizable import layer_name
from .select_kernels import integer_operator

#: Most samples to use, and bytes of activations to hold; a mean needs no more.
SAMPLES = 256
HELD_BYTES = 512 * 2**20


@tvm.transform.module_pass(opt_level=0, name="hwptq.CorrectBias")
class CorrectBias:
    """QDQ graph -> QDQ graph with corrected biases.

    float_module: the graph that InsertQDQ was given; batches: an iterable of its inputs that can be read
    anew, of which the first ones are used. Memory does not grow with their number.
    """

    def __init__(self, float_module: tvm.IRModule, batches: Iterable[dict[str, np.ndarray]]):
        self.float_module, self.batches = float_module, batches

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        integer = tvm.ir.transform.Sequential([LowerToInteger()])(mod)
        samples = max(1, min(SAMPLES, HELD_BYTES // _peak_bytes(integer["main"])))
        targets = _float_means(self.float_module, islice(self.batches, samples))
        quantized = {str(v.name): u for v, u in _quantized_layers(mod).items()}
        inputs = [dict(batch) for batch in islice(self.batches, samples)]
        biases = _Walk(mod, integer, quantized, targets).run(inputs)

        def visit(r: Any, var: Any, value: Any) -> Any:
            name = str(var.name)
            if name not in biases:
                return r.keep(value)
            unit = quantized[name]
            data, weight = (r.get(a) for a in unit.args[:2])
            return emit_layer(r, unit, data, weight, biases[name].astype(np.float32), unit.bounds, name)

        return rewrite(mod, visit)


def _quantized_layers(mod: tvm.IRModule) -> dict[Any, Composite]:
    """The conv2d and matmul composites whose weight is a dequantized constant, by var."""
    values = dict(bindings(mod["main"]))
    found = {}
    for var, value in values.items():
        unit = read_composite(mod, value)
        if unit is None or unit.kind not in ("conv2d", "matmul"):
            continue
        weight: Any = values.get(unit.args[1])
        if op_name(weight) == "dequantize" and constant(weight.args[0]) is not None:
            found[var] = unit
    return found


def _peak_bytes(func: Any) -> int:
    """The most bytes that the tensors of one sample take while a function is walked."""
    steps = bindings(func)
    last = {source: var for var, value in steps for source in reads(value)}
    live = {p: _bytes(p) for p in func.params}
    peak = sum(live.values())
    for var, value in steps:
        live[var] = _bytes(var)
        peak = max(peak, sum(live.values()))
        for source in reads(value):
            if last[source] is var:
                live.pop(source, None)
    return max(peak, 1)


def _bytes(var: Any) -> int:
    if not isinstance(var.ty, relax.TensorType):
        return 0
    return prod(shape_of(var)) * np.dtype(str(var.ty.dtype)).itemsize


def _float_means(mod: tvm.IRModule, batches: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean of W x + b of every layer of a float module over `batches`: float64 [channels], by name."""
    found = layers(mod, mod["main"])
    inputs: dict[str, list[Any]] = {}
    for var, unit in found.items():
        inputs.setdefault(str(unit.args[0].name), []).append(var)
    sums: dict[Any, Any] = {}

    def observe(name: str, value: np.ndarray) -> None:
        for var in inputs.get(name, ()):
            total, count = _float_sums(found[var], value)
            old = sums.get(var, (0.0, 0))
            sums[var] = (old[0] + total, old[1] + count)

    interpreter = Interpreter(mod)
    for batch in batches:
        interpreter.run(batch, observe)
    return {str(v.name): _float_mean(found[v], total / count) for v, (total, count) in sums.items()}


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


def _row_sums(x: np.ndarray) -> tuple[np.ndarray, int]:
    rows = x.reshape(-1, x.shape[-1])
    return rows.sum(axis=0, dtype=np.float64), len(rows)


class _Walk:
    """Evaluates the integer graph over all samples, binding by binding, and corrects biases on the way."""

    def __init__(self, qdq: Any, integer: Any, quantized: dict[str, Composite], targets: dict[str, Any]):
        self._values = dict(bindings(qdq["main"]))
        self._integer, self._quantized, self._targets = integer, quantized, targets
        self._biases: dict[str, np.ndarray] = {}

    def run(self, inputs: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The corrected real bias of every layer, by name."""

        def corrected(var: Any, value: Any, arguments: list[list[Any]]) -> Any:
            op = integer_operator(self._integer, value)
            name = layer_name(str(var.name))
            known = isinstance(op, ops.Conv2d | ops.Dense) and name in self._targets
            return self._corrected(name, op, value, arguments) if known and name in self._quantized else value

        Interpreter(self._integer).walk(inputs, corrected)
        return self._biases

    def _corrected(self, name: str, op: Any, call: Any, arguments: list[list[Any]]) -> Any:
        """The call of an integer layer with the bias that gives it its mean."""
        _, weight, bias, multiplier, shift = arguments[0]
        mean = _integer_mean(op, (args[0] for args in arguments), weight) + bias
        unit = self._accumulator_unit(name, op, len(bias))
        old = self._quantized[name].bias
        real = np.zeros(len(bias)) if old is None else np.broadcast_to(old.astype(np.float64), bias.shape)
        held, limit = np.rint(real / unit), unit * (ACCUMULATOR_LIMIT // 4)
        new = np.clip(self._targets[name] + (held - mean) * unit, -limit, limit).astype(np.float32)
        self._biases[name] = new
        integer = bias + np.rint(new / unit) - held
        constants = (weight, integer.astype(np.int32), multiplier, shift)
        fields = [call.args[1].fields[0], *(relax.const(c) for c in constants)]
        return relax.Call(call.op, [call.args[0], relax.Tuple(fields)], call.attrs, call.ty_args)

    def _accumulator_unit(self, name: str, op: Any, channels: int) -> np.ndarray:
        """The real value of one step of a layer's accumulator, by output channel."""
        data, weight = (self._values[a] for a in self._quantized[name].args[:2])
        x, w = (constant(v.args[1]) for v in (data, weight))
        assert x is not None
        assert w is not None
        scale = w.astype(np.float64) / 2 ** (8 - op.weight_bits)
        return np.float64(x.item()) * np.broadcast_to(scale, channels)


def _integer_mean(op: Any, samples: Iterable[np.ndarray], weight: np.ndarray) -> np.ndarray:
    """The mean of sum x * w over all outputs of a Conv2d or Dense: float64 [channels]."""
    total, count = np.zeros(1), 0
    for x in samples:
        if isinstance(op, ops.Dense):
            sums, n = _row_sums(x)
        else:
            geometry = (weight.shape[1:3], op.strides, op.padding, op.dilation)
            sums, n = patch_sums(x, *geometry, fill=op.in_zero_point)
        total, count = total + sums, count + n
    if isinstance(op, ops.Dense):
        return weight.astype(np.float64) @ (total / count)
    return conv_of_patch(weight, total / count, op.groups)
