"""Weights rounded as if each layer alone were quantized: layers that need no other, by whoever is free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tvm

from hwptq import passes
from hwptq.cache.cache import Cache
from hwptq.formats import INT8
from hwptq.passes.graph.quantized_layers import (
    LayerConstants,
    Place,
    QuantizedLayer,
    quantized_layers,
    with_layer_constants,
)
from hwptq.passes.round_weights import Track
from hwptq.quant.layer_rounding import RoundingMethod
from hwptq.recipe import Recipe
from hwptq.targets import Descriptor
from hwptq.workers.workers import Task, Workers

from .recalled_pass import recalled_pass
from .steps import rounds

#: Into so many parts the layers of a module are divided: each part evaluates all layers before its own.
PARTS = 2
#: How much longer weights of few bits take, as each layer was measured.
_SEARCHED = 3


@dataclass(frozen=True)
class RoundedAlone(Task["tuple[int, frozenset[Place]]", "dict[Place, LayerConstants]"]):
    """Constants of some layers of one of `modules`, QDQ forms of `float32`, with the rounding of a recipe.

    track: sees the layers of one after another (passes/round_weights.py)."""

    float32: tvm.IRModule
    modules: tuple[tvm.IRModule, ...]
    samples: tuple[dict[str, np.ndarray], ...]
    recipe: Recipe
    target: Descriptor
    cache: Cache
    method: type[RoundingMethod]  # of the recipe, so that a worker has it too
    track: Track | None = None

    def bench(self) -> None:
        return None

    def work(self, bench: None, item: tuple[int, frozenset[Place]]) -> dict[Place, LayerConstants]:
        number, only = item
        options = passes.RoundingOptions(self.recipe.rounding, alone=True, only=only)
        step = passes.RoundWeights(self.float32, self.samples, self.target, options, self.track)
        layers = quantized_layers(recalled_pass(step, self.modules[number], self.cache))
        return {p: LayerConstants(layers[p].values, layers[p].scale, np.array(layers[p].bias)) for p in only}

    def sent(self) -> RoundedAlone:
        return replace(self, track=None)


def rounded_alone(
    task: RoundedAlone, workers: Workers, wanted: Sequence[frozenset[str]]
) -> list[tvm.IRModule]:
    """Its modules with the layers rounded whose labels are `wanted` of each; those that the recipe rounds
    nothing of stay.
    """
    items: list[tuple[int, frozenset[Place]]] = []
    work: list[int] = []
    for number, module in enumerate(task.modules):
        if rounds(task.recipe, module, task.target):
            layers = {p: v for p, v in quantized_layers(module).items() if v.label in wanted[number]}
            divided = parts(layers)
            items += [(number, part) for part in divided]
            work += [sum(_cost(layers[p]) for p in part) for part in divided]
    order = sorted(range(len(items)), key=lambda i: -work[i])  # a long one that comes last is waited for
    items = [items[i] for i in order]
    new: list[dict[Place, LayerConstants]] = [{} for _ in task.modules]
    for (number, _), constants in zip(items, workers.map(task, items), strict=True):
        new[number] |= constants
    return [with_layer_constants(m, n) if n else m for m, n in zip(task.modules, new, strict=True)]


def parts(layers: dict[Place, QuantizedLayer]) -> list[frozenset[Place]]:
    """Runs of layers, in the order of the graph, that take about as long to be rounded; none is empty."""
    cost = np.cumsum([_cost(layer) for layer in layers.values()], dtype=np.float64)
    number = np.minimum((cost - cost[:1] / 2) / max(cost[-1:].sum(), 1) * PARTS, PARTS - 1).astype(int)
    found = [frozenset(p for p, n in zip(layers, number, strict=True) if n == i) for i in range(PARTS)]
    return [part for part in found if part]


def _cost(layer: QuantizedLayer) -> int:
    """Products of a sweep over the weights, of which each looks at all of its row; more where scales are
    searched for."""
    sweep = int(layer.values.size) * int(layer.rows(layer.values).shape[-1])
    return sweep * (_SEARCHED if layer.dtype.bits < INT8.bits else 1)
