"""Where tensors lie in one arena: each is needed from the call that writes it to the last that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: A tensor takes free memory of another only if neither is larger than the other by more than this factor.
_ALIKE = 16


@dataclass(frozen=True)
class Life:
    """Bytes that are taken from call `born` to call `last`, both included."""

    size: int
    born: int
    last: int

    def meets(self, other: Life) -> bool:
        """Whether both are there during some call."""
        return self.born <= other.last and other.born <= self.last


def least_bytes(lives: Sequence[Life]) -> int:
    """Bytes at the fullest call: no arrangement takes fewer."""
    return max((sum(o.size for o in lives if o.meets(Life(0, at.born, at.born))) for at in lives), default=0)


def packed(lives: Sequence[Life], alignment: int) -> list[int]:
    """The offset of each, with few bytes in all.

    Each goes into the smallest gap that it fits, in several orders of which the best counts: largest first,
    those with the longest lives first, in the order of birth. Pisarchyk and Lee, Efficient Memory Management
    for Deep Neural Net Inference, 2020, compare such orders.
    """
    if not lives:
        return []
    orders = (
        lambda life: (-life.size, life.born),
        lambda life: (-life.size * (life.last - life.born + 1), life.born),
        lambda life: (life.born, -life.size),
    )
    found = [
        _by_gaps(lives, sorted(range(len(lives)), key=lambda i: key(lives[i])), alignment) for key in orders
    ]
    return min(found, key=lambda offsets: total_bytes(lives, offsets))


def total_bytes(lives: Sequence[Life], offsets: Sequence[int]) -> int:
    """Where the last one ends."""
    return max((life.size + at for life, at in zip(lives, offsets, strict=True)), default=0)


def _by_gaps(lives: Sequence[Life], order: Sequence[int], alignment: int) -> list[int]:
    offsets = [0] * len(lives)
    placed: list[int] = []
    for i in order:
        met = sorted((offsets[j], offsets[j] + lives[j].size) for j in placed if lives[j].meets(lives[i]))
        gaps, end = [], 0
        for first, behind in met:
            if first - end >= lives[i].size:
                gaps.append((first - end, end))
            end = max(end, -(-behind // alignment) * alignment)
        offsets[i] = min(gaps)[1] if gaps else end
        placed.append(i)
    return offsets


def centred(lives: Sequence[Life], alignment: int) -> list[int]:
    """The offset of each where threads share kernels: those that lie in the same memory one after the other
    have a common middle.

    So each of two cores writes the same half of any of them, and memory does not go from one to the other.
    """
    sizes: list[int] = []
    free_from: list[int] = []
    storage = [0] * len(lives)
    for i in sorted(range(len(lives)), key=lambda i: lives[i].born):
        life = lives[i]
        free = [s for s, call in enumerate(free_from) if call < life.born]
        alike = [s for s in free if sizes[s] <= _ALIKE * life.size and life.size <= _ALIKE * sizes[s]]
        # the smallest that is large enough, else the largest, which grows
        best = min(alike, key=lambda s: (sizes[s] < life.size, abs(sizes[s] - life.size)), default=None)
        if best is None:
            best = len(sizes)
            sizes.append(0)
            free_from.append(0)
        sizes[best] = max(sizes[best], -(-life.size // alignment) * alignment)
        free_from[best], storage[i] = life.last, best
    firsts = [sum(sizes[:s]) for s in range(len(sizes))]
    spare = [
        (sizes[s] - life.size) // 2 // alignment * alignment for s, life in zip(storage, lives, strict=True)
    ]
    return [firsts[s] + around for s, around in zip(storage, spare, strict=True)]
