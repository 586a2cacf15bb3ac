"""A Loop of a known number of turns is written out: the same values as another evaluator's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import model, node, normal, save

from hwptq.errors import UnsupportedError
from hwptq.frontends.onnx.importer import Model, import_onnx
from hwptq.ir.dataflow import bindings, op_name

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def body(again: str = "go", stacked: bool = True, constant: bool | None = None) -> onnx.GraphProto:
    """state <- relu(state * w + turn), its products with x_t, of outside, stacked. again: the condition."""
    nodes = [
        node("Cast", "turn", "real", to=FLOAT),
        node("Mul", "state w", "scaled"),
        node("Add", "scaled real", "sum"),
        node("Relu", "sum", "new", "relu"),
        node("Identity", "go", "same"),
        node("MatMul", "new x_t", "row", "product"),
        node("ReduceSum", "state", "total", keepdims=0),
        node("Greater", "total zero", "computed"),
    ]
    outputs = [(again, BOOL), ("new", FLOAT), *([("row", FLOAT)] if stacked else [])]
    constants = [
        numpy_helper.from_array(np.float32(0.5), "w"),
        numpy_helper.from_array(np.float32(0), "zero"),
    ]
    if constant is not None:
        constants.append(numpy_helper.from_array(np.array(constant), again))
    given = [helper.make_tensor_value_info(n, t, s) for n, t, s in (
        ("turn", INT, []), ("go", BOOL, []), ("state", FLOAT, None)
    )]  # fmt: skip
    results = [helper.make_tensor_value_info(n, t, None) for n, t in outputs]
    return helper.make_graph(nodes, "body", given, results, constants)


def looped(count: int | str = 3, start: bool = True, stacked: bool = True, **of_body: Any) -> onnx.ModelProto:
    """A product before a loop, one behind it; count: a number, or the name of a tensor of the graph."""
    held: dict[str, Any] = {"v": normal(0, 4, 4), "x_t": normal(1, 4, 5), "start": np.array(start)}
    if isinstance(count, int):
        held["count"] = np.int64(count)
    loop = node(
        "Loop", f"{count if isinstance(count, str) else 'count'} start a", "b rows" if stacked else "b",
        "loop", body=body(stacked=stacked, **of_body),
    )  # fmt: skip
    nodes = [
        node("MatMul", "x v", "a", "before"),
        node("Shape", "a", "sizes"),
        node("Gather", "sizes one", "width"),
        loop,
        node("MatMul", "b v", "y", "behind"),
    ]
    return model(nodes, {"x": ["N", 4]}, held | {"one": np.int64(1)}, ["y", *(["rows"] if stacked else [])])


def checked(proto: onnx.ModelProto, folder: Path) -> Model:
    found = import_onnx(save(proto, folder))
    row = found.check({n: normal(i, *s) for i, (n, (s, _)) in enumerate(found.inputs.items())}).row()
    assert row["difference"] is not None, row
    assert row["difference"] < 1e-5
    return found


def count_of(found: Model, kind: str) -> int:
    return sum(op_name(value) == kind for _, value in bindings(found.module["main"]))


@pytest.mark.parametrize(("count", "turns"), [(3, 3), (1, 1), ("width", 4)])
@pytest.mark.parametrize("again", ["go", "same"])
def test_turns_are_written_out(tmp_path: Path, count: int | str, turns: int, again: str) -> None:
    found = checked(looped(count, again=again), tmp_path)
    assert count_of(found, "nn.relu") == turns


def test_a_condition_that_is_a_constant(tmp_path: Path) -> None:
    assert count_of(checked(looped(2, again="ever", constant=True), tmp_path), "nn.relu") == 2


@pytest.mark.parametrize("arguments", [{"count": 0}, {"start": False}])
def test_no_turn_hands_on_what_came(tmp_path: Path, arguments: dict[str, Any]) -> None:
    assert count_of(checked(looped(stacked=False, **arguments), tmp_path), "nn.relu") == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"count": 5000}, "loop.*40000 nodes, more than 20000"),
        ({"count": 0}, "loop.*no turn"),
        ({"again": "computed"}, "loop"),
    ],
)
def test_other_loops_are_refused_by_name(tmp_path: Path, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        import_onnx(save(looped(**arguments), tmp_path))


def counting(start: str = "zero", limit: str = "three") -> onnx.GraphProto:
    """A while loop: state <- relu(state) as long as its own counter, carried along, is below the limit."""
    nodes = [
        node("Add", "count one", "next"),
        node("Cast", "next", "real", to=FLOAT),
        node("Less", f"real {limit}", "again"),
        node("MatMul", "state w", "new", "step"),
    ]
    given = [helper.make_tensor_value_info(n, t, s) for n, t, s in (
        ("turn", INT, []), ("go", BOOL, []), ("count", INT, []), ("state", FLOAT, [2, 4]))]  # fmt: skip
    results = [helper.make_tensor_value_info(n, t, s) for n, t, s in (
        ("again", BOOL, []), ("next", INT, []), ("new", FLOAT, [2, 4]))]  # fmt: skip
    return helper.make_graph(nodes, "body", given, results)


@pytest.mark.parametrize("most", ["", "two"])
def test_a_loop_that_counts_for_itself(most: str, tmp_path: Path) -> None:
    loop = node("Loop", "two yes start x", "counted y", "loop", body=counting())
    constants = {"yes": np.array(True), "start": np.int64(0), "one": np.int64(1), "two": np.int64(2),
                 "three": np.float32(3), "w": normal(1, 4, 4)}  # fmt: skip
    loop.input[0] = most
    proto = model([loop], {"x": [2, 4]}, constants, outputs=["y"])
    imported = import_onnx(save(proto, tmp_path))
    assert imported.check({"x": normal(2, 2, 4)}).difference < 1e-5
    steps = [op_name(value) for _, value in bindings(imported.module["main"])]
    assert steps.count("matmul") == (2 if most else 3)


def test_a_count_of_random_steps_is_refused(tmp_path: Path) -> None:
    body = counting()
    body.node.insert(0, node("RandomUniformLike", "real", "chance"))
    body.node[0].input[0], body.node[3].input[0] = "three", "chance"
    loop = node("Loop", "most yes start x", "counted y", "loop", body=body)
    loop.input[0] = ""
    constants = {"yes": np.array(True), "start": np.int64(0), "one": np.int64(1), "three": np.float32(3),
                 "w": normal(1, 4, 4)}  # fmt: skip
    with pytest.raises(UnsupportedError, match="how often it turns"):
        import_onnx(save(model([loop], {"x": [2, 4]}, constants, outputs=["y"]), tmp_path))


def test_a_count_up_to_what_the_input_says_is_refused(tmp_path: Path) -> None:
    nodes = [
        node("ReduceSum", "x", "limit", keepdims=0),
        node("Loop", "most yes start x", "counted y", "loop", body=counting(limit="limit")),
    ]
    nodes[1].input[0] = ""
    constants = {"yes": np.array(True), "start": np.int64(0), "one": np.int64(1), "w": normal(1, 4, 4)}
    with pytest.raises(UnsupportedError, match="how often it turns is computed from the inputs"):
        import_onnx(save(model(nodes, {"x": [2, 4]}, constants, outputs=["y"]), tmp_path))
