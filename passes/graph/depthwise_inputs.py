"""Tensors that depthwise convolutions read: each channel by filters of its own, so that its scale is free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm

from hwptq.ir.composite import Composite
from hwptq.ir.dataflow import bindings, shape_of, users
from hwptq.lowering.elementwise import elementwise_roots

from .channel_links import Follower, Reader, Unlinked, channel_labels, channel_links, layers
from .own_integers import own_integers


@dataclass(frozen=True)
class DepthwiseInput:
    """A tensor [N,C,H,W] and the depthwise convolutions that read its channels.

    in_weights: it is the result of a layer, whose weights can be scaled in its place; else of a function of
    one, element by element. alone: nothing but `readers` reads it, through operators that act by channel.
    """

    var: Any
    readers: tuple[Reader, ...]
    in_weights: bool
    alone: bool = True


def depthwise_inputs(mod: tvm.IRModule, func: Any) -> list[DepthwiseInput]:
    """Those of a function whose weights on either side don't come as integers of another tool."""
    found, values = layers(mod, func), dict(bindings(func))
    free = {var: unit for var, unit in found.items() if own_integers(values[var]) is None}
    depthwise = {var for var, unit in free.items() if _is_depthwise(unit)}
    links, _ = channel_links(mod, func)
    scaled = [
        DepthwiseInput(link.producer, link.readers, in_weights=True)
        for link in links
        if link.producer in free and _is_scaled(free[link.producer]) and _all_in(link.readers, depthwise)
    ]
    done = {point.var for point in scaled}
    follower, readers, roots = Follower(mod, func, found), users(func), elementwise_roots(values)
    for var in values:
        root = roots[var]
        ends = any(u is None or roots[u] != root for u in readers.get(var, ()))
        if root == var or root not in found or root in done or not ends or len(shape_of(var)) != 4:
            continue
        point = _function(var, follower, readers, found, depthwise)
        scaled += [point] if point else []
    return scaled


def _function(
    var: Any,
    follower: Follower,
    users_of: Mapping[Any, Any],
    found: Mapping[Any, Composite],
    depthwise: set[Any],
) -> DepthwiseInput | None:
    """All that reads it, if that is depthwise convolutions alone, else those that do so themselves."""
    try:
        behind = follower.readers(var, channel_labels(shape_of(var), 1))
        if _all_in(behind, depthwise):
            return DepthwiseInput(var, tuple(behind), in_weights=False)
    except Unlinked:
        pass
    channels = np.arange(shape_of(var)[1])
    direct = [u for u in users_of.get(var, ()) if u in depthwise and found[u].args[0] == var]
    each = tuple(Reader(u, channels, False) for u in direct)
    return DepthwiseInput(var, each, in_weights=False, alone=False) if direct else None


def _all_in(readers: Any, wanted: set[Any]) -> bool:
    return all(reader.var in wanted for reader in readers)


def _is_depthwise(unit: Composite) -> bool:
    groups = int(unit.head.attrs.groups) if unit.kind == "conv2d" else 1
    return groups > 1 and groups == shape_of(unit.args[0])[1]


def _is_scaled(unit: Composite) -> bool:
    """Whether the result of a convolution scales with its weights: no clamp but at zero."""
    low, high = (np.asarray(b) for b in unit.bounds)
    return unit.kind == "conv2d" and bool(np.all((low == 0) | np.isinf(low)) and np.all(np.isinf(high)))
