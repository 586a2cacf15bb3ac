"""How wide a device computes where no multiply-accumulate instruction says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hwptq.targets.requantize import Requantize
from hwptq.targets.schema import Descriptor

from .builder import WHOLE, Expr, Parts, spans, vector_width
from .requantize import GENERIC, packed_lanes

#: The attribute of a module: the most threads that share a kernel.
THREADS = "hwptq.threads"
_LEAST_SHARED = 300  # cycles of a kernel below which sharing never pays, however near cores are
_USUAL_COST = 0.0625  # cycles per multiply-accumulate of a device that does not say


@dataclass(frozen=True)
class Sharing:
    """How many threads share a large kernel. `cost`: cycles per multiply-accumulate."""

    threads: int = 1
    cost: float = _USUAL_COST

    def of(self, macs: int) -> Parts:
        """The parts of a kernel of that many multiply-accumulates."""
        cycles = max(round(macs * self.cost), 1)
        return Parts(self.threads, cycles) if self.threads > 1 and cycles >= _LEAST_SHARED else WHOLE


ALONE = Sharing()


@dataclass(frozen=True)
class VectorUnit:
    """How wide to compute int8 and float32, and how to requantize. One lane leaves vectors to the compiler.

    `masked`: the last vector of a row is whole, and stored through a mask. `sharing`: whether threads share
    the work. `divides`: instructions divide floats and round them. `float_pairs`: two floats are a vector.
    """

    lanes: int = 1
    float_lanes: int = 1
    masked: bool = False
    requantize: Requantize = GENERIC
    sharing: Sharing = ALONE
    divides: bool = True
    float_pairs: bool = True

    def float_width(self, extent: int) -> int:
        """The float32 values of a step over so many of them."""
        width = vector_width(extent, self.float_lanes)
        return width if self.float_pairs or width != 2 else 1

    def shared(self, macs: int) -> Parts:
        """The parts of a kernel of that many multiply-accumulates: one where sharing would not pay."""
        return self.sharing.of(macs)

    @property
    def whole_lanes(self) -> int:
        """How many int32 values at once are best narrowed to a vector of int8; 0 = any number."""
        return self.lanes if self.masked else packed_lanes(self.requantize)

    def cover(self, extent: int, body: Callable[[Expr, int, int], None]) -> None:
        """Cover range(extent) by vectors of int8: body(offset, width, count); see `spans`."""
        spans(extent, self.lanes, body, self.masked)


SCALAR = VectorUnit()


def unit_of(target: Descriptor, threads: int = 1) -> VectorUnit:
    """The vector unit that a descriptor describes, on so many threads."""
    plain = target.elementwise
    sharing = Sharing(threads, target.cost.get("int8", _USUAL_COST))
    widths = plain.lanes, plain.float_lanes, plain.masked
    return VectorUnit(*widths, target.requantize, sharing, plain.divides, plain.float_pairs)
