"""RoundWeights: choose the integers of every layer's weights from what reaches the layer, in graph order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np
import tvm

from hwptq.evaluate.hidden_tokens import SEARCHED, HiddenTokens, hidden_in
from hwptq.evaluate.lockstep import Lockstep, live_bytes
from hwptq.formats import format_of, holds_floats
from hwptq.ir.dataflow import bindings, constant, entry_functions
from hwptq.ir.operator import integer_operator
from hwptq.ir.provenance import origins
from hwptq.operators.conv2d import FloatConv2d
from hwptq.operators.dense import FloatDense
from hwptq.operators.layers import IntegerLayer, LayerToFloat
from hwptq.quant.layer_rounding import RoundingProblem, rounding_method
from hwptq.quant.symmetric_weights import represents
from hwptq.quant.weight_groups import choose_factors
from hwptq.targets.schema import Descriptor

from .graph.layer_columns import LayerColumns, float_layer
from .graph.layer_means import FLOAT_SAMPLES
from .graph.quantized_layers import (
    LayerConstants,
    Place,
    QuantizedLayer,
    evaluated,
    operator_constants,
    quantized_layers,
    with_layer_constants,
)
from .lower_to_integer import LowerToInteger

#: Columns (tokens, pixels) of the layer that has fewest with which more samples tell little new.
ENOUGH = 2**13
#: The same of the layer that has most, if there are some samples.
MOST = 3 * 2**18
FEWEST_SAMPLES = 32
_BELOW_HALF = 0.499  # a requantize multiplier must stay under 1/2


#: Items and their number -> the items, seen as they are taken.
Track = Callable[[Iterable[Any], "int | None"], Iterable[Any]]


@dataclass(frozen=True)
class RoundingOptions:
    """method: see quant/layer_rounding.py; memory: bytes that the values of all samples may take.

    alone: every layer as if it alone were quantized: those before it pass on what float32 gives, but for the
    rounding to the scale of the tensor between. So constants of one layer owe nothing to the others'.
    only: the layers that are rounded, where they are alone; all if None.
    """

    method: str = "descent"
    memory: int = 3 * 2**29
    alone: bool = False
    only: frozenset[Place] | None = None

    def __post_init__(self) -> None:
        if self.only is not None and not self.alone:
            raise ValueError("RoundWeights: some layers only can be rounded where each is alone")

    def rounds(self, place: Place) -> bool:
        """Whether this layer is."""
        return self.only is None or place in self.only


@tvm.transform.module_pass(opt_level=0, name="hwptq.RoundWeights")
class RoundWeights:
    """New weights, scales and biases for the layers in integers of a QDQ module; those in floats, dtypes and
    activations stay.

    Layer by layer, on the integers that really reach it (those of LowerToInteger, with the layers before it
    already rounded): the target of the rounding is the regression of the float layer's output on them, the
    error is weighed by their covariance, and the bias takes up the mean that is left. Where each channel has
    a scale of its own, it is fitted too, so the requantize multiplier repairs a channel's gain; where weights
    have one scale for all channels, it stays one.

    float_module: the module that InsertQDQ was given; samples: dicts of its inputs, of which the first ones
    are used, as many as fit `options.memory`; target: as in LowerToInteger. track: passes the
    layers of a function on, of which the total is given too, and so sees how far the rounding has come.
    """

    def __init__(
        self, float_module: tvm.IRModule, samples: Iterable[dict[str, np.ndarray]],
        target: Descriptor, options: RoundingOptions | None = None, track: Track | None = None,
    ):  # fmt: skip
        self.float_module, self.samples, self.target = float_module, samples, target
        self.options, self.track = options or RoundingOptions(), track or (lambda items, total: items)
        rounding_method(self.options.method)  # it is known

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        layers = quantized_layers(mod)
        integer = tvm.ir.transform.Sequential([LowerToInteger(self.target)])(mod)
        entries = entry_functions(integer)
        needed = max(live_bytes(self.float_module[f]) + live_bytes(integer[f]) for f in entries)
        hidden, rest = hidden_in(self.float_module, self.samples)
        first = list(islice(rest, SEARCHED)) if hidden else []
        most = min(self.options.memory // needed, int(_enough(layers) / _shown_part(hidden, first)))
        if _sums_floats(integer):
            most = min(most, FLOAT_SAMPLES)
        samples = list(islice(chain(first, rest), max(1, most)))
        if not samples:
            raise ValueError("RoundWeights needs at least one sample")
        new: dict[Place, LayerConstants] = {}
        for function in entries:
            fitting = [s for s in samples if all(str(p.name) in s for p in integer[function].params)]
            if fitting:
                new |= self._function(layers, integer, function, fitting, hidden)
        return with_layer_constants(mod, new)

    def _function(
        self, layers: dict[Place, QuantizedLayer], integer: tvm.IRModule, function: str,
        samples: list[dict[str, np.ndarray]], hidden: HiddenTokens | None,
    ) -> dict[Place, LayerConstants]:  # fmt: skip
        """Round the layers of a function in their order."""
        exact = Lockstep(self.float_module, samples, function)
        quantized = Lockstep(integer, samples, function)
        func = self.float_module[function]
        values, named = dict(bindings(func)), origins(func)
        floats = {(function, named[v].label): (v, value) for v, value in values.items()}
        of_integer = origins(integer[function])
        steps = []
        for var, value in bindings(integer[function]):
            op, place = integer_operator(integer, value), (function, of_integer[var].layer)
            if isinstance(op, IntegerLayer | LayerToFloat) and place in layers and place in floats:
                steps.append((var, value, op, place))
        while steps and not self.options.rounds(steps[-1][3]):
            steps.pop()
        new: dict[Place, LayerConstants] = {}
        for var, value, op, place in self.track(steps, len(steps)):
            quantized.run_to(var)
            if self.options.rounds(place):
                shown = _shown(hidden, place, samples)
                new[place] = self._layer(layers[place], op, value, exact, floats[place], quantized, shown)
            else:
                self._pass_on(layers[place], op, exact, floats[place], quantized)
        return new

    def _pass_on(
        self, layer: QuantizedLayer, op: Any, exact: Lockstep, reference_layer: tuple[Any, Any],
        quantized: Lockstep,
    ) -> None:  # fmt: skip
        """Evaluate a layer that stays, in both walks."""
        var, call = reference_layer
        exact.run_to(var)
        results = [float_layer(exact.interpreter, call, env)[1] for env in exact.values]
        exact.settle(results)
        quantized.settle([_as_output(op, result, layer) for result in results])

    def _layer(
        self, layer: QuantizedLayer, op: Any, value: Any, exact: Lockstep, reference_layer: tuple[Any, Any],
        quantized: Lockstep, shown: Sequence[np.ndarray | None],
    ) -> LayerConstants:  # fmt: skip
        """Round one layer and evaluate it, in both walks. shown: the tokens of each sample that count."""
        var, call = reference_layer
        exact.run_to(var)
        source = value.args[1].fields[0]
        columns = LayerColumns(layer, op, len(quantized.values))
        results = []
        for env, ints, tokens in zip(exact.values, quantized.values, shown, strict=True):
            unclamped, result = float_layer(exact.interpreter, call, env)
            columns.add(ints[source], unclamped, tokens)
            results.append(result)
        exact.settle(results)
        weight = constant(call.args[1])
        assert weight is not None
        chosen = _round(layer, weight, columns, self.options)
        if self.options.alone:
            quantized.settle([_as_output(op, result, layer) for result in results])
            return chosen
        result_of = evaluated(op, layer, chosen)
        quantized.settle([result_of(ints[source]) for ints in quantized.values])
        return chosen


def _enough(layers: Mapping[Place, QuantizedLayer]) -> int:
    """So many samples that more tell little new: tokens and pixels count as much as samples do."""
    columns = [layer.columns for layer in layers.values()] or [1]
    return min(-(-ENOUGH // min(columns)), max(FEWEST_SAMPLES, MOST // max(columns)))


def _shown_part(hidden: HiddenTokens | None, samples: Iterable[Mapping[str, np.ndarray]]) -> float:
    """How much of the samples' tokens is no padding: the others are no columns."""
    return float(np.mean([hidden.shown(s).mean() for s in samples])) if hidden else 1.0


def _shown(
    hidden: HiddenTokens | None, place: Place, samples: Sequence[Mapping[str, np.ndarray]]
) -> list[np.ndarray | None]:
    """Of each sample the tokens of a layer's result that a mask doesn't hide; None: all count."""
    return [hidden.rows(*place, sample) if hidden else None for sample in samples]


def _sums_floats(integer: tvm.IRModule) -> bool:
    """Whether any layer of a lowered module sums products of floats."""
    nodes = (value for f in entry_functions(integer) for _, value in bindings(integer[f]))
    return any(isinstance(integer_operator(integer, v), FloatConv2d | FloatDense) for v in nodes)


def _as_output(op: Any, result: np.ndarray, layer: QuantizedLayer) -> np.ndarray:
    """What float32 gives, in the dtype and the layout of the operator's output."""
    moved = result.transpose(0, 2, 3, 1) if layer.values.ndim == 4 else result
    if layer.out_scale is None:
        return moved
    if holds_floats(layer.out_dtype):
        return format_of(layer.out_dtype).encode(moved, layer.out_scale)
    ints = np.rint(moved / np.float32(layer.out_scale)) + op.out_zero_point
    return np.clip(ints, op.lo, op.hi).astype(layer.out_dtype)


def _round(
    layer: QuantizedLayer, weight: np.ndarray, columns: LayerColumns, options: RoundingOptions
) -> LayerConstants:
    """The layer's best constants; its old ones where no others fit the accumulator."""
    rows = layer.rows(weight).astype(np.float64)
    statistics = columns.statistics()
    if represents(layer.values, layer.scale, 0 if layer.values.ndim == 4 else 1, weight):
        return _fitting(layer, layer.values, layer.scale, statistics.bias(rows))  # no weight loses anything
    target, metric = statistics.regressed(rows)
    low, high = _scale_limits(layer, rows.shape[:2])
    problem = RoundingProblem(target, metric, int(layer.dtype.qmax), layer.shared_scale, low, high)
    if layer.group:
        variance = np.einsum("gkk->gk", metric)
        problem = replace(problem, factor=choose_factors(target, variance, layer.group_ids))

    def retarget(q: np.ndarray, scale: np.ndarray) -> RoundingProblem:
        nonlocal statistics
        real = q * problem.factor * scale[..., None]
        statistics = columns.clamped(statistics, real, statistics.bias(real))
        return replace(problem, target=statistics.regressed(rows)[0])

    clamped = any(np.any(np.isfinite(b)) for b in layer.unit.bounds)
    q, scale = rounding_method(options.method).solve(problem, retarget if clamped else None)
    q, scale = q * problem.factor, scale.astype(np.float32)
    bias = statistics.bias(q * scale[..., None].astype(np.float64))
    return _fitting(layer, layer.from_rows(q.astype(np.int8)), scale.reshape(-1), bias)


def _fitting(
    layer: QuantizedLayer, values: np.ndarray, scale: np.ndarray, bias: np.ndarray
) -> LayerConstants:  # fmt: skip
    """These constants; those that the layer has where they don't fit the accumulator."""
    chosen = LayerConstants(values, scale, bias.reshape(-1).astype(np.float32))
    try:
        operator_constants(layer, chosen)
    except ValueError:
        return LayerConstants(layer.values, layer.scale, layer.bias)
    return chosen


def _scale_limits(layer: QuantizedLayer, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Scales between which the bias fits the accumulator and the multiplier stays under 1/2."""
    bias = np.abs(layer.bias).reshape(shape)
    low = np.maximum(bias / (layer.x_scale * 2.0 ** (20 + layer.held_bits)), 1e-12)
    factor = 2 ** (8 - layer.held_bits)
    if layer.out_scale is None or holds_floats(layer.out_dtype):
        return low, np.full(shape, np.inf)
    return low, np.full(shape, _BELOW_HALF * factor * layer.out_scale / layer.x_scale)
