"""--budget bits=3.2 with weights by group: the format and the groups of each weight."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import prod
from typing import Any

import numpy as np
import tvm

from hwptq.bitwidths.assign import Candidate, Infeasible, assign, total
from hwptq.bitwidths.budget import BITS, Budget
from hwptq.cache.content import states
from hwptq.data.dataset import Sample
from hwptq.errors import BudgetError, UnsupportedError
from hwptq.formats import FLOAT32, INT8, format_of
from hwptq.ir.dataflow import bindings, only_function, shape_of
from hwptq.ir.macs import node_macs
from hwptq.passes.graph.group_plan import DEFAULT_SIZE, ChosenGroups, Grouping
from hwptq.passes.graph.stored_weights import StoredWeight, groupings, stored_bits, stored_weights
from hwptq.passes.graph.weight_counts import weight_counts
from hwptq.pipeline.step import Job
from hwptq.quant.group_rounding import nearest_loss

from .disturbance import by_probe, until_settled
from .group_sensitivity import GroupLosses, rounded_candidates

#: Samples that losses are measured on, the fewest and the most; and the most that weights are rounded by.
_FEWEST, _MOST, _MOST_FITTED = 4, 64, 2**9
#: Rows (tokens) of all samples that are enough, of either.
_ENOUGH = 2**12


@dataclass(frozen=True)
class GroupCandidate(Candidate):
    """A format and a size of groups that a weight may have. cost: bits."""

    size: int = 0

    @property
    def grouping(self) -> tuple[str, int]:
        """(name of the format, size of groups)."""
        return self.weight, self.size

    @property
    def word(self) -> str:
        """As the report names it, beside the activation's dtype."""
        return f"{self.activation}, {self.weight} by {self.size}"


@dataclass(frozen=True)
class WeightChoices:
    """What a weight may have: the labels of its nodes, how many weights it has, and their products."""

    labels: tuple[str, ...]
    count: int
    macs: int
    kept: str | None
    candidates: tuple[GroupCandidate, ...]


@dataclass(frozen=True)
class GroupWidths:
    """The choice for a model's weights by group. fixed: how many weights stay in float."""

    budget: Budget
    weights: tuple[WeightChoices, ...]
    fixed: int
    chosen: Mapping[str, GroupCandidate]
    measure: str

    @property
    def groups(self) -> ChosenGroups:
        """What InsertDynamicQDQ is to know."""
        return ChosenGroups(
            {label: self.chosen[w.labels[0]].grouping for w in self.weights for label in w.labels}
        )

    def check(self, weight_bytes: int) -> None:
        """Codes and scales are stored as they were counted."""

    def bits(self) -> dict[str, Any]:
        """Bits a weight: asked for, stored, and by layer."""
        layers = {label: self.chosen[w.labels[0]].cost / w.count for w in self.weights for label in w.labels}
        return {"asked": self.budget.value, "stored": self._stored / self._count, "layers": layers}

    def report(self, weight_bytes: int | None = None) -> dict[str, Any]:
        """The `assignment` object of the report; weight_bytes: what the artefact holds."""
        highest = sum(max(c.cost for c in w.candidates) for w in self.weights) + FLOAT32.bits * self.fixed
        return {
            "budget": str(self.budget),
            "predicted": {"weights": self._stored / 8, BITS: self._stored / self._count},
            "highest_precision": {"weights": highest / 8, BITS: highest / self._count},
            "weight_bytes": weight_bytes,
            "tried": [],
            "tried_on": None,
            "sensitivity": self.measure,
            "bits": self.bits(),
            "layers": [self._row(weight) for weight in self.weights],
        }

    @property
    def _stored(self) -> float:
        return total(self.chosen.values(), "cost") + FLOAT32.bits * self.fixed

    @property
    def _count(self) -> int:
        return _count(self.weights, self.fixed)

    def _row(self, weight: WeightChoices) -> dict[str, Any]:
        one = self.chosen[weight.labels[0]]
        return {
            "name": weight.labels[-1],
            "op": "dense" if weight.macs else "embedding",
            "activation": one.activation,
            "weight": one.weight,
            "group": one.size,
            "macs": weight.macs,
            "weights": weight.count,
            "weight_bytes": one.cost / 8,
            "bits": one.cost / weight.count,
            "kept": weight.kept,
            "sensitivity": {c.word: c.sensitivity for c in weight.candidates},
            "chosen": one.word,
        }


def group_widths(float32: tvm.IRModule, job: Job) -> GroupWidths | None:
    """The choice within the budget of the options, None where there is none.

    Raises BudgetError, which names the least that can be held, and InputError where there is no data.
    """
    budget = job.options.dtype_budget
    if budget is None:
        return None
    function = only_function(float32)
    stored = [w for w in stored_weights(float32, function) if not _keeps(job.options.keep_float, w)]
    if not stored:
        raise UnsupportedError(f"--budget {budget}: the model has no weights that can be in groups")
    labels = {label for w in stored for label in w.labels}
    fixed = sum(count for label, count in weight_counts(float32).items() if label not in labels)
    weights = tuple(_weight(float32, function, w, job) for w in stored)
    chosen_within(weights, fixed, budget)  # raises what can't be held before anything is measured
    with job.progress.stage("sensitivity"):
        measure, losses = _measured(float32, function, stored, job)
    known = tuple(_with_losses(w, of, losses[w.labels[0]]) for w, of in zip(weights, stored, strict=True))
    return GroupWidths(budget, known, fixed, chosen_within(known, fixed, budget), measure)


def _keeps(pattern: str | None, weight: StoredWeight) -> bool:
    return pattern is not None and any(re.search(pattern, label) for label in weight.labels)


def _weight(mod: tvm.IRModule, function: str, stored: StoredWeight, job: Job) -> WeightChoices:
    """One with all that it may have, of which nobody knows yet what they lose."""
    values = dict(bindings(mod[function]))
    macs = sum(node_macs(mod, values[var]) for var, _ in stored.readers)
    found = groupings(job.target, stored.rows.shape[1], job.options.group)
    exclude, kept = job.options.exclude, None
    if exclude and any(re.search(exclude, label) for label in stored.labels):
        kept = "excluded by the user"
        found = [how for how in found if how[0].bits == found[0][0].bits]
    candidates = [
        GroupCandidate(INT8.name, weight.name, stored_bits(stored.rows, (weight, size)), 0.0, size)
        for weight, size in found
    ]
    return WeightChoices(stored.labels, int(stored.rows.size), macs, kept, tuple(candidates))


def _count(weights: Sequence[WeightChoices], fixed: int) -> int:
    return sum(w.count for w in weights) + fixed


def chosen_within(weights: Sequence[WeightChoices], fixed: int, budget: Budget) -> dict[str, GroupCandidate]:
    """What loses least within the budget, by the first label of each weight."""
    count, floats = _count(weights, fixed), FLOAT32.bits * fixed
    layers = {w.labels[0]: w.candidates for w in weights}
    try:
        found = assign(layers, (), budget.value * count - floats)
    except Infeasible as error:
        least = budget.show((error.smallest + floats) / count, 0.0)
        raise BudgetError(f"--budget {budget} can't be held; the smallest that can is {least}") from error
    return {name: c for name, c in found.items() if isinstance(c, GroupCandidate)}


def _measured(
    float32: tvm.IRModule, function: str, stored: Sequence[StoredWeight], job: Job
) -> tuple[str, dict[str, dict[str, tuple[int, float]]]]:
    """What is measured; and what each format of each weight loses, in groups of one size: (size, loss)."""
    fitted, held = _divided(job, _tokens(stored))
    if job.options.recipe.rounding == "nearest":
        fitted = []
    wanted = {w.label: _probed(job, w) for w in stored}
    names = {label: [f"{weight.name}/{size}" for weight, size in each] for label, each in wanted.items()}

    def make() -> tuple[str, list[float]]:
        rounding = rounded_candidates(float32, function, wanted, [s.inputs for s in fitted])
        candidates = dict(job.progress.track(rounding, len(wanted)))
        task = GroupLosses(float32, function, candidates)
        runs = until_settled(task, None, job.workers, held, job.cache, _FEWEST, job.progress.track)
        rows = np.array(list(runs))
        values, kl = by_probe(rows)
        return "kl" if kl else "noise", [float(v) for v in values.mean(axis=0)]

    causes = (float32, names, fitted, held)
    measure, flat = job.cache.recall("group-sensitivity", causes, states(()), make)
    rest = iter(flat)
    return measure, {w.label: {how.name: (size, next(rest)) for how, size in wanted[w.label]} for w in stored}


def _tokens(stored: Sequence[StoredWeight]) -> int:
    """The fewest rows of a sample that reach a layer, or are looked up."""
    return min(prod(shape_of(var)[:-1]) for weight in stored for var, _ in weight.readers)


def _divided(job: Job, tokens: int) -> tuple[list[Sample], list[Sample]]:
    """Samples to round by, and others to measure on, from all over where their number is known."""
    wanted = -(-_ENOUGH // tokens)
    fitted, held = min(wanted, _MOST_FITTED), max(_FEWEST, min(wanted, _MOST))
    step = max(1, (job.samples.count or 0) // (fitted + held))
    spread = list(islice(islice(job.samples, 0, None, step), fitted + held))
    measured = spread[1 :: max(2, len(spread) // held)][:held] or spread
    used = {id(sample) for sample in measured}
    return [sample for sample in spread if id(sample) not in used], measured


def _probed(job: Job, stored: StoredWeight) -> list[Grouping]:
    """One size of groups for each format: that asked for, else the nearest to the usual one."""
    by_format: dict[str, Grouping] = {}
    for weight, size in groupings(job.target, stored.rows.shape[1], job.options.group):
        known = by_format.setdefault(weight.name, (weight, size))
        if abs(size - DEFAULT_SIZE) < abs(known[1] - DEFAULT_SIZE):
            by_format[weight.name] = weight, size
    return list(by_format.values())


def _with_losses(
    weight: WeightChoices, stored: StoredWeight, losses: Mapping[str, tuple[int, float]]
) -> WeightChoices:
    """One whose candidates have what was measured, (size, loss) by format. In groups of another size they
    lose in proportion to the squared errors of the nearest levels."""

    def loss(c: GroupCandidate) -> float:
        size, measured = losses[c.weight]
        if size == c.size or not measured:
            return measured
        here, there = (nearest_loss(stored.rows, format_of(c.weight), s) for s in (c.size, size))
        return measured * here / there

    return replace(weight, candidates=tuple(replace(c, sensitivity=loss(c)) for c in weight.candidates))
