"""The places of a quantized model where values are rounded: a layer's weights, and what a node yields.

A place is a tensor of the float module. What quantization does to it is read from the QDQ module, where it
has the same origin.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm

from hwptq.evaluate.interpret import Interpreter
from hwptq.formats import Format, Pair, format_of
from hwptq.ir.composite import read_composite
from hwptq.ir.dataflow import bindings, only_function, op_name, reads, shape_of, users
from hwptq.ir.macs import node_macs
from hwptq.ir.provenance import Origin, origins
from hwptq.ir.provenance import Part as Role
from hwptq.ir.qdq import dequantizes, quantizes, scale_and_zero
from hwptq.lowering.rules import family_of, rule_of
from hwptq.passes.graph.quantizable import layer_dtypes


class Part(enum.Flag):
    """What is lost at a place, or in the whole model."""

    RANGES = enum.auto()  #: values beyond the range of their scale
    WEIGHTS = enum.auto()  #: a layer's weights in few bits
    ACTIVATIONS = enum.auto()  #: the rounding of what a node yields, inside its range
    ALL = RANGES | WEIGHTS | ACTIVATIONS

    @property
    def word(self) -> str:
        """Its name in reports."""
        return str(self.name).lower()


#: Each part by itself.
PARTS = (Part.RANGES, Part.WEIGHTS, Part.ACTIVATIONS)


@dataclass(frozen=True)
class Rounding:
    """What happens to a tensor between its quantize and its dequantize."""

    dtype: Format
    scale: float
    zero: int
    low: float  # real values that a code stands for, the least and the greatest
    high: float

    def __call__(self, x: np.ndarray, parts: Part) -> np.ndarray:
        """The values of `x` with the error of RANGES, of ACTIVATIONS or of both; float32."""
        inside = np.clip(x, np.float32(self.low), np.float32(self.high))
        if Part.ACTIVATIONS not in parts:
            return inside if Part.RANGES in parts else x
        rounded = self.dtype.decode(self.dtype.encode(inside, self.scale, self.zero), self.scale, self.zero)
        return rounded if Part.RANGES in parts else x + (rounded - inside)


@dataclass(frozen=True)
class RoundedLayer:
    """A layer as a QDQ module computes it, on the float tensors of its network.

    pair: the dtypes of its activation and its weights; shared_scale: whether its channels, where it has
    several, have one scale.
    """

    module: tvm.IRModule
    call: Any
    sources: tuple[Any, ...]  # vars of the QDQ module that it reads, its weights aside, in their order
    constants: Mapping[Any, Any]  # var of its weights -> their values
    pair: Pair
    shared_scale: bool

    def same_weights(self, other: RoundedLayer) -> bool:
        """Whether two forms of a layer have the same weights."""
        pairs = zip(self.constants.values(), other.constants.values(), strict=True)
        return all(np.array_equal(a, b) for a, b in pairs)


@dataclass(frozen=True)
class Place:
    """A node of the float module that quantization changes.

    origin: by its label places of different modules are the same; var: of the float module, a binding or a
    parameter; kind: of its operator, "" for a parameter; layer: None where it has no weights; rounding: None
    where what it yields is not rounded, or was before.
    """

    origin: Origin
    var: Any
    kind: str
    macs: int
    layer: RoundedLayer | None
    rounding: Rounding | None

    @property
    def name(self) -> str:
        """As the user knows it."""
        return self.origin.label

    @property
    def parts(self) -> list[Part]:
        """What may be lost here."""
        weights = [Part.WEIGHTS] if self.layer else []
        return weights + ([Part.RANGES, Part.ACTIVATIONS] if self.rounding else [])


def places(float32: tvm.IRModule, qdq: tvm.IRModule) -> list[Place]:
    """Every place where `qdq`, made of the fused module `float32`, rounds; in the order of the graph."""
    func = float32[only_function(float32)]
    exact, named = dict(bindings(func)), origins(func)
    graph = _Quantized(qdq)
    found: dict[Any, Place] = {}
    roundings: dict[Any, Rounding] = {}
    for var in [*func.params, *exact]:
        value, twin = exact.get(var), graph.results.get(named[var].label)
        if twin is None:
            continue
        op = "" if value is None else family_of(float32, value) or op_name(value)
        layer, rounding = graph.layer(twin), graph.rounding(twin)
        if rounding is not None:
            roundings[var] = rounding
            rule = None if value is None else rule_of(float32, value)
            if rule and rule.selects(value) and all(roundings.get(v) == rounding for v in _reals(value)):
                rounding = None  # its values are rounded already
        if layer is not None or rounding is not None:
            macs = 0 if value is None else node_macs(float32, value)
            found[var] = Place(named[var], var, op, macs, layer, rounding)
    return list(found.values())


def _reals(value: Any) -> list[Any]:
    """The real tensors that a node reads: no masks, no indices."""
    return [v for v in reads(value) if getattr(v.ty, "dtype", None) == "float32"]


class _Quantized:
    """The only function of a QDQ module, to look things up in."""

    def __init__(self, mod: tvm.IRModule):
        self.mod, func = mod, mod[only_function(mod)]
        self.values, self.readers = dict(bindings(func)), users(func)
        self.dtypes = layer_dtypes(func)
        self.origins = origins(func)
        self.results = {o.label: v for v, o in self.origins.items() if o.part is Role.RESULT}
        self.interpreter = Interpreter(mod)

    def layer(self, var: Any) -> RoundedLayer | None:
        call = self.values.get(var)
        if read_composite(self.mod, call) is None:
            return None
        weights = [v for v in reads(call) if dequantizes(self.values.get(v)) and not reads(self.values[v])]
        if not weights:
            return None
        constants = {v: self.interpreter.evaluate(self.values[v], {}) for v in weights}
        weight = self.values[weights[0]]
        held = str(weight.args[0].ty.dtype)
        pair = self.dtypes.get(self.origins[var].label, (held, held))
        sources = tuple(v for v in reads(call) if v not in constants)
        return RoundedLayer(self.mod, call, sources, constants, pair, _one_scale(weight))

    def rounding(self, var: Any) -> Rounding | None:
        """That of a tensor which quantize alone reads, perhaps behind the clip to a format of fewer codes."""
        who = self.readers.get(var, [])
        if len(who) != 1 or who[0] is None:
            return None
        step = self.values[who[0]]
        if op_name(step) == "clip":
            inner = self.rounding(who[0])
            low, high = (float(a.value) for a in step.args[1:3])
            return inner and Rounding(inner.dtype, inner.scale, inner.zero, low, high)
        if not quantizes(step) or not all(dequantizes(self.values.get(v)) for v in self.readers[who[0]]):
            return None
        dtype, (scale, zero) = format_of(str(step.ty.dtype)), scale_and_zero(step)
        if scale is None or zero is None or scale.size != 1:
            return None
        unit, origin = float(scale.item()), int(zero.item())
        low, high = ((code - origin) * unit for code in (dtype.qmin, dtype.qmax))
        return Rounding(dtype, unit, origin, low, high)


def _one_scale(weight: Any) -> bool:
    """Whether the channels of a dequantized weight, several of them, have one scale."""
    scale, _ = scale_and_zero(weight)
    if op_name(weight) != "dequantize" or scale is None:
        return False
    return shape_of(weight)[int(weight.attrs.axis)] > 1 and float(np.ptp(scale)) == 0.0
