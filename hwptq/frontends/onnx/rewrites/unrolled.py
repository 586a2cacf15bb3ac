"""Loop and Scan whose number of turns is known: the nodes of all turns."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from hwptq.errors import UnsupportedError

from .inlined import unused_prefix
from .known_loops import turns_of_loop
from .known_scans import turns_of_scan
from .surroundings import Surroundings
from .turns import written_out

#: The opset since which Scan has no axis of samples.
_WITHOUT_BATCH = 9


def unroll_known_loops(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Change a model in place; whether there was a Loop or Scan of a known number of turns. Nodes have names.

    Raises UnsupportedError where its turns are too many nodes, or none that leaves something to stack.
    """
    graph = model.graph
    around = Surroundings(graph, shapes)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    nodes: list[onnx.NodeProto] = []
    unrolled = False
    for node in graph.node:
        turns = None
        if node.op_type == "Loop":
            turns = turns_of_loop(node, unused_prefix(graph, node.name), around, graph)
        elif node.op_type == "Scan" and node.domain in ("", "ai.onnx"):
            if opset < _WITHOUT_BATCH:
                raise UnsupportedError(f"node {node.name!r} (Scan): export the model with opset 9 or newer")
            turns = turns_of_scan(node, unused_prefix(graph, node.name), around, graph, nodes)
        unrolled |= turns is not None
        nodes += [node] if turns is None else written_out(turns, graph, opset)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return unrolled
