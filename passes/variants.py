"""A model quantized uniformly, once with each pair of dtypes that its target offers.

They show what each layer costs, and what it loses, at each of its candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tvm

from hwptq.formats import Pair, format_of
from hwptq.ir.dataflow import data_of, main_functions
from hwptq.ir.macs import node_macs
from hwptq.passes.graph.quantizable import assignment, layer_dtypes
from hwptq.passes.graph.quantization_plan import Choices, QuantizationPlan
from hwptq.passes.graph.weight_counts import weight_counts

from .insert_qdq import InsertQDQ


@dataclass(frozen=True)
class Layer:
    """A layer with weights, and the (activation, weight) dtypes it may have, in the descriptor's order."""

    kind: str
    macs: int
    pairs: tuple[Pair, ...]
    weights: int = 0  # how many of them there are

    @property
    def highest(self) -> Pair:
        """The pair that tells the most values apart; the first of several."""
        return max(self.pairs, key=lambda pair: sum(format_of(name).precision for name in pair))


@dataclass(frozen=True)
class Variants:
    """QDQ modules by pair: in each, every layer that can take the pair does, all others their first.

    others: how many weights nodes have that are no such layers: tables, and layers that stay in float."""

    qdq: dict[Pair, tvm.IRModule]
    layers: dict[str, Layer]  # in the order of the graph
    groups: tuple[frozenset[str], ...]  # layers that read activations of one scale
    others: Mapping[str, int] = field(default_factory=dict)

    @property
    def probes(self) -> tuple[tuple[str, Pair], ...]:
        """The layers that have a choice, each with all of its pairs."""
        free = {name: layer.pairs for name, layer in self.layers.items() if len(layer.pairs) > 1}
        return tuple((name, pair) for name, pairs in free.items() for pair in pairs)


def uniform_variants(
    mod: tvm.IRModule, target: Any, stats: Any, granularity: str | None = None, exclude: str | None = None,
    wide: bool = False,
) -> Variants:  # fmt: skip
    """Quantize a fused float module with each pair; `granularity` and `exclude` as for InsertQDQ.

    wide: with pairs of activations in integers of more than 8 bits too. They lose next to nothing, at several
    times the cost, so they are for those who ask.
    Layers that have dtypes recorded (WidenActivations) keep them. A pair counts as offered where it takes
    effect: an int4 activation does not where an add reads it too.
    """
    plans = [
        QuantizationPlan(mod, str(gv.name_hint), target, stats, Choices(granularity, exclude, {}))
        for gv, _ in main_functions(mod)
    ]
    recorded = {name: pair for _, f in main_functions(mod) for name, pair in assignment(f).items()}
    offered = {
        name: (plan, v, (recorded[name],) if name in recorded else _considered(rule.pairs, wide))
        for plan in plans
        for v in plan.weights
        for name, rule in [(plan.labels[v], target.rule(plan.kinds[v]))]
    }
    qdq = {}
    for pair in dict.fromkeys(p for _, _, pairs in offered.values() for p in pairs):
        chosen = recorded | {name: pair for name, (_, _, pairs) in offered.items() if pair in pairs}
        insert = InsertQDQ(target, stats, granularity, exclude, chosen)
        qdq[pair] = tvm.ir.transform.Sequential([insert])(mod)
    taken = {pair: _dtypes(variant) for pair, variant in qdq.items()}
    layers, counts = {}, weight_counts(mod)
    for name, (plan, var, pairs) in offered.items():
        effective = tuple(p for p in pairs if taken[p].get(name) == p)
        macs = node_macs(mod, plan.values[var])
        layers[name] = Layer(str(plan.kinds[var]), macs, effective, counts.pop(name, 0))
    return Variants(qdq, layers, tuple(g for plan in plans for g in _groups(plan)), counts)


def is_wide(pair: Pair) -> bool:
    """Whether activations are integers of more than 8 bits."""
    activation = format_of(pair[0])
    return activation.bits > 8 and not activation.is_float


def _considered(pairs: tuple[Pair, ...], wide: bool) -> tuple[Pair, ...]:
    """Those of a rule; without wide ones, unless it has no other."""
    return tuple(p for p in pairs if wide or not is_wide(p)) or pairs


def _dtypes(variant: tvm.IRModule) -> dict[str, Pair]:
    return {name: pair for _, func in main_functions(variant) for name, pair in layer_dtypes(func).items()}


def _groups(plan: QuantizationPlan) -> list[frozenset[str]]:
    """Layers whose activations share a scale, where there are several; the plan's groups are the connected
    components of the tensors that concat, pooling and data movement tie."""
    member = {v: i for i, group in enumerate(plan.groups) for v in group}
    found: dict[int, set[str]] = {}
    for var in plan.weights:
        (source, *_) = data_of(plan.values[var])
        found.setdefault(member[source], set()).add(plan.labels[var])
    return [frozenset(names) for names in found.values() if len(names) > 1]
