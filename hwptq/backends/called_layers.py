"""Which layer each call of a compiled program computes."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

import tvm

from hwptq.ir.dataflow import bindings
from hwptq.ir.operator import kernel_name
from hwptq.ir.provenance import origins
from hwptq.tir.builder import TEMPLATE


def called_layers(calls: Sequence[str], kernels: tvm.IRModule) -> Iterator[dict[str, str]]:
    """The layer and the kernel of each call. A function may serve several layers: the program calls it in
    their order. What TVM made of data movement has the name of its function."""
    layers: dict[str, deque[tuple[str, str]]] = defaultdict(deque)
    named = origins(kernels["main"])
    for var, value in bindings(kernels["main"]):
        if function := kernel_name(value):
            layers[function].append((named[var].label, named[var].node))
    for function in calls:
        name, node = layers[function].popleft() if layers[function] else (function, "")
        attributes = kernels[function].attrs if function in kernels else None
        kernel = str((attributes or {}).get(TEMPLATE, "TVM"))
        yield {"name": name, "node": node, "kernel": kernel, "function": function}
