"""What a program without an operating system takes of each region of memory, and whether it fits."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import tvm

from hwptq.backends.arena_budget import fullest_layer
from hwptq.backends.called_layers import called_layers
from hwptq.backends.program import RegionUse
from hwptq.backends.toolchain import binary_tool
from hwptq.errors import HwptqError, UnsupportedError
from hwptq.targets import Descriptor
from hwptq.targets.memory import Region

from .c_source import Workspace, buffer_bytes
from .memory_plan import MemoryPlan

_STORED_TOO = ".data"  # lies among the constants, from where it is copied at the start
#: A row of readelf: name, address, size and flags of a section.
_SECTION = re.compile(r"\] (\.\S+) +[A-Z_]+ +([0-9a-f]+) [0-9a-f]+ ([0-9a-f]+) [0-9a-f]+ +([A-Z]*) ")
_IN_MEMORY = "A"  # not so what a debugger reads, though its address is 0, where flash may begin


def check_fits(plan: MemoryPlan, workspace: Workspace, mod: tvm.IRModule, target: Descriptor) -> None:
    """Raise UnsupportedError, with the layer that takes most, where activations or weights do not fit."""
    places = {what: region for region in target.memory.regions for what in region.holds}
    if not places:
        return
    arena = places.get("arena", places["data"])
    beside = _beside_arena(plan, target)
    needed = workspace.arena_bytes(plan, target.memory)
    if needed + beside > arena.bytes:
        fullest = fullest_layer(plan.stays, [call.function for call in plan.calls], mod)
        raise UnsupportedError(_too_large(needed, beside, arena, fullest, target))
    constants = places["constants"]
    if plan.weights.nbytes > constants.bytes:
        layer, most = _heaviest_layer(plan, mod)
        raise UnsupportedError(
            f"weights take {plan.weights.nbytes} bytes, and {constants.name} of {target.name} has "
            f"{constants.bytes}: {layer} alone has {most}; --precision w4a8 or a --budget makes them fewer"
        )


def room_for_arena(plan: MemoryPlan, target: Descriptor) -> int | None:
    """Bytes that the activations may take; None where the device has no regions of memory."""
    places = {what: region for region in target.memory.regions for what in region.holds}
    if not places:
        return None
    region = places.get("arena", places["data"])
    return max(region.bytes - _beside_arena(plan, target) - target.memory.readable_behind, 0)


def _beside_arena(plan: MemoryPlan, target: Descriptor) -> int:
    """Bytes of the stack and of the buffers of inputs and outputs, where the arena lies beside them."""
    memory = target.memory
    if any("arena" in region.holds for region in memory.regions):
        return 0
    buffers = sum(buffer_bytes(tensors, memory) for tensors in (plan.inputs, plan.outputs))
    return memory.stack + buffers


def _too_large(needed: int, beside: int, arena: Region, most: tuple[str, int], target: Descriptor) -> str:
    stack = f" with {beside} of them for the stack and the buffers of inputs and outputs" if beside else ""
    return (
        f"activations take {needed} bytes, and {arena.name} of {target.name} has {arena.bytes}{stack}: "
        f"{most[0]} needs most, {most[1]} for what it reads, what it writes and what waits for later layers"
    )


def _heaviest_layer(plan: MemoryPlan, mod: tvm.IRModule) -> tuple[str, int]:
    """The layer with most bytes of constants, and those."""
    starts = sorted({p.at for call in plan.calls for p in call.args if p.kind == "weights"})
    ends = dict(zip(starts, [*starts[1:], plan.weights.nbytes], strict=True))
    sizes = [sum(ends[p.at] - p.at for p in call.args if p.kind == "weights") for call in plan.calls]
    names = [row["name"] for row in called_layers([call.function for call in plan.calls], mod)]
    return names[sizes.index(max(sizes))], max(sizes)


def region_uses(target: Descriptor, program: Path) -> tuple[RegionUse, ...]:
    """What a linked program takes of each region. Raises HwptqError where the compiler has no `readelf`."""
    if not target.memory.regions:
        return ()
    command = [binary_tool(target.toolchain.compiler, "readelf"), "-S", "-W", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HwptqError(f"{command[0]} failed with status {done.returncode}: {done.stderr.strip()}")
    sections = [
        (name, int(size, 16), int(address, 16))
        for name, address, size, flags in _SECTION.findall(done.stdout)
        if _IN_MEMORY in flags
    ]
    return tuple(
        RegionUse(region.name, region.holds, _used(region, sections), region.bytes)
        for region in target.memory.regions
    )


def _used(region: Region, sections: list[tuple[str, int, int]]) -> int:
    stored = "constants" in region.holds
    return sum(
        size
        for name, size, address in sections
        if (region.origin <= address < region.origin + region.bytes and address + size > 0)
        or (stored and name == _STORED_TOO)
    )
