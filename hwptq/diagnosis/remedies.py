"""What might mend a loss: changes of a compilation's options, for the part or the places that lose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from hwptq.formats import format_of, precision_word
from hwptq.ir.dataflow import bindings, only_function, users
from hwptq.ir.provenance import origins
from hwptq.options import Options
from hwptq.passes.variants import is_wide
from hwptq.quant.observers import OBSERVERS
from hwptq.targets import Descriptor

from .change import Change
from .losses import PartLoss, PlaceLoss
from .places import Part, Place

#: A part with a smaller share of the noise is not worth a remedy.
_WORTH = 0.05
#: Shares of the places' noise that remedies for single places are to take away, and the most places of one.
_SHARES = (0.5, 0.8, 0.95)
_MOST_PLACES = 8


@dataclass(frozen=True)
class Remedy:
    """A change and the reason for it; no change: what the user may do beside the options.

    expected: the noise at the outputs that is left, where no simulation has to tell.
    """

    why: str
    change: Change
    expected: float | None = None


@dataclass(frozen=True)
class Case:
    """What remedies are proposed for. losses: of every place, the most first."""

    float32: tvm.IRModule
    options: Options
    target: Descriptor
    parts: Sequence[PartLoss]
    losses: Sequence[PlaceLoss]

    def share(self, part: Part) -> float:
        """Of the noise that the parts make, each alone."""
        total = sum(p.alone.noise for p in self.parts)
        return sum(p.alone.noise for p in self.parts if p.part == part) / total if total else 0.0

    def is_worth(self, part: Part) -> bool:
        """Whether remedies for a part may help."""
        return self.share(part) >= _WORTH

    @property
    def layers(self) -> list[Place]:
        """The places with weights."""
        return [loss.place for loss in self.losses if loss.place.layer]


def proposals(case: Case) -> list[Remedy]:
    """All remedies that may help, in no order."""
    found: list[Remedy] = []
    if case.is_worth(Part.WEIGHTS):
        found += _for_weights(case)
    if case.is_worth(Part.ACTIVATIONS) or case.is_worth(Part.RANGES):
        found += _for_activations(case)
    if case.is_worth(Part.RANGES):
        why = f"values lie beyond the {case.options.recipe.observer} ranges of the calibration data"
        left = next(p.all_but.noise for p in case.parts if p.part == Part.RANGES)
        found.append(Remedy(f"{why}: give more of it, like the data to come", Change(), left))
    return found + list(_for_places(case))


def _for_weights(case: Case) -> Iterator[Remedy]:
    recipe = case.options.recipe
    if any(place.layer and place.layer.shared_scale for place in case.layers):
        yield Remedy("one scale serves all channels of a layer's weights", Change(granularity="channel"))
        if recipe.equalize != "on":
            yield Remedy("channels of one layer differ in range", Change(steps=("equalize=on",)))
    few_bits = [p for p in case.layers if p.layer and format_of(p.layer.pair[1]).bits < 8]
    if case.options.weight_granularity != "group" and any(case.target.weight_group(p.kind) for p in few_bits):
        yield Remedy("weights of few bits share a scale by channel", Change(granularity="group"))
    if recipe.rounding != "clamped":
        better = "descent" if recipe.rounding == "nearest" else "clamped"
        yield Remedy(f"weights are rounded by {recipe.rounding}", Change(steps=(f"rounding={better}",)))


def _for_activations(case: Case) -> Iterator[Remedy]:
    recipe = case.options.recipe
    for method in OBSERVERS:
        if method != recipe.observer:
            why = f"{recipe.observer} ranges are too wide, or too narrow"
            yield Remedy(why, Change(steps=(f"observer={method}",)))
    wide = [p for rule in case.target.ops for p in rule.pairs if is_wide(p)]
    word = next(filter(None, map(precision_word, wide)), None)
    if word and case.options.dtype_budget is None:  # which leaves no choice to a precision
        yield Remedy("activations have few bits", Change(precision=word))
    if not recipe.widen and word and case.options.precision is None:
        yield Remedy("channels that are small beside others drown in bytes", Change(steps=("widen=on",)))
    if not recipe.depthwise:
        why = "channels that depthwise layers read differ in range"
        yield Remedy(why, Change(steps=("depthwise=on",)))
    if not recipe.smooth:
        yield Remedy("some channels behind a layer norm are outliers", Change(steps=("smooth=on",)))
    if not recipe.absorb:
        yield Remedy("channels keep far from zero", Change(steps=("absorb=on",)))
    if recipe.equalize == "on":
        yield Remedy("channels that were scaled down lose", Change(steps=("equalize=off",)))


def _for_places(case: Case) -> Iterator[Remedy]:
    """The fewest places that make up a share of the noise, in more bits and in float."""
    total, so_far = sum(loss.noise for loss in case.losses), 0.0
    graph, shares = _Graph(case.float32), list(_SHARES)
    for count, loss in enumerate(case.losses[:_MOST_PLACES], 1):
        so_far += loss.noise
        if not shares or so_far < shares[0] * total:
            continue
        shares = [share for share in shares if share * total > so_far]
        worst = case.losses[:count]
        listed = ", ".join(loss.place.name for loss in worst[:3]) + (
            f" and {count - 3} more" if count > 3 else ""
        )
        why = f"{100 * so_far / total:.0f} % of what single nodes lose is of {listed}"
        layers = {v: None for loss in worst for v in graph.layers_about(loss.place.var, case.layers)}
        if layers:
            yield Remedy(why, Change(exclude=tuple(graph.origins[v].label for v in layers)))
        nodes = {v: None for loss in worst for v in graph.nodes_about(loss)}
        names = dict.fromkeys(graph.origins[v].node for v in nodes)
        yield Remedy(why, Change(keep_float=tuple(names)))


class _Graph:
    """The float function: which nodes have a say in the dtype of a tensor. origins: of its vars."""

    def __init__(self, float32: tvm.IRModule):
        func = float32[only_function(float32)]
        self._values, self._readers, self.origins = dict(bindings(func)), users(func), origins(func)

    def layers_about(self, var: Any, layers: Sequence[Place]) -> list[Any]:
        """The layers whose dtypes say what `var` is rounded to: its nearest readers, else itself."""
        known = {p.var for p in layers}
        found, waiting, seen = [], [var], {var}
        while waiting:
            for user in self._readers.get(waiting.pop(), []):
                if user in known:
                    found.append(user)
                elif user is not None and user not in seen:
                    waiting.append(user)
                    seen.add(user)
        return list(dict.fromkeys([*([var] if var in known else []), *found]))

    def nodes_about(self, loss: PlaceLoss) -> list[Any]:
        """The nodes that have to be in float for a loss to be gone: the layer where its weights lose, else
        the node and those that read it."""
        var = loss.place.var
        weights = loss.parts.get(Part.WEIGHTS, 0.0)
        itself = [var] if var in self._values else []
        if loss.place.layer and weights >= 0.5 * sum(loss.parts.values(), 0.0) and loss.parts:
            return itself
        return itself + [v for v in self._readers.get(var, []) if isinstance(self._values.get(v), relax.Call)]
