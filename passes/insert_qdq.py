"""InsertQDQ: put R.quantize / R.dequantize around every node that the target computes in integers."""

from __future__ import annotations

import re
from typing import Any

import networkx as nx
import numpy as np
import tvm
from tvm import relax

from hwptq.quant.qparams import QParams, activation_qparams, quantize_weight, weight_scales

from .dataflow import bindings, constant, main_functions, rewrite, users
from .quantizable import elementwise_root, kind, ties_scale, weight_of, with_float_reasons

_WEIGHTED = ("conv2d", "depthwise_conv2d", "dense")
_FREE = ("lookup", "data_movement", "concat")
_ROUNDS = 100


@tvm.transform.module_pass(opt_level=0, name="hwptq.InsertQDQ")
class InsertQDQ:
    """Quantize activations (int8, asymmetric, per tensor) and weights (int8, symmetric) of the nodes that
    `target` lists, with ranges from `stats`. Tensors tied by concat, pooling or data movement share a scale.

    granularity: "channel" | "tensor" overrides the descriptor's; exclude: regular expression of node names
    that stay float.
    """

    def __init__(self, target: Any, stats: Any, granularity: str | None = None, exclude: str | None = None):
        self.target, self.ranges, self.granularity = target, stats.ranges, granularity
        self.exclude = re.compile(exclude) if exclude else None

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        plans = {gv.name_hint: _Plan(self, mod, f) for gv, f in main_functions(mod)}
        quantized = {v: q for plan in plans.values() for v, q in plan.qparams.items()}
        weights = {v: w for plan in plans.values() for v, w in plan.weights.items()}

        def qdq(r: Any, new: Any, name: str, q: QParams) -> Any:
            scale, zero = relax.const(np.float32(q.scale)), relax.const(np.int8(q.zero_point))
            new = r.emit(relax.op.quantize(new, scale, zero, axis=-1, out_dtype="int8"), f"{name}_q")
            return r.emit(relax.op.dequantize(new, scale, zero, axis=-1, out_dtype="float32"), f"{name}_dq")

        def begin(r: Any) -> None:
            for p in r.func.params:
                if p in quantized:
                    r.env[p] = qdq(r, p, str(p.name), quantized[p])

        def visit(r: Any, var: Any, value: Any) -> Any:
            new = r.keep(value)
            if var in weights:
                position, q, scale, axis = weights[var]
                zero = np.zeros(scale.shape, np.int8)
                const = [relax.const(q), relax.const(scale), relax.const(zero)]
                weight = r.emit(relax.op.dequantize(*const, axis=axis, out_dtype="float32"), f"{var.name}_w")
                args = [weight if i == position else a for i, a in enumerate(new.args)]
                new = relax.Call(new.op, args, new.attrs, new.ty_args)
            if var not in quantized:
                return new
            return qdq(r, r.emit(new, str(var.name)), str(var.name), quantized[var])

        reasons = {name: why for plan in plans.values() for name, why in plan.reasons.items()}
        return with_float_reasons(rewrite(mod, visit, begin), reasons)


class _Plan:
    """Which tensors of one function are quantized, and how."""

    def __init__(self, options: InsertQDQ, mod: tvm.IRModule, func: Any):
        self.options, self.mod = options, mod
        self.values = dict(bindings(func))
        self.readers = users(func)
        self.reasons: dict[str, str] = {}  # node left in float -> why
        self.kinds = self._without_islands({v: self._kind(v, value) for v, value in self.values.items()})
        self.lookups = {v: value for v, value in self.values.items() if self._may_be_lookup(v)}
        tensors = self._tensors()
        groups = self._groups(tensors)
        self.qparams: dict[Any, QParams] = {}
        self.weights: dict[Any, Any] = {}
        self._assign(groups)

    def _kind(self, var: Any, value: Any) -> str | None:
        """The kind of operator to compute in integers, or None with a reason noted."""
        found, target = kind(self.mod, value), self.options.target
        if found is None:
            return None
        if self.options.exclude and self.options.exclude.search(str(var.name)):
            self.reasons[str(var.name)] = "excluded by the user"
            return None
        if target.rule(found) is None:
            self.reasons[str(var.name)] = f"target {target.name} lists no operator {found}"
            return None
        return found

    def _without_islands(self, kinds: dict[Any, str | None]) -> dict[Any, str | None]:
        """Leave tables and data movement in float where no node beside them computes in integers."""
        graph = nx.Graph()
        for var, value in self.values.items():
            if kinds[var] is not None:
                graph.add_node(var)
                graph.add_edges_from((var, a) for a in self._data(value) if kinds.get(a) is not None)
        free = [c for c in nx.connected_components(graph) if all(kinds[v] in _FREE for v in c)]
        islands = {v for c in free for v in c}
        self.reasons |= {str(v.name): "no operator beside it computes in integers" for v in islands}
        return {v: None if v in islands else k for v, k in kinds.items()}

    def _may_be_lookup(self, var: Any) -> bool:
        return self.kinds[var] in ("lookup", "add", "mul") and self.options.target.rule("lookup") is not None

    def _data(self, value: Any) -> list[Any]:
        """The activations that a node reads."""
        found = []
        for a in value.args:
            found += [f for f in a.fields] if isinstance(a, relax.Tuple) else [a]
        return [a for a in found if isinstance(a, relax.Var)]

    def _tensors(self) -> list[Any]:
        """Every tensor that gets Q and DQ, without those inside a chain of elementwise functions."""
        found: list[Any] = []
        for var, value in self.values.items():
            if self.kinds[var] is not None:
                found += [*self._data(value), var]
        return [v for v in dict.fromkeys(found) if str(v.name) in self.options.ranges and not self._inside(v)]

    def _root(self, var: Any) -> Any:
        """The tensor that `var` becomes a table of; itself where it becomes none."""
        return elementwise_root(var, self.lookups)

    def _inside(self, var: Any) -> bool:
        if self._root(var) is var:
            return False
        who = self.readers.get(var, [])
        return bool(who) and all(u is not None and self._root(u) is self._root(var) for u in who)

    def _groups(self, tensors: list[Any]) -> list[set[Any]]:
        graph = nx.Graph()
        graph.add_nodes_from(tensors)
        for var, value in self.values.items():
            if self.kinds[var] is not None and ties_scale(value, self.kinds[var]):
                graph.add_edges_from((var, a) for a in self._data(value) if a in graph and var in graph)
        return list(nx.connected_components(graph))

    def _assign(self, groups: list[set[Any]]) -> None:
        member = {v: i for i, g in enumerate(groups) for v in g}
        ranges = [[self.options.ranges[str(v.name)] for v in g] for g in groups]
        spans = [(min(r[0] for r in rs), max(r[1] for r in rs)) for rs in ranges]
        chosen = [activation_qparams(low, high) for low, high in spans]
        for _ in range(_ROUNDS):  # a scale raised here may raise the scales of tensors that follow
            before = list(chosen)
            self._raise_scales(member, spans, chosen)
            if chosen == before:
                break
        self.qparams = {v: chosen[i] for v, i in member.items()}

    def _raise_scales(self, member: dict[Any, int], spans: list[Any], chosen: list[QParams]) -> None:
        """Choose the weights, and output scales coarse enough for requantize multipliers below 1/2."""
        for var, value in self.values.items():
            if self.kinds[var] in _WEIGHTED and var in member and value.args[0] in member:
                source, i = chosen[member[value.args[0]]], member[var]
                self.weights[var] = self._weight(var, value, source)
                floor = 2.001 * source.scale * float(self.weights[var][2].max())
                chosen[i] = activation_qparams(spans[i][0], spans[i][1], max(floor, chosen[i].scale))

    def _weight(self, var: Any, value: Any, source: QParams) -> Any:
        """(argument position, int8 weight, scales, axis) of a conv or dense node."""
        weight = weight_of(self.mod, value)
        bias = constant(value.args[2]) if len(value.args) > 2 else None
        axis = 0 if weight.ndim == 4 else 1
        rule = self.options.target.rule(self.kinds[var])
        granularity = self.options.granularity or rule.granularity
        limit = None if bias is None else np.abs(bias).reshape(-1) / (source.scale * 2.0**28)
        if limit is not None and limit.size == 1:
            limit = np.full(weight.shape[axis], limit[0])
        scale = weight_scales(weight, axis, limit)
        if granularity == "tensor":
            scale = np.full_like(scale, scale.max())
        return 1, quantize_weight(weight, scale, axis), scale, axis
