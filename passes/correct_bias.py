"""CorrectBias: give every layer of a QDQ graph the mean output that it has in float.

Rounding weights and activations shifts the mean of a layer's accumulator, channel by channel, and what that
does goes through the whole network; the bias takes the shift back:
b' = b + E[W x + b in float] - E[what the graph computes].
Nagel et al. 2019, "Data-Free Quantization …", section 4.2, in its empirical form.

The float means take one pass over the data; the lowered graph is walked once, layer by layer over all
samples, so that a layer sees what the corrected layers before it give.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.evaluate.hidden_tokens import HiddenTokens, hidden_in
from hwptq.evaluate.lockstep import Lockstep, live_bytes
from hwptq.formats import holds_floats
from hwptq.ir.composite import read_composite
from hwptq.ir.dataflow import bindings, constant, entry_functions, main_functions, rewrite
from hwptq.ir.operator import integer_operator
from hwptq.ir.provenance import origins
from hwptq.ir.qdq import dequantizes, scale_and_zero
from hwptq.operators.conv2d import FloatConv2d
from hwptq.operators.dense import FloatDense
from hwptq.operators.layers import IntegerLayer, LayerToFloat
from hwptq.quant import float_values
from hwptq.quant.fixed_point import ACCUMULATOR_LIMIT
from hwptq.targets.schema import Descriptor

from .graph.layer_means import FLOAT_SAMPLES, float_means, mean_sum
from .graph.quantized_layers import (
    LayerConstants,
    Place,
    QuantizedLayer,
    evaluated,
    quantized_layers,
    with_layer_constants,
)
from .lower_to_integer import LowerToInteger

#: Most samples to use, and bytes of activations to hold; a mean needs no more.
SAMPLES = 256
HELD_BYTES = 512 * 2**20


@tvm.transform.module_pass(opt_level=0, name="hwptq.CorrectBias")
class CorrectBias:
    """QDQ graph -> QDQ graph with corrected biases, of layers in integers and in short floats. Of the latter
    those without a bias stay as they are.

    float_module: the graph that InsertQDQ was given; batches: an iterable of its inputs, of which the first
    ones are used, so that memory does not grow with their number; target: as in LowerToInteger. floats_only:
    layers in integers stay as they are, as RoundWeights has settled their biases.
    """

    def __init__(
        self,
        float_module: tvm.IRModule,
        batches: Iterable[dict[str, np.ndarray]],
        target: Descriptor,
        floats_only: bool = False,
    ):
        self.float_module, self.batches, self.target = float_module, batches, target
        self.floats_only = floats_only

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        lowered = tvm.ir.transform.Sequential([LowerToInteger(self.target)])(mod)
        integers, floats = {} if self.floats_only else quantized_layers(mod), _float_layers(mod)
        held = HELD_BYTES // max(1, *(live_bytes(lowered[f]) for f in entry_functions(lowered)))
        hidden, batches = hidden_in(self.float_module, self.batches)
        samples = list(islice(batches, max(1, min(FLOAT_SAMPLES if floats else SAMPLES, held))))
        if not samples:
            raise ValueError("CorrectBias needs at least one sample")
        wanted = float_means(self.float_module, samples, hidden)
        bits = self.target.numerics.bias_bits
        corrected = _Corrected(integers, floats, wanted, {}, {}, bits, hidden)
        for function in entry_functions(lowered):
            fitting = [s for s in samples if all(str(p.name) in s for p in lowered[function].params)]
            if fitting:
                corrected.walk(lowered, function, fitting)
        return with_layer_constants(_with_biases(mod, corrected.biases), corrected.constants)


@dataclass
class _Corrected:
    """What has been found so far: biases of layers in floats, and constants of layers in integers."""

    integers: Mapping[Place, QuantizedLayer]
    floats: Mapping[Place, np.ndarray]  # the real value of 1 in the accumulator of a layer, [O]
    wanted: Mapping[Place, np.ndarray]  # the mean of each layer in float
    biases: dict[Place, np.ndarray]
    constants: dict[Place, LayerConstants]
    bias_bits: int  # that the device has
    hidden: HiddenTokens | None  # tokens that don't count

    def walk(self, lowered: tvm.IRModule, function: str, samples: list[dict[str, np.ndarray]]) -> None:
        """Correct the layers of a function in their order, each on what those before it then give."""
        walk, named = Lockstep(lowered, samples, function), origins(lowered[function])
        for var, value in bindings(lowered[function]):
            op, place = integer_operator(lowered, value), (function, named[var].layer)
            if place not in self.wanted:
                continue
            if isinstance(op, IntegerLayer | LayerToFloat) and place in self.integers:
                walk.run_to(var)
                inputs = [env[value.args[1].fields[0]] for env in walk.values]
                walk.settle(self._integer(place, op, value, inputs, self._shown(place, samples)))
            elif isinstance(op, FloatConv2d | FloatDense) and place in self.floats:
                walk.run_to(var)
                inputs = [[env[a] for a in value.args[1].fields[:-3]] for env in walk.values]
                walk.settle(self._float(place, op, value, inputs, self._shown(place, samples)))

    def _shown(self, place: Place, samples: Sequence[dict[str, np.ndarray]]) -> list[np.ndarray | None]:
        """Of each sample the tokens of a layer that count; None: all."""
        return [self.hidden.rows(*place, sample) if self.hidden else None for sample in samples]

    def _integer(
        self, place: Place, op: Any, call: Any, inputs: list[np.ndarray],
        shown: Sequence[np.ndarray | None],
    ) -> list[np.ndarray]:  # fmt: skip
        """What a layer in integers gives once it is corrected."""
        layer = self.integers[place]
        weight, bias = (constant(a) for a in call.args[1].fields[1:3])
        assert weight is not None
        assert bias is not None
        mean = mean_sum(op, weight, inputs, shown, op.in_zero_point if weight.ndim == 4 else 0) + bias
        unit = layer.x_scale * layer.scale.astype(np.float64) / 2 ** (8 - layer.held_bits)
        own = layer.x_scale * layer.scale.astype(np.float64)
        limit = np.minimum(unit * (ACCUMULATOR_LIMIT // 4), own * (2.0 ** (self.bias_bits - 1) - 1.5))
        held = np.rint(layer.bias.astype(np.float64) / unit)
        new = np.clip(self.wanted[place] + (held - mean) * unit, -limit, limit)
        self.constants[place] = LayerConstants(layer.values, layer.scale, new.astype(np.float32))
        return list(map(evaluated(op, layer, self.constants[place]), inputs))

    def _float(
        self, place: Place, op: Any, call: Any, inputs: list[list[np.ndarray]],
        shown: Sequence[np.ndarray | None],
    ) -> list[np.ndarray]:  # fmt: skip
        """The same of a layer in floats; `inputs`: its activations, of which the first is what it weighs."""
        weight, scale = (constant(a) for a in call.args[1].fields[-3:-1])
        assert weight is not None
        assert scale is not None
        unit = self.floats[place]
        values = (float_values.value(x).astype(np.float64) for x, *_ in inputs)
        mean = mean_sum(op, float_values.value(weight).astype(np.float64), list(values), shown)
        bias = self.wanted[place] - mean * unit
        self.biases[place] = bias.astype(np.float32)
        in_output = (bias * scale / unit).astype(np.float32)
        return [op.reference(*tensors, weight, scale, in_output) for tensors in inputs]


def _float_layers(mod: tvm.IRModule) -> dict[Place, np.ndarray]:
    """The layers of a QDQ graph with a float weight and a bias for each channel: the real value of 1 in the
    accumulator, float64 [O].
    """
    found = {}
    for gv, func in main_functions(mod):
        values, named = dict(bindings(func)), origins(func)
        for var, value in values.items():
            unit = read_composite(mod, value)
            if unit is None or unit.kind not in ("conv2d", "matmul") or unit.bias is None:
                continue
            x, w = (values.get(a) for a in unit.args[:2])
            if x is None or w is None or not dequantizes(x) or not dequantizes(w):
                continue
            weight, scale, step = constant(w.args[0]), scale_and_zero(w)[0], scale_and_zero(x)[0]
            if weight is None or scale is None or step is None or not holds_floats(str(weight.dtype)):
                continue
            if unit.bias.size == scale.size:  # else one bias for all channels
                found[str(gv.name_hint), named[var].label] = np.float64(step) * scale.astype(np.float64)
    return found


def _with_biases(mod: tvm.IRModule, new: Mapping[Place, np.ndarray]) -> tvm.IRModule:
    """A module whose layers have `new` biases."""

    def visit(r: Any, var: Any, value: Any) -> Any:
        kept, place = r.keep(value), (r.name, r.origin.label)
        if place not in new or read_composite(mod, value) is None:
            return kept
        old = constant(value.args[2])
        assert old is not None
        args = [*kept.args[:2], relax.const(new[place].reshape(old.shape)), *kept.args[3:]]
        return relax.Call(kept.op, args, kept.attrs, kept.ty_args)

    return rewrite(mod, visit)
