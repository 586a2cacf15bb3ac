"""What the report says of each layer beside its noise: operator, kernel, cost, where the noise came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .model_graph import Kernel, Node


def with_details(
    rows: Sequence[Mapping[str, Any]],
    graph: Sequence[Node],
    kernels: Mapping[str, Kernel],
    bits: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The rows of `layers`, each with node, operator, kernel, macs, bytes, inputs and change_db.

    bytes: of the constants that its kernel reads and of what it writes, as they are stored. change_db: its
    SQNR less that of the noisiest tensor it reads, dB: below 0 it adds noise. Keys of what is unknown are
    left out, as the kernel of what the target's backend leaves to TVM.
    """
    nodes = {node.name: node for node in graph}
    kernels = _with_joined(kernels, graph)
    macs = {row["name"]: row["macs"] for row in bits}
    noise = {row["name"]: row["sqnr_db"] for row in rows}
    return [{**row, **_details(row, nodes, kernels, macs, noise)} for row in rows]


def _details(
    row: Mapping[str, Any], nodes: Mapping[str, Node], kernels: Mapping[str, Kernel],
    macs: Mapping[str, int], noise: Mapping[str, float | None],
) -> dict[str, Any]:  # fmt: skip
    name = row["name"]
    details: dict[str, Any] = {}
    if (node := nodes.get(name)) is not None:
        inputs = list(dict.fromkeys(source for i in node.inputs for source in _measured(i, nodes, noise)))
        details |= {"node": node.node, "operator": node.operator, "inputs": inputs}
        details["change_db"] = _change(row["sqnr_db"], [noise[i] for i in inputs])
    if (kernel := kernels.get(name)) is not None:
        details |= {"kernel": kernel.template, "bytes": kernel.constant_bytes + kernel.output_bytes}
    return {**details, "macs": macs.get(name, 0)}


def _with_joined(kernels: Mapping[str, Kernel], graph: Sequence[Node]) -> dict[str, Kernel]:
    """The kernels, and for a layer without one that of its only reader, which computes it too: its bytes are
    told there."""
    readers: dict[str, list[str]] = {}
    for node in graph:
        for name in node.inputs:
            readers.setdefault(name, []).append(node.name)
    missing = [node for node in graph if node.name not in kernels and node.quantized]
    joined = {n.name: kernels[r] for n in missing for r in readers.get(n.name, ())[:1] if r in kernels}
    inside = {name: replace(kernel, constant_bytes=0, output_bytes=0) for name, kernel in joined.items()}
    return {**kernels, **inside}


def _measured(name: str, nodes: Mapping[str, Node], noise: Mapping[str, Any]) -> list[str]:
    """The nearest tensors with a row, from `name` backwards."""
    found, waiting, seen = [], [name], {name}
    while waiting:
        tensor = waiting.pop(0)
        if tensor in noise:
            found.append(tensor)
            continue
        behind = [i for i in nodes[tensor].inputs if i not in seen] if tensor in nodes else []
        seen.update(behind)
        waiting += behind
    return found


def _change(own: float | None, read: Sequence[float | None]) -> float | None:
    """None where the layer, or all that it reads, is exact."""
    known = [db for db in read if db is not None]
    return None if own is None or not known else round(own - min(known), 2)
