"""CorrectFp8Bias: shift the biases of a graph in e4m3 so that rounding leaves the mean of each channel alone.

Three fraction bits round weights and activations by up to 6 percent, and what that does to the mean of a
channel goes through the whole network. A layer's bias becomes the mean that the float layer gives, less the
mean that the rounded weights make of the rounded inputs; layer by layer, each on inputs that those before it
have been corrected for (Nagel et al., 2019, "Data-free quantization", section 4.2, with measured means).
Layers in bfloat16 are corrected alike, and those in integers between them as CorrectBias does it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.evaluate.lockstep import Lockstep
from hwptq.formats import holds_floats
from hwptq.ir.composite import read_composite
from hwptq.ir.dataflow import bindings, constant, rewrite
from hwptq.ir.operator import integer_operator
from hwptq.ir.qdq import dequantizes, scale_and_zero
from hwptq.operators.conv2d import FloatConv2d
from hwptq.operators.dense import FloatDense
from hwptq.operators.layers import IntegerLayer, LayerToFloat
from hwptq.quant import float_values
from hwptq.quant.patches import conv_of_patch, patch_sums
from hwptq.targets.schema import Descriptor

from .correct_bias import corrected, float_means
from .graph.quantizable import layer_name
from .graph.quantized_layers import (
    LayerConstants,
    evaluated,
    quantized_layers,
    with_layer_constants,
)
from .lower_to_integer import LowerToInteger

#: Samples to use; a mean over their pixels needs no more.
SAMPLES = 32


@tvm.transform.module_pass(opt_level=0, name="hwptq.CorrectFp8Bias")
class CorrectFp8Bias:
    """QDQ graph with layers in e4m3 or bfloat16 -> the same with their biases corrected. Any other graph
    stays as it is, and so do such layers without a bias.

    float_module: the graph that InsertQDQ was given; batches: an iterable of its inputs, of which the first
    ones are used; target: as in LowerToInteger.
    """

    def __init__(self, float_module: tvm.IRModule, batches: Iterable[Any], target: Descriptor):
        self.float_module, self.batches, self.target = float_module, batches, target

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        found = _fp8_layers(mod)
        if not found:
            return mod
        samples = list(islice(self.batches, SAMPLES))
        wanted = float_means(self.float_module, samples)
        graph = tvm.ir.transform.Sequential([LowerToInteger(self.target)])(mod)
        in_integers = quantized_layers(mod)
        walk, new = Lockstep(graph, samples), {}
        integers: dict[str, LayerConstants] = {}
        for var, value in bindings(graph["main"]):
            op, name = integer_operator(graph, value), layer_name(str(var.name))
            if isinstance(op, IntegerLayer | LayerToFloat) and {name} <= in_integers.keys() & wanted.keys():
                walk.run_to(var)
                inputs = [env[value.args[1].fields[0]] for env in walk.values]
                integers[name] = corrected(in_integers[name], op, value, inputs, wanted[name])
                walk.settle(list(map(evaluated(op, in_integers[name], integers[name]), inputs)))
            if not isinstance(op, FloatConv2d | FloatDense):
                continue
            args = list(value.args[1].fields)
            w, scale = constant(args[-3]), constant(args[-2])
            assert w is not None
            assert scale is not None
            layer = found.get(w.tobytes())
            if layer is None or layer.name not in wanted:
                continue
            walk.run_to(var)
            tensors = [[env[a] for a in args[:-3]] for env in walk.values]
            bias = wanted[layer.name] - _mean_sum(op, w, [t[0] for t in tensors]) * layer.unit
            in_output = (bias * scale / layer.unit).astype(np.float32)
            walk.settle([op.reference(*t, w, scale, in_output) for t in tensors])
            new[layer.name] = bias.astype(np.float32)
        return with_layer_constants(_with_biases(mod, new), integers)


@dataclass(frozen=True)
class _Layer:
    """Name of a layer, and the real value of 1 in its accumulator, float64 [O]."""

    name: str
    unit: np.ndarray


def _fp8_layers(mod: tvm.IRModule) -> dict[bytes, _Layer]:
    """The layers of a QDQ graph with a bias and a float weight, by the weight as its operator holds it."""
    values = dict(bindings(mod["main"]))
    found = {}
    for var, value in values.items():
        unit = read_composite(mod, value)
        if unit is None or unit.kind not in ("conv2d", "matmul"):
            continue
        x, w = (values.get(a) for a in unit.args[:2])
        if not dequantizes(x) or not dequantizes(w) or unit.bias is None:
            continue
        weight, scale, step = constant(w.args[0]), scale_and_zero(w)[0], scale_and_zero(x)[0]  # type: ignore[union-attr]
        if weight is None or scale is None or step is None or not holds_floats(str(weight.dtype)):
            continue
        if unit.bias.size != scale.size:  # one bias for all channels
            continue
        order = (0, 2, 3, 1) if weight.ndim == 4 else (1, 0)
        key = np.ascontiguousarray(weight.transpose(order)).tobytes()
        found[key] = _Layer(str(var.name), np.float64(step) * scale.astype(np.float64))
    return found


def _mean_sum(op: FloatConv2d | FloatDense, w: np.ndarray, inputs: list[np.ndarray]) -> np.ndarray:
    """The mean of a layer's sums over all pixels or rows of `inputs`, in real arithmetic: float64 [O]."""
    weight, total, count = float_values.value(w).astype(np.float64), np.zeros(()), 0
    for codes in inputs:
        x = float_values.value(codes).astype(np.float64)
        if isinstance(op, FloatDense):
            rows = x.reshape(-1, x.shape[-1])
            total, count = total + rows.sum(axis=0), count + len(rows)
        else:
            sums, windows = patch_sums(x, w.shape[1:3], op.strides, op.padding, op.dilation)
            total, count = total + sums, count + windows
    mean = np.asarray(total / count)
    return weight @ mean if isinstance(op, FloatDense) else conv_of_patch(weight, mean, op.groups)


def _with_biases(mod: tvm.IRModule, new: dict[str, np.ndarray]) -> tvm.IRModule:
    """A module whose layers have `new` biases, by name."""

    def visit(r: Any, var: Any, value: Any) -> Any:
        kept = r.keep(value)
        if str(var.name) not in new:
            return kept
        old, bias = constant(value.args[2]), new[str(var.name)]
        assert old is not None
        args = [*kept.args[:2], relax.const(bias.reshape(old.shape)), *kept.args[3:]]
        return relax.Call(kept.op, args, kept.attrs, kept.ty_args)

    return rewrite(mod, visit)
