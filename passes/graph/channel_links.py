"""Which layers read the channels of a layer, through operators that commute with a positive scale a channel.

Equalization and the absorption of biases move a factor or an offset along such a link.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.composite import Composite, read_composite
from hwptq.ir.dataflow import bindings, composite_name, constant, op_name, reads, shape_of, users
from hwptq.ir.movement import SAME_ORDER, order_of_axes
from hwptq.ir.provenance import origins
from hwptq.lowering.nearest import resized, why_not_nearest

_ANY = -1  # the label of a padded zero, and of what comes from another layer
_POOLING = ("nn.max_pool2d", "nn.avg_pool2d", "nn.adaptive_avg_pool2d", "mean")
_HOMOGENEOUS = ("nn.relu", "nn.leakyrelu", "nn.prelu")


@dataclass(frozen=True)
class Reader:
    """A layer that reads channels of another: channels[k] is the one its input channel k holds, -1 none."""

    var: Any
    channels: np.ndarray
    keeps_offsets: bool  # whether a constant added to a channel arrives as it is, everywhere


@dataclass(frozen=True)
class Link:
    """A layer and all layers that read it."""

    producer: Any
    readers: tuple[Reader, ...]


class Unlinked(Exception):
    """A layer whose channels can't be scaled; its message is the reason, for the report."""


def layers(mod: tvm.IRModule, func: Any) -> dict[Any, Composite]:
    """The conv2d and matmul composites of a function with constant weights, by var."""
    found = {}
    for var, value in bindings(func):
        unit = read_composite(mod, value)
        if unit is not None and unit.kind in ("conv2d", "matmul") and constant(unit.args[1]) is not None:
            found[var] = unit
    return found


def channel_links(mod: tvm.IRModule, func: Any) -> tuple[list[Link], dict[str, str]]:
    """The links of a function in its order, and for every other layer by label why it has none."""
    found, named = layers(mod, func), origins(func)
    links, reasons = [], {}
    for var, unit in found.items():
        try:
            labels = channel_labels(shape_of(var), 1 if unit.kind == "conv2d" else -1)
            readers = Follower(mod, func, found).readers(var, labels)
            links.append(Link(var, tuple(readers)))
        except Unlinked as reason:
            reasons[named[var].label] = str(reason)
    return links, reasons


def channel_labels(shape: tuple[int, ...], axis: int) -> np.ndarray:
    """An array of that shape that holds at each position the channel there: its place along `axis`."""
    spread = [1] * len(shape)
    spread[axis] = shape[axis]
    return np.broadcast_to(np.arange(shape[axis]).reshape(spread), shape)


#: (an operator's call, one of the tensors that it reads, the labels of that) -> the labels of its result, or
#: None where that does not commute with a scale.
Join = Callable[[Any, Any, np.ndarray], "np.ndarray | None"]


class Follower:
    """Follows a tensor to the layers that read it, with the channel of each of its values.

    join: what is asked of operators that join it with other tensors; without it the link ends there.
    """

    def __init__(self, mod: tvm.IRModule, func: Any, found: dict[Any, Composite], join: Join | None = None):
        self._mod, self._join = mod, join or (lambda *_: None)
        self._values, self._users, self._layers = dict(bindings(func)), users(func), found
        self._origins = origins(func)

    def readers(self, var: Any, labels: np.ndarray, offsets: bool = True) -> list[Reader]:
        """Every layer behind `var`. Raises Unlinked where something else reads it too."""
        found: list[Reader] = []
        waiting = self._reading(var, labels, offsets)
        while waiting:  # a chain of nodes may be longer than calls may be deep
            user, source, at, kept = waiting.pop()
            if user in self._layers:
                label = self._origins[user].label
                found.append(_reader(user, label, self._layers[user], at, kept))
            else:
                waiting += self._reading(user, *self._behind(user, source, at, kept))
        return found

    def _reading(
        self, var: Any, labels: np.ndarray, offsets: bool
    ) -> list[tuple[Any, Any, np.ndarray, bool]]:  # fmt: skip
        """What reads a tensor, the first of them last, with what is read and what is known of it."""
        who = self._users.get(var, [])
        if None in who:
            raise Unlinked("it is an output of the model")
        if not who:
            raise Unlinked("nothing reads it")
        return [(user, var, labels, offsets) for user in reversed(who)]

    def _behind(self, user: Any, source: Any, labels: np.ndarray, offsets: bool) -> tuple[np.ndarray, bool]:
        """The labels of what is no layer, and whether it keeps offsets."""
        value = self._values[user]
        if isinstance(value, relax.Var):
            return labels, offsets
        if op_name(value) == "concat":
            return _joined(value, source, labels), offsets
        if isinstance(value, relax.Tuple) or len(reads(value)) != 1:
            joined = self._join(value, source, labels)
            if joined is not None:
                return joined, False
            raise Unlinked(f"{self._described(user)} joins it with other tensors")
        moved = _moved(value, labels)
        if moved is None:
            raise Unlinked(f"{self._described(user)} reads it and does not commute with a scale")
        return moved, offsets and _keeps_offsets(value)

    def _described(self, user: Any) -> str:
        """An operator and its name, for a reason."""
        value = self._values[user]
        kind = op_name(value)
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar):
            kind = str(composite_name(self._mod[value.op]) or "function").removeprefix("hwptq.")
        return f"{kind or 'tuple'} '{self._origins[user].label}'"


def _moved(value: Any, labels: np.ndarray) -> np.ndarray | None:
    """The labels of an operator's output, or None where it does not commute with a scale."""
    name = op_name(value)
    if name in _HOMOGENEOUS:
        return labels
    if name in _POOLING:
        return _pooled(value, labels)
    if name == "image.resize2d":
        return None if why_not_nearest(value) else resized(value, labels)
    if name == "nn.pad" and str(value.attrs.pad_mode) == "constant" and float(value.attrs.pad_value) == 0:
        widths = np.asarray([int(p) for p in value.attrs.pad_width]).reshape(-1, 2)
        return np.pad(labels, widths, constant_values=_ANY)
    if name == "permute_dims":
        return labels.transpose(order_of_axes(value))
    if name == "broadcast_to":
        return np.broadcast_to(labels, shape_of(value))
    if name in SAME_ORDER:
        return labels.reshape(shape_of(value))
    return None


def _joined(concat: Any, source: Any, labels: np.ndarray) -> np.ndarray:
    """The labels of a concatenation, of which `source` is a part, once or several times."""
    parts = [labels if f == source else np.full(shape_of(f), _ANY) for f in concat.args[0].fields]
    return np.concatenate(parts, axis=int(concat.attrs.axis))


def _keeps_offsets(value: Any) -> bool:
    """Whether an operator of a link adds to its output what is added to its input."""
    name = op_name(value)
    if name == "nn.avg_pool2d":
        return not any(int(p) for p in value.attrs.padding) or not value.attrs.count_include_pad
    return name not in _HOMOGENEOUS and name != "nn.pad"


def _pooled(value: Any, labels: np.ndarray) -> np.ndarray | None:
    """Labels behind a pooling over the last two axes of an image."""
    if labels.ndim != 4:
        return None
    if op_name(value) == "mean":
        axes = value.attrs.axis
        if axes is None or sorted(int(a) % 4 for a in axes) != [2, 3]:
            return None
    elif str(value.attrs.layout) != "NCHW":
        return None
    per_channel = labels.max(axis=(0, 2, 3))
    if not np.all((labels == per_channel[None, :, None, None]) | (labels == _ANY)):
        return None
    shape = shape_of(value)
    return np.broadcast_to(per_channel.reshape((1, -1) + (1,) * (len(shape) - 2)), shape)


def _reader(var: Any, name: str, unit: Composite, labels: np.ndarray, offsets: bool) -> Reader:
    axis = 1 if unit.kind == "conv2d" else labels.ndim - 1
    rows = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
    channels = rows.max(axis=1)
    if not np.all((rows == channels[:, None]) | (rows == _ANY)):
        raise Unlinked(f"an input channel of {name} holds several channels")
    attrs = unit.head.attrs
    if unit.kind == "conv2d":
        if str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "OIHW":
            raise Unlinked(f"{name} has the layout {attrs.data_layout}/{attrs.kernel_layout}")
        offsets = offsets and not any(int(p) for p in attrs.padding)
    return Reader(var, channels, offsets and channels.min() >= 0)
