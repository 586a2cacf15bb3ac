"""Gradients equal what the outputs do when an input changes a little."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from relax_graphs import const
from tvm import relax

from hwptq.evaluate.interpret import Interpreter
from hwptq.gradients.program import NotDifferentiable, Program
from hwptq.ir.dataflow import bindings

op, nn = relax.op, relax.op.nn


class Matrix:
    """A dense layer that keeps the gradient of its weight [K, O]."""

    def __init__(self, weight: np.ndarray):
        self.weight, self.gradient = weight, np.zeros_like(weight)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weight

    def backward(self, x: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        self.gradient += x.reshape(-1, x.shape[-1]).T @ gradient.reshape(-1, gradient.shape[-1])
        return gradient @ self.weight.T


def _attention(emit, x):
    heads = emit(op.permute_dims(emit(op.reshape(x, (1, 3, 2, 4))), [0, 2, 1, 3]))
    scores = emit(op.matmul(heads, emit(op.permute_dims(heads, [0, 1, 3, 2]))))
    shares = emit(nn.softmax(emit(op.add(scores, const(3, 3, seed=5))), axis=-1))
    mixed = emit(op.matmul(shares, heads))
    return emit(op.reshape(emit(op.permute_dims(mixed, [0, 2, 1, 3])), (1, 3, 8)))


def _turned(emit, x):
    low = emit(op.strided_slice(x, [2], [0], [4]))
    high = emit(op.negative(emit(op.strided_slice(x, [-1], [4], [8]))))
    return emit(op.multiply(emit(op.concat([high, low], axis=-1)), const(3, 8, seed=6)))


def _parts(emit, x):
    a, _, b = (emit(part) for part in (lambda s: [s[0], s[1], s[2]])(emit(op.split(x, [2, 5], axis=2))))
    wide = emit(op.broadcast_to(emit(op.expand_dims(a, 1)), (1, 2, 3, 2)))
    return emit(op.concat([emit(op.reshape(wide, (1, 3, 4))), b], axis=2))


def _positive(emit, x):
    return emit(op.add(emit(op.multiply(x, x)), relax.const(np.float32(0.5))))


CASES = {
    "attention": _attention,
    "rotation": _turned,
    "parts": _parts,
    "rms norm": lambda emit, x: emit(nn.rms_norm(x, const(8, seed=1), axes=[-1])),
    "layer norm": lambda emit, x: emit(nn.layer_norm(x, const(8, seed=1), const(8, seed=2), axes=[-1])),
    "silu": lambda emit, x: emit(nn.silu(x)),
    "gelu": lambda emit, x: emit(nn.gelu(x)),
    "gelu tanh": lambda emit, x: emit(nn.gelu_tanh(x)),
    "sigmoid": lambda emit, x: emit(op.multiply(x, emit(op.sigmoid(x)))),
    "erf": lambda emit, x: emit(op.multiply(x, emit(op.erf(x)))),
    "tanh": lambda emit, x: emit(op.tanh(x)),
    "exp": lambda emit, x: emit(op.exp(x)),
    "square": lambda emit, x: emit(op.square(x)),
    "relu": lambda emit, x: emit(nn.relu(x)),
    "clip": lambda emit, x: emit(op.clip(x, -0.5, 0.7)),
    "mean": lambda emit, x: emit(op.subtract(x, emit(op.mean(x, axis=-1, keepdims=True)))),
    "sum": lambda emit, x: emit(op.divide(x, emit(op.sum(_positive(emit, x), axis=[2], keepdims=True)))),
    "roots": lambda emit, x: emit(
        op.divide(emit(op.sqrt(_positive(emit, x))), emit(op.rsqrt(_positive(emit, x))))
    ),
    "power": lambda emit, x: emit(op.power(_positive(emit, x), relax.const(np.float32(1.5)))),
    "extremes": lambda emit, x: emit(
        op.maximum(emit(op.minimum(x, const(8, seed=3))), relax.const(np.float32(-0.3)))
    ),
    "where": lambda emit, x: emit(op.where(relax.const(np.arange(8) % 3 == 0), x, const(8, seed=9))),
}


def network(middle) -> tuple[tvm.IRModule, np.ndarray]:
    """x [1,3,8] times a matrix, then what a case does, then times a constant that tells outputs apart."""
    weight = const(8, 8, seed=7)
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType((1, 3, 8), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = middle(builder.emit, builder.emit(op.matmul(x, weight)))
            out = builder.emit_output(op.multiply(y, relax.const(np.float32(1))))
        builder.emit_func_output(out)
    return builder.get(), weight.value.numpy()


@pytest.mark.parametrize("case", CASES)
def test_a_gradient_is_the_change_of_the_output(case: str) -> None:
    mod, weight = network(CASES[case])
    func, interpreter = mod["main"], Interpreter(mod)
    order = bindings(func)
    layer, end = order[0][0], order[-1][0]
    program = Program.of(interpreter, order, {layer})
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 3, 8)).astype(np.float32)

    def run(matrix: np.ndarray) -> tuple[dict, Matrix]:
        values, found = {func.params[0]: x}, Matrix(matrix)
        program.forward(values, {layer: found})
        return values, found

    values, matrix = run(weight)
    wanted = rng.standard_normal(values[program.key(end)].shape).astype(np.float32)
    program.backward(values, {program.key(end): wanted}, {layer: matrix})
    way = rng.standard_normal(weight.shape).astype(np.float32)
    step = np.float32(2e-3)
    ahead, behind = (
        float(np.sum(run(weight + sign * step * way)[0][program.key(end)].astype(np.float64) * wanted))
        for sign in (1, -1)
    )
    change = (ahead - behind) / (2 * float(step))
    along = float(np.sum(matrix.gradient.astype(np.float64) * way))
    assert abs(change - along) <= 0.01 * np.abs(matrix.gradient * way).sum()


def test_an_operator_without_a_rule_is_named() -> None:
    mod, _ = network(lambda emit, x: emit(op.cumsum(x, axis=1)))
    order = bindings(mod["main"])
    with pytest.raises(NotDifferentiable, match="cumsum has no derivative"):
        Program.of(Interpreter(mod), order, {order[0][0]})
