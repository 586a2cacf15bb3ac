"""LSTM, GRU and RNN of ONNX: what is imported computes the same as elsewhere, or is refused in a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from onnx_models import expected, model, node, normal

from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_proto

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
T, WIDTH, H = 5, 3, 4


def layer(op: str, inputs: str = "x W R b", outputs: str = "", batch: int = 1, **attributes: Any) -> Any:
    """A model of one layer; its outputs are all that it has."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[op] * H
    constants = {
        "W": normal(1, directions, rows, WIDTH, spread=0.6),
        "R": normal(2, directions, rows, H, spread=0.6),
        "b": normal(3, directions, 2 * rows, spread=0.4),
        "h0": normal(4, directions, batch, H, spread=0.4),
        "c0": normal(5, directions, batch, H),
        "p": normal(6, directions, 3 * H),
    }
    outputs = outputs or ("Y Yh Yc" if op == "LSTM" else "Y Yh")
    used = {name: array for name, array in constants.items() if name in inputs.split()}
    one = node(op, inputs, outputs, "cell", hidden_size=H, **attributes)
    return model([one], {"x": (T, batch, WIDTH)}, used, outputs.split())


def computed(proto: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    return Interpreter(import_proto(proto, "model").module).run(inputs)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize(("direction", "batch"), [("forward", 1), ("reverse", 2), ("bidirectional", 1)])
@pytest.mark.parametrize("inputs", ["x W R", "x W R b", "x W R b - h0"])
def test_outputs(op: str, direction: str, batch: int, inputs: str) -> None:
    if "h0" in inputs and op == "LSTM":
        inputs += " c0"
    proto = layer(op, inputs, batch=batch, direction=direction)
    x = {"x": normal(9, T, batch, WIDTH)}
    onnxruntime = pytest.importorskip("onnxruntime")  # the reference of ONNX knows one direction only
    wanted = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, x)
    for mine, theirs in zip(computed(proto, x), wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-6)


@pytest.mark.parametrize("after", [0, 1])
def test_reset_gate_before_or_after_the_product(after: int) -> None:
    proto, x = layer("GRU", linear_before_reset=after), {"x": normal(9, T, 1, WIDTH)}
    for mine, theirs in zip(computed(proto, x), expected(proto, x), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-6)


def test_sequences_of_different_lengths_end_in_zeros() -> None:
    proto = layer("LSTM", "x W R b n", batch=2)
    lengths = np.array([2, 5], np.int32)
    proto.graph.initializer.append(numpy_helper.from_array(lengths, "n"))
    x = normal(9, T, 2, WIDTH)
    states, hidden, cell = computed(proto, {"x": x})
    whole = layer("LSTM", batch=2)
    (long, *_), (short, last, end) = (expected(whole, {"x": part}) for part in (x, x[:2]))
    np.testing.assert_allclose(states[:, :, 1], long[:, :, 1], atol=2e-6)
    np.testing.assert_allclose(states[:2, :, 0], short[:, :, 0], atol=2e-6)
    assert not states[2:, :, 0].any()
    np.testing.assert_allclose(hidden[:, 0], last[:, 0], atol=2e-6)
    np.testing.assert_allclose(cell[:, 0], end[:, 0], atol=2e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activations": ["Sigmoid", "Swish", "Tanh"]}, r"'cell' \(LSTM\).*the function 'Swish'"),
        ({"inputs": "x W R b n", "clip": 3.0}, r"'cell' \(LSTM\).*clip or input_forget"),
    ],
)
def test_what_has_no_arithmetic_is_refused(arguments: dict[str, Any], message: str) -> None:
    proto = layer("LSTM", **arguments)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2], np.int32), "n"))
    with pytest.raises(UnsupportedError, match=message):
        import_proto(proto, "model")


def test_many_steps_of_other_functions_are_refused() -> None:
    proto = model(
        [node("RNN", "x W R", "Y", "cell", hidden_size=H, activations=["Relu"])],
        {"x": (2000, 1, WIDTH)}, {"W": normal(1, 1, H, WIDTH), "R": normal(2, 1, H, H)},
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"'cell' \(RNN\).*2000 steps are too many"):
        import_proto(proto, "model")
