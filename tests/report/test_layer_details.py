"""What the report says of a layer beside its noise, and where the tensors of the arena are."""

from __future__ import annotations

import pytest
from onnx_models import model, node, normal

from hwptq import passes
from hwptq.data.dataset import from_batches
from hwptq.frontends.onnx.importer import import_proto
from hwptq.ir.provenance import origins
from hwptq.options import Options
from hwptq.page.charts.layers_layout import layout
from hwptq.pipeline.stages import insert, integers, prepare
from hwptq.pipeline.step import Job
from hwptq.recipe import Recipe
from hwptq.report.coverage import integer_nodes
from hwptq.report.layer_details import with_details
from hwptq.report.model_graph import Kernel, Node, kernels_of, model_graph
from hwptq.targets import load_target

TARGET = load_target("x86-64-avx2")


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


def test_a_step_that_was_measured_has_an_operator_and_a_kernel() -> None:
    """A PRelu is a relu and a depthwise convolution, which the file knows nothing of."""
    weights = {"w": normal(0, 8, 3, 3, 3), "s": abs(normal(1, 8, 1, 1))}
    nodes = [
        node("Conv", "x w", "c", "conv"),
        node("PRelu", "c s", "p", "prelu"),
        node("Exp", "p", "y", "exp"),
    ]
    found = import_proto(model(nodes, {"x": ["N", 3, 8, 8]}, weights), "model")
    data = [{"x": normal(2, 1, 3, 8, 8)}]
    job = Job(TARGET, from_batches(data, found.inputs), Options(recipe=Recipe(rounding="nearest")))
    integer = integers(insert(prepare(found.module, job), job), job)
    kernels = passes.SelectKernels(TARGET)(integer)
    named = origins(integer["main"])
    labels = {named[var].label for var, _, _ in integer_nodes(integer) if named[var].step}
    rows = [{"name": label, "sqnr_db": 30.0} for label in labels]
    told = with_details(rows, model_graph(integer, labels), kernels_of(kernels, labels), [])
    assert {row["operator"] for row in told} == {"lookup", "conv2d"}
    assert all("kernel" in row for row in told)
    assert not labels & {n.name for n in model_graph(integer)}
    assert not labels & set(kernels_of(kernels))


@pytest.mark.parametrize("length", [1, 2, 5])
def test_nodes_lie_below_what_they_read_and_no_edge_runs_through_one(length: int) -> None:
    chain = {"0": [], **{str(i): [str(i - 1)] for i in range(1, length + 1)}}
    graph = {**chain, "end": [str(length), "0"]}
    places, edges = layout(graph)
    assert len(set(places.values())) == len(graph)
    assert all(places[source][1] < places[name][1] for name, read in graph.items() for source in read)
    assert not {spot for edge in edges for spot in edge[1:-1]} & set(places.values())
