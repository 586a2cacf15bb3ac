"""WidenActivations: int16 for what layers read where a byte would drown what they make of it.

A tensor of bytes has one scale for all its channels. Where a channel is small beside the others, and the
layer that reads it makes it large again, as depthwise convolutions behind SiLU do, that layer gives rounding.
Functions by table that do so are left in float (graph/drowned_functions.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm

from hwptq.formats import INT8, Pair, format_of
from hwptq.ir.dataflow import data_of, main_functions, shape_of
from hwptq.ir.macs import node_macs
from hwptq.targets.op_kinds import WEIGHTED_OPS

from .graph.drowned import Losses, Rounded
from .graph.drowned_functions import drowned_functions
from .graph.quantizable import assignment, with_assignment, with_float_reasons
from .graph.quantization_plan import Choices, QuantizationPlan
from .variants import is_wide

#: Noise power at the outputs, relative to the signal's, from which on a tensor is worth more bits: 33 dB.
WORTH = 10**-3.3
#: How much longer a model may take for it, by the costs of the descriptor.
MOST_WORK = 0.28
#: And the part of its multiply-accumulates that may read more than bytes, however long they take.
MOST_MACS = 0.04
#: What a layer on int16 takes longer than on bytes, at the least: it moves twice as many.
_LEAST = 0.5
#: How many times as long as bytes int16 may take where tensors are widened whatever they lose on the samples.
CHEAP = 2.5


@tvm.transform.module_pass(opt_level=0, name="hwptq.WidenActivations")
class WidenActivations:
    """Record wide dtypes for the layers of a fused float module that need them, for InsertQDQ to take.

    Each tensor that layers would read as bytes is rounded alone. Of those that drown the most of what their
    layers give, the ones that alone cost the outputs WORTH are widened, the most noise for the least work
    first, where the target offers it; with a tensor those that share its scale, and the layers that read
    them. So are products of two tensors, as a gate makes them, where int16 takes hardly longer. stats: of
    calibration; samples: dicts of the module's inputs, of which the first few are read (graph/drowned.py);
    granularity and exclude as for InsertQDQ. Layers that have dtypes keep them.
    """

    def __init__(
        self, target: Any, stats: Any, samples: Iterable[dict[str, np.ndarray]],
        granularity: str | None = None, exclude: str | None = None,
    ):  # fmt: skip
        self.target, self.stats, self.samples = target, stats, samples
        self.granularity, self.exclude = granularity, exclude

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        found, left = {}, {}
        for gv, func in main_functions(mod):
            choices = Choices(self.granularity, self.exclude, assignment(func))
            plan = QuantizationPlan(mod, str(gv.name_hint), self.target, self.stats, choices)
            tied, losses = _tied(plan), Losses(mod, plan.function, self.samples)
            left[plan.function] = drowned_functions(plan, losses, WORTH)
            if tied:
                worst = losses.worth_following([t for group in tied for t in group.tensors])
                found[plan.function] = _pairs(plan, tied, losses.at_outputs(worst))
        mod = with_float_reasons(mod, left) if any(left.values()) else mod
        return with_assignment(mod, found) if any(found.values()) else mod


@dataclass(frozen=True)
class _Tied:
    """Bytes of one scale: the tensors of a group that layers read, and what these would have instead."""

    tensors: tuple[Rounded, ...]
    pairs: Mapping[str, Pair]  # by label
    macs: int
    work: float  # that they would add, in multiply-accumulates of bytes
    gated: bool  # whether they are products of two tensors, and it takes hardly longer


def _tied(plan: QuantizationPlan) -> list[_Tied]:
    """The groups in bytes whose layers can all read more, and gain by it: not what has the scale that a layer
    needs for a weight so large that the sum of its products fits no smaller one."""
    found = []
    for group in plan.groups:
        layers = {v: _layers(plan, v) for v in group}
        readers = list(dict.fromkeys(u for of in layers.values() for u in of))
        pairs = {plan.labels[u]: _wide(plan, u) for u in readers}
        offered = {name: pair for name, pair in pairs.items() if pair}
        dtypes = [plan.input_dtype(u) for u in readers]
        narrow = all(d.bits <= INT8.bits and not d.is_float for d in dtypes)
        free = plan.narrow.keys().isdisjoint(group) and plan.raised.isdisjoint(group)
        if readers and len(offered) == len(readers) and narrow and free:
            tensors = [Rounded(v, plan.qparams[v].rounded, tuple(of)) for v, of in layers.items() if of]
            more = {u: _more(plan, u, offered[plan.labels[u]]) for u in readers}
            macs = {u: node_macs(plan.mod, plan.values[u]) for u in readers}
            work = sum(more[u] * macs[u] for u in readers)
            gated = 1 + max(more.values()) <= CHEAP and any(_gated(plan, v) for v in group)
            found.append(_Tied(tuple(tensors), offered, sum(macs.values()), work, gated))
    return found


def _gated(plan: QuantizationPlan, var: Any) -> bool:
    """Whether a tensor is a product by element of two that data makes, as in a gated block: it has the tails
    of both, so that data which calibration has not seen exceeds its range by far."""
    value = plan.values.get(var)
    if plan.kinds.get(var) != "mul" or value is None:
        return False
    factors = list(dict.fromkeys(data_of(value)))
    if len(factors) != 2 or shape_of(factors[0]) != shape_of(factors[1]):
        return False
    one, other = (_sources(plan, factor) for factor in factors)
    return one.isdisjoint(other)


def _sources(plan: QuantizationPlan, var: Any) -> set[Any]:
    """A tensor and those that it is a function of by element: x * sigmoid(x) is a function, and no gate."""
    found = {var}
    while (value := plan.values.get(var)) is not None and plan.kinds.get(var) not in WEIGHTED_OPS:
        data = set(data_of(value))
        if len(data) != 1 or shape_of(*data) != shape_of(var):
            break
        (var,) = data
        found.add(var)
    return found


def _more(plan: QuantizationPlan, var: Any, pair: Pair) -> float:
    """How many times as long a layer takes with a pair of dtypes, less the one it takes as it is."""
    kind = str(plan.kinds[var])
    return max(plan.target.cost_of(kind, pair) / plan.target.cost_of(kind, plan.pair(var)) - 1, _LEAST)


def _layers(plan: QuantizationPlan, var: Any) -> list[Any]:
    """Those whose activation a tensor is."""
    return [u for u in plan.readers.get(var, ()) if u in plan.weights and plan.values[u].args[0] == var]


def _wide(plan: QuantizationPlan, var: Any) -> Pair | None:
    """The pair of more than bytes with the weights that a layer has."""
    weight = plan.pair(var)[1]
    pairs = plan.target.rule(plan.kinds[var]).pairs
    wide = [p for p in pairs if is_wide(p) and p[1] == weight]
    return min(wide, key=lambda p: format_of(p[0]).bits, default=None)


def _pairs(plan: QuantizationPlan, tied: Iterable[_Tied], noise: Mapping[Any, float]) -> dict[str, Pair]:
    """The dtypes of the layers that are to read more than bytes. noise: at the outputs, by tensor."""
    costs = [(sum(noise.get(t.var, 0.0) for t in group.tensors), group) for group in tied]
    total = sum(node_macs(plan.mod, value) for value in plan.values.values())
    pairs: dict[str, Pair] = {}
    macs, work = 0, 0.0
    for cost, group in sorted(costs, key=lambda c: -c[0] / max(c[1].work, 1)):
        fits = work + group.work <= MOST_WORK * total or macs + group.macs <= MOST_MACS * total
        if fits and (group.gated or cost >= WORTH):
            macs, work = macs + group.macs, work + group.work
            pairs |= group.pairs
    return pairs
