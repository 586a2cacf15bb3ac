"""Inputs that always have one value: what they decide is decided, and they are no inputs any more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import model, node, normal, save

import hwptq
from hwptq.errors import InputError, UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.frontend import read_model


def _branches() -> onnx.ModelProto:
    """y = x @ (a if rate == 16000 else b); rate is a scalar, int64."""
    halves = [
        helper.make_graph(
            [node("MatMul", f"x {w}", "p")],
            w,
            [],
            [helper.make_tensor_value_info("p", TensorProto.FLOAT, None)],
        )
        for w in "ab"
    ]
    nodes = [
        node("Equal", "rate k", "c"),
        node("If", "c", "y", "choice", then_branch=halves[0], else_branch=halves[1]),
    ]
    proto = model(nodes, {"x": [1, 4]}, {"a": normal(1, 4, 3), "b": normal(2, 4, 3), "k": np.int64(16000)})
    proto.graph.input.append(helper.make_tensor_value_info("rate", TensorProto.INT64, []))
    return proto


X = normal(3, 1, 4)


@pytest.mark.parametrize(("rate", "weights"), [(16000, "a"), (8000, "b")])
def test_a_fixed_input_decides_a_branch(rate: int, weights: str):
    proto = _branches()
    with pytest.raises(UnsupportedError, match=r"'choice'.*--fix rate=VALUE"):
        read_model(proto)
    found = read_model(proto, None, {"rate": rate})
    assert list(found.inputs) == ["x"]
    held = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    (y,) = Interpreter(found.module).run({"x": X})
    np.testing.assert_allclose(y, X @ held[weights], rtol=1e-6)
    assert found.check({"x": X}).difference is not None


def test_all_elements_of_an_input_of_symbolic_size_have_the_value():
    proto = model([node("Mul", "x s", "p"), node("MatMul", "p w", "y")],
                  {"x": [1, "n"], "s": [1, "n"]}, {"w": normal(1, 4, 3)})  # fmt: skip
    found = read_model(proto, {"n": 4}, {"s": 0.5})
    (y,) = Interpreter(found.module).run({"x": X})
    np.testing.assert_allclose(y, (X / 2) @ normal(1, 4, 3), rtol=1e-6)


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"speed": 1}, "no such input; it has x, rate"),
        ({"rate": 0.5}, "holds int64, which has no such value"),
        ({"rate": float("nan")}, "holds int64"),
        ({"x": float("inf"), "rate": 1}, "no input is left"),
        ({"x": float("inf")}, "holds float32, which has no such value"),
    ],
)
def test_what_can_not_be_fixed(fixed: dict[str, float], message: str):
    with pytest.raises(InputError, match=message):
        read_model(_branches(), None, fixed)


def test_other_frontends_say_so():
    with pytest.raises(InputError, match="--fix x: is for ONNX"):
        read_model(read_model(_branches(), None, {"rate": 1}).module, None, {"x": 1})


def test_a_program_has_no_such_input(tmp_path: Path):
    path = save(_branches(), tmp_path)
    np.savez(tmp_path / "data.npz", x=normal(4, 20, 4))
    done = hwptq.compile(path, "x86-64-avx2", tmp_path / "data.npz", output=tmp_path / "out",
                         fixed={"rate": 8000}, recipe="fast")  # fmt: skip
    assert [given.name for given in hwptq.load(tmp_path / "out").inputs] == ["x"]
    assert done.report["bit_exact"]["mismatches"] == 0
    assert done.report["observer"] == "minmax"
    assert "rate" not in {w["where"] for w in done.report["warnings"]}


def test_data_of_another_value_is_warned_of(tmp_path: Path):
    path = save(_branches(), tmp_path)
    np.savez(tmp_path / "data.npz", x=normal(4, 20, 4), rate=np.full(20, 16000))
    done = hwptq.compile(path, "x86-64-avx2", tmp_path / "data.npz", output=tmp_path / "out",
                         fixed={"rate": 8000}, recipe="fast")  # fmt: skip
    assert "is fixed to 8000" in {w["where"]: w["text"] for w in done.report["warnings"]}["rate"]
