"""The interpreter against TVM's compiler, for the operators that it evaluates in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from onnx_models import normal
from tvm import relax

from hwptq.evaluate.downstream import on_threads
from hwptq.evaluate.interpret import Interpreter

op, nn = relax.op, relax.op.nn


def const(*shape: int) -> Any:
    return relax.const(normal(1, *shape))


def params(channels: int, dtype: str = "int8") -> tuple[Any, Any]:
    """Scale and zero point: scalars for no channel."""
    zero = np.arange(channels) - 1 if channels else np.array(-7)
    scale = np.linspace(0.01, 0.2, channels) if channels else np.array(0.05)
    return relax.const(scale.astype(np.float32)), relax.const(zero.astype(dtype))


def quantized(x: Any, channels: int, axis: int) -> Any:
    return op.quantize(x, *params(channels), axis=axis, out_dtype="int8")


IMAGE = (2, 6, 7, 5)
CASES: dict[str, Any] = {
    "conv": lambda x: nn.conv2d(x, const(4, 6, 3, 2), (2, 1), (1, 0, 2, 1)),
    "grouped conv": lambda x: nn.conv2d(x, const(4, 3, 3, 3), dilation=2, padding=2, groups=2),
    "depthwise conv": lambda x: nn.conv2d(x, const(6, 1, 3, 3), (1, 2), dilation=(2, 1), groups=6),
    "depthwise conv, two filters": lambda x: nn.conv2d(x, const(12, 1, 3, 3), groups=6),
    "matmul": lambda x: op.matmul(x, const(5, 3)),
    "add": lambda x: op.add(x, const(6, 1, 1)),
    "subtract": lambda x: op.subtract(const(5), x),
    "multiply": lambda x: op.multiply(x, x),
    "relu": nn.relu,
    "clip": lambda x: op.clip(x, -0.5, 1),
    "leaky relu": lambda x: nn.leakyrelu(x, 0.1),
    "concat": lambda x: op.concat([x, const(2, 3, 7, 5), x], axis=1),
    "concat, last axis": lambda x: op.concat([x, x], axis=-1),
    "slice": lambda x: op.strided_slice(x, [1, 3], [1, 0], [5, 4], [2, 3]),
    "slice from the end": lambda x: op.strided_slice(x, [-2, 1], [-4, 0], [2**31, -1]),
    "reshape": lambda x: op.reshape(x, (12, -1)),
    "transpose": lambda x: op.permute_dims(x, [1, 0, 3, 2]),
    "transpose all": op.permute_dims,
    "quantize": lambda x: quantized(x, 0, -1),
    "quantize by channel": lambda x: quantized(x, 6, 1),
}


def compare(build: Any, x: np.ndarray, bound: float) -> None:
    param = relax.Var("x", relax.TensorType(x.shape, str(x.dtype)))
    builder = relax.BlockBuilder()
    with builder.function("main", [param]):
        builder.emit_func_output(builder.emit(build(param)))
    mod = builder.get()
    machine = relax.VirtualMachine(tvm.compile(mod, target="llvm"), tvm.cpu())
    expected = machine["main"](tvm.runtime.tensor(x)).numpy()
    interpreter = Interpreter(mod)
    (found,) = interpreter.run({"x": x})
    assert not interpreter._compiled
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=bound, atol=bound)


@pytest.mark.parametrize("name", CASES)
def test_float(name: str):
    compare(CASES[name], normal(0, *IMAGE), 0 if "quantize" in name else 1e-5)


@pytest.mark.parametrize(("channels", "axis"), [(0, -1), (6, 1), (5, -1)])
def test_dequantize(channels: int, axis: int):
    x = np.random.default_rng(0).integers(-128, 128, IMAGE).astype(np.int8)
    compare(lambda v: op.dequantize(v, *params(channels), axis=axis, out_dtype="float32"), x, 0)


def test_quantize_rounds_and_saturates_alike():
    x = (np.arange(-400, 400) * np.float32(0.025)).astype(np.float32)
    compare(lambda v: quantized(v, 0, -1), np.append(x, np.float32([1e9, -1e9])), 0)


def test_of_rank_0_are_arrays_too():
    """numpy's own functions give numbers."""
    x = relax.Var("x", relax.TensorType((), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        in_numpy = builder.emit(op.multiply(nn.relu(x), op.clip(x, -1, 2)))
        builder.emit_func_output(builder.emit(op.erf(in_numpy)))
    seen: list[Any] = []
    mod = builder.get()
    (found,) = Interpreter(mod).run({"x": np.float32(0.5)}, lambda _, origin, value: seen.append(value))
    assert (found.shape, found.dtype) == ((), np.float32)
    np.testing.assert_allclose(found, 0.2763264, rtol=1e-6)
    assert [np.shape(value) for value in seen] == [()] * 5


def test_interpreters_of_two_threads_share_no_machine():
    """What is alike is compiled once, but runs apart."""
    x = relax.Var("x", relax.TensorType((64, 256), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(op.erf(x)))
    mod, inputs = builder.get(), [normal(seed, 64, 256) for seed in range(400)]
    expected = [Interpreter(mod).run({"x": i})[0] for i in inputs[:8]]
    outputs = list(on_threads(lambda: Interpreter(mod), lambda one, i: one.run({"x": i})[0], inputs))
    assert len(outputs) == len(inputs)
    assert all(np.array_equal(a, b) for a, b in zip(expected, outputs, strict=False))
