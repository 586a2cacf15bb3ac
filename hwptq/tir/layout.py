"""How an int8 tensor lies in memory: its producer writes it as its readers want it, so that no one copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod


@dataclass(frozen=True)
class Padding:
    """What is added around an image [N,H,W,C] before it is convolved: `value` in the border."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0
    value: int = 0

    @property
    def sides(self) -> tuple[int, int, int, int]:
        return self.top, self.left, self.bottom, self.right

    @property
    def empty(self) -> bool:
        return not any(self.sides)

    def around(self, image: Sequence[int]) -> tuple[int, int]:
        """(H, W) of the padded image."""
        return image[0] + self.top + self.bottom, image[1] + self.left + self.right


UNPADDED = Padding()


@dataclass(frozen=True)
class Layout:
    """A border around each image, the dtype of the elements, and `slack` elements behind the last image.

    dtype: int8; int16 with the same values; uint8 with the values + 128. What the slack holds does not
    matter: loads may reach it, and meet weights of 0 there.

    With `rows` above 1 pixels are interleaved: [ceil(C / k), ceil(pixels / rows), rows, k]. The last pixel is
    repeated to fill its rows; what fills the last group of channels does not matter.
    """

    padding: Padding = UNPADDED
    dtype: str = "int8"
    slack: int = 0
    rows: int = 1
    k: int = 1

    def image(self, shape: Sequence[int]) -> tuple[int, int]:
        """(H, W) of an image of a tensor [N,H,W,C] with its border."""
        return self.padding.around(shape[1:3])

    def elements(self, shape: Sequence[int]) -> int:
        """Of a tensor of that shape, which has rank 4 if there is a border."""
        if self.rows > 1:
            pixels, channels = prod(shape[:-1]), shape[-1]
            return -(-channels // self.k) * self.k * -(-pixels // self.rows) * self.rows
        if self.padding.empty:
            return prod(shape) + self.slack
        return shape[0] * prod(self.image(shape)) * shape[3] + self.slack

    def places_as(self, other: Layout) -> bool:
        """Whether each value of a tensor lies where it does in `other`; what is in the border may differ."""
        return self == replace(other, padding=replace(other.padding, value=self.padding.value))

    def serves(self, wanted: Layout) -> bool:
        """Whether who wants `wanted` can read this, perhaps by skipping a part of the border."""
        inner, outer = wanted.padding, self.padding
        return (
            (self.dtype, self.rows, self.k) == (wanted.dtype, wanted.rows, wanted.k)
            and self.slack >= wanted.slack
            and all(o >= i for o, i in zip(outer.sides, inner.sides, strict=True))
            and (inner.empty or inner.value == outer.value)
        )


def alike(one: Layout, other: Layout) -> tuple[Layout, Layout] | None:
    """The least layouts that serve whom these serve, and place values as each other does."""
    if (one.dtype, one.rows, one.k) != (other.dtype, other.rows, other.k) or one.rows > 1:
        return None
    top, left, bottom, right = map(max, one.padding.sides, other.padding.sides)
    slack = max(one.slack, other.slack)
    first, second = (
        replace(layout, padding=Padding(top, left, bottom, right, layout.padding.value), slack=slack)
        for layout in (one, other)
    )
    return first, second


#: The values as they are, in row-major order.
PLAIN = Layout()


def common(wishes: Sequence[Layout]) -> Layout | None:
    """The least layout that serves all wishes, if there is one."""
    first, *rest = wishes
    for wish in rest:
        values = {w.padding.value for w in (first, wish) if not w.padding.empty}
        kinds = {(w.dtype, w.rows, w.k) for w in (first, wish)}
        if len(values) > 1 or len(kinds) > 1:
            return None
        sides = map(max, first.padding.sides, wish.padding.sides)
        border = Padding(*sides, *values)
        first = replace(first, padding=border, slack=max(first.slack, wish.slack))
    return first
