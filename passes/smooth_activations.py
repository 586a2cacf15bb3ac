"""SmoothActivations: move outliers of an activation's channels into the weights of dense layers behind it.

    dense(norm(x; gamma, beta), W) = dense(norm(x; gamma / s, beta / s), s W)

for layer norms, RMS norms and any product with a constant vector; and where a dense layer made the tensor,
its own weights are divided: the values of an attention before its output layer, the linear side of a gated
block. The result of a function by table (GELU) is multiplied by 1 / s, where the target holds it in more
than a byte before that, and so are the parts of a concatenation, and in float an input of the model. Outputs
stay the same; what is quantized is flatter. How s is chosen: quant/smoothing.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.evaluate.hidden_tokens import hidden_in
from hwptq.evaluate.interpret import observe_all
from hwptq.formats import INT8, INT16, Pair, format_of
from hwptq.ir.dataflow import bindings, constant, main_functions, op_name, rewrite
from hwptq.ir.provenance import Origin, origins
from hwptq.lowering.operand import constant_operand
from hwptq.lowering.rules import family_of
from hwptq.quant.smoothing import WORTH_A_FLOAT_PRODUCT, WORTH_A_PRODUCT, Product, best_factors, factors

from .graph.affine_of_parts import move_affine
from .graph.channel_links import Reader
from .graph.divisible import Divisible, divisible, multipliable, multiplied, side_by_side
from .graph.own_integers import own_integers
from .graph.quantizable import with_float_reasons
from .graph.stream_dtypes import holds_wide_products

#: Samples that are looked at, and rows that are kept of a tensor, over all of them.
SAMPLES = 128
ROWS = 512
_OF_INPUT = "channels of an input are made alike before they are rounded"


@tvm.transform.module_pass(opt_level=0, name="hwptq.SmoothActivations")
class SmoothActivations:
    """Smooth every tensor that dense layers read and that something with constants made (graph/divisible.py).

    Other readers of a norm (a residual, say) go on reading the norm as it was; the dense layers then read a
    product with it, or a second norm where the target has no products of more than bytes. samples: dicts of
    the module's inputs, of which the first ones are read; strength: 0 leaves the outliers in the activations,
    1 moves all of them into the weights; None: for each tensor the one that loses least on the samples.
    per_token: activations get a scale a row, found when they are computed. target: that of static
    activations; without one products are added only per token, where they stay in float. dtypes: of
    activations and weights that dense layers will have, by name.
    """

    def __init__(
        self,
        samples: Iterable[dict[str, np.ndarray]],
        strength: float | None = None,
        per_token: bool = False,
        target: Any = None,
        dtypes: Pair = (INT8.name, INT8.name),
    ):
        if strength is not None and not 0 <= strength <= 1:
            raise ValueError(f"the strength of smoothing lies in [0, 1], got {strength}")
        self.samples, self.strength, self.per_token = samples, strength, per_token
        self.target, self.dtypes = target, tuple(map(format_of, dtypes))

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        bound = _bound(mod)
        points = [p for _, func in main_functions(mod) for p in self._points(mod, func) if _is_free(p, bound)]
        if not points:
            return mod
        inputs = _layer_inputs(mod, points)
        seen = _observed(mod, set(inputs.values()), islice(self.samples, SAMPLES))
        weights = _Weights(bound)
        chosen: dict[Any, tuple[Divisible, np.ndarray]] = {}
        whole: set[Any] = set()  # layers that a concatenation serves, or an input
        for point in sorted(points, key=weights.turn):
            if not whole.isdisjoint(r.var for r in point.readers):
                continue
            s = self._factors(point, weights, {r.var: seen[inputs[r.var]] for r in point.readers})
            if np.any(s != 1):
                s = s if point.constants else _held(s)
                chosen[point.var] = point, s
                weights.smooth(point, s)
                whole |= {r.var for r in point.readers} if weights.turn(point) == 0 else set()
        return _smoothed(mod, chosen, weights)

    def _points(self, mod: tvm.IRModule, func: Any) -> list[Divisible]:
        """The tensors of a function that may be smoothed."""
        points = divisible(mod, func)
        read = self.dtypes[0]
        if self.per_token:
            return side_by_side(mod, func) + points
        if self.target is None or read.is_float or read.bits > INT8.bits:
            return points
        kinds = [family_of(mod, value) for _, value in bindings(func)]
        if holds_wide_products(kinds, self.target):
            points = [multiplied(p) for p in points] + multipliable(mod, func, points)
        return side_by_side(mod, func) + points

    def _factors(self, point: Divisible, weights: _Weights, seen: dict[Any, _Rows]) -> np.ndarray:
        """s of each channel of a tensor."""
        channels = 1 + max(int(r.channels.max()) for r in point.readers)
        reach, largest = np.zeros(channels), np.zeros(channels)
        products = []
        for reader in point.readers:
            rows, weight = seen[reader.var], weights.of(reader.var)
            at, known = reader.channels, reader.channels >= 0
            np.maximum.at(reach, at[known], np.maximum(np.abs(rows.low), np.abs(rows.high))[known])
            np.maximum.at(largest, at[known], np.abs(weight).max(axis=1)[known])
            products.append((Product(rows.rows(), rows.low, rows.high, weight), at))
        if self.strength is not None:
            return factors(reach, largest, self.strength)
        dtype = self.dtypes[1]
        qmax = int(dtype.qmax) if not dtype.is_float else INT8.qmax
        if point.constants or not point.alone:
            return best_factors(reach, largest, products, self.per_token, qmax)
        worth = WORTH_A_FLOAT_PRODUCT if weights.is_input(point) else WORTH_A_PRODUCT
        return best_factors(reach, largest, products, self.per_token, qmax, worth)


def _held(s: np.ndarray) -> np.ndarray:
    """Factors near `s` whose inverses the int16 of a constant holds as they are."""
    inverse = constant_operand((1 / s).astype(np.float32), INT16)
    codes = np.maximum(inverse.tensor, 1)
    return 1 / (codes * float(inverse.scale))


def _is_free(point: Divisible, values: dict[Any, Any]) -> bool:
    """Whether no weight behind a tensor comes as integers, which are to stay."""
    return all(own_integers(values[r.var]) is None for r in point.readers)


def _bound(mod: tvm.IRModule) -> dict[Any, Any]:
    return {var: value for _, func in main_functions(mod) for var, value in bindings(func)}


class _Weights:
    """The weights of dense layers [K,O] while they are smoothed."""

    def __init__(self, values: dict[Any, Any]):
        self._values = values
        self.changed: dict[Any, np.ndarray] = {}

    def of(self, layer: Any) -> np.ndarray:
        """The weight as it is by now."""
        if layer in self.changed:
            return self.changed[layer]
        weight = constant(self._values[layer].args[1])
        assert weight is not None
        return weight

    def turn(self, point: Divisible) -> int:
        """Concatenations and inputs come first: their parts are to be alike. Layers come before norms."""
        if self.is_input(point) or op_name(self._values[point.var]) == "concat":
            return 0
        return 1 if self.is_layer(point) else 2

    def is_input(self, point: Divisible) -> bool:
        """Whether the tensor is one of the function's inputs."""
        return point.var not in self._values

    def is_layer(self, point: Divisible) -> bool:
        """Whether a dense layer made the tensor, so that its weight is among the constants."""
        made = self._values.get(point.var)
        return isinstance(made, relax.Call) and isinstance(made.op, tvm.ir.GlobalVar)

    def smooth(self, point: Divisible, s: np.ndarray) -> None:
        """Multiply the rows of the readers, divide the columns of the layer that made the tensor."""
        for reader in point.readers:
            self.changed[reader.var] = self.of(reader.var) * _spread(reader, s)[:, None]
        if self.is_layer(point):
            self.changed[point.var] = self.of(point.var) / s


def _spread(reader: Reader, s: np.ndarray) -> np.ndarray:
    """The factor of each input channel of a reader."""
    return np.append(s, 1.0)[reader.channels]


def _smoothed(
    mod: tvm.IRModule, chosen: dict[Any, tuple[Divisible, np.ndarray]], weights: _Weights
) -> tvm.IRModule:  # fmt: skip
    """The module with the chosen tensors divided, beside what they were where others read that too. What
    divides an input is left in float, so that bytes hold what it gives."""
    copies: dict[Any, Any] = {}  # tensor -> its divided copy
    copied = {r.var: v for v, (p, _) in chosen.items() if not p.alone for r in p.readers}

    def visit(r: Any, var: Any, value: Any) -> Any:
        new = r.keep(value)
        args = list(new.args) if isinstance(new, relax.Call) else []
        if var in chosen and not chosen[var][0].constants:
            inverse = relax.const((1 / chosen[var][1]).astype(np.float32))
            if chosen[var][0].alone:
                return relax.op.multiply(r.emit(relax.Call(new.op, args, new.attrs, new.ty_args)), inverse)
            tensor = r.emit(new, r.origin)
            copies[var] = r.emit(relax.op.multiply(tensor, inverse))
            return tensor
        if var in chosen:
            point, s = chosen[var]
            divided = [*args]
            for i in point.constants:
                divided[i] = _divided(args[i], s)
            if not point.alone:
                copies[var] = r.emit(relax.Call(new.op, divided, new.attrs, new.ty_args))
            else:
                args = divided
        if var in weights.changed:
            args[1] = relax.const(weights.changed[var].astype(np.float32))
            args[0] = copies[copied[var]] if var in copied else args[0]
        return relax.Call(new.op, args, new.attrs, new.ty_args, new.span) if args else new

    inputs: dict[str, dict[str, str]] = {}  # of each function

    def begin(r: Any) -> None:
        for param in r.func.params:
            if param in chosen:
                origin = replace(r.origins[param], step=1)
                inverse = relax.const((1 / chosen[param][1]).astype(np.float32))
                r.env[param] = r.emit(relax.op.multiply(param, inverse), origin)
                inputs.setdefault(r.name, {})[r.emitted[r.env[param]].label] = _OF_INPUT

    smoothed = move_affine(rewrite(mod, visit, begin))
    return with_float_reasons(smoothed, inputs) if inputs else smoothed


def _divided(expr: Any, s: np.ndarray) -> Any:
    array = constant(expr)
    assert array is not None
    return relax.const((array / s).astype(np.float32))


@dataclass
class _Rows:
    """What is kept of a tensor [..., K]: the range of each channel, and rows spread over all samples."""

    each: int  # rows of a sample
    low: Any = np.inf
    high: Any = -np.inf
    parts: list[np.ndarray] = field(default_factory=list)

    def add(self, value: np.ndarray) -> None:
        """The tensor of one more sample."""
        rows = value.reshape(-1, value.shape[-1])
        self.low, self.high = np.minimum(self.low, rows.min(axis=0)), np.maximum(self.high, rows.max(axis=0))
        at = np.random.default_rng(len(self.parts)).permutation(len(rows))[: self.each]
        self.parts.append(rows[np.sort(at)].copy())

    def rows(self) -> np.ndarray:
        """At most ROWS of those kept, [N,K]."""
        found = np.concatenate(self.parts)
        return found[:: max(1, -(-len(found) // ROWS))]


def _layer_inputs(mod: tvm.IRModule, points: list[Divisible]) -> dict[Any, tuple[str, str]]:
    """Function and label of what each reader of the points reads."""
    wanted = {reader.var for point in points for reader in point.readers}
    return {
        var: (str(gv.name_hint), named[value.args[0]].label)
        for gv, func in main_functions(mod)
        for named in [origins(func)]
        for var, value in bindings(func)
        if var in wanted
    }


def _observed(
    mod: tvm.IRModule, tensors: set[tuple[str, str]], samples: Iterable[dict[str, np.ndarray]]
) -> dict[tuple[str, str], _Rows]:
    """What `samples` hold in tensors, given by function and label, but for tokens that a mask hides."""
    found = {tensor: _Rows(ROWS // 16) for tensor in tensors}

    def observe(function: str, origin: Origin, value: np.ndarray) -> None:
        if (function, origin.label) in found:
            found[function, origin.label].add(value)

    hidden, samples = hidden_in(mod, samples)
    observe_all(mod, samples, observe, hidden.watching if hidden else None)
    if not all(rows.parts for rows in found.values()):
        raise ValueError("SmoothActivations needs at least one sample")
    return found
