"""What was imported is compared with the file: shapes by ONNX's inference, values by another evaluator."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import model, node, normal, save
from tvm import relax

from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx import check_import, importer, operators
from hwptq.frontends.onnx.importer import import_onnx

X = normal(9, 1, 2, 6, 5)
NODES = [
    node("Conv", "x w", "a", "first", pads=[1, 1, 1, 1]),
    node("MaxPool", "a", "b", "second", kernel_shape=[2, 2]),
    node("Softmax", "b", "c", "third", axis=1),
    node("Relu", "c", "y", "fourth"),
]
PROTO = model(NODES, {"x": ["N", 2, 6, 5]}, {"w": normal(0, 3, 2, 3, 3)})


def sabotaged(monkeypatch: pytest.MonkeyPatch, op: str, wrong: Callable[..., Any]) -> None:
    """Have the importer convert an operator wrongly."""
    monkeypatch.setitem(operators._CONVERTERS, op, wrong)


def test_a_right_import_passes(tmp_path: Path):
    row = import_onnx(save(PROTO, tmp_path)).check({"x": X}).row()
    assert row["shapes"] is True
    assert re.match(r"onnx(runtime|\.reference) \d", row["values"])
    assert row["difference"] < 1e-6
    assert row["reason"] is None


def test_the_first_node_with_wrong_values_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sabotaged(monkeypatch, "Softmax", lambda given, attrs: relax.op.nn.softmax(given[0], axis=2))
    imported = import_onnx(save(PROTO, tmp_path))
    with pytest.raises(UnsupportedError, match=r"node 'third' \(Softmax\) was imported wrongly"):
        imported.check({"x": X})


def test_the_first_node_with_a_wrong_shape_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pool = relax.op.nn.max_pool2d
    sabotaged(monkeypatch, "MaxPool", lambda given, attrs: pool(given[0], (2, 2), padding=(1, 1, 1, 1)))
    message = r"node 'second' \(MaxPool\) was imported with the shape .*, where the model has \[1, 3, 5, 4\]"
    with pytest.raises(UnsupportedError, match=message):
        import_onnx(save(PROTO, tmp_path))


def test_infinities_and_nan_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    proto = model([node("Log", "x", "y", "log")], {"x": [1, 3]})
    path, x = save(proto, tmp_path), np.float32([[0, -1, 2]])
    import_onnx(path).check({"x": x})
    sabotaged(monkeypatch, "Log", lambda given, attrs: relax.op.abs(given[0]))
    with pytest.raises(UnsupportedError, match="node 'log'"):
        import_onnx(path).check({"x": x})


def test_random_numbers_end_the_comparison(tmp_path: Path):
    nodes = [*NODES[:1], node("RandomNormalLike", "a", "r", "noise"), node("Add", "a r", "y", "sum")]
    proto = model(nodes, {"x": ["N", 2, 6, 5]}, {"w": normal(0, 3, 2, 3, 3)})
    imported = check_import.Imported(proto, *[import_onnx(save(PROTO, tmp_path)).module] * 2, {}, {})
    monkey = check_import.by_reference(imported.proto, {"x": X}, 10)
    assert set(monkey.values) >= {"a"}
    assert "node 'noise' (RandomNormalLike) draws random numbers" in monkey.reason


def test_time_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(check_import, "by_runtime", lambda *_: None)
    monkeypatch.setattr(check_import, "SECONDS", -1.0)
    row = import_onnx(save(PROTO, tmp_path)).check({"x": X}).row()
    assert "was not reached" in row["reason"]
    assert row["difference"] is None
    monkeypatch.setattr(check_import, "_MOST_MACS", 10)
    assert "multiply-accumulates" in import_onnx(save(PROTO, tmp_path)).check({"x": X}).reason


@pytest.mark.parametrize("dtype", [TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_other_floats_are_compared_in_float32(tmp_path: Path, dtype: int):
    weight = helper.make_tensor("w", dtype, [4, 3], normal(0, 12).tolist())
    proto = model([node("MatMul", "x w", "y", "product")], {"x": ["N", 4]}, dtype=dtype)
    proto.graph.initializer.append(weight)
    imported = import_onnx(save(proto, tmp_path))
    assert imported.inputs == {"x": ((1, 4), "float32")}
    assert (imported.check({"x": normal(1, 1, 4)}).difference or 0.0) < 1e-6
    [warning] = imported.warnings
    assert (warning.kind, onnx.TensorProto.DataType.Name(dtype).lower() in warning.text) == (
        "dtype",
        dtype == TensorProto.BFLOAT16,
    )


def test_what_has_no_code_is_refused_in_one_line(tmp_path: Path):
    proto = model([node("Shape", "x", "y", "shape")], {"x": ["N", 3]})
    imported = import_onnx(save(proto, tmp_path))
    with pytest.raises(UnsupportedError, match="was imported, but can't be computed: ") as caught:
        imported.check({"x": normal(0, 1, 3)})
    assert "\n" not in str(caught.value)


def test_the_model_given_is_what_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not what the importer's own steps made of it."""
    seen = []
    path = save(PROTO, tmp_path)
    original = importer.simplified

    def wrong(*given: Any) -> tuple[onnx.ModelProto, list[Any]]:
        folded, warned = original(*given)
        folded.graph.node[2].attribute[0].i = 2  # softmax over another axis
        seen.append(folded)
        return folded, warned

    monkeypatch.setattr(importer, "simplified", wrong)
    imported = import_onnx(path)
    with pytest.raises(UnsupportedError, match="third"):
        imported.check({"x": X})


def coded(op: str) -> onnx.ModelProto:
    """x -> op -> codes with steps of 1 -> their values."""
    nodes = [
        node(op, "x k", "a", "first"),
        node("QuantizeLinear", "a one zero", "q", "codes"),
        node("DequantizeLinear", "q one zero", "y", "values"),
    ]
    return model(nodes, {"x": [1, 8]}, {"k": np.float32(1), "one": np.float32(1), "zero": np.int8(0)})


def test_near_ties_of_codes_are_no_fault_and_the_user_is_warned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """0.5 is rounded to 0, and to 1 where it is ever so little more."""
    more = np.float32(1 + 1e-6)
    sabotaged(monkeypatch, "Mul", lambda given, attrs: relax.op.multiply(given[0], relax.const(more)))
    found = import_onnx(save(coded("Mul"), tmp_path)).check({"x": np.full((1, 8), 0.5, np.float32)})
    row = found.row()
    assert row["difference"] > 1
    assert "near-ties" in row["reason"]
    (warning,) = found.warnings
    assert warning.kind == "import"
    assert "near-ties" in warning.text


def test_a_comparison_that_was_made_warns_of_nothing(tmp_path: Path):
    path = save(model([node("Relu", "x", "y", "only")], {"x": [1, 8]}, {}), tmp_path)
    assert import_onnx(path).check({"x": np.ones((1, 8), np.float32)}).warnings == ()


def test_a_wrong_node_among_codes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sabotaged(monkeypatch, "Mul", lambda given, attrs: relax.op.add(given[0], given[0]))
    imported = import_onnx(save(coded("Mul"), tmp_path))
    with pytest.raises(UnsupportedError, match=r"node 'first' \(Mul\) was imported wrongly"):
        imported.check({"x": normal(1, 1, 8, spread=9)})


FLATTENED = [("Softmax", 0), ("Softmax", 1), ("LogSoftmax", 2), ("Softmax", None)]


@pytest.mark.parametrize(("op", "axis"), FLATTENED)
def test_softmax_before_opset_13_is_over_all_axes_behind(op: str, axis: int | None, tmp_path: Path) -> None:
    attributes = {} if axis is None else {"axis": axis}
    proto = model([node(op, "x", "y", **attributes)], {"x": [2, 3, 4, 5]}, opset=11)
    imported = import_onnx(save(proto, tmp_path))
    x = normal(3, 2, 3, 4, 5)
    assert imported.check({"x": x}).difference < 1e-6
    (y,) = Interpreter(imported.module).run({"x": x})
    total = np.exp(y) if op == "LogSoftmax" else y
    np.testing.assert_allclose(total.sum(axis=tuple(range(1 if axis is None else axis, 4))), 1, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 4, 5, 3)])
def test_maxima_of_signals_and_volumes(shape: tuple[int, ...], tmp_path: Path) -> None:
    proto = model([node("GlobalMaxPool", "x", "y")], {"x": list(shape)})
    assert import_onnx(save(proto, tmp_path)).check({"x": normal(1, *shape)}).difference == 0


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_sequences_end_where_they_end(op: str, gates: int, direction: str, tmp_path: Path) -> None:
    """onnx.reference alone would take each for as long as the longest."""
    ways = 2 if direction == "bidirectional" else 1
    weights = {"w": normal(1, ways, 4 * gates, 3), "r": normal(2, ways, 4 * gates, 4),
               "b": normal(3, ways, 8 * gates), "n": np.array([5, 2], np.int32)}  # fmt: skip
    layer = node(op, "x w r b n", "y last", hidden_size=4, direction=direction)
    proto = model([layer], {"x": [5, 2, 3]}, weights, outputs=["y", "last"])
    imported = import_onnx(save(proto, tmp_path))
    assert imported.check({"x": normal(4, 5, 2, 3)}).difference < 1e-5
    y, _ = Interpreter(imported.module).run({"x": normal(4, 5, 2, 3)})
    assert not y[2:, :, 1].any()
    assert y[:2, :, 1].all()


@pytest.mark.parametrize("declared", [[1, "n"], [-1, 2, 3, 4]])
def test_a_shape_that_an_output_does_not_have(declared: list[Any], tmp_path: Path) -> None:
    """Runtimes go by the nodes; where the rank differs, the user is told."""
    nodes = [node("Shape", "x", "s"), node("Reshape", "x s", "y", "reshape")]
    proto = model(nodes, {"x": ["n", 2, 3, 4]})
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, declared))
    imported = import_onnx(save(proto, tmp_path))
    assert imported.check({"x": normal(1, 1, 2, 3, 4)}).difference == 0
    assert len(imported.warnings) == (len(declared) != 4)


def test_a_shape_that_only_the_importer_gives_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the file nor inference says it, and nobody computes it beside the importer."""
    proto = model([node("Relu", "x", "y")], {"x": [1, 2, 3]})
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [7]))
    monkeypatch.setattr(check_import, "static_shapes", lambda _: {})
    imported = import_onnx(save(proto, tmp_path))
    assert imported.check({"x": normal(1, 1, 2, 3)}).difference == 0
    with pytest.raises(UnsupportedError, match=r"output 'y' was imported with the shape \[1, 2, 3\]"):
        imported.check(None)


def test_an_output_without_a_type(tmp_path: Path) -> None:
    proto = model([node("Relu", "x", "y")], {"x": [2, 3]})
    proto.graph.output[0].ClearField("type")
    assert import_onnx(save(proto, tmp_path)).check({"x": normal(1, 2, 3)}).difference == 0


def test_an_order_may_turn_on_values_that_are_near_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    """Rows change places by the noise of float32, and no node is wrong; a node that is wrong is named."""
    nodes = [
        node("Relu", "x", "a", "first"), node("TopK", "a k", "best places", "order", axis=1),
        node("Gather", "table places", "y", "rows"),
    ]  # fmt: skip
    constants = {"k": np.array([8]), "table": normal(0, 8, 3)}
    path = save(model(nodes, {"x": [1, 8]}, constants), tmp_path)
    x = np.float32(1) + np.arange(8, dtype=np.float32)[None] * np.float32(1e-6)
    for noise, slope in ((0.0, None), (-2e-6, "near each other"), (-1.0, "first")):
        tilt = np.arange(8, dtype=np.float32)[None] * np.float32(noise)
        sabotaged(monkeypatch, "Relu", lambda given, attrs, t=tilt: relax.op.add(given[0], relax.const(t)))
        found = import_onnx(path)
        if slope == "first":
            with pytest.raises(UnsupportedError, match=r"'first' \(Relu\) was imported wrongly"):
                found.check({"x": x})
        else:
            assert (slope or "None") in str(found.check({"x": x}).row()["reason"])


def test_places_along_a_long_axis_are_evaluated(tmp_path: Path):
    nodes = [
        node("Cast", "x", "i", to=TensorProto.INT64),
        node("GatherElements", "t i", "y", "rows", axis=-2),
    ]
    proto = model(nodes, {"x": [1, 5, 2]}, {"t": normal(0, 1, 100, 3)})
    x = np.float32([[[0, 1], [-1, 99], [70, -100], [3, 3], [65, 64]]])
    row = import_onnx(save(proto, tmp_path)).check({"x": x}).row()
    assert (row["difference"], row["reason"]) == (0.0, None)


def test_truth_values_are_compared(tmp_path: Path):
    nodes = [
        node("Cast", "x", "b", to=TensorProto.BOOL),
        node("Equal", "b t", "e", "same"),
        node("Cast", "e", "y", to=1),
    ]
    found = import_onnx(save(model(nodes, {"x": [1, 2]}, {"t": np.array([True, True])}), tmp_path))
    np.testing.assert_array_equal(Interpreter(found.module).run({"x": np.float32([[0, 2]])})[0], [[0, 1]])
