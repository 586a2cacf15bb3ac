"""Recurrent layers with other functions, bounds and peepholes: what ONNX's formulas say, gate by gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx_models import model, node, normal

from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_proto

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
T, WIDTH, H = 5, 3, 4
FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "Affine": lambda x, a, b: a * x + b,
    "HardSigmoid": lambda x, a=0.2, b=0.5: np.clip(a * x + b, 0, 1),
    "LeakyRelu": lambda x, a=0.01: np.where(x > 0, x, a * x),
    "Relu": lambda x: np.maximum(x, 0),
    "ScaledTanh": lambda x, a, b: a * np.tanh(b * x),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Tanh": np.tanh,
}
USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def layer(cell: str, x: np.ndarray, w: Any, functions: list[Any], how: dict[str, Any]) -> list[np.ndarray]:
    """[states of all steps, the last, the last cell] of one direction and one sequence [steps, width]."""
    weight, recurrent, (wb, rb), state, memory, holes = w
    bound, after = how.get("clip", np.inf), how.get("linear_before_reset", 0)
    f, *others = functions
    hs = []
    cut = lambda v: np.clip(v, -bound, bound)  # noqa: E731
    for row in x:
        a, b = weight @ row + wb, recurrent @ state + rb
        a, b = (v.reshape(GATES[cell], H) for v in (a, b))
        if cell == "RNN":
            state = f(cut(a[0] + b[0]))
        elif cell == "GRU":
            z, r = f(cut(a[0] + b[0])), f(cut(a[1] + b[1]))
            product = r * b[2] if after else recurrent[2 * H :] @ (r * state) + rb[2 * H :]
            state = z * state + (1 - z) * others[0](cut(a[2] + product))
        else:
            i = f(cut(a[0] + b[0] + holes[0] * memory))
            forget = 1 - i if how.get("input_forget") else f(cut(a[2] + b[2] + holes[2] * memory))
            memory = forget * memory + i * others[0](cut(a[3] + b[3]))
            state = f(cut(a[1] + b[1] + holes[1] * memory)) * others[1](memory)
        hs.append(state)
    return [np.array(hs), state, memory]


CASES: list[tuple[str, list[str], dict[str, Any]]] = [
    ("RNN", ["Relu"], {}),
    ("RNN", ["Affine"], {"activation_alpha": [0.7], "activation_beta": [0.1]}),
    ("RNN", ["LeakyRelu"], {"activation_alpha": [0.2]}),
    ("GRU", ["HardSigmoid", "Tanh"], {"linear_before_reset": 1}),
    ("GRU", ["Sigmoid", "Relu"], {}),
    ("GRU", ["Sigmoid", "Softsign"], {"clip": 0.4}),
    ("LSTM", ["HardSigmoid", "Tanh", "Tanh"], {"activation_alpha": [0.3], "activation_beta": [0.4]}),
    ("LSTM", ["Sigmoid", "Relu", "Relu"], {}),
    ("LSTM", ["Sigmoid", "ScaledTanh", "Tanh"], {"activation_alpha": [1.7], "activation_beta": [0.6]}),
    ("LSTM", [], {"clip": 0.5, "input_forget": 1}),
    ("LSTM", [], {"peepholes": 1}),
]


@pytest.mark.parametrize(
    ("direction", "batch_first", "opset"), [("forward", 1, 17), ("reverse", 0, 17), ("bidirectional", 0, 11)]
)
@pytest.mark.parametrize(("cell", "functions", "how"), CASES, ids=str)
def test_outputs(
    cell: str, functions: list[str], how: dict[str, Any], direction: str, batch_first: int, opset: int
) -> None:
    both = 2 if direction == "bidirectional" else 1
    rows, held = GATES[cell] * H, {key: v for key, v in how.items() if key != "peepholes"}
    weights = {
        "W": normal(1, both, rows, WIDTH, spread=0.6), "R": normal(2, both, rows, H, spread=0.6),
        "b": normal(3, both, 2 * rows, spread=0.4), "h": normal(4, both, 1, H), "c": normal(5, both, 1, H),
        "p": normal(6, both, 3 * H),
    }  # fmt: skip
    holes = weights["p"] if "peepholes" in how else np.zeros((both, 3 * H), np.float32)
    of_gates = [str(name) for name in functions or USUAL[cell]]
    if functions:
        held |= {"activations": functions * both}
        for name in ("activation_alpha", "activation_beta"):
            held |= {name: how[name] * both} if name in how else {}
    inputs = "x W R b - h" + (" c" if cell == "LSTM" else "") + (" p" if "peepholes" in how else "")
    constants = {n: a for n, a in weights.items() if n in inputs.split()}
    if batch_first:
        held |= {"layout": 1}
        constants |= {n: constants[n].swapaxes(0, 1) for n in "hc" if n in constants}
    outputs = ["Y", "Yh", *(["Yc"] if cell == "LSTM" else [])]
    one = node(cell, inputs, " ".join(outputs), "cell", hidden_size=H, direction=direction, **held)
    x = normal(9, T, 1, WIDTH)
    given = x.swapaxes(0, 1) if batch_first else x
    proto = model([one], {"x": given.shape}, constants, outputs, opset=max(opset, 14 if batch_first else 0))
    found = Interpreter(import_proto(proto, "model").module).run({"x": given})
    params = [
        [v for key in ("activation_alpha", "activation_beta") for v in how.get(key, [])]
        if i == _bent(of_gates)
        else []
        for i in range(len(of_gates))
    ]
    called = [(lambda v, n=n, p=p: FUNCTIONS[n](v, *p)) for n, p in zip(of_gates, params, strict=True)]
    wanted = []
    for d in range(both):
        back = direction == "reverse" or d == 1
        tensors = (weights["W"][d], weights["R"][d], weights["b"][d].reshape(2, -1))
        states = weights["h"][d, 0], weights["c"][d, 0], holes[d].reshape(3, H)
        every, last, memory = layer(cell, x[::-1, 0] if back else x[:, 0], (*tensors, *states), called, how)
        wanted.append((every[::-1] if back else every, last, memory))
    for i, mine in enumerate(found):
        theirs = np.stack([w[i] for w in wanted], axis=1 if i == 0 else 0)  # [T, D, H], or [D, H]
        theirs = theirs[None] if batch_first else np.expand_dims(theirs, theirs.ndim - 1)
        np.testing.assert_allclose(mine, theirs, atol=3e-6)


def _bent(names: list[str]) -> int:
    """The gate whose function has parameters."""
    return next((i for i, n in enumerate(names) if n not in ("Relu", "Sigmoid", "Softsign", "Tanh")), -1)


@pytest.mark.parametrize("computed", ["w", "r", "b", "p"])
def test_weights_that_are_computed_are_refused(computed: str) -> None:
    """They passed for none where they were biases or peepholes."""
    shapes = {"w": (1, 4 * H, WIDTH), "r": (1, 4 * H, H), "b": (1, 8 * H), "p": (1, 3 * H)}
    constants = {
        name: normal(i, *shape) for i, (name, shape) in enumerate(shapes.items()) if name != computed
    }
    lstm = node("LSTM", "x w r b - - - p", "y", "lstm", hidden_size=H, activations=["Relu", "Tanh", "Tanh"])
    proto = model([lstm], {"x": [T, 1, WIDTH], computed: list(shapes[computed])}, constants)
    with pytest.raises(UnsupportedError, match=r"node 'lstm' \(LSTM\): its weights, .* are computed"):
        import_proto(proto, "model")
