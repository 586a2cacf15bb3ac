"""The one shape behind convolution and dense: an image with its padding, and a window that walks over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from hwptq.operators.conv2d import Conv2d
from hwptq.operators.layers import IntegerDense, IntegerLayer
from hwptq.quant.window import conv_output_shape
from hwptq.tir.builder import Expr
from hwptq.tir.kernel import TensorType
from hwptq.tir.layout import UNPADDED, Padding


@dataclass(frozen=True)
class Convolution:
    """x [batch,H,W,ci] -> y [batch,OH,OW,co]; the padding, if any, is part of x, and y may get a border.

    A window is read as `runs` stretches of `run` neighbouring elements: without horizontal dilation a row
    of the window is one stretch, so 3x3 on 16 channels has 3 runs of 48.
    """

    batch: int
    image: tuple[int, int]  # H, W with all that surrounds x
    ci: int
    out: tuple[int, int]  # OH, OW
    co: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    origin: int = 0  # offset in x of the first element of the first window
    border: Padding = UNPADDED  # around y

    @property
    def pointwise(self) -> bool:
        """Whether an output pixel depends on the input pixel of the same place only, all in one row."""
        return self.kernel == (1, 1) and self.strides == (1, 1) and self.batch * self.out[0] == 1

    @property
    def runs(self) -> tuple[int, int]:
        """Stretches of a window, vertically and horizontally."""
        return (self.kernel[0], 1) if self._joined else self.kernel

    @property
    def run(self) -> int:
        """Elements of a stretch."""
        return self.kernel[1] * self.ci if self._joined else self.ci

    @property
    def _joined(self) -> bool:
        return self.kernel[1] == 1 or self.dilation[1] == 1

    def window(self, b: Expr, row: Expr, col: Expr) -> Expr:
        """Offset in x of the first element of output pixel (b, row, col)."""
        y, x = row * self.strides[0], col * self.strides[1]
        return ((b * self.image[0] + y) * self.image[1] + x) * self.ci + self.origin

    def tap(self, ky: Expr, kx: Expr) -> Expr:
        """Offset of tap (ky, kx) from the first element of its window."""
        return (ky * self.dilation[0] * self.image[1] + kx * self.dilation[1]) * self.ci

    def pixel(self, b: Expr, row: Expr, col: Expr, border: Padding | None = None) -> Expr:
        """Offset of the first channel of an output pixel, in y or in a tensor alike with another border."""
        border = self.border if border is None else border
        height, width = border.around(self.out)
        return ((b * height + row + border.top) * width + col + border.left) * self.co


def wanted_padding(op: IntegerLayer) -> Padding:
    """The border that x needs around it."""
    if not isinstance(op, Conv2d) or not any(op.padding):
        return UNPADDED
    return Padding(*op.padding, op.in_zero_point)


def describe(
    op: IntegerLayer, x: TensorType, weight: Sequence[int], out: TensorType, rows: bool = False
) -> Convolution:
    """The convolution that `op` is on an x that has the padding, and perhaps more, around it.

    `weight` is the shape of the weights; `rows`: the pixels of y stay in their rows. Raises ValueError where
    the shapes do not belong together.
    """
    if isinstance(op, IntegerDense):
        return _dense(x, weight, out)
    batch, h, w, ci = x.shape
    co, kh, kw, depth = weight
    size = conv_output_shape((h, w), (kh, kw), op.strides, op.padding, op.dilation)
    if out.shape != (batch, *size, co) or ci != depth * op.groups:
        raise ValueError(f"conv2d: {x.shape} with weights {tuple(weight)} does not give {out.shape}")
    image, around = x.layout.image(x.shape), x.layout.padding
    origin = ((around.top - op.padding[0]) * image[1] + around.left - op.padding[1]) * ci
    border = out.layout.padding
    conv = Convolution(batch, image, ci, size, co, (kh, kw), op.strides, op.dilation, origin, border)
    return conv if rows else flattened(conv)


def _dense(x: TensorType, weight: Sequence[int], out: TensorType) -> Convolution:
    co, depth = weight
    if x.shape[-1] != depth or out.shape != (*x.shape[:-1], co):
        raise ValueError(f"dense: {x.shape} with weights {tuple(weight)} does not give {out.shape}")
    row = (1, prod(x.shape[:-1]))
    return Convolution(1, row, depth, row, co, (1, 1), (1, 1), (1, 1))


def flattened(conv: Convolution) -> Convolution:
    """The same convolution with the longest rows of output pixels.

    1x1 with stride 1 is one row of all pixels; an image of one column becomes one of one row. Not so where
    something lies between the rows.
    """
    if not conv.border.empty:
        return conv
    if conv.kernel == (1, 1) and conv.strides == (1, 1) and conv.image == conv.out:
        row = (1, conv.batch * prod(conv.image))
        return replace(conv, batch=1, image=row, out=row)
    if conv.image[1] == 1 and conv.kernel[1] == 1:
        turned = {
            name: getattr(conv, name)[::-1] for name in ("image", "out", "kernel", "strides", "dilation")
        }
        return replace(conv, **turned)
    return conv
