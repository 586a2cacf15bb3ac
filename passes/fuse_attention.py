"""FuseAttention: scores, softmax and mean of values that are left in float become one operator.

    matmul(softmax(matmul(q, transpose(k)) * factor, hidden), v)  ->  Attention(q, k, v, hidden)

Keys and values that are repeated for several heads are read as they are, and those that are codes times
scales of rows, as caches in int8 are, by their codes: AttentionOnRows, whose queries get codes too. A number
that queries or keys are multiplied by is part of the factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.composite import read_composite
from hwptq.ir.dataflow import Rewriter, bindings, constant, main_functions, op_name, rewrite, shape_of, users
from hwptq.ir.movement import SAME_ORDER, order_of_axes
from hwptq.lowering.emitter import Emitter
from hwptq.operators.attention import Attention, AttentionOnRows
from hwptq.operators.rows import RowQuantize, RowScale
from hwptq.targets.schema import Descriptor

_RANK = 4
_LAST_TWO = (0, 1, 3, 2)


@tvm.transform.module_pass(opt_level=0, name="hwptq.FuseAttention")
class FuseAttention:
    """For an integer module, behind LowerToInteger and CachesInBytes; tensors are [batch, heads, rows, size].

    Only where nothing else reads the scores and the probabilities.
    """

    def __init__(self, target: Descriptor):
        self.target = target

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        found = {var: made for _, func in main_functions(mod) for var, made in _attentions(mod, func)}
        inside = {var for made in found.values() for var in made.inside}
        makers: dict[int, _Maker] = {}

        def visit(r: Rewriter, var: Any, value: Any) -> Any:
            if var in inside:
                return None
            if var not in found:
                return r.keep(value)
            if id(r) not in makers:
                makers[id(r)] = _Maker(r, Emitter(r, dict(bindings(r.func)), self.target.accumulators))
            return makers[id(r)].emit(found[var], shape_of(var), r.origins[var])

        return rewrite(mod, visit) if found else mod


@dataclass(frozen=True)
class _Rows:
    """Rows of keys or values [batch, shared heads, positions, size]: a tensor, or codes with scales, times
    factor. turned: how the axes of the tensor are moved to be so, None = they are."""

    tensor: Any
    scales: Any = None
    turned: tuple[int, ...] | None = None
    factor: float = 1.0

    @property
    def heads(self) -> int:
        return shape_of(self.tensor)[1 if self.turned is None else self.turned[1]]


@dataclass(frozen=True)
class _Found:
    """What an attention reads, and the vars inside of it."""

    q: Any
    k: _Rows
    v: _Rows
    hidden: Any  # bool, or None where nothing is hidden
    factor: float
    empties: bool
    inside: tuple[Any, ...]


def _attentions(mod: tvm.IRModule, func: Any) -> list[tuple[Any, _Found]]:
    values, readers, found = dict(bindings(func)), users(func), []
    for var in values:
        made = _attention(mod, var, values, readers)
        if made is not None:
            found.append((var, made))
    return found


def _attention(mod: tvm.IRModule, var: Any, values: Mapping[Any, Any], readers: Any) -> _Found | None:
    """What a mean of values is the end of, or None."""
    mean = _product(mod, var, values)
    if mean is None or mean.factor != 1.0:
        return None
    shares, v = mean.args
    told = _softmax(mod, shares, values)
    if told is None or len(readers[shares]) > 1:
        return None
    scores, hidden, empties = told
    product = _product(mod, scores, values)
    if product is None or len(readers[scores]) > 1:
        return None
    keys, rows = _keys(product.args[1], values), _shared_rows(v, values)
    if keys.heads != rows.heads or rows.factor != 1.0:
        keys, rows = _Rows(product.args[1], None, _LAST_TWO), _Rows(v)
    if (keys.scales is None) != (rows.scales is None):
        return None
    if hidden is not None and not _is_mask(shape_of(hidden), shape_of(scores)):
        return None
    q, own = _without_numbers(product.args[0], values)
    return _Found(q, keys, rows, hidden, product.factor * own * keys.factor, empties, (scores, shares))


def _product(mod: tvm.IRModule, var: Any, values: Mapping[Any, Any]) -> Any:
    """The Composite of a product of two activations of rank 4 in float, without bias and clamp; or None."""
    unit = read_composite(mod, values.get(var))
    if unit is None or unit.kind != "matmul" or unit.bias is not None or np.any(np.isfinite(unit.bounds)):
        return None
    both = all(isinstance(a, relax.Var) and len(shape_of(a)) == _RANK for a in unit.args)
    real = both and all(str(t.ty.dtype) == "float32" for t in (var, *unit.args))
    return unit if real and shape_of(unit.args[0])[:2] == shape_of(unit.args[1])[:2] else None


def _softmax(mod: tvm.IRModule, var: Any, values: Mapping[Any, Any]) -> tuple[Any, Any, bool] | None:
    """(scores, what hides some of them or None, whether rows hidden whole are empty), or None."""
    value: Any = values.get(var)
    if op_name(value) == "nn.softmax":
        return (value.args[0], None, False) if int(value.attrs.axis) in (-1, _RANK - 1) else None
    unit = read_composite(mod, value)
    if unit is None or unit.kind != "softmax":
        return None
    steps = [op_name(step) for _, step in bindings(mod[value.op]) if op_name(step)]
    if steps not in (["where", "nn.softmax"], ["where", "nn.softmax", "where"]):
        return None
    return value.args[0], value.args[1], steps[-1] == "where"


def _is_mask(mask: tuple[int, ...], scores: tuple[int, ...]) -> bool:
    """Whether it broadcasts, is alike for all heads, and says something of every position."""
    wide = (1,) * (_RANK - len(mask)) + mask
    fits = all(n in (1, m) for n, m in zip(wide, scores, strict=True))
    return len(mask) <= _RANK and fits and wide[1] == 1 and wide[-1] == scores[-1]


def _keys(expr: Any, values: Mapping[Any, Any]) -> _Rows:
    """The keys whose transpose `expr` is: what stands before the transpose, if that is all it does."""
    product, outer = _without_numbers(expr, values)
    value: Any = values.get(product)
    if op_name(value) != "permute_dims":
        return _Rows(product, None, _LAST_TWO, outer)
    axes = order_of_axes(value)
    turned = tuple(axes[a] for a in _LAST_TWO)
    if turned != tuple(range(_RANK)):
        return _Rows(value.args[0], None, turned, outer)
    rows = _shared_rows(value.args[0], values)
    return replace(rows, factor=outer * rows.factor)


def _shared_rows(expr: Any, values: Mapping[Any, Any]) -> _Rows:
    """What stands before the repetition for heads, and before numbers that multiply it."""
    outer, factor = _without_numbers(expr, values)
    inner, other = _without_numbers(_before_repetition(outer, values), values)
    return replace(_codes(inner, values) or _Rows(inner), factor=factor * other)


def _without_numbers(expr: Any, values: Mapping[Any, Any]) -> tuple[Any, float]:
    """(x, c) of x * c, c * x or x / (1 / c), as often as there is a number; else (`expr`, 1)."""
    factor = 1.0
    while (found := _times_number(expr, values)) is not None:
        expr, factor = found[0], factor * found[1]
    return expr, factor


def _times_number(expr: Any, values: Mapping[Any, Any]) -> tuple[Any, float] | None:
    value: Any = values.get(expr)
    kind = op_name(value)
    pairs = {"multiply": ((0, 1), (1, 0)), "divide": ((0, 1),)}
    for x, c in pairs.get(kind, ()):
        number = constant(value.args[c])
        if number is not None and number.size == 1 and number.item() != 0:
            same = shape_of(value.args[x]) == shape_of(expr)
            factor = float(number.item())
            return (value.args[x], factor if kind == "multiply" else 1 / factor) if same else None
    return None


def _before_repetition(expr: Any, values: Mapping[Any, Any]) -> Any:
    """x of reshape(broadcast(expand_dims(x))), [B,G,S,D] -> [B,G,r,S,D] -> [B,G*r,S,D]; else `expr`."""
    wide: Any = values.get(expr)
    repeated: Any = values.get(wide.args[0]) if op_name(wide) == "reshape" else None
    if op_name(repeated) != "broadcast_to":
        return expr
    spread, source = shape_of(wide.args[0]), repeated.args[0]
    if len(spread) != _RANK + 1 or shape_of(source) != (*spread[:2], 1, *spread[3:]):
        return expr
    single: Any = values.get(source)
    if op_name(single) in SAME_ORDER and len(shape_of(single.args[0])) == _RANK:
        before = single.args[0]
        batch, heads, *rest = shape_of(expr)
        same = shape_of(before) == (*spread[:2], *spread[3:]) == (batch, heads // spread[2], *rest)
        return before if same else expr
    return expr


def _codes(expr: Any, values: Mapping[Any, Any]) -> _Rows | None:
    """Codes and scales of rows, where `expr` is their product."""
    product: Any = values.get(expr)
    back: Any = values.get(product.args[0]) if op_name(product) == "multiply" else None
    if op_name(back) != "astype" or str(back.args[0].ty.dtype) != AttentionOnRows.held:
        return None
    scales = product.args[1]
    if not isinstance(scales, relax.Var) or shape_of(scales) != (*shape_of(expr)[:-1], 1):
        return None
    return _Rows(back.args[0], scales)


class _Maker:
    """Emits operators into a new function; what hides, and codes of queries, once."""

    def __init__(self, r: Rewriter, e: Emitter):
        self.r, self.e = r, e
        self._masks: dict[Any, Any] = {}

    def emit(self, found: _Found, shape: tuple[int, ...], origin: Any) -> Any:
        e, r, q = self.e, self.r, self.r.get(found.q)
        batch, heads, rows, depth = shape_of(found.q)
        k, v = self._tensor(found.k), self._tensor(found.v)
        hidden = self._hidden(found.hidden, shape_of(k)[2])
        if found.k.scales is None:
            op = Attention(found.factor, found.empties)
            return e.call(op, [q, k, v, hidden], (), shape, "float32", origin)
        scale = e.call(RowScale(), [q], (), (batch, heads, rows, 1), "float32")
        codes = e.call(RowQuantize(), [q, scale], (), (batch, heads, rows, depth), "int8")
        scales = [scale, r.get(found.k.scales), r.get(found.v.scales)]
        on_rows = AttentionOnRows(found.factor, found.empties)
        return e.call(on_rows, [codes, k, v, hidden, *scales], (), shape, "float32", origin)

    def _tensor(self, rows: _Rows) -> Any:
        tensor = self.r.get(rows.tensor)
        return (
            tensor if rows.turned is None else self.r.emit(relax.op.permute_dims(tensor, list(rows.turned)))
        )

    def _hidden(self, hidden: Any, positions: int) -> Any:
        """int8 [batch or 1, 1, rows or 1, positions]."""
        if hidden is None:
            return np.zeros((1, 1, 1, positions), np.int8)
        if hidden not in self._masks:
            wide = (1,) * (_RANK - len(shape_of(hidden))) + shape_of(hidden)
            flat = self.r.get(hidden)
            flat = flat if shape_of(flat) == wide else self.r.emit(relax.op.reshape(flat, wide))
            self._masks[hidden] = self.r.emit(relax.op.astype(flat, "int8"))
        return self._masks[hidden]
