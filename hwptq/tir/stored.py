"""Code that reads and writes the elements of an int8 tensor, or of int16, whatever its layout."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from .builder import Expr, Flat, Range, constant, loop, unravel
from .encoding import decoded, encoded
from .kernel import TensorType
from .vector_unit import VectorUnit


@dataclass(frozen=True)
class Stored:
    """An array, and the int8 tensor that it holds; or one of int16, as it is."""

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

    @property
    def _plain(self) -> bool:
        """Whether elements are the values."""
        return self.flat.dtype == self.tensor.dtype

    def load(self, offset: Expr, lanes: int = 1) -> Expr:
        """`lanes` values from `offset` on."""
        value = self.flat.load(offset, lanes)
        return value if self._plain else decoded(value, self.flat.dtype, lanes)

    def store(self, offset: Expr, value: Expr, lanes: int = 1, count: int | None = None) -> None:
        """Write `lanes` values, or the first `count` of them."""
        stored = value if self._plain else encoded(value, self.flat.dtype, lanes)
        self.flat.store(offset, stored, lanes, count)

    def fill(self, at: Expr, count: int, value: int, unit: VectorUnit) -> None:
        """Write a value `count` times."""
        if count:
            stored = value + 128 if self.flat.dtype == "uint8" else value
            unit.cover(
                count,
                lambda i, m, n: self.flat.store(at + i, constant(stored, self.flat.dtype, m), m, n),
            )

    def border(self, unit: VectorUnit) -> tuple[int, Range] | None:
        """The border as a range of rows of pixels, for `share`; None where there is none."""
        if self.tensor.layout.padding.empty:
            return None
        rows = self.tensor.shape[0] * self.tensor.shape[1]
        return rows, lambda first, count: self.fill_borders(first, count, unit)

    def fill_borders(self, first: Expr, count: Expr, unit: VectorUnit) -> None:
        """Write what belongs to `count` rows of pixels: the border behind each, and that above or below."""
        padding = self.tensor.layout.padding
        if padding.empty:
            return
        n, h, w, c = self.tensor.shape
        image, *_ = self.strides
        above = self.pixel(0, 0, 0)
        gap = (padding.left + padding.right) * c
        below = (padding.right + padding.bottom * (w + padding.left + padding.right)) * c

        def row(number: Expr) -> None:
            b, y = unravel(first + number, (n, h))
            if above:
                with T.If(y == 0), T.Then():
                    self.fill(b * image, above, padding.value, unit)
            if gap and h > 1:
                with T.If(y < h - 1), T.Then():
                    # the minimum changes nothing, but shows an analysis of bounds that the index stays inside
                    self.fill(self.pixel(b, T.min(y, h - 2), 0) + w * c, gap, padding.value, unit)
            if below:
                with T.If(y == h - 1), T.Then():
                    self.fill((b + 1) * image - below, below, padding.value, unit)

        loop(count, row)
