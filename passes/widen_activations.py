"""WidenActivations: int16 for what layers read where a byte would drown what they make of it.

A tensor of bytes has one scale for all its channels. Where a channel is small beside the others, and the
layer that reads it makes it large again, as depthwise convolutions behind SiLU do, that layer gives rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tvm

from hwptq.evaluate.downstream import Network
from hwptq.formats import INT8, Pair, format_of
from hwptq.ir.dataflow import main_functions
from hwptq.ir.macs import node_macs
from hwptq.quant.qparams import QParams

from .graph.quantizable import assignment, with_assignment
from .graph.quantization_plan import Choices, QuantizationPlan
from .variants import is_wide

SAMPLES = 3
#: Noise power at the outputs, relative to the signal's, from which on a tensor is worth more bits: 28 dB.
WORTH = 10**-2.8
#: The part of a model's multiply-accumulates that may read more than bytes: they take several times as long.
MOST_MACS = 0.04
#: Tensors whose noise is followed to the outputs, those that drown the most of what reads them: as many as
#: these multiply-accumulates allow, within bounds.
_FOLLOWED_MACS, _FOLLOWED = 1e11, (4, 64)
_DROWNED = 0.001


@tvm.transform.module_pass(opt_level=0, name="hwptq.WidenActivations")
class WidenActivations:
    """Record wide dtypes for the layers of a fused float module that need them, for InsertQDQ to take.

    Each tensor that layers would read as bytes is rounded alone. Of those that drown the most of what their
    layers give, the ones that alone cost the outputs WORTH are widened, the most noise for the least work
    first, where the target offers it. stats: of calibration; samples: dicts of the module's inputs, of which
    the first SAMPLES are read; granularity and exclude as for InsertQDQ. Layers that have dtypes keep them.
    """

    def __init__(
        self, target: Any, stats: Any, samples: Iterable[dict[str, np.ndarray]],
        granularity: str | None = None, exclude: str | None = None,
    ):  # fmt: skip
        self.target, self.stats, self.samples = target, stats, samples
        self.granularity, self.exclude = granularity, exclude

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        found = {}
        for gv, func in main_functions(mod):
            choices = Choices(self.granularity, self.exclude, assignment(func))
            plan = QuantizationPlan(mod, str(gv.name_hint), self.target, self.stats, choices)
            if tensors := _tensors(plan):
                samples = [s for s in islice(self.samples, SAMPLES) if _fits(s, func)]
                found[plan.function] = _pairs(plan, _worst(plan, tensors, samples), samples)
        return with_assignment(mod, found) if any(found.values()) else mod


@dataclass(frozen=True)
class _Tensor:
    """Bytes that layers read: its var, how it is rounded, the layers, what they would have instead."""

    var: Any
    rounding: QParams
    layers: tuple[Any, ...]
    pairs: Mapping[str, Pair]  # by label
    macs: int

    def rounded(self, value: np.ndarray) -> np.ndarray:
        scale, zero = self.rounding.scale, self.rounding.zero_point
        return self.rounding.dtype.decode(self.rounding.dtype.encode(value, scale, zero), scale, zero)


def _fits(sample: Mapping[str, np.ndarray], func: Any) -> bool:
    """Whether a sample has the inputs of a function: a module may have several functions."""
    return all(str(p.name) in sample for p in func.params)


def _tensors(plan: QuantizationPlan) -> list[_Tensor]:
    """Those in bytes whose layers can all read more."""
    readers: dict[Any, list[Any]] = {}
    for var in plan.weights:
        readers.setdefault(plan.values[var].args[0], []).append(var)
    found = []
    for source, layers in readers.items():
        pairs = {plan.labels[v]: _wide(plan, v) for v in layers}
        offered = {name: pair for name, pair in pairs.items() if pair}
        dtypes = [plan.input_dtype(v) for v in layers]
        narrow = all(d.bits <= INT8.bits and not d.is_float for d in dtypes)
        if len(offered) == len(layers) and narrow and source not in plan.narrow:
            macs = sum(node_macs(plan.mod, plan.values[v]) for v in layers)
            found.append(_Tensor(source, plan.qparams[source], tuple(layers), offered, macs))
    return found


def _wide(plan: QuantizationPlan, var: Any) -> Pair | None:
    """The pair of more than bytes with the weights that a layer has."""
    weight = plan.pair(var)[1]
    pairs = plan.target.rule(plan.kinds[var]).pairs
    wide = [p for p in pairs if is_wide(p) and p[1] == weight]
    return min(wide, key=lambda p: format_of(p[0]).bits, default=None)


def _worst(
    plan: QuantizationPlan, tensors: Sequence[_Tensor], samples: Sequence[Mapping[str, np.ndarray]]
) -> list[_Tensor]:
    """Those that drown the most channels of what a layer gives, the worst first."""
    network = Network(plan.mod, plan.function)
    sums = {t.var: [_Channels() for _ in t.layers] for t in tensors}
    for sample in samples:
        env = network.values(sample)
        for tensor in tensors:
            changed = {**env, tensor.var: tensor.rounded(env[tensor.var])}
            for var, channels in zip(tensor.layers, sums[tensor.var], strict=True):
                channels.add(env[var], network.interpreter.evaluate(plan.values[var], changed))
    drowned = {t.var: max(c.drowned for c in sums[t.var]) for t in tensors}
    few, many = _FOLLOWED
    count = int(_FOLLOWED_MACS / max(_macs(plan) * len(samples), 1))
    worst = sorted(tensors, key=lambda t: -drowned[t.var])[: min(max(count, few), many)]
    return [t for t in worst if drowned[t.var] > _DROWNED]


def _macs(plan: QuantizationPlan) -> int:
    return sum(node_macs(plan.mod, value) for value in plan.values.values())


def _pairs(
    plan: QuantizationPlan, tensors: Sequence[_Tensor], samples: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, Pair]:
    """The dtypes of the layers that are to read more than bytes."""
    noise = dict.fromkeys((t.var for t in tensors), 0.0)
    network = Network(plan.mod, plan.function)
    for sample in samples if tensors else ():
        env = network.values(sample)
        exact = network.outputs(env)
        for tensor in tensors:
            found = network.outputs_with(env, tensor.var, tensor.rounded(env[tensor.var]))
            noise[tensor.var] += _noise(exact, found) / len(samples)
    room = MOST_MACS * _macs(plan)
    pairs: dict[str, Pair] = {}
    for tensor in sorted(tensors, key=lambda t: -noise[t.var] / max(t.macs, 1)):
        if noise[tensor.var] >= WORTH and tensor.macs <= room:
            room -= tensor.macs
            pairs |= tensor.pairs
    return pairs


class _Channels:
    """The power of what a layer gives, its means aside, and of the noise in it, by channel."""

    def __init__(self) -> None:
        self.count, self.total, self.power, self.noise = 0.0, 0.0, 0.0, 0.0

    def add(self, exact: np.ndarray, found: np.ndarray) -> None:
        """One sample."""
        rows = _rows(exact)
        self.count += rows.shape[1]
        self.total = self.total + rows.sum(axis=1)
        self.power = self.power + (rows**2).sum(axis=1)
        self.noise = self.noise + ((_rows(found) - rows) ** 2).sum(axis=1)

    @property
    def drowned(self) -> float:
        """The mean over the channels of noise relative to the variance, 1 at most."""
        variance = np.maximum(self.power - np.square(self.total) / max(self.count, 1.0), 1e-30)
        return float(np.minimum(self.noise / variance, 1.0).mean())


def _rows(x: np.ndarray) -> np.ndarray:
    """float64 [channels, all else]: of images NCHW, else of the last axis."""
    axis = 1 if x.ndim == 4 else x.ndim - 1
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype(np.float64)


def _noise(exact: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """Noise power relative to the signal's, the mean of the outputs; one that drowns counts as 1."""
    return float(np.mean([_relative(x, y) for x, y in zip(exact, found, strict=True)]))


def _relative(exact: np.ndarray, found: np.ndarray) -> float:
    x, y = exact.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    return min(float((x - y) @ (x - y)) / max(float(x @ x), 1e-30), 1.0)
