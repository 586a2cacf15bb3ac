"""Constants per channel behind a concatenation go to its parts, those behind a look-up into its table.

    concat(a, b) * s + t     ->  concat(a * s_a + t_a, b * s_b + t_b)
    take(table, ids) * s + t  ->  take(table * s + t, ids)

The same numbers, to the bit. A BatchNorm makes channels alike that are not: behind it the parts have ranges
that one scale serves, before it the widest one would take the steps of all others; and behind a layer it is
folded into weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import Rewriter, bindings, constant, main_functions, op_name, rewrite, shape_of, users

_LINKS: Mapping[str, tuple[Callable[..., Any], Callable[..., np.ndarray]]] = {
    "add": (relax.op.add, np.add),
    "subtract": (relax.op.subtract, np.subtract),
    "multiply": (relax.op.multiply, np.multiply),
    "divide": (relax.op.divide, np.divide),
}


@dataclass(frozen=True)
class _Chain:
    """A concatenation or a look-up, and what stands behind it alone: (kind, constant that spans `axis`)."""

    head: Any
    value: Any
    axis: int
    inner: tuple[Any, ...]  # vars of the links but for the last one
    links: tuple[tuple[str, np.ndarray], ...]


def move_affine(mod: tvm.IRModule) -> tvm.IRModule:
    """The same outputs, with such constants moved."""
    chains: dict[Any, _Chain] = {}  # by the last link
    for _, func in main_functions(mod):
        values, readers = dict(bindings(func)), users(func)
        for var, value in values.items():
            axis = _axis(var, value)
            found = None if axis is None else _chain(var, value, axis, values, readers)
            if found is not None:
                chains[found[0]] = found[1]
    dropped = {var for chain in chains.values() for var in (chain.head, *chain.inner)}

    def visit(r: Rewriter, var: Any, value: Any) -> Any:
        if var in dropped:
            return None
        if var not in chains:
            return r.keep(value)
        chain = chains[var]
        return _of_table(r, chain) if op_name(chain.value) == "take" else _of_parts(r, chain)

    return rewrite(mod, visit) if chains else mod


def _axis(var: Any, value: Any) -> int | None:
    """That of the channels of a concatenation or of a look-up in a table of floats; None for all else."""
    rank = len(shape_of(var)) if op_name(value) in ("concat", "take") else 0
    if op_name(value) == "concat":
        return int(value.attrs.axis) % rank
    if op_name(value) != "take" or value.attrs.axis is None or int(value.attrs.axis) != 0:
        return None
    table = constant(value.args[0])
    return rank - 1 if table is not None and table.ndim == 2 and table.dtype == np.float32 else None


def _chain(
    head: Any, value: Any, axis: int, values: Mapping[Any, Any], readers: Mapping[Any, Sequence[Any]]
) -> tuple[Any, _Chain] | None:
    """(last link, chain), if a link has a value for each channel."""
    links: list[tuple[str, np.ndarray]] = []
    passed: list[Any] = []
    end = head
    while len(readers.get(end, [])) == 1 and readers[end][0] is not None:
        link = readers[end][0]
        given = _constant_of(values[link], end, head, axis)
        if given is None:
            break
        links.append((op_name(values[link]), given))
        passed.append(link)
        end = link
    if not any(np.ptp(given) > 0 for _, given in links):
        return None
    return end, _Chain(head, value, axis, tuple(passed[:-1]), tuple(links))


def _constant_of(call: Any, source: Any, head: Any, axis: int) -> np.ndarray | None:
    """What a link adds or multiplies, of rank 1: a value for each channel; None where it is no link."""
    if op_name(call) not in _LINKS or call.args[0] != source or shape_of(call) != shape_of(head):
        return None
    given = constant(call.args[1])
    if given is None or given.dtype != np.float32:
        return None
    shape = shape_of(head)
    whole = given.reshape((1,) * (len(shape) - given.ndim) + given.shape)
    if any(n not in (1, shape[a] if a == axis else 1) for a, n in enumerate(whole.shape)):
        return None
    return np.broadcast_to(whole.reshape(-1), shape[axis])


def _of_table(r: Rewriter, chain: _Chain) -> Any:
    table = constant(chain.value.args[0])
    assert table is not None
    for kind, given in chain.links:
        table = _computed(kind, table, given)
    call = chain.value
    args = [relax.const(table), *(r.get(a) for a in call.args[1:])]
    return relax.Call(call.op, args, call.attrs, call.ty_args)


def _computed(kind: str, array: np.ndarray, given: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):  # as the node would, which says nothing
        return np.ascontiguousarray(_LINKS[kind][1](array, given))


def _of_parts(r: Rewriter, chain: _Chain) -> Any:
    first, parts = 0, []
    for part in chain.value.args[0].fields:
        size = shape_of(part)[chain.axis]
        parts.append(_linked(r, part, chain, slice(first, first + size)))
        first += size
    return relax.op.concat(relax.Tuple(parts), chain.axis)


def _linked(r: Rewriter, part: Any, chain: _Chain, channels: slice) -> Any:
    """A part with its own constants."""
    spread = [-1 if axis == chain.axis else 1 for axis in range(len(shape_of(part)))]
    fixed, found = constant(part), r.get(part)
    for kind, given in chain.links:
        own = np.ascontiguousarray(given[channels]).reshape(spread)
        if (own == (0 if kind in ("add", "subtract") else 1)).all():
            continue
        if fixed is not None:
            fixed = _computed(kind, fixed, own)
            found = relax.const(fixed)
        else:
            found = r.emit(_LINKS[kind][0](found, relax.const(own)))
    return found
