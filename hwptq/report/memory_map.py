"""The arena over time: which tensor lies where, from which call of a kernel to which."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

import tvm

from hwptq.backends.program import Program
from hwptq.ir.dataflow import bindings
from hwptq.ir.operator import kernel_name
from hwptq.ir.provenance import origins
from hwptq.tir.builder import TEMPLATE


def memory_map(program: Program, kernels: tvm.IRModule) -> dict[str, Any] | None:
    """The object `memory` of the report: `calls` in their order, each with the layer and the kernel, and
    `tensors` with the layer that writes them, their bytes of the arena, and the calls (from 0) that they stay
    for. None where nobody plans an arena.
    """
    if not program.stays:
        return None
    calls = list(_calls(program, kernels))
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
    return {"arena_bytes": program.arena_bytes, "calls": calls, "tensors": tensors}


def _calls(program: Program, kernels: tvm.IRModule) -> Iterator[dict[str, str]]:
    """The layer and the kernel of each call. A function may serve several layers: the program calls it in
    their order. What TVM made of data movement has the name of its function."""
    layers: dict[str, deque[tuple[str, str]]] = defaultdict(deque)
    named = origins(kernels["main"])
    for var, value in bindings(kernels["main"]):
        if function := kernel_name(value):
            layers[function].append((named[var].label, named[var].node))
    for function in program.calls:
        name, node = layers[function].popleft() if layers[function] else (function, "")
        attributes = kernels[function].attrs if function in kernels else None
        kernel = str((attributes or {}).get(TEMPLATE, "TVM"))
        yield {"name": name, "node": node, "kernel": kernel, "function": function}
