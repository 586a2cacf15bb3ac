"""A Scan over axes of known size is written out: the same values as another evaluator's."""

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

FLOAT = TensorProto.FLOAT


def body(named: str = "w") -> onnx.GraphProto:
    """The next state relu(state * w + row + other), and its product with v, of outside.

    named: what the constant is called, as may be a number that something else has too.
    """
    nodes = [
        node("Mul", f"state {named}", "scaled"),
        node("Sum", "scaled row other", "sum"),
        node("Relu", "sum", "new", "relu"),
        node("MatMul", "new v", "seen", "product"),
    ]
    given, results = (
        [helper.make_tensor_value_info(n, FLOAT, None) for n in names.split()]
        for names in ("state row other", "new seen")
    )
    return helper.make_graph(nodes, "body", given, results, [numpy_helper.from_array(np.float32(0.5), named)])


def scanned(
    steps: int | str = 3, named: str = "w", opset: int = 17, second: int | None = None, **ways: Any
) -> onnx.ModelProto:
    """x [1, T, 4] @ v, scanned along T beside z [U, 1, 4], between two products; the state begins as zero."""
    held = {"v": normal(0, 4, 4), "zero": np.zeros((1, 4), np.float32)}
    held["z"] = normal(1, second or int(steps), 1, 4)
    axes = {"scan_input_axes": [1, 0]} if opset > 8 else {}
    nodes = [
        node("MatMul", "x v", "a", "before"),
        node(
            "Scan", "zero a z", "last seen", "scan",
            body=body(named), num_scan_inputs=2, **axes, **ways,
        ),
        node("MatMul", "last v", "y", "behind"),
    ]  # fmt: skip
    return model(nodes, {"x": ["N", steps, 4]}, held, ["y", "seen"], opset)


def checked(proto: onnx.ModelProto, folder: Path, **axes: int) -> Model:
    found = import_onnx(save(proto, folder), axes)
    row = found.check({n: normal(i, *s) for i, (n, (s, _)) in enumerate(found.inputs.items())}).row()
    assert row["difference"] is not None, row
    assert row["difference"] < 1e-5
    return found


def relus(found: Model) -> int:
    return sum(op_name(value) == "nn.relu" for _, value in bindings(found.module["main"]))


@pytest.mark.parametrize(
    "ways",
    [
        {},
        {"scan_input_directions": [1, 0]},
        {"scan_output_axes": [1], "scan_output_directions": [1]},
        {"scan_input_directions": [0, 1], "scan_output_axes": [-1]},
        {"named": "0"},
        {"opset": 11},
    ],
)
def test_turns_are_written_out(tmp_path: Path, ways: dict[str, Any]) -> None:
    assert relus(checked(scanned(3, **ways), tmp_path)) == 3


def test_a_size_that_is_given(tmp_path: Path) -> None:
    assert relus(checked(scanned("T", second=5), tmp_path, T=5)) == 5


def test_a_scan_in_a_scan(tmp_path: Path) -> None:
    """Rows of rows, whose nodes and tensors are called alike."""
    rows = [helper.make_tensor_value_info(n, FLOAT, None) for n in ("state", "row", "new", "seen")]
    inner = helper.make_graph(
        [node("Add", "state row", "new", "scan"), node("Relu", "new", "seen", "scan")], "inner",
        rows[:2], rows[2:],
    )  # fmt: skip
    outer = helper.make_graph(
        [node("Scan", "state row", "new seen", "scan", body=inner, num_scan_inputs=1)],
        "outer",
        rows[:2],
        rows[2:],
    )
    nodes = [
        node("Relu", "x", "a"),
        node("Squeeze", "a first", "rows"),
        node("Scan", "zero rows", "y seen", "scan", body=outer, num_scan_inputs=1),
    ]
    held = {"zero": np.zeros(2, np.float32), "first": np.array([0])}
    found = checked(model(nodes, {"x": [1, 3, 4, 2]}, held, ["y", "seen"]), tmp_path)
    assert relus(found) == 1 + 3 * 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"steps": 6000}, "scan.*24000 nodes, more than 20000"),
        ({"steps": 3, "second": 4}, "scan.*sizes"),
        ({"steps": 3, "opset": 8}, "scan.*opset"),
    ],
)
def test_other_scans_are_refused_by_name(tmp_path: Path, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        import_onnx(save(scanned(**arguments), tmp_path))
