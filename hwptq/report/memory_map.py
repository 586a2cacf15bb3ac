"""The arena over time: which tensor lies where, from which call of a kernel to which."""

from __future__ import annotations

from typing import Any

import tvm

from hwptq.backends.called_layers import called_layers
from hwptq.backends.program import Program


def memory_map(program: Program, kernels: tvm.IRModule) -> dict[str, Any] | None:
    """The object `memory` of the report: `calls` in their order, each with the layer and the kernel, and
    `tensors` with the layer that writes them, their bytes of the arena, and the calls (from 0) that they stay
    for; `arena_least_bytes`, that are needed at the fullest call. None where nobody plans an arena.
    """
    if not program.stays:
        return None
    calls = list(called_layers(program.calls, kernels))
    tensors = [
        {
            "name": calls[min(stay.born, len(calls) - 1)]["name"],
            "first": stay.first,
            "bytes": stay.size,
            "born": stay.born,
            "last": stay.last,
        }
        for stay in program.stays
    ]
    return {
        "arena_bytes": program.arena_bytes,
        "arena_least_bytes": program.arena_least_bytes,
        "calls": calls,
        "tensors": tensors,
    }
