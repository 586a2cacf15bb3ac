"""AssignBitWidths: choose the dtypes of each layer's activation and weight among those the target offers.

The choice is recorded on the function, where InsertQDQ finds it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import networkx as nx
import tvm

from hwptq.bitwidths.assign import Candidate, Infeasible, assign, cheapest, total
from hwptq.bitwidths.budget import Budget
from hwptq.errors import BudgetError, HwptqError, UnsupportedError
from hwptq.formats import Pair, format_of
from hwptq.ir.dataflow import bindings, main_functions, only_function, reads
from hwptq.ir.provenance import origins

from .graph.quantizable import with_assignment
from .layer_costs import LayerCosts
from .variants import Variants, is_wide, uniform_variants

_BIT = 1e-6  # of a layer: the number of layers with the wanted pair comes first

#: Sensitivity of each layer to each of its pairs, as hwptq.search.sensitivity measures it.
Sensitivities = Mapping[str, Mapping[Pair, float]]
Pairs = dict[str, Pair]


@tvm.transform.module_pass(opt_level=0, name="hwptq.AssignBitWidths")
class AssignBitWidths:
    """Choose each layer's pair of dtypes, of a fused float module, and record the choice on its function.

    budget: the pairs with the least summed sensitivity whose cost is within it; precision: this pair wherever
    the target offers it, but for the first and the last layers (`lower_ends` takes them in); neither: the
    descriptor's first pairs. keep: regular expression of names of layers that stay at the highest precision
    offered. wide: activations of more than 8 bits are among the choices too, as where `precision` has them.
    A budget needs `sensitivity`; hwptq.measure_sensitivity gives it. granularity and exclude as for
    InsertQDQ. Raises ValueError where nothing fits the budget, or no layer can take the precision.
    """

    def __init__(
        self,
        target: Any,
        stats: Any,
        budget: Budget | None = None,
        sensitivity: Sensitivities | None = None,
        precision: Pair | None = None,
        keep: str | None = None,
        lower_ends: bool = False,
        granularity: str | None = None,
        exclude: str | None = None,
        wide: bool = False,
    ):
        if budget and sensitivity is None:
            raise ValueError("a budget needs the sensitivity of the layers")
        if budget and precision:
            raise ValueError("give a budget or a precision, not both")
        self.target, self.stats, self.budget, self.sensitivity = target, stats, budget, sensitivity or {}
        self.precision, self.keep, self.lower_ends = precision, keep, lower_ends
        self.granularity, self.exclude = granularity, exclude
        self.wide = wide or (precision is not None and is_wide(precision))

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        function = only_function(mod)
        variants = uniform_variants(mod, self.target, self.stats, self.granularity, self.exclude, self.wide)
        try:
            return with_assignment(mod, {function: self._pairs(mod, variants)})
        except HwptqError as error:  # the FFI lets ValueError through only
            raise ValueError(str(error)) from error

    def _pairs(self, mod: tvm.IRModule, variants: Variants) -> Pairs:
        kept = kept_layers(variants, self.keep)
        if self.budget:
            costs = LayerCosts(variants, self.target)
            return within_budget(variants, costs, self.budget, self.sensitivity, kept)
        if self.precision:
            ends = [] if self.lower_ends else end_layers(mod, variants)
            return at_precision(variants, self.precision, {*ends, *kept})
        return first_pairs(variants, kept)


def within_budget(
    variants: Variants,
    costs: LayerCosts,
    budget: Budget,
    sensitivity: Sensitivities,
    kept: Collection[str] = (),
) -> Pairs:
    """The pairs with the least summed sensitivity that the budget allows; `kept`: layers that stay at the
    highest precision. Raises BudgetError, which names the smallest budget that is feasible."""
    layers = _candidates(variants, costs, budget.kind, sensitivity, kept)
    highest, fixed = costs.highest(budget.kind), costs.fixed(budget.kind)
    try:
        choice = assign(layers, variants.groups, budget.limit(highest) - fixed)
    except Infeasible as error:
        least = budget.show(error.smallest + fixed, highest)
        raise BudgetError(f"--budget {budget} can't be held; the smallest that can is {least}") from error
    return {name: candidate.pair for name, candidate in choice.items()}


def least_cost(variants: Variants, costs: LayerCosts, kind: str, kept: Collection[str] = ()) -> float:
    """The cost of the cheapest choice, whatever its sensitivity."""
    choice = cheapest(_candidates(variants, costs, kind, {}, kept), variants.groups)
    return total(choice.values(), "cost") + costs.fixed(kind)


def _candidates(
    variants: Variants, costs: LayerCosts, kind: str, sensitivity: Sensitivities, kept: Collection[str]
) -> dict[str, list[Candidate]]:
    """What assign() chooses from; without sensitivities, only costs tell."""
    found = {}
    for name, layer in variants.layers.items():
        known = sensitivity.get(name, {})
        pairs = (layer.highest,) if name in kept else layer.pairs
        found[name] = [Candidate(*p, costs.of(kind, name, p), known.get(p, 0.0)) for p in pairs]
    return found


def at_precision(variants: Variants, pair: Pair, kept: Collection[str] = ()) -> Pairs:
    """`pair` for as many layers as can take it, for others the next that is more precise; layers that are
    `kept` have the highest precision.

    Raises UnsupportedError where no layer can take the pair.
    """
    if all(pair not in layer.pairs for layer in variants.layers.values()):
        offers = "; ".join(f"{kind}: {_listed(pairs)}" for kind, pairs in _offers(variants).items())
        raise UnsupportedError(f"no layer of the model can have {_listed([pair])} on this target ({offers})")
    layers = {}
    for name, layer in variants.layers.items():
        pairs = (layer.highest,) if name in kept else layer.pairs
        layers[name] = [Candidate(*p, 0.0, _distance(p, pair)) for p in pairs]
    return {name: candidate.pair for name, candidate in assign(layers, variants.groups).items()}


def _distance(pair: Pair, wanted: Pair) -> float:
    """0 for the wanted pair, else 1 and a little for each bit beyond; more where a side is less precise."""
    if pair == wanted:
        return 0.0
    surplus = [
        format_of(dtype).precision - format_of(w).precision
        for dtype, w in zip(pair, wanted, strict=True)
        if dtype != w
    ]
    return (1.0 if min(surplus) > 0 else 2.0) + sum(map(abs, surplus)) * _BIT


def _offers(variants: Variants) -> dict[str, list[Pair]]:
    """The pairs by kind of layer."""
    found: dict[str, list[Pair]] = {}
    for layer in variants.layers.values():
        known = found.setdefault(layer.kind, [])
        known += [p for p in layer.pairs if p not in known]
    return found


def _listed(pairs: Collection[Pair]) -> str:
    return " or ".join(f"{weight} weights with {activation} activations" for activation, weight in pairs)


def first_pairs(variants: Variants, kept: Collection[str] = ()) -> Pairs:
    """The descriptor's preference, or the highest precision for layers that are `kept`."""
    return {n: layer.highest if n in kept else layer.pairs[0] for n, layer in variants.layers.items()}


def kept_layers(variants: Variants, keep: str | None) -> list[str]:
    """The layers whose names the regular expression `keep` matches."""
    return [name for name in variants.layers if keep and re.search(keep, name)]


def end_layers(mod: tvm.IRModule, variants: Variants) -> list[str]:
    """The layers with no other layer before them, and those with none behind."""
    found = []
    for _, func in main_functions(mod):
        graph = nx.DiGraph((s, var) for var, value in bindings(func) for s in reads(value))
        named = origins(func)
        layers = {v for v in graph if named[v].label in variants.layers}
        found += [
            named[v].label
            for v in layers
            if not layers & nx.ancestors(graph, v) or not layers & nx.descendants(graph, v)
        ]
    return found
