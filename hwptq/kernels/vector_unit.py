"""How wide a device computes where no multiply-accumulate instruction says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hwptq.targets.schema import Descriptor, Requantize

from .builder import Expr, spans
from .requantize import GENERIC, packed_lanes

#: The attribute of a module: the most threads that share a kernel.
THREADS = "hwptq.threads"
_LEAST_SHARED = 3_000_000  # multiply-accumulates: where caches are apart, less does not pay
_PARTS_PER_THREAD = 2  # as in backends/claim_pool.c: a thread that is late leaves half of its share to others


@dataclass(frozen=True)
class VectorUnit:
    """How wide to compute int8 and float32, and how to requantize. One lane leaves vectors to the compiler.

    `masked`: the last vector of a row is whole, and stored through a mask. `parts`: how many parts a large
    kernel is cut into, for threads to share. `scratchpad`: bytes that hold the packed inputs of kernels, 0 =
    they are tensors as others are.
    """

    lanes: int = 1
    float_lanes: int = 1
    masked: bool = False
    requantize: Requantize = GENERIC
    parts: int = 1
    scratchpad: int = 0

    def shared(self, macs: int) -> int:
        """The parts of a kernel of that many multiply-accumulates: 1 where sharing would not pay."""
        return self.parts if macs >= _LEAST_SHARED else 1

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
    parts = _PARTS_PER_THREAD * threads if threads > 1 else 1
    widths = (plain.lanes, plain.float_lanes, plain.masked)
    return VectorUnit(*widths, target.requantize, parts, target.memory.scratchpad)
