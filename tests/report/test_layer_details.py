"""What the report says of a layer beside its noise, and where the tensors of the arena are."""

from __future__ import annotations

import pytest

from hwptq.page.charts.layers_layout import layout
from hwptq.report.layer_details import with_details
from hwptq.report.model_graph import Kernel, Node


def _node(name: str, *inputs: str) -> Node:
    return Node(name, name, "conv2d", "int8", inputs, True)


def test_a_change_is_against_the_noisiest_tensor_read_through_what_has_no_row() -> None:
    graph = [_node("a"), _node("b"), _node("moved", "a"), _node("sum", "moved", "b"), _node("exact", "sum")]
    noise = {"a": 40.0, "b": 30.0, "sum": 28.5, "exact": None}
    rows = [{"name": name, "sqnr_db": db} for name, db in noise.items()]
    found = {row["name"]: row for row in with_details(rows, graph, {}, [])}
    assert found["sum"]["inputs"] == ["a", "b"] or found["sum"]["inputs"] == ["b", "a"]
    assert found["sum"]["change_db"] == -1.5
    assert found["exact"]["change_db"] is None
    assert "kernel" not in found["sum"]


def test_a_layer_without_a_kernel_has_that_of_its_reader_whose_bytes_count_once() -> None:
    graph = [_node("conv"), _node("add", "conv")]
    kernels = {"add": Kernel("dot_product", "f", 100, 20)}
    rows = [{"name": "conv", "sqnr_db": 40.0}, {"name": "add", "sqnr_db": 39.0}]
    conv, add = with_details(rows, graph, kernels, [{"name": "conv", "macs": 7}])
    assert (conv["kernel"], conv["bytes"], conv["macs"]) == ("dot_product", 0, 7)
    assert (add["kernel"], add["bytes"], add["macs"]) == ("dot_product", 120, 0)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_nodes_lie_below_what_they_read_and_no_edge_runs_through_one(length: int) -> None:
    chain = {"0": [], **{str(i): [str(i - 1)] for i in range(1, length + 1)}}
    graph = {**chain, "end": [str(length), "0"]}
    places, edges = layout(graph)
    assert len(set(places.values())) == len(graph)
    assert all(places[source][1] < places[name][1] for name, read in graph.items() for source in read)
    assert not {spot for edge in edges for spot in edge[1:-1]} & set(places.values())
