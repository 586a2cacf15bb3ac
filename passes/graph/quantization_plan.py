"""Which tensors of a float function are quantized, and how: what InsertQDQ writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import networkx as nx
import tvm

from hwptq.formats import INT8, INT12, INT16, Format, Pair, format_of
from hwptq.ir.composite import is_clamped, read_composite
from hwptq.ir.dataflow import bindings, data_of, users
from hwptq.ir.provenance import origins
from hwptq.ir.qdq import dequantizes
from hwptq.lowering.elementwise import elementwise_roots, is_linear
from hwptq.lowering.rules import family_of, rule_of
from hwptq.quant.qparams import QParams, activation_qparams
from hwptq.targets.op_kinds import CONVOLUTIONS, PRODUCTS, WEIGHTED_OPS

from .concat_parts import parts_of, split_ends, unlike_parts
from .fine_sources import fine_groups, head_ends
from .float_neighbours import ELEMENTWISE, in_float, kept_in_float
from .layer_weights import LayerWeights, QuantizedWeight
from .nearest_layers import NearestLayers
from .quantizable import float_reasons
from .scaled_channels import scaled_groups
from .shape_limits import beyond_limits
from .stream_dtypes import reads_wide, wide_groups
from .summand import fused_summand

_ROUNDS = 100  # more than any chain of raised scales is long
_MARGIN = 2.001  # output scale over product of input and weight scale: keeps multipliers below 1/2

#: By how much the range of the last quantized tensors exceeds what calibration saw. A logit beyond the range
#: of its dtype would tie with others: the answer to a sample that is clearer than those seen would be lost.
HEADROOM = 1.25
#: The same for tensors of more than 12 bits, whose steps stay fine. Not for images, of which calibration sees
#: thousands of values a channel, and of which a channel may be a thousandth of the largest, and count.
WIDE_HEADROOM = 4.0


class Stats(Protocol):
    """What is asked of CalibrationStats."""

    @property
    def observers(self) -> Mapping[tuple[str, str], Any]:
        """What was seen, by function and label."""

    def range_of(self, label: str, dtype: Format, function: str) -> tuple[float, float]:
        """(low, high) to quantize a tensor of a function to `dtype`."""


@dataclass(frozen=True)
class Choices:
    """What may be chosen beside the target: see InsertQDQ."""

    granularity: str | None = None
    exclude: str | None = None
    assignment: Mapping[str, Pair] | None = None


class QuantizationPlan:
    """Kinds of the nodes, groups of tensors that share a scale, and the parameters chosen for both.

    Attributes: values (var -> its expression), kinds (var -> operator kind or None), groups (sets of vars),
    qparams (var -> QParams), raised (vars whose scale products need larger than ranges do), narrow (var ->
    QParams of the bytes that operators read of a wide tensor), weights (var -> QuantizedWeight), labels (of
    origins, by var), reasons (label -> why it stays in float).
    """

    def __init__(self, mod: tvm.IRModule, function: str, target: Any, stats: Stats, choices: Choices):
        func = mod[function]
        self.mod, self.target, self.stats, self.choices = mod, target, stats, choices
        self.function, self.origins = function, origins(func)
        self.labels = {var: origin.label for var, origin in self.origins.items()}
        self._excluded = re.compile(choices.exclude) if choices.exclude else None
        self.values = dict(bindings(func))
        self.readers = users(func)
        self.reasons: dict[str, str] = {}
        self._left = float_reasons(func)
        self.kinds = {v: self._kind(v, value) for v, value in self.values.items()}
        self._leave(kept_in_float(self.values, self.kinds, self.readers))
        self._leave(self._among_floats())
        self._leave_split_ends()
        self.lookups = {v: value for v, value in self.values.items() if self._may_be_lookup(v)}
        self.roots = elementwise_roots(self.lookups)
        self.groups = self._groups()
        joins = {v: None if self._is_table(v) else kind for v, kind in self.kinds.items()}
        read = self.values, joins, self.readers
        self._wide = wide_groups(*read, self.groups, self._wants_wide, self._is_last)
        self._scaled = scaled_groups(self.values, self.kinds, self.readers, self.groups, self._is_table)
        fine = self._wants_wide("lookup")
        self._fine = fine_groups(self.kinds, self.readers, self.groups, self._is_table) if fine else set()
        self._ends = head_ends(self.kinds, self.groups, self._is_last) if fine else set()
        self._grid = target.numerics.grid
        self.narrow = self._narrow()
        self.qparams: dict[Any, QParams] = {}
        self.raised: set[Any] = set()
        self.weights: dict[Any, QuantizedWeight] = {}
        self._weights = LayerWeights(mod, target, choices.granularity)
        self._choose()

    def pair(self, var: Any) -> Pair:
        """The (activation, weight) dtypes of a layer: assigned to it, else the descriptor's first; of a table
        the last, which is what it takes where no layer stands before it."""
        assigned = (self.choices.assignment or {}).get(self.labels[var])
        pairs = self.target.rule(self.kinds[var]).pairs
        return assigned or pairs[-1 if self.kinds[var] == "lookup" else 0]

    def input_dtype(self, var: Any) -> Format:
        """The dtype of the activation that a layer reads."""
        source = self.values[var].args[0]
        return (
            (self.narrow if self.reads_bytes(var) else self.qparams).get(source, self.qparams[source]).dtype
        )

    def reads_bytes(self, var: Any) -> bool:
        """Whether a node takes the bytes of wide tensors: products, and tables, which are small then."""
        kind = self.kinds.get(var)
        if kind in PRODUCTS:
            return format_of(self.pair(var)[0]).bits <= INT8.bits
        return self._is_table(var) and not (self._root(var) in self.values[var].args and self._scales(var))

    def _is_table(self, var: Any) -> bool:
        """Whether a node is a function of one tensor, element by element, or a step of one."""
        return self.kinds.get(var) == "lookup" or self._root(var) != var

    def _scales(self, var: Any) -> bool:
        """Whether a table is a product with a number, which takes wide tensors; no step of another one."""
        return is_linear(self.values[var]) and not self._inside(var)

    def _kind(self, var: Any, value: Any) -> str | None:
        """The kind of operator to quantize; else None, with a reason noted unless it is quantized already."""
        found, rule = family_of(self.mod, value), rule_of(self.mod, value)
        why_not = rule.why_not(value) if rule else None
        if why_not:
            self.reasons[self.labels[var]] = why_not
        if found is None or any(dequantizes(self.values.get(a)) for a in data_of(value)):
            return None
        if left := self._left.get(self.labels[var]):
            self.reasons[self.labels[var]] = left
            return None
        if self._excluded and self._excluded.search(self.origins[var].node):
            self.reasons[self.labels[var]] = "excluded by the user"
            return None
        listed = self.target.rule(found)
        if listed is None:
            self.reasons[self.labels[var]] = f"target {self.target.name} lists no operator {found}"
            return None
        if beyond := beyond_limits(self.mod, value, listed):
            self.reasons[self.labels[var]] = beyond
            return None
        return found

    def _among_floats(self) -> dict[Any, str]:
        """Nodes that the target computes in integers only, where the nearest layers are in floats."""
        found: dict[Any, str] = {}
        of_layers = [self.pair(v)[0] for v, kind in self.kinds.items() if kind in WEIGHTED_OPS]
        if not any(format_of(activation).is_float for activation in of_layers):
            return found
        nearest = NearestLayers(self.values, self.kinds, self.readers)
        for var, kind in self.kinds.items():
            rule = None if kind is None or kind in WEIGHTED_OPS else self.target.rule(kind)
            if rule is None or any(format_of(activation).is_float for activation, _ in rule.pairs):
                continue
            layers = nearest.behind([var]) or nearest.before([var])
            if any(format_of(self.pair(u)[0]).is_float for u in layers):
                found[var] = f"target {self.target.name} lists {kind} in integers only, unlike what is around"
        return found

    def _leave_split_ends(self) -> None:
        """Leave concats of unlike parts in float where no operator in integers reads them."""
        ends = split_ends(self.values, self.kinds, self.readers, self._range)
        self._leave(dict.fromkeys(ends, "its parts differ in range, and keep scales of their own"))

    def _leave(self, nodes: Mapping[Any, str]) -> None:
        """Leave nodes in float, each for its reason."""
        self.kinds |= dict.fromkeys(nodes)
        self.reasons |= {self.labels[var]: reason for var, reason in nodes.items()}

    def _range(self, var: Any) -> tuple[float, float]:
        """What a tensor holds in the calibration data; nothing where it was not seen."""
        return self._seen(var, INT8) if self._observed(var) else (0.0, 0.0)

    def _seen(self, var: Any, dtype: Format) -> tuple[float, float]:
        """The range of a tensor that calibration saw."""
        return self.stats.range_of(self.labels[var], dtype, self.function)

    def _may_be_lookup(self, var: Any) -> bool:
        return self.kinds[var] in ELEMENTWISE and self.target.rule("lookup") is not None

    def _root(self, var: Any) -> Any:
        """The tensor that `var` becomes a table of; itself where it becomes none."""
        return self.roots.get(var, var)

    def _inside(self, var: Any) -> bool:
        """Whether `var` is only a step of one elementwise function."""
        root = self._root(var)
        if root == var:
            return False
        who = self.readers.get(var, [])
        return bool(who) and all(u is not None and self._root(u) == root for u in who)

    def _observed(self, var: Any) -> bool:
        return (self.function, self.labels[var]) in self.stats.observers

    def _groups(self) -> list[set[Any]]:
        """Sets of tensors that share a scale; every tensor that gets Q and DQ is in one of them."""
        graph = nx.Graph()
        for var, value in self.values.items():
            if self.kinds[var] is not None:
                found = [v for v in [*self._rounded_operands(value), var] if not self._stays_unrounded(v)]
                graph.add_nodes_from(v for v in found if self._observed(v) and not self._inside(v))
        for var, value in self.values.items():
            if self.kinds[var] is not None and self._selects(value):
                apart = self._apart(var, value)
                tied = [a for a in data_of(value) if a in graph and var in graph and a not in apart]
                graph.add_edges_from((var, a) for a in tied)
        return list(nx.connected_components(graph))

    def _rounded_operands(self, value: Any) -> list[Any]:
        """The activations that a node reads as codes."""
        rule = rule_of(self.mod, value)
        real = set(rule.real_operands(self.mod, value)) if rule else set()
        return [v for v in data_of(value) if v not in real]

    def _selects(self, value: Any) -> bool:
        """Whether the results of a node are values of its inputs, so that both have one scale."""
        rule = rule_of(self.mod, value)
        return rule is not None and rule.selects(value)

    def _apart(self, var: Any, value: Any) -> list[Any]:
        """The parts of a concat that do not take its scale."""
        return unlike_parts(parts_of(value), self._range) if self.kinds[var] == "concat" else []

    def _stays_unrounded(self, var: Any) -> bool:
        """Whether the result of a layer is used as a real number. Of one on floats: float nodes read it, the
        graph's user, or the add that it is computed together with. Of one on integers: float nodes only.
        """
        if self.kinds.get(var) not in WEIGHTED_OPS:
            return False
        readers = self.readers.get(var, [])
        if not format_of(self.pair(var)[0]).is_float:
            real = self.target.rule(self.kinds[var]).float_output and self._unclamped(var)
            return real and bool(readers) and all(in_float(self.values, self.kinds, u) for u in readers)
        return all(self.kinds.get(u) is None for u in readers) or self._joins_add(var, readers)

    def _unclamped(self, var: Any) -> bool:
        unit = read_composite(self.mod, self.values[var])
        return unit is not None and not is_clamped(unit)

    def _joins_add(self, var: Any, readers: list[Any]) -> bool:
        """Whether `var` is the summand that its only reader, an add, takes from the accumulator."""
        if len(readers) != 1 or self.kinds.get(readers[0]) != "add":
            return False
        add = self.values[readers[0]]
        return fused_summand(self.mod, add, self.values, self.readers) == var

    def _wants_wide(self, kind: str) -> bool:
        return reads_wide(self.target, kind)

    def _narrow(self) -> dict[Any, QParams]:
        """The parameters of wide tensors as products and tables read them."""
        wide = [v for i in self._wide for v in self.groups[i]]
        read = [v for v in wide if any(map(self.reads_bytes, self.readers.get(v, [])))]
        return {
            v: activation_qparams(*(self._fixed(v) or self._seen(v, INT8)), grid=self._grid) for v in read
        }

    def _choose(self) -> None:
        """Parameters of every group and weight. A scale raised for one layer may raise those that follow."""
        member = {v: i for i, g in enumerate(self.groups) for v in g}
        dtypes = [self._dtype(i, g) for i, g in enumerate(self.groups)]
        ranges = [
            [self._fixed(v) or self._seen(v, d) for v in g] for g, d in zip(self.groups, dtypes, strict=True)
        ]
        room = [self._room(i, g, d) for i, (g, d) in enumerate(zip(self.groups, dtypes, strict=True))]
        spans = [
            (k * min(r[0] for r in rs), k * max(r[1] for r in rs)) for k, rs in zip(room, ranges, strict=True)
        ]
        chosen = [
            activation_qparams(*span, 0.0, d, self._grid) for span, d in zip(spans, dtypes, strict=True)
        ]
        wanted = list(chosen)
        products = {v: value for v, value in self.values.items() if self.kinds[v] in PRODUCTS}
        for _ in range(_ROUNDS):
            before = list(chosen)
            for var, value in products.items():
                given = {a: chosen[member[a]] for a in value.args if a in member}
                least = self._least_scale(var, value, given, var in member)
                i = member.get(var)
                if least is None or i is None or dtypes[i].is_float:
                    continue
                chosen[i] = activation_qparams(*spans[i], max(least, chosen[i].scale), dtypes[i], self._grid)
            if chosen == before:
                break
        self.qparams = {v: chosen[i] for v, i in member.items()}
        self.raised = {v for v, i in member.items() if chosen[i].scale > wanted[i].scale}

    def _least_scale(
        self, var: Any, value: Any, given: Mapping[Any, QParams], is_rounded: bool
    ) -> float | None:  # fmt: skip
        """The scale of a sum of products whose multiplier just fits, None where any does. `given`: the
        parameters of its activations so far; those of its weight are chosen here.
        """
        if value.args[0] not in given:
            return None
        if self.reads_bytes(var):
            given = {a: self.narrow.get(a, q) for a, q in given.items()}
        source = given[value.args[0]]
        kind = self.kinds[var]
        if kind is not None and kind in WEIGHTED_OPS:
            if not is_rounded and not self._stays_unrounded(var):
                return None
            dtype = format_of(self.pair(var)[1])
            self.weights[var] = self._weights.of(var, value, kind, source.scale, dtype)
            other = float(self.weights[var].scale.max())
        elif value.args[1] in given:
            unit = read_composite(self.mod, value)
            other = given[value.args[1]].scale * (abs(unit.factor) if unit else 1.0)
        else:
            return None
        return None if source.dtype.is_float else _MARGIN * source.scale * other

    def _fixed(self, var: Any) -> tuple[float, float] | None:
        """The range that all results of the node of `var` lie in, if it is one of those that have such."""
        rule = rule_of(self.mod, self.values[var]) if self.kinds.get(var) is not None else None
        return rule.output_range(self.mod, self.values[var]) if rule else None

    def _given_format(self, var: Any) -> Format | None:
        """The format that the result of a node has whatever reads it."""
        rule = rule_of(self.mod, self.values[var]) if self.kinds.get(var) is not None else None
        return rule.output_format(self.mod, self.values[var]) if rule else None

    def _room(self, number: int, group: set[Any], dtype: Format) -> float:
        """By how much the range of a group exceeds what calibration saw."""
        if dtype.is_float or number in self._scaled or any(map(self._fixed, group)):
            return 1.0
        if dtype.bits > INT12.bits:
            return HEADROOM if any(map(self._is_image, group)) else WIDE_HEADROOM
        return HEADROOM if self._is_last(group) else 1.0

    def _is_image(self, var: Any) -> bool:
        """Whether a convolution makes or reads a tensor: heads of attention have four axes too."""
        return any(self.kinds.get(u) in CONVOLUTIONS for u in (var, *self.readers.get(var, [])))

    def _is_last(self, group: set[Any]) -> bool:
        """Whether no node that is quantized reads the tensors of a group."""
        readers = {u for v in group for u in self.readers.get(v, [])} - group
        return all(self.kinds.get(u) is None for u in readers)

    def _dtype(self, number: int, group: set[Any], asking: frozenset[int] = frozenset()) -> Format:
        """That which a node gives its result whatever reads it; else, unless layers want floats, int16 in a
        residual stream and at the end of a head, and int12 where tables alone read what a layer made, or what
        the tables give if that is more; else that of the layers that read a tensor: of several a float before
        an integer, then the more precise. Where no layer reads it, the most precise of those of the layers it
        comes from. Integers of less than 8 bits only where every reader of every tensor is such a layer.
        """
        given = [f for f in map(self._given_format, group) if f]
        if given:
            return max(given, key=lambda f: f.precision)
        readers = [u for v in group for u in self.readers.get(v, []) if u not in group]
        layers = [u for u in readers if u is not None and self.kinds.get(u) in WEIGHTED_OPS]
        wanted = [format_of(self.pair(u)[0]) for u in layers or self._makers(group)]
        if layers:
            found = max(wanted, key=lambda d: (d.is_float, d.precision))
        else:
            found = max(wanted, key=lambda d: d.precision, default=INT8)
        if (number in self._wide or number in self._scaled) and not found.is_float:
            return INT16
        if number in self._ends and not found.is_float:
            return INT16
        if number in self._fine and not found.is_float:
            return max(found, INT12, *self._of_tables(group, asking | {number}), key=lambda d: d.bits)
        if found.is_float or (layers and len(layers) == len(readers)):
            return found
        return max(found, INT8, key=lambda d: d.bits)

    def _of_tables(self, group: set[Any], asking: frozenset[int]) -> list[Format]:
        """What tables that read a group give: they need no fewer steps in front. Residual streams aside, and
        what products scale by channel, which needs as many as the smallest channel.

        Nor those that ask: a join may give a tensor and a table of it one scale.
        """
        roots = {self._root(v): v for v in self.values if self._root(v) != v and not self._inside(v)}
        results = {roots[v] for v in group if v in roots}
        apart = asking | self._wide
        behind = [i for i, g in enumerate(self.groups) if results & g and i not in apart]
        found = [self._scaled.get(i) or self._dtype(i, self.groups[i], asking) for i in behind]
        return [f for f in found if not f.is_float]

    def _makers(self, group: set[Any]) -> list[Any]:
        """The nearest layers that the tensors of a group are made of; where there are none, those that are
        made of them, if they may be in floats or not; else the readers of the group.
        """
        layers = NearestLayers(self.values, self.kinds, self.readers)
        found = layers.behind(group)
        nodes = [u for v in group for u in [v, *self.readers.get(v, [])]]
        nodes = [u for u in nodes if self.kinds.get(u) is not None]
        if not found and any(format_of(self.pair(u)[0]).is_float for u in nodes):
            found = layers.before(group)
        return found or nodes
