"""Loops over tensors that are walked together: strides, broadcasting, and loops joined where shapes allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from .builder import Expr, nest, share_spans
from .vector_unit import VectorUnit

_COST = 20  # multiply-accumulates that take as long as an element


@dataclass(frozen=True)
class Loops:
    """Loop extents and, for each tensor, the element strides; a broadcast axis has stride 0."""

    extents: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Element strides of a contiguous tensor: (2, 3, 4) -> (12, 4, 1)."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def broadcast_strides(shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor seen as `out_shape`. Raises ValueError where it does not broadcast."""
    missing = len(out_shape) - len(shape)
    if missing < 0 or any(n not in (1, m) for n, m in zip(shape, out_shape[missing:], strict=True)):
        raise ValueError(f"shape {tuple(shape)} does not broadcast to {tuple(out_shape)}")
    own = (0 if n == 1 else s for n, s in zip(shape, row_major(shape), strict=True))
    return (0,) * missing + tuple(own)


def merged(extents: Sequence[int], strides: Sequence[Sequence[int]]) -> Loops:
    """Drop axes of one element and join neighbours that every tensor walks as one.

    The innermost axis that is left is contiguous, or of one element, in every tensor.
    """
    axes = [(n, tuple(s[i] for s in strides)) for i, n in enumerate(extents) if n != 1]
    joined: list[tuple[int, tuple[int, ...]]] = []
    for n, step in axes:
        if joined and all(o == n * i for o, i in zip(joined[-1][1], step, strict=True)):
            joined[-1] = (joined[-1][0] * n, step)
        else:
            joined.append((n, step))
    if not joined or any(step not in (0, 1) for step in joined[-1][1]):  # as in a Pad of single channels
        joined.append((1, (1,) * len(strides)))
    return Loops(tuple(n for n, _ in joined), tuple(zip(*(s for _, s in joined), strict=True)))


def walk(loops: Loops, unit: VectorUnit, body: Callable[[list[Expr], int, int], None]) -> None:
    """Emit the loops; body(offset per tensor, width, count). Threads share a single loop."""
    if len(loops.extents) == 1 and unit.parts > 1:
        extent = loops.extents[0]
        share_spans(
            extent,
            unit.lanes,
            unit.shared(_COST * extent),
            lambda at, width, count: body([at * steps[0] for steps in loops.strides], width, count),
        )
        return

    def row(*outer: Expr) -> None:
        bases = [sum(i * s for i, s in zip(outer, steps, strict=False)) for steps in loops.strides]
        unit.cover(
            loops.extents[-1],
            lambda at, width, count: body(
                [b + at * steps[-1] for b, steps in zip(bases, loops.strides, strict=True)], width, count
            ),
        )

    nest(loops.extents[:-1], row)
