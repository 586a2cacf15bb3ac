"""--tune: a few tiles are tried for each layer shape, and the best one is taken.

All tiles compute the same bits, so this is about speed only. What a layer shape measured is kept in a cache.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import tvm
from tvm_ffi import StructuralKey

from hwptq import __version__
from hwptq.backends.backend import backend_of
from hwptq.backends.host import cpu_identity
from hwptq.backends.static_c.candidate_costs import (
    INSTRUCTIONS,
    NANOSECONDS,
    Candidates,
)
from hwptq.errors import InputError
from hwptq.kernels.layer import Layer
from hwptq.kernels.select import select
from hwptq.passes import SelectKernels
from hwptq.progress import Progress
from hwptq.targets import Descriptor

from .tile_cache import TileCache

#: Tiles that are tried for a layer.
CANDIDATES = 4
#: The part of its cost that another tile must save to be taken: less is noise.
_GAIN = {NANOSECONDS: 0.03, INSTRUCTIONS: 0.01}


@dataclass(frozen=True)
class Tuning:
    """The tiles of a model's layers, and where they come from."""

    tiles: dict[str, int]  # by layer shape
    unit: str  # of the costs by which they were chosen
    measured: int  # layer shapes
    cached: int

    def tile_of(self, layer: Layer) -> int:
        """Which tile a layer takes: see Schedule."""
        return self.tiles.get(layer.shape, 0)

    def report(self) -> dict[str, Any]:
        """The `tuning` object of the report."""
        changed = sum(tile > 0 for tile in self.tiles.values())
        return {
            "unit": self.unit, "measured": self.measured, "cached": self.cached, "changed": changed
        }  # fmt: skip


def tune(integer: tvm.IRModule, target: Descriptor, cache: TileCache, progress: Progress) -> Tuning:
    """The best tile of each layer of an integer module.

    Raises InputError where candidates can't be compared on this machine.
    """
    _check(target)
    tiles: dict[str, int] = {}
    missing: dict[str, Candidates] = {}
    known = 0
    for layer in distinct_layers(integer, target):
        found = candidates(layer, target)
        if len(found.steps) == 1:
            continue
        tile = cache.get(_key(layer.shape, target), len(found.steps))
        if tile is None:
            missing[layer.shape] = found
        else:
            known += 1
            tiles[layer.shape] = tile
    if missing:
        tiles |= _measure(missing, target, cache, progress)
    return Tuning(tiles, backend_of(target).unit_of_costs(), len(missing), known)


def _check(target: Descriptor) -> None:
    problem = backend_of(target).why_not_tune()
    if problem:
        raise InputError(f"{target.name}: --tune measures candidates by running them, and {problem}")


def distinct_layers(integer: tvm.IRModule, target: Descriptor) -> list[Layer]:
    """The layers of a module, one for each shape."""
    found: dict[str, Layer] = {}

    def record(layer: Layer) -> int:
        found.setdefault(layer.shape, layer)
        return 0

    tvm.ir.transform.Sequential([SelectKernels(target, tile_of=record)])(integer)
    return list(found.values())


def candidates(layer: Layer, target: Descriptor) -> Candidates:
    """The steps for each tile, the usual one first, up to one that comes to the same code as another."""
    found: dict[Any, Any] = {}
    for tile in range(CANDIDATES):
        steps = select(layer, target, tile=tile)
        key = tuple(StructuralKey(step.func) for step in steps)  # type: ignore[call-arg]
        if key in found:
            break
        found[key] = steps
    return Candidates(layer.activations, tuple(found.values()))


def best(costs: Sequence[float], gain: float) -> int:
    """The cheapest candidate, if it costs less than (1 - gain) of the first one; else the first."""
    cheapest = min(range(len(costs)), key=lambda i: costs[i])
    return cheapest if costs[cheapest] < costs[0] * (1 - gain) else 0


def _measure(
    missing: dict[str, Candidates], target: Descriptor, cache: TileCache, progress: Progress
) -> dict[str, int]:
    unit, tiles = backend_of(target).unit_of_costs(), {}
    with tempfile.TemporaryDirectory(prefix="hwptq-") as folder:
        measured = backend_of(target).candidate_costs(list(missing.values()), Path(folder))
        for shape, costs in zip(missing, progress.track(measured, len(missing)), strict=True):
            tiles[shape] = best(costs, _GAIN[unit])
            cache.put(_key(shape, target), tiles[shape], costs, unit)
    return tiles


def _key(shape: str, target: Descriptor) -> str:
    """What a choice depends on: the layer, the device, the machine that runs it, the versions."""
    device = sha256(repr(target).encode()).hexdigest()
    machine = "" if target.toolchain.run else cpu_identity()
    return "\n".join([shape, device, machine, f"hwptq {__version__}", f"tvm {tvm.__version__}"])
