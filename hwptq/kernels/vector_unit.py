"""How wide a device computes where no multiply-accumulate instruction says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hwptq.targets.schema import Descriptor, Requantize

from .builder import Expr, spans
from .requantize import GENERIC, packed_lanes


@dataclass(frozen=True)
class VectorUnit:
    """How wide to compute int8 and float32, and how to requantize. One lane leaves vectors to the compiler.

    `masked`: the last vector of a row is whole, and stored through a mask.
    """

    lanes: int = 1
    float_lanes: int = 1
    masked: bool = False
    requantize: Requantize = GENERIC

    @property
    def whole_lanes(self) -> int:
        """How many int32 values at once are best narrowed to a vector of int8; 0 = any number."""
        return self.lanes if self.masked else packed_lanes(self.requantize)

    def cover(self, extent: int, body: Callable[[Expr, int, int], None]) -> None:
        """Cover range(extent) by vectors of int8: body(offset, width, count); see `spans`."""
        spans(extent, self.lanes, body, self.masked)


SCALAR = VectorUnit()


def unit_of(target: Descriptor) -> VectorUnit:
    """The vector unit that a descriptor describes."""
    plain = target.elementwise
    return VectorUnit(plain.lanes, plain.float_lanes, plain.masked, target.requantize)
