"""Chains of constants per channel behind a layer, such as a decomposed BatchNorm, folded into its weights.

conv(x, w) - mean, / deviation, * gamma, + beta  ->  conv(x, s w) + t, with a s and a t for each channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import bindings, constant, main_functions, op_name, rewrite, shape_of, users

_HEADS = ("nn.conv2d", "matmul")
_LINKS = ("add", "subtract", "multiply", "divide")


@dataclass(frozen=True)
class _Chain:
    """The layer, the links behind it, and what they make of its output: scale * y + shift."""

    head: Any
    links: tuple[Any, ...]
    scale: np.ndarray
    shift: np.ndarray


def fold_channel_affine(mod: tvm.IRModule) -> tvm.IRModule:
    """The same outputs with chains that scale or subtract folded; an addition alone is a bias already."""
    chains: dict[Any, _Chain] = {}  # by the last link
    for _, func in main_functions(mod):
        values, readers = dict(bindings(func)), users(func)
        for var, value in values.items():
            if op_name(value) in _HEADS and constant(value.args[1]) is not None:
                chain = _chain(var, values, readers)
                if any(op_name(values[link]) != "add" for link in chain.links):
                    chains[chain.links[-1]] = chain
    inner = {var for chain in chains.values() for var in (chain.head, *chain.links[:-1])}
    layers = {var: value for _, f in main_functions(mod) for var, value in bindings(f)}

    def visit(r: Any, var: Any, value: Any) -> Any:
        if var in inner:
            return None
        if var not in chains:
            return r.keep(value)
        chain = chains[var]
        call = layers[chain.head]
        weight = constant(call.args[1])
        assert weight is not None
        scaled = (weight * _over(weight, chain.scale, call)).astype(np.float32)
        args = [r.get(call.args[0]), relax.const(scaled)]
        out = r.emit(relax.Call(call.op, args, call.attrs, call.ty_args), r.origins[chain.head])
        shift = chain.shift.reshape(_spread(chain.head, call)).astype(np.float32)
        return relax.op.add(out, relax.const(shift))

    return rewrite(mod, visit) if chains else mod


def _chain(head: Any, values: Mapping[Any, Any], readers: Mapping[Any, Sequence[Any]]) -> _Chain:
    channels = shape_of(head)[_axis(values[head])]
    scale, shift = np.ones(channels), np.zeros(channels)
    links: list[Any] = []
    end = head
    while len(readers.get(end, [])) == 1 and readers[end][0] is not None:
        link = readers[end][0]
        operand = _per_channel(values[link], end, head, values[head])
        if operand is None:
            break
        kind = op_name(values[link])
        if kind in ("add", "subtract"):
            shift = shift + (operand if kind == "add" else -operand)
        else:
            factor = operand if kind == "multiply" else 1 / operand
            scale, shift = scale * factor, shift * factor
        links.append(link)
        end = link
    return _Chain(head, tuple(links), scale, shift)


def _per_channel(call: Any, source: Any, head: Any, layer: Any) -> np.ndarray | None:
    """The constant of a link, float64 [channels]; None where it is no link."""
    if op_name(call) not in _LINKS or call.args[0] != source or shape_of(call) != shape_of(head):
        return None
    value = constant(call.args[1])
    if value is None or (op_name(call) == "divide" and not value.all()):
        return None
    spread = _spread(head, layer)
    whole = value.reshape((1,) * (len(spread) - value.ndim) + value.shape)
    if any(size not in (1, limit) for size, limit in zip(whole.shape, spread, strict=True)):
        return None
    return np.broadcast_to(whole, spread).astype(np.float64).reshape(-1)


def _axis(layer: Any) -> int:
    """The axis of the channels of a layer's output."""
    return 1 if op_name(layer) == "nn.conv2d" else -1


def _spread(head: Any, layer: Any) -> tuple[int, ...]:
    """The shape in which a value per channel is added to the output."""
    shape = [1] * len(shape_of(head))
    shape[_axis(layer)] = shape_of(head)[_axis(layer)]
    return tuple(shape)


def _over(weight: np.ndarray, scale: np.ndarray, layer: Any) -> np.ndarray:
    """A factor per output channel in the shape of the weights."""
    return scale.reshape(-1, *(1,) * (weight.ndim - 1)) if op_name(layer) == "nn.conv2d" else scale
