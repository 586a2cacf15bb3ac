"""Whether what a step gives depends on rows of caches behind its position: by what hides them, node by node.

A step that reads a token at position p writes row p of each cache. What it gives may depend on rows up to p
alone, or several tokens can't be read at once, whose rows are all written before any of them is attended to.
Rows are followed from the caches on: a tensor has them on one axis, until a mask hides those behind the
position. Masks, and where rows are written, follow from the position alone, and so are simply computed for
each one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.evaluate.interpret import Interpreter
from hwptq.ir.caches import Caches, results
from hwptq.ir.dataflow import bindings, constant, data_of, made_of, op_name, reads, shape_of
from hwptq.ir.movement import SAME_ORDER, order_of_axes
from hwptq.ir.operator import Shape
from hwptq.ir.provenance import label_of

from .axes_along import Reading, padded, reading


@dataclass(frozen=True)
class Write:
    """A row of a cache that a step writes: `new` takes that place on `axis` (from the end) of `past`."""

    new: Any
    past: Any
    axis: int


@dataclass(frozen=True)
class _Rows:
    """A tensor whose values along an axis (from the end) are each of one row of caches.

    zero: the code, or the number, that it has for rows behind the position, if it is the same for all;
    _NOTHING where its exponential is 0 beside any other.
    """

    axis: int
    zero: float | None = None


_NOTHING = float("-inf")
_SMALL = -1e30  # as small as what hides numbers from a softmax
_CLEAN = _Rows(0)


def cache_writes(mod: tvm.IRModule, func: Any, caches: Caches) -> dict[Any, Write]:
    """The nodes that write caches, by what they give.

    Raises ValueError, which names the node, where one writes anything but the row of the position, or where
    something that the function gives depends on a row behind it.
    """
    return _Proof(mod, func, caches).writes()


class _Proof:
    def __init__(self, mod: tvm.IRModule, func: Any, caches: Caches):
        assert caches.position is not None
        self.mod, self.func, self.caches = mod, func, caches
        self.values = dict(bindings(func))
        self.position = func.params[caches.position]
        self.places = _Places(mod, func, self.position, caches.context)
        self.rows: dict[Any, _Rows] = {}

    def writes(self) -> dict[Any, Write]:
        given, found = results(self.func), {}
        for cache in self.caches.pairs:
            var, past = given[cache.output], self.func.params[cache.input]
            found[var] = self._write(var, past)
        pasts = {write.past: var for var, write in found.items()}
        for var, value in self.values.items():
            early = [p for p in reads(value) if pasts.get(p, var) != var]
            if early:
                raise ValueError(
                    f"node {label_of(var, value)}: it reads the cache {early[0].name} without the row that "
                    "the step writes"
                )
            self._follow(var, value, found)
        for var in given:
            if var in self.rows and var not in found:
                raise self._seen(var)
        return found

    def _write(self, var: Any, past: Any) -> Write:
        value: Any = self.values.get(var)
        problem = ValueError(
            f"node {label_of(var, value)}: it writes other rows of the cache {past.name} than the one of the "
            "position"
        )
        if op_name(value) != "where" or value.args[2] != past:
            raise problem
        here, new, _ = value.args
        told = shape_of(here)
        wide = [axis for axis in range(-len(told), 0) if told[axis] > 1]
        if len(wide) != 1 or padded(shape_of(new), wide[0])[wide[0]] != 1 or not isinstance(here, relax.Var):
            raise problem
        rows, alone = told[wide[0]], self.places.of(here)
        if alone is None or rows != shape_of(past)[wide[0]]:
            raise problem
        every = np.arange(rows)
        if any(not np.array_equal(there.reshape(-1), every == at) for at, there in enumerate(alone)):
            raise problem
        return Write(new, past, wide[0])

    def _follow(self, var: Any, value: Any, writes: Mapping[Any, Write]) -> None:
        """Note whether a tensor has rows of caches. Raises ValueError for one that mixes them."""
        if var in writes:
            if any(source in self.rows for source in reads(writes[var].new)):
                raise self._seen(writes[var].new)
            self.rows[var] = _Rows(writes[var].axis)
            return
        mixed = [source for source in reads(value) if source in self.rows]
        if not mixed:
            return
        if isinstance(value, relax.Tuple | relax.Var):  # what the function gives
            if isinstance(value, relax.Var):
                self.rows[var] = self.rows[value]
            return
        ways = (self._hidden(value), self._in_float(value), self._moved(var, value), self._along(var, value))
        found = next((rows for rows in ways if rows is not None), None)
        if found is None:
            raise self._seen(var)
        if found != _CLEAN:
            self.rows[var] = found

    def _seen(self, var: Any) -> ValueError:
        return ValueError(
            f"node {label_of(var, self.values.get(var))}: it reads all rows of caches, and nothing hides "
            "those behind the position of its token"
        )

    def _hidden(self, value: Any) -> _Rows | None:
        """Behind an operator that hides them, or sums products with zeros."""
        found = reading(self.mod, value)
        if found is None or found.op is None:
            return None
        held = self._held(found, value)
        if held is None:
            return None
        hides, summed = found.op.hides, found.op.contraction
        hidden = hides is not None and all(hides.of.get(i) == rows.axis for i, rows in held.items())
        if hides and hidden and self._hides_all_behind(found.activations[hides.mask]):
            return _CLEAN if hides.zero is None else _Rows(-1, hides.zero)
        if summed is not None:
            along = all(held[i].axis == summed.axes[i] for i in held)
            if along and any(rows.zero == summed.zeros[i] for i, rows in held.items()):
                return _CLEAN
        return None

    def _in_float(self, value: Any) -> _Rows | None:
        """Behind operators of Relax: a where that puts something very negative for them, the softmax of that,
        and a product with its zeros, of rows that are taken to be finite."""
        name = op_name(value)
        if name == "where":
            return self._chosen(*value.args)
        held = [self.rows.get(a) for a in value.args]
        if name == "nn.softmax" and held[0] == _Rows(-1, _NOTHING):
            return _Rows(-1, 0.0) if int(value.attrs.axis) in (-1, len(shape_of(value)) - 1) else None
        if name == "matmul" and held[0] == _Rows(-1, 0.0) and (held[1] is None or held[1].axis == -2):
            return _CLEAN
        return None

    def _chosen(self, condition: Any, first: Any, second: Any) -> _Rows | None:
        for x, other, where in ((second, first, True), (first, second, False)):
            rows, number = self.rows.get(x), constant(other)
            if rows is None or number is None or condition in self.rows:
                continue
            if rows.zero == 0 and not np.any(number):
                return rows
            if rows.axis == -1 and np.all(number <= _SMALL) and self._hides_all_behind(condition, where):
                return _Rows(-1, _NOTHING)
        return None

    def _hides_all_behind(self, mask: Any, where: bool = True) -> bool:
        """Whether at each position the mask, along its last axis, hides all behind it, and not all. where:
        what of it hides."""
        alone = self.places.of(mask) if isinstance(mask, relax.Var) else None
        if alone is None:
            return False
        for at, told in enumerate(alone):
            flat = (told.reshape(-1, told.shape[-1]) != 0) == where
            if not flat[:, at + 1 :].all() or flat.all(axis=1).any():
                return False
        return True

    def _moved(self, var: Any, value: Any) -> _Rows | None:
        """Where the rows of one tensor are behind what moves its values."""
        name, source = op_name(value), value.args[0] if value.args else None
        if source not in self.rows:
            return None
        rows, shape, new = self.rows[source], shape_of(source), shape_of(var)
        if name == "permute_dims":
            rank = len(shape)
            return _Rows(order_of_axes(value).index(rank + rows.axis) - rank, rows.zero)
        if name == "broadcast_to":
            return rows
        if name in SAME_ORDER:
            return _kept(rows, shape, new)
        return None

    def _along(self, var: Any, value: Any) -> _Rows | None:
        """Where they are behind a node that computes each by itself."""
        found = reading(self.mod, value)
        if found is None:
            return None
        held = self._held(found, value)
        if held is None:
            return None
        for axis in range(-len(shape_of(var)), 0):
            along = found.along(axis)
            if along is not None and all(along[i] == rows.axis for i, rows in held.items()):
                return _Rows(axis)
        return None

    def _held(self, found: Reading, value: Any) -> dict[int, _Rows] | None:
        """Which activations have rows; None where anything else that the node reads has, too."""
        held = {i: self.rows[t] for i, t in enumerate(found.activations) if t in self.rows}
        return held if len(held) == sum(t in self.rows for t in data_of(value)) else None


def _kept(rows: _Rows, shape: Shape, new: Shape) -> _Rows | None:
    """An axis that a reshape leaves."""
    count, before = shape[rows.axis], prod(shape[: rows.axis])
    for axis in range(-len(new), 0):
        if new[axis] == count and prod(new[:axis]) == before:
            return _Rows(axis, rows.zero)
    return None


class _Places:
    """Tensors that follow from the position alone, at each position."""

    def __init__(self, mod: tvm.IRModule, func: Any, position: Any, context: int):
        self._interpreter = Interpreter(mod, _name_of(mod, func))
        self._values, self._position, self._context = dict(bindings(func)), position, context
        self._params = set(func.params)
        self._known: dict[Any, list[np.ndarray]] = {}

    def of(self, var: Any) -> list[np.ndarray] | None:
        """The tensor at position 0, 1, … of the context; None where it depends on anything else."""
        if var not in self._known:
            needed = self._needed(var)
            if needed is None:
                return None
            self._known[var] = [self._at(place, needed, var) for place in range(self._context)]
        return self._known[var]

    def _needed(self, var: Any) -> list[Any] | None:
        if var in self._params:
            return None
        seen, waiting = {var}, [var]
        while waiting:
            for source in reads(self._values[waiting.pop()]):
                if source in self._params and source != self._position:
                    return None
                if source not in seen and source not in self._params:
                    seen.add(source)
                    waiting.append(source)
        return made_of(var, self._position, self._values)

    def _at(self, place: int, needed: list[Any], var: Any) -> np.ndarray:
        kind = str(self._position.ty.dtype)
        env = {self._position: np.full(shape_of(self._position), place, kind)}
        for step in needed:
            env[step] = self._interpreter.evaluate(self._values[step], env)
        return np.asarray(env[var])


def _name_of(mod: tvm.IRModule, func: Any) -> str:
    return next(str(gv.name_hint) for gv, found in mod.functions.items() if found.same_as(func))
