"""What the rules of LowerToInteger work on: quantized operands, and reading attributes of operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from hwptq.formats import format_of


class NotInteger(Exception):
    """A node that has no quantized form; its message is the reason, for the report."""


@dataclass(frozen=True)
class Operand:
    """A quantized tensor: real = (tensor - zero) * scale."""

    tensor: Any  # Relax expression of int8, e4m3 or bfloat16, or the array of a constant
    scale: np.ndarray  # float32 scalar, or one value per channel of a weight
    zero: int
    shape: tuple[int, ...]


def pair(values: Any) -> tuple[int, int]:
    """Two whole numbers of an attribute."""
    a, b = (int(v) for v in values)
    return a, b


def four(values: Any) -> tuple[int, int, int, int]:
    """Four whole numbers of an attribute."""
    a, b, c, d = (int(v) for v in values)
    return a, b, c, d


def dtype_of(t: Operand) -> str:
    """The dtype of a quantized tensor, which is the name of a format."""
    return str(t.tensor.dtype if isinstance(t.tensor, np.ndarray) else t.tensor.ty.dtype)


def bits_of(t: Operand) -> int:
    """Of the format that holds it."""
    return format_of(dtype_of(t)).bits


def reach_of(t: Operand) -> int:
    """What no value of an integer tensor exceeds, its zero point taken off."""
    return 2 ** (bits_of(t) - 1) if t.zero == 0 else 2 ** bits_of(t) - 1


def binary(e: Any, op: Any, a: Operand, b: Operand, out: Any) -> Any:
    """An operator on two broadcast operands, in NHWC where one of them is an image in that layout."""
    shape = tuple(np.broadcast_shapes(a.shape, b.shape))
    images = any(e.is_image(t.tensor) for t in (a, b)) and len(a.shape) == len(b.shape) == 4
    if not images:
        return call_constants(e, op, [a, b], shape, out, out.tensor_name)
    n, c, h, w = shape
    tensors = [_nhwc(e, t) for t in (a, b)]
    return e.from_images(call_constants(e, op, tensors, (n, h, w, c), out, out.image_name))


def _nhwc(e: Any, t: Operand) -> Operand:
    n, c, h, w = t.shape
    constant = isinstance(t.tensor, np.ndarray)
    tensor = t.tensor.transpose(0, 2, 3, 1) if constant else e.images(t.tensor)
    return Operand(tensor, t.scale, t.zero, (n, h, w, c))


def call_constants(
    e: Any, op: Any, operands: list[Operand], shape: tuple[int, ...], out: Any, name: str
) -> Any:  # fmt: skip
    """Call an operator some of whose operands may be constants; the result has the dtype of `out`."""
    tensors = [
        relax.const(np.ascontiguousarray(t.tensor)) if isinstance(t.tensor, np.ndarray) else t.tensor
        for t in operands
    ]
    return e.call(op, tensors, (), shape, out.dtype, name)
