"""Which stretches of a model are computed in bands so that its activations fit, at the least extra work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import tvm

from hwptq.backends.backend import backend_of
from hwptq.bitwidths.budget import ARENA
from hwptq.ir.provenance import origins
from hwptq.kernels.layer import Layer
from hwptq.passes.graph.bands import (
    Bound,
    Stretch,
    bound,
    computable,
    extra_macs,
    plain_bytes,
    stretch_bytes,
)
from hwptq.passes.graph.fused_groups import integer_node
from hwptq.passes.run_in_bands import RunInBands
from hwptq.pipeline.stages import kernels
from hwptq.pipeline.step import Job

_TRIES = 6  # an estimate is corrected by what the code really takes
_LONGEST = 24  # bindings of a stretch
_SAFETY = 0.98


@dataclass(frozen=True)
class Banded:
    """What a stretch is: the nodes between which it lies, its bands, and the products computed again."""

    first: str
    last: str
    bands: int
    extra_macs: int


@dataclass(frozen=True)
class Fitted:
    """Kernels, the bytes of their activations, and what of them is computed in bands."""

    code: tvm.IRModule
    arena: int
    bands: tuple[Banded, ...] = ()


def fitting_kernels(
    integer: tvm.IRModule, job: Job, outputs: tuple[str, ...], tile_of: Callable[[Layer], int]
) -> Fitted:
    """The kernels of an integer module: in bands where activations take more than the budget of the job, or
    than the device has for them. tile_of: see SelectKernels.
    """

    def fitted(mod: tvm.IRModule) -> tuple[Fitted, int | None]:
        code = kernels(mod, job, tile_of)
        arena = backend_of(job.target).arena_of(code, outputs) if limited else None
        return Fitted(code, arena.nbytes if arena else 0), arena.room if arena else None

    budget = job.options.budget
    wished = budget.value if budget and budget.kind == ARENA else None
    limited = wished is not None or bool(job.target.memory.regions)
    plain, room = fitted(integer)
    limits = [limit for limit in (wished, room) if limit is not None]
    if not limits or plain.arena <= min(limits):
        return plain
    return in_bands(integer, plain, min(limits), lambda mod: fitted(mod)[0])


def in_bands(
    integer: tvm.IRModule, plain: Fitted, limit: float, fitted: Callable[[tvm.IRModule], Fitted]
) -> Fitted:
    """Kernels of an integer module whose activations take at most `limit` bytes, or the fewest found.

    `plain`, which takes more, is what it is without bands.
    """
    best = plain
    nodes = bound(integer["main"], partial(integer_node, integer))
    aim = limit * max(1.0, max(plain_bytes(nodes)) / best.arena)
    for _ in range(_TRIES):
        stretches = choose(nodes, aim)
        if not stretches:
            break
        banded = tvm.ir.transform.Sequential([RunInBands(stretches)])(integer)
        found = replace(fitted(banded), bands=tuple(_described(integer, nodes, s) for s in stretches))
        if found.arena >= best.arena:
            break
        best = found
        if best.arena <= limit:
            break
        aim *= _SAFETY * limit / found.arena
    return best


def choose(nodes: Sequence[Bound], aim: float) -> list[Stretch]:
    """Stretches that bring every binding below `aim` bytes, or as low as can be, as far as is known."""
    used, chosen = plain_bytes(nodes), list[Stretch]()
    last_reader = {tensor: number for number, node in enumerate(nodes) for tensor in node.reads}
    at = 0
    while at < len(nodes):
        first = chosen[-1].last + 1 if chosen else 0
        found = min(_candidates(nodes, last_reader, at, first, aim), default=None) if used[at] > aim else None
        if found is None or found[0] >= used[at]:
            at += 1
            continue
        chosen.append(found[-1])
        at = found[-1].last + 1
    return chosen


def _candidates(
    nodes: Sequence[Bound], last_reader: Mapping[Any, int], at: int, least: int, aim: float
) -> Iterator[tuple[float, int, int, int, Stretch]]:
    """The stretches with binding `at`, by what counts: their bytes, at least `aim`; products that are
    computed again; bands; bindings. last_reader: tensor -> the number of the binding that reads it last.
    """
    for first in range(at, max(least, at - _LONGEST) - 1, -1):
        if not computable(nodes[first : at + 1]):
            return
        for last in range(at, min(first + _LONGEST, len(nodes))):
            inner = nodes[first : last + 1]
            if not computable(inner[-1:]):
                break
            if any(last_reader.get(node.var, len(nodes)) > last for node in inner[:-1]):
                continue
            for bands in _counts(inner[-1].shape[1]):
                stretch = Stretch(first, last, bands)
                held = max(stretch_bytes(nodes, stretch), aim)
                yield held, extra_macs(inner, bands), bands, len(inner), stretch
                if held == aim:
                    break


def _counts(height: int) -> list[int]:
    """Numbers of bands to try."""
    return [n for n in (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64) if n <= height]


def _described(integer: tvm.IRModule, nodes: Sequence[Bound], stretch: Stretch) -> Banded:
    named = origins(integer["main"])
    first, last = (named[nodes[i].var].label for i in (stretch.first, stretch.last))
    inner = nodes[stretch.first : stretch.last + 1]
    return Banded(first, last, stretch.bands, extra_macs(inner, stretch.bands))
