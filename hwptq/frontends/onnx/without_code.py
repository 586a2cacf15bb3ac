"""Operators that no code can be made for are refused by the name of their node, before the import."""

from __future__ import annotations

from collections.abc import Container

import onnx

from hwptq.errors import WithoutCode

from .read_file import node_name

#: ONNX's own operators, and those that ONNX Runtime adds.
_DOMAINS = ("", "ai.onnx", "com.microsoft")
#: Operators whose results have as many elements as the values say.
_SIZED_BY_VALUES = ("Compress", "NonMaxSuppression", "NonZero", "Unique")


def refuse_without_code(graph: onnx.GraphProto, known: Container[str], path: str) -> None:
    """Raise WithoutCode at the first node that has no code; known: operators that have a converter."""
    for node in graph.node:
        at = f"{path}: {node_name(node)}"
        if node.domain not in _DOMAINS:  # TVM looks at the name of an operator only
            raise WithoutCode(
                f"{at}: this operator of domain {node.domain} is not known; export the model without it"
            )
        refuse_sized_by_values(node, at)
        if node.op_type not in known:
            raise WithoutCode(f"{at}: this operator is not known; write it with others")


def refuse_sized_by_values(node: onnx.NodeProto, at: str) -> None:
    """Raise WithoutCode for one of those, which an error calls `at`."""
    if node.op_type in _SIZED_BY_VALUES:
        raise WithoutCode(f"{at}: the size of its result depends on values, and code has fixed sizes")


def has_code(node: onnx.NodeProto, known: Container[str]) -> bool:
    """Whether none of these refuses the node."""
    return node.domain in _DOMAINS and node.op_type in known and node.op_type not in _SIZED_BY_VALUES
