"""Loops over tensors that are walked together: strides, broadcasting, and loops joined where shapes allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from .builder import Expr, Flat, nest, share_spans, splat
from .kernel import TensorType
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
    if len(loops.extents) == 1 and unit.sharing.threads > 1:
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


def emit_binary(
    inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit, vector: Callable[[Expr, Expr, int], Expr]
) -> Callable[..., None]:
    """Code of a function of two tensors that broadcast; vector(a, b, lanes) gives so many of its values."""
    shapes = [broadcast_strides(t.shape, out.shape) for t in inputs]
    loops = merged(out.shape, [*shapes, row_major(out.shape)])

    def emit(a: Flat, b: Flat, y: Flat) -> None:
        def block(offsets: list[Expr], width: int, count: int) -> None:
            first, second = (
                _operand(tensor, offset, steps[-1], width)
                for tensor, offset, steps in zip((a, b), offsets, loops.strides, strict=False)
            )
            y.store(offsets[2], vector(first, second, width), width, count)

        walk(loops, unit, block)

    return emit


def _operand(tensor: Flat, offset: Expr, stride: int, width: int) -> Expr:
    """A vector of a tensor, a broadcast value in every lane."""
    return splat(tensor.load(offset), width) if stride == 0 else tensor.load(offset, width)
