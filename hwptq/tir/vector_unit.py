"""How wide a device computes where no multiply-accumulate instruction says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hwptq.targets.schema import Assembly, Descriptor, Requantize

from .builder import WHOLE, Expr, Parts, spans
from .requantize import GENERIC, packed_lanes

#: The attribute of a module: the most threads that share a kernel.
THREADS = "hwptq.threads"
_LEAST_SHARED = 300  # cycles of a kernel below which sharing never pays, however near cores are
_USUAL_COST = 0.0625  # cycles per multiply-accumulate of a device that does not say


NO_ASSEMBLY = Assembly()


@dataclass(frozen=True)
class VectorUnit:
    """How wide to compute int8 and float32, and how to requantize. One lane leaves vectors to the compiler.

    `masked`: the last vector of a row is whole, and stored through a mask. `parts`: how many parts a large
    kernel is cut into, for threads to share. `scratchpad`: bytes that hold the packed inputs of kernels, 0 =
    they are tensors as others are. `cost`: cycles per multiply-accumulate. `assembly`: what inner loops are
    written with. `tile`: which of the tiles for a shape a kernel takes, 0 = the one that should be the best.
    """

    lanes: int = 1
    float_lanes: int = 1
    masked: bool = False
    requantize: Requantize = GENERIC
    parts: int = 1
    scratchpad: int = 0
    cost: float = _USUAL_COST
    assembly: Assembly = NO_ASSEMBLY
    tile: int = 0

    def shared(self, macs: int) -> Parts:
        """The parts of a kernel of that many multiply-accumulates: one where sharing would not pay."""
        cycles = max(round(macs * self.cost), 1)
        return Parts(self.parts, cycles) if self.parts > 1 and cycles >= _LEAST_SHARED else WHOLE

    @property
    def whole_lanes(self) -> int:
        """How many int32 values at once are best narrowed to a vector of int8; 0 = any number."""
        return self.lanes if self.masked else packed_lanes(self.requantize)

    def cover(self, extent: int, body: Callable[[Expr, int, int], None]) -> None:
        """Cover range(extent) by vectors of int8: body(offset, width, count); see `spans`."""
        spans(extent, self.lanes, body, self.masked)


SCALAR = VectorUnit()


def unit_of(target: Descriptor, threads: int = 1, tile: int = 0) -> VectorUnit:
    """The vector unit that a descriptor describes, on so many threads, for kernels of tile number `tile`."""
    plain = target.elementwise
    widths = (plain.lanes, plain.float_lanes, plain.masked)
    cost = target.cost.get("int8", _USUAL_COST)
    scratchpad = target.memory.scratchpad
    return VectorUnit(*widths, target.requantize, threads, scratchpad, cost, target.assembly, tile)
