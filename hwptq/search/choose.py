"""The stage of the flow that chooses bit widths, as the options of the user say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from hwptq.bitwidths.budget import BITS, Budget
from hwptq.cache.content import states
from hwptq.data.dataset import Sample
from hwptq.errors import BudgetError
from hwptq.formats import Pair, parse_precision
from hwptq.ir.dataflow import only_function
from hwptq.passes.assign_bit_widths import (
    Pairs,
    at_precision,
    end_layers,
    first_pairs,
    kept_layers,
    least_cost,
    within_budget,
)
from hwptq.passes.graph.quantizable import with_assignment
from hwptq.passes.layer_costs import LayerCosts
from hwptq.passes.variants import Layer, Variants, is_wide, uniform_variants
from hwptq.pipeline.rounded_alone import RoundedAlone, rounded_alone
from hwptq.pipeline.stages import Prepared
from hwptq.pipeline.step import Job
from hwptq.quant.layer_rounding import rounding_method

from .sensitivity import SAMPLES, Sensitivity, measure_sensitivity
from .wishes import searches, static_pairs


@dataclass(frozen=True)
class BitWidths:
    """The choice for a model, and what it is expected to cost."""

    pairs: Pairs
    variants: Variants
    costs: LayerCosts
    kept: Mapping[str, str] = field(default_factory=dict)  # layer -> why it stays at the highest precision
    budget: Budget | None = None
    sensitivity: Sensitivity | None = None
    tried: tuple[tuple[float, float], ...] = ()  # predicted cost, and points lost by that code
    tried_on: str | None = None  # the data of the trials: "evaluation" or "validation"

    @property
    def noise(self) -> float:
        """What the layers should do to the outputs together, as `sensitivity` measures it."""
        values = self.sensitivity.values if self.sensitivity else {}
        return sum(values[name][pair] for name, pair in self.pairs.items() if name in values)

    def recorded(self, prepared: Prepared) -> Prepared:
        """A prepared model that tells InsertQDQ what was chosen."""
        chosen = {only_function(prepared.float32): self.pairs}
        return replace(prepared, float32=with_assignment(prepared.float32, chosen))

    def check(self, weight_bytes: int) -> None:
        """Raise BudgetError where an artefact with so many bytes of weights exceeds the budget."""
        if self.budget and self.budget.kind == "weights":
            limit = self.budget.limit(self.costs.highest("weights"))
            if weight_bytes > limit:
                raise BudgetError(f"--budget {self.budget}: the artefact holds {weight_bytes} B; give less")

    def report(self, weight_bytes: int | None = None) -> dict[str, Any]:
        """The `assignment` object of the report; weight_bytes: what the artefact really holds."""
        kinds = ["weights", BITS, "cycles", "macs-int4"]
        searched = self.budget.kind if self.budget else "weights"
        return {
            "budget": str(self.budget) if self.budget else None,
            "predicted": {kind: self.costs.total(kind, self.pairs) for kind in kinds},
            "highest_precision": {kind: self.costs.highest(kind) for kind in kinds},
            "weight_bytes": weight_bytes,
            "tried": [{searched: cost, "drop": drop} for cost, drop in self.tried],
            "tried_on": self.tried_on,
            "sensitivity": self.sensitivity.measure if self.sensitivity else None,
            "bits": self.bits(),
            "layers": [self._row(name) for name in self.pairs],
        }

    def bits(self) -> dict[str, Any]:
        """Bits a weight: asked for (None: nobody did), stored, and by layer."""
        asked = self.budget.value if self.budget and self.budget.kind == BITS else None
        layers = {name: self.costs.bits_of(name, pair) for name, pair in self.pairs.items()}
        return {"asked": asked, "stored": self.costs.total(BITS, self.pairs), "layers": layers}

    def _row(self, name: str) -> dict[str, Any]:
        layer, pair = self.variants.layers[name], self.pairs[name]
        row: dict[str, Any] = {
            "name": name,
            "op": layer.kind,
            "activation": pair[0],
            "weight": pair[1],
            "macs": layer.macs,
            "weights": layer.weights,
            "weight_bytes": self.costs.of("weights", name, pair),
            "kept": self.kept.get(name),
        }
        if self.sensitivity:
            values = self.sensitivity.values.get(name, {})
            row["sensitivity"] = {f"{a}, {w}": value for (a, w), value in values.items()}
        return row


class Chooser:
    """Chooses the bit widths of one float module for any number of budgets; measures once, when it must.

    saves: what a search for --max-drop spends as little of as it can. wide: with activations of more than 8
    bits among the choices, which cost cycles.
    """

    def __init__(self, prepared: Prepared, job: Job, wide: bool = False):
        assert job.data is not None
        self.saves = "cycles" if wide else job.target.max_drop_saves
        self.target, self._data, self._cache, self._workers = job.target, job.data, job.cache, job.workers
        self._float32, self._options, self._progress = prepared.float32, job.options, job.progress
        self._partner = job.partner
        precision = job.options.precision
        wide = wide or (precision is not None and is_wide(parse_precision(precision)))
        wishes = job.options.weight_granularity, job.options.keep_float, wide
        self.variants = uniform_variants(prepared.float32, job.target, prepared.stats, *wishes)
        self.costs = LayerCosts(self.variants, job.target)
        self._sensitivity: Sensitivity | None = None

    @property
    def free(self) -> bool:
        """Whether any layer has more than one pair to choose from."""
        kept = self._kept()
        return any(len(layer.pairs) > 1 for name, layer in self.variants.layers.items() if name not in kept)

    def choose(self, budget: Budget | None = None) -> BitWidths:
        """Within `budget`, else as the options say. Raises BudgetError or UnsupportedError."""
        kept = self._kept()
        if budget:
            measured = self._measured()
            pairs = within_budget(self.variants, self.costs, budget, measured.values, kept)
            return BitWidths(pairs, self.variants, self.costs, kept, budget, measured)
        if self._options.precision is None:
            return BitWidths(first_pairs(self.variants, kept), self.variants, self.costs, kept)
        wanted = parse_precision(self._options.precision)
        pairs = at_precision(self.variants, wanted, kept)
        others = {n: self._why_not(self.variants.layers[n], wanted) for n, p in pairs.items() if p != wanted}
        return BitWidths(pairs, self.variants, self.costs, others | kept)

    @property
    def offers_wide(self) -> bool:
        """Whether the target has activations of more than 8 bits too."""
        return any(map(is_wide, static_pairs(self.target)))

    def least(self, kind: str) -> float:
        """The cost of the cheapest choice."""
        return least_cost(self.variants, self.costs, kind, self._kept())

    def _kept(self) -> dict[str, str]:
        """Layers that stay at the highest precision, and why. A budget of the user is for all layers."""
        excluded = dict.fromkeys(kept_layers(self.variants, self._options.exclude), "excluded by the user")
        wide_ends = self._options.precision or searches(self._options)
        if not wide_ends or self._options.lower_ends:
            return excluded
        return dict.fromkeys(end_layers(self._float32, self.variants), "a first or last layer") | excluded

    def _why_not(self, layer: Layer, wanted: Pair) -> str:
        rule = self.target.rule(layer.kind)
        if wanted in layer.pairs:
            return "shares the scale of its input with a layer that stays"
        if rule is not None and wanted in rule.pairs:
            return f"its input can't be {wanted[0]}: not only layers read it"
        return f"{layer.kind} can't have it on this target"

    def _measured(self) -> Sensitivity:
        if self._sensitivity is None:
            with self._progress.stage("sensitivity"):
                variants, samples = self._rounded()
                partner = self._partner
                self._sensitivity = self._cache.recall(
                    "sensitivity",
                    (self._float32, variants, samples, partner.rows if partner else None),
                    states((Sensitivity,)),
                    lambda: measure_sensitivity(
                        self._float32,
                        variants,
                        samples,
                        self._progress.track,
                        self._workers,
                        partner,
                        self._cache,
                    ),
                )
        return self._sensitivity

    def _rounded(self) -> tuple[Variants, Iterable[Sample]]:
        """The variants with weights as the recipe rounds them, and samples to measure them on.

        Rounded to the nearest, int4 would seem to lose far more than it will. Every other sample is held out:
        on those that it is rounded to, a layer that sees few columns of data seems to lose too little.
        """
        recipe, most = self._options.recipe, 2 * SAMPLES
        held = list(islice(self._data, 1, most, 2))
        if recipe.rounding == "nearest" or not held:
            return self.variants, self._data
        fitted = [sample.inputs for sample in islice(self._data, 0, most, 2)]
        method = type(rounding_method(recipe.rounding))
        modules = tuple(self.variants.qdq.values())
        task = RoundedAlone(
            self._float32,
            modules,
            tuple(fitted),
            recipe,
            self.target,
            self._cache,
            method,
            self._progress.track,
        )
        compared = [frozenset(n for n, p in self.variants.probes if p == pair) for pair in self.variants.qdq]
        rounded = rounded_alone(task, self._workers, compared)
        return replace(self.variants, qdq=dict(zip(self.variants.qdq, rounded, strict=True))), held
