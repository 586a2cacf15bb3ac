"""Code that reads and writes the elements of an int8 tensor, whatever its layout."""

from __future__ import annotations

from dataclasses import dataclass

from .builder import Expr, Flat, constant, loop, nest
from .encoding import decoded, encoded
from .kernel import TensorType
from .vector_unit import VectorUnit


@dataclass(frozen=True)
class Stored:
    """An array, and the int8 tensor that it holds."""

    flat: Flat
    tensor: TensorType

    @property
    def strides(self) -> tuple[int, int, int]:
        """Elements from an image, a row and a pixel to the next."""
        height, width = self.tensor.layout.image(self.tensor.shape)
        channels = self.tensor.shape[3]
        return height * width * channels, width * channels, channels

    def pixel(self, b: Expr, row: Expr, col: Expr) -> Expr:
        """Offset of the first channel of a pixel."""
        padding, (image, line, pixel) = self.tensor.layout.padding, self.strides
        return b * image + (row + padding.top) * line + (col + padding.left) * pixel

    def load(self, offset: Expr, lanes: int = 1) -> Expr:
        """`lanes` int8 values from `offset` on."""
        return decoded(self.flat.load(offset, lanes), self.flat.dtype, lanes)

    def store(self, offset: Expr, value: Expr, lanes: int = 1, count: int | None = None) -> None:
        """Write `lanes` int8 values, or the first `count` of them."""
        self.flat.store(offset, encoded(value, self.flat.dtype, lanes), lanes, count)

    def fill(self, at: Expr, count: int, value: int, unit: VectorUnit) -> None:
        """Write an int8 value `count` times."""
        if count:
            stored = value + 128 if self.flat.dtype == "uint8" else value
            unit.cover(
                count,
                lambda i, m, n: self.flat.store(at + i, constant(stored, self.flat.dtype, m), m, n),
            )

    def fill_border(self, unit: VectorUnit) -> None:
        """Write the border around every image."""
        padding, shape = self.tensor.layout.padding, self.tensor.shape
        if padding.empty:
            return
        n, h, w, c = shape
        image, *_ = self.strides
        first = self.pixel(0, 0, 0)
        gap = (padding.left + padding.right) * c
        last = (padding.right + padding.bottom * (w + padding.left + padding.right)) * c

        def between(b: Expr, row: Expr) -> None:
            self.fill(self.pixel(b, row, 0) + w * c, gap, padding.value, unit)

        def ends(b: Expr) -> None:
            self.fill(b * image, first, padding.value, unit)
            self.fill((b + 1) * image - last, last, padding.value, unit)

        if gap and h > 1:
            nest((n, h - 1), between)
        loop(n, ends)
