"""Layers that a device lists but can't compute: windows, strides or channels beyond its limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tvm

from hwptq.ir.composite import read_composite
from hwptq.ir.dataflow import bindings, composite_name, op_name, shape_of


def beyond_limits(mod: tvm.IRModule, value: Any, rule: Any) -> str | None:
    """What of a node is beyond the limits of its [[op]]; None where nothing is.

    Raises ValueError where the rule says that it is an error.
    """
    found = "; ".join(_excesses(_head(mod, value), rule))
    if found and rule.beyond == "error":
        raise ValueError(f"{found}: the descriptor says that it is an error")
    return found or None


def _excesses(head: Any, rule: Any) -> Iterator[str]:
    for what, sizes, most in (
        ("a window", _window(head), rule.most_window),
        ("a stride", _attribute(head, "strides"), rule.most_stride),
        ("a dilation", _attribute(head, "dilation"), rule.most_dilation),
        ("channels", _channels(head), rule.most_channels),
    ):
        if most and max(sizes, default=0) > most:
            yield f"{what} of {max(sizes)}, {rule.op} has at most {most}"
    odd = [n for n in _channels(head) if n % rule.channels_multiple]
    if odd:
        yield f"{odd[0]} channels, {rule.op} takes multiples of {rule.channels_multiple}"


def _head(mod: tvm.IRModule, value: Any) -> Any:
    """The first operator of a node, in the function that it calls if it is a composite."""
    called = mod[value.op] if isinstance(value.op, tvm.ir.GlobalVar) else None
    if called is None or composite_name(called) is None or read_composite(mod, value) is None:
        return value
    return bindings(called)[0][1]


def _attribute(head: Any, name: str) -> list[int]:
    found = getattr(head.attrs, name, None) if head.attrs is not None else None
    return [int(v) for v in found] if found is not None else []


def _window(head: Any) -> list[int]:
    """Rows and columns of the window of a convolution or a pooling."""
    if op_name(head) == "nn.conv2d":
        return list(shape_of(head.args[1])[2:])
    return _attribute(head, "pool_size")


def _channels(head: Any) -> list[int]:
    """Of the input and of the result of a layer."""
    if op_name(head) == "nn.conv2d":
        return [shape_of(tensor)[1] for tensor in (head.args[0], head)]
    return [shape_of(tensor)[-1] for tensor in (head.args[0], head)] if op_name(head) == "matmul" else []
