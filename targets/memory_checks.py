"""Checks of a device without an operating system: what its programs stand on, and where they lie."""

from __future__ import annotations

from itertools import combinations

from .fields.problems import Problems
from .memory import Memory, Region
from .schema import Toolchain

_NEEDED = ("code", "constants", "data")


def check_bare(toolchain: Toolchain, memory: Memory, problems: Problems) -> None:
    """Note what is missing, twice there or too much for the runtime that a descriptor names."""
    bare, runtime = toolchain.runtime == "bare", f'runtime "bare", not "{toolchain.runtime}"'
    if bare and not toolchain.start:
        problems.add("toolchain.start", 'missing: the kind of processor that runtime "bare" starts')
    if toolchain.start and not bare:
        problems.add("toolchain.start", f'is for {runtime} (give "")')
    if toolchain.emit == "object" and toolchain.run:
        problems.add(
            "toolchain.run", 'nothing is linked that could run: toolchain.emit is "object" (give [])'
        )
    if memory.regions and not bare:
        problems.add("memory.regions", f"are for {runtime} (give [])")
    if not problems.below("memory.regions") and (memory.regions or bare):
        _check_regions(memory.regions, problems)


def _check_regions(regions: tuple[Region, ...], problems: Problems) -> None:
    for what in (*_NEEDED, "arena"):
        holding = [region.name for region in regions if what in region.holds]
        if len(holding) > 1:
            problems.add("memory.regions", f"{' and '.join(holding)} both hold {what}: one of them must")
        elif not holding and what in _NEEDED:
            problems.add("memory.regions", f"none holds {what}: one of them must")
    for first, second in combinations(regions, 2):
        if first.name == second.name:
            problems.add("memory.regions", f"two are called {first.name}")
        elif max(first.origin, second.origin) < min(_end(first), _end(second)):
            problems.add("memory.regions", f"{first.name} and {second.name} overlap")


def _end(region: Region) -> int:
    return region.origin + region.bytes
