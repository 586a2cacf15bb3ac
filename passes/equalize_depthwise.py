"""EqualizeDepthwise: a scale for each channel of what depthwise convolutions read.

A tensor has one scale for all its channels. A filter of a depthwise convolution reads one channel only, so
that a number divided out of the channel can go into its weights, which have a scale for each filter:

    depthwise(x, w) = depthwise(x / s, s w)          s [C], of each channel's range on the data

Behind a layer, through ReLU, pooling and all else that commutes with a scale, the weights of that layer are
divided by the root of s: it costs nothing. A function such as SiLU stands in the way of that. What it gives
is multiplied by 1 / s before it is rounded to bytes: its table gives int16 (graph/scaled_channels.py). That
is done where the rounding to bytes of one scale would cost the outputs something.

Nagel et al. 2019 (equalize_cross_layer.py) choose s by the weights on both sides, which here have scales of
their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.evaluate.interpret import observe_all
from hwptq.formats import INT8, format_of
from hwptq.ir.dataflow import bindings, main_functions, rewrite
from hwptq.ir.provenance import Origin, origins
from hwptq.quant.channel_scales import channel_scales
from hwptq.quant.qparams import activation_qparams

from .graph.channel_links import layers
from .graph.depthwise_inputs import DepthwiseInput, depthwise_inputs
from .graph.drowned import Losses, Rounded
from .graph.scalable_layer import ScalableLayer

#: Samples that ranges are taken of.
SAMPLES = 64
#: Noise power at the outputs, relative to the signal's, from which on a multiplication pays: 34 dB.
WORTH = 10**-3.4
#: Channels of half the largest range gain a bit; of more they are left.
_UNEVEN = 0.5
#: The least scale beside the largest: that leaves the smallest channel 5 bits of an int16.
_LEAST = 1 / 1024
#: The least range of a channel of a layer, of its input's range times the norm of its weights: a channel that
#: ReLU keeps silent here may speak on other data.
_SILENT = 1 / 16
_FACTOR_STEPS = 32767


@tvm.transform.module_pass(opt_level=0, name="hwptq.EqualizeDepthwise")
class EqualizeDepthwise:
    """Scale the channels of a fused float module that depthwise convolutions read; outputs stay the same.

    target: its descriptor says whether filters have a scale each, and whether it has tables and products.
    samples: dicts of the module's inputs, of which the first SAMPLES are read; granularity as for InsertQDQ.
    """

    def __init__(self, target: Any, samples: Iterable[dict[str, np.ndarray]], granularity: str | None = None):
        self.target, self.samples, self.granularity = target, samples, granularity

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        if not self._has_scales():
            return mod
        points = {str(gv.name_hint): depthwise_inputs(mod, func) for gv, func in main_functions(mod)}
        if not any(points.values()):
            return mod
        ranges = _Ranges(mod, islice(self.samples, SAMPLES))
        change = _Change()
        for name, found in points.items():
            units = {var: ScalableLayer.of(unit) for var, unit in layers(mod, mod[name]).items()}
            change.units |= units
            for point in found:
                if point.in_weights:
                    change.weights(point, _weight_scales(point, ranges, units[point.var]))
            for point in self._worth(mod, name, [p for p in found if not p.in_weights], ranges):
                change.products(point, _scales(point, ranges))
        return change.made(mod)

    def _has_scales(self) -> bool:
        """Whether the weights of depthwise convolutions have a scale each, and these read integers."""
        rule = self.target.rule("depthwise_conv2d")
        if rule is None or (self.granularity or str(rule.granularity)) == "tensor":
            return False
        read = format_of(rule.pairs[0][0])
        return not read.is_float and read.bits <= INT8.bits

    def _worth(
        self, mod: tvm.IRModule, function: str, points: list[DepthwiseInput], ranges: _Ranges
    ) -> list[DepthwiseInput]:
        """The results of functions whose rounding to bytes costs the outputs WORTH."""
        if any(self.target.rule(kind) is None for kind in ("lookup", "mul")):
            return []
        uneven = [p for p in points if _scales(p, ranges).min() < _UNEVEN]
        if not uneven:
            return []
        expressions = dict(bindings(mod[function]))
        rounded = [
            Rounded(
                p.var,
                activation_qparams(float(low.min()), float(high.max())).rounded,
                tuple(r.var for r in p.readers if expressions[r.var].args[0] == p.var),
            )
            for p in uneven
            for low, high in [ranges.of(p.var)]
        ]
        losses = Losses(mod, function, self.samples)
        noise = losses.at_outputs(losses.worth_following(rounded))
        return [p for p in uneven if noise.get(p.var, 0.0) >= WORTH]


class _Ranges:
    """The least and the greatest value of each channel of all images that samples make."""

    def __init__(self, mod: tvm.IRModule, samples: Iterable[dict[str, np.ndarray]]):
        self._found: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
        self._labels = {
            var: (str(gv.name_hint), origin.label)
            for gv, func in main_functions(mod)
            for var, origin in origins(func).items()
        }
        observe_all(mod, samples, self._observe)

    def of(self, var: Any) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) of the channels of a var."""
        return self._found[self._labels[var]]

    def _observe(self, function: str, origin: Origin, value: np.ndarray) -> None:
        if value.ndim == 4:
            place = function, origin.label
            low, high = value.min(axis=(0, 2, 3)), value.max(axis=(0, 2, 3))
            before = self._found.get(place, (low, high))
            self._found[place] = np.minimum(low, before[0]), np.maximum(high, before[1])


def _scales(point: DepthwiseInput, ranges: _Ranges) -> np.ndarray:
    """s of the channels of the result of a function."""
    return channel_scales(*ranges.of(point.var), _LEAST)


def _weight_scales(point: DepthwiseInput, ranges: _Ranges, layer: ScalableLayer) -> np.ndarray:
    """s of the channels of a layer's result: by the root, half of what a small channel could gain is left to
    it as room for larger values of other data."""
    low, high = ranges.of(point.var)
    below, above = ranges.of(layer.unit.args[0])
    read = max(float(above.max()), 0.0) - min(float(below.min()), 0.0)
    span = max(float(high.max()), 0.0) - min(float(low.min()), 0.0)
    audible = _SILENT * read * np.linalg.norm(layer.by_output(), axis=1) / max(span, 1e-30)
    return np.sqrt(channel_scales(low, high, np.clip(audible, _LEAST, 1.0)))


class _Change:
    """What is scaled, layer by layer. units: all layers, by var."""

    def __init__(self) -> None:
        self.units: dict[Any, ScalableLayer] = {}
        self._scaled: set[Any] = set()
        self._factors: dict[Any, np.ndarray] = {}  # of the results of functions
        self._beside: dict[
            Any, Any
        ] = {}  # depthwise convolution -> the function's result that has other readers

    def weights(self, point: DepthwiseInput, scales: np.ndarray) -> None:
        """Divide the channels of a layer's result."""
        if scales.min() >= _UNEVEN:
            return
        self.units[point.var].scale_output(scales)
        self._scaled.add(point.var)
        self._read(point, scales)

    def products(self, point: DepthwiseInput, scales: np.ndarray) -> None:
        """Divide the channels of a function's result, by factors that an int16 holds exactly."""
        factors = np.rint(scales.min() / scales * _FACTOR_STEPS) / _FACTOR_STEPS
        self._factors[point.var] = factors
        self._beside |= {} if point.alone else {reader.var: point.var for reader in point.readers}
        self._read(point, 1 / factors)

    def _read(self, point: DepthwiseInput, scales: np.ndarray) -> None:
        for reader in point.readers:
            by_input = np.where(reader.channels >= 0, scales[reader.channels], 1.0)
            self.units[reader.var].scale_input(by_input)
            self._scaled.add(reader.var)

    def made(self, mod: tvm.IRModule) -> tvm.IRModule:
        """The module with the layers scaled."""
        copies: dict[Any, Any] = {}
        copied = set(self._beside.values())

        def multiplied(r: Any, value: Any, var: Any) -> Any:
            factors = relax.const(self._factors[var].reshape(1, -1, 1, 1).astype(np.float32))
            return r.emit(relax.op.multiply(value, factors))

        def visit(r: Any, var: Any, value: Any) -> Any:
            if var in self._scaled:
                with r.reading({self._beside[var]: copies[self._beside[var]]} if var in self._beside else {}):
                    return self.units[var].emit(r)
            new = r.keep(value)
            if var not in self._factors:
                return new
            result = r.emit(new, r.origin)
            if var not in copied:
                return multiplied(r, result, var)
            again = r.emit(relax.Call(new.op, new.args, new.attrs, new.ty_args))
            copies[var] = multiplied(r, again, var)
            return result

        return rewrite(mod, visit) if self._scaled else mod
