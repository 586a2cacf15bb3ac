"""Code of windows that walk over images: what lies inside, and pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Protocol

from tvm.script.ir_builder import tirx as T

from .builder import Expr, Flat, local, loop, nest, share, unravel
from .kernel import TensorType
from .stored import Stored
from .vector_unit import VectorUnit

_POOL_COST = 4  # multiply-accumulates that take as long as an element of a window of a pool


class Steps(Protocol):
    """How windows walk: strides, and the padding at the top, left, bottom and right."""

    @property
    def strides(self) -> tuple[int, int]: ...
    @property
    def padding(self) -> tuple[int, int, int, int]: ...


class Pool(Steps, Protocol):
    """Windows of a pooling operator."""

    @property
    def pool_size(self) -> tuple[int, int]: ...


def when(condition: Any, then: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
    """An if statement; a condition that is None always holds."""
    if condition is None:
        then()
        return
    with T.If(condition):
        with T.Then():
            then()
        if otherwise is not None:
            with T.Else():
                otherwise()


def inside(row: Expr, col: Expr, image: Sequence[int], padded: bool) -> Any:
    """Whether a pixel lies in the image (H, W); None where it always does."""
    if not padded:
        return None
    return T.And(T.And(row >= 0, row < image[0]), T.And(col >= 0, col < image[1]))


def leaves_image(
    op: Steps, kernel: Sequence[int], dilation: Sequence[int], image: Sequence[int], out: Sequence[int]
) -> bool:
    """Whether some window reaches beyond the image, by padding or by ceil mode."""
    ends = [(out[i] - 1) * op.strides[i] - op.padding[i] + dilation[i] * (kernel[i] - 1) for i in (0, 1)]
    return any(op.padding[:2]) or any(end >= n for end, n in zip(ends, image, strict=True))


def emit_pool(
    op: Pool,
    dilation: tuple[int, int],
    x_type: TensorType,
    out: TensorType,
    unit: VectorUnit,
    dtype: str,
    begin: Callable[[int], Expr],
    step: Callable[[Expr, Expr, int], Expr],
    finish: Callable[[Expr, Expr, int], Expr],
) -> Callable[[Flat, Flat], None]:
    """Pooling: acc = begin, a `dtype`, then step(acc, x) per pixel of the window that lies in the image, then
    finish(acc, pixel number). Each of them is given the number of lanes last.
    """
    n, h, w, c = x_type.shape
    _, oh, ow, _ = out.shape
    padded = leaves_image(op, op.pool_size, dilation, (h, w), (oh, ow))
    parts = unit.shared(_POOL_COST * prod(out.shape) * prod(op.pool_size))

    def emit(x: Flat, y: Flat) -> None:
        image = Stored(y, out)

        def pixel(b: Expr, oy: Expr, ox: Expr) -> None:
            def block(at: Expr, width: int, count: int) -> None:
                acc = local(width, dtype)
                acc.store(0, begin(width), width)

                def tap(ky: Expr, kx: Expr) -> None:
                    row = oy * op.strides[0] + ky * dilation[0] - op.padding[0]
                    col = ox * op.strides[1] + kx * dilation[1] - op.padding[1]
                    offset = ((b * h + row) * w + col) * c + at
                    when(
                        inside(row, col, (h, w), padded),
                        lambda: acc.store(0, step(acc.load(0, width), x.load(offset, width), width), width),
                    )

                nest(op.pool_size, tap)
                result = finish(acc.load(0, width), oy * ow + ox, width)
                image.store(image.pixel(b, oy, ox) + at, result, width, count)

            unit.cover(c, block)

        def rows(first: Expr, count: Expr) -> None:
            def row(number: Expr) -> None:
                b, oy = unravel(first + number, (n, oh))
                loop(ow, lambda ox: pixel(b, oy, ox))

            loop(count, row)

        share(n * oh, parts, rows, image.border(unit))

    return emit
