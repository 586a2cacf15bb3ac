"""How the kernels of a template go about their work, where that is no matter of vectors."""

from __future__ import annotations

from dataclasses import dataclass

from hwptq.targets.memory import Memory
from hwptq.targets.schema import Assembly, Descriptor

NO_ASSEMBLY = Assembly()


@dataclass(frozen=True)
class Schedule:
    """What a kernel is free to do, and where it keeps what it packs.

    `tile`: which of the tiles for a shape it takes, 0 = the one that should be the best. `scratchpad`: bytes
    that hold packed inputs, 0 = they are tensors. `first_cache`: bytes of the first cache of data.
    `assembly`: what inner loops are written with.
    `beside_one`: weights lie as the kernel for one row reads them, whose number `tile` is.
    """

    tile: int = 0
    scratchpad: int = 0
    first_cache: int = Memory.first_cache
    assembly: Assembly = NO_ASSEMBLY
    beside_one: bool = False


def schedule_of(target: Descriptor, tile: int = 0, beside_one: bool = False) -> Schedule:
    """What a descriptor says of it, for kernels of tile number `tile`."""
    memory = target.memory
    return Schedule(tile, memory.scratchpad, memory.first_cache, target.assembly, beside_one)
