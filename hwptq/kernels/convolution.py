"""The one shape behind convolution and dense: an image without padding, and a window that walks over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from hwptq.quant import integer_ops as ops
from hwptq.quant.window import conv_output_shape

from .builder import Expr
from .kernel import TensorType
from .requantize import Bounds


@dataclass(frozen=True)
class Padding:
    """What is added around an image [N,H,W,C] before it is convolved: `value` in the border."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0
    value: int = 0

    @property
    def empty(self) -> bool:
        return not (self.top or self.left or self.bottom or self.right)

    def around(self, image: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the padded image."""
        return image[0] + self.top + self.bottom, image[1] + self.left + self.right


@dataclass(frozen=True)
class Convolution:
    """x [batch,H,W,ci] -> y [batch,OH,OW,co]; the padding, if any, is part of x.

    A window is read as `runs` stretches of `run` neighbouring elements: without horizontal dilation a row
    of the window is one stretch, so 3x3 on 16 channels has 3 runs of 48.
    """

    batch: int
    image: tuple[int, int]  # H, W with padding
    ci: int
    out: tuple[int, int]  # OH, OW
    co: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]

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
        return ((b * self.image[0] + y) * self.image[1] + x) * self.ci

    def tap(self, ky: Expr, kx: Expr) -> Expr:
        """Offset of tap (ky, kx) from the first element of its window."""
        return (ky * self.dilation[0] * self.image[1] + kx * self.dilation[1]) * self.ci

    def pixel(self, b: Expr, row: Expr, col: Expr) -> Expr:
        """Offset in y of the first channel of an output pixel."""
        return ((b * self.out[0] + row) * self.out[1] + col) * self.co


def int8_bounds(op: ops.LayerOp) -> Bounds | None:
    """What follows the shift of `op`; None where its result is float32."""
    return None if isinstance(op, ops.DenseFloat) else bounds_of(op)


def bounds_of(op: ops.Conv2d | ops.Dense) -> Bounds:
    """What follows the shift of `op`."""
    return Bounds(op.out_zero_point, op.lo, op.hi)


def describe(
    op: ops.LayerOp, x: TensorType, weight: Sequence[int], out: TensorType
) -> tuple[Convolution, Padding]:
    """The convolution that `op` is, and the padding that x needs first. `weight` is the shape of the weights.

    Raises ValueError where the shapes do not belong together.
    """
    if isinstance(op, ops.DenseOp):
        return _dense(x, weight, out), Padding()
    batch, h, w, ci = x.shape
    co, kh, kw, depth = weight
    size = conv_output_shape((h, w), (kh, kw), op.strides, op.padding, op.dilation)
    if out.shape != (batch, *size, co) or ci != depth * op.groups:
        raise ValueError(f"conv2d: {x.shape} with weights {tuple(weight)} does not give {out.shape}")
    padding = Padding(*op.padding, op.in_zero_point)
    image = padding.around((h, w))
    conv = Convolution(batch, image, ci, size, co, (kh, kw), op.strides, op.dilation)
    return flattened(conv), padding


def _dense(x: TensorType, weight: Sequence[int], out: TensorType) -> Convolution:
    co, depth = weight
    if x.shape[-1] != depth or out.shape != (*x.shape[:-1], co):
        raise ValueError(f"dense: {x.shape} with weights {tuple(weight)} does not give {out.shape}")
    row = (1, prod(x.shape[:-1]))
    return Convolution(1, row, depth, row, co, (1, 1), (1, 1), (1, 1))


def flattened(conv: Convolution) -> Convolution:
    """The same convolution with the longest rows of output pixels.

    1x1 with stride 1 is one row of all pixels; an image of one column becomes one of one row.
    """
    if conv.kernel == (1, 1) and conv.strides == (1, 1):
        row = (1, conv.batch * prod(conv.image))
        return replace(conv, batch=1, image=row, out=row)
    if conv.image[1] == 1 and conv.kernel[1] == 1:
        turned = {
            name: getattr(conv, name)[::-1] for name in ("image", "out", "kernel", "strides", "dilation")
        }
        return replace(conv, **turned)
    return conv
