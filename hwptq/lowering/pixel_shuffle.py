"""Finds a pixel shuffle, three operators on NCHW tensors, and does it to the NHWC form of its image.

DepthToSpace: [N,C,H,W] with C = SH*SW*O (or O*SH*SW) becomes [N,O,H*SH,W*SW]. Of an image in NHWC, with the
phases first, whole runs of SW*O channels move, which is a copy of vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import relax

from hwptq.ir.dataflow import constant, op_name, shape_of
from hwptq.ir.movement import order_of_axes

from .emitter import Emitter

#: Axes of [N,SH,SW,O,H,W] and of [N,O,SH,SW,H,W] in the order N, O, H, SH, W, SW.
_PHASES_FIRST, _PHASES_LAST = (0, 3, 4, 1, 5, 2), (0, 1, 4, 2, 5, 3)


@dataclass(frozen=True)
class _Shuffle:
    source: Any  # the expression that is shuffled
    split: tuple[int, ...]  # its shape, channels split
    phases_first: bool


def shuffled_image(e: Emitter, call: Any) -> Any:
    """The shuffled tensor that `call`, a reshape, ends the computation of; None where it ends no such thing,
    or no image in NHWC is at hand.
    """
    shuffle = _match(e.values, call)
    if shuffle is None or op_name(e.values.get(shuffle.source)) != "dequantize":
        return None
    tensor = e.operand(shuffle.source).tensor
    if not e.is_image(tensor):
        return None
    n, *parts, height, width = shuffle.split
    order = (0, 1, 3, 2, 4, 5) if shuffle.phases_first else (0, 1, 4, 2, 5, 3)
    split = e.r.emit(relax.op.reshape(e.images(tensor), (n, height, width, *parts)))
    turned = e.r.emit(relax.op.permute_dims(split, list(order)))
    n, channels, height, width = shape_of(call)
    return e.from_images(e.r.emit(relax.op.reshape(turned, (n, height, width, channels))))


def _match(values: Any, call: Any) -> _Shuffle | None:
    turned: Any = values.get(_before_rounding(values, call.args[0]))
    if op_name(turned) != "permute_dims":
        return None
    split: Any = values.get(_before_rounding(values, turned.args[0]))
    axes = order_of_axes(turned)
    if op_name(split) != "reshape" or axes not in (_PHASES_FIRST, _PHASES_LAST):
        return None
    shape, parts = shape_of(split.args[0]), shape_of(split)
    n, channels, h, sh, w, sw = (parts[a] for a in axes)
    whole = (n, channels, h * sh, w * sw)
    if len(shape) != 4 or (shape[0], *shape[2:]) != (n, h, w) or shape_of(call) != whole:
        return None
    return _Shuffle(split.args[0], parts, axes == _PHASES_FIRST)


def _before_rounding(values: Any, expr: Any) -> Any:
    """What DQ(Q(expr)) rounds, where both have one scale; other expressions as they are."""
    real: Any = values.get(expr)
    ints: Any = values.get(real.args[0]) if op_name(real) == "dequantize" else None
    if op_name(ints) != "quantize":
        return expr
    pairs = [[constant(a) for a in c.args[1:3]] for c in (real, ints)]
    same = all(a is not None and b is not None and (a == b).all() for a, b in zip(*pairs, strict=True))
    return ints.args[0] if same else expr
