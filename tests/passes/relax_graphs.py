"""Small Relax modules for the tests of the passes, and what is asked of every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tvm
from onnx_models import normal
from tvm import relax
from tvm_ffi import structural_equal, structural_hash

from hwptq.calibration import CalibrationStats, calibrate
from hwptq.evaluate.interpret import Interpreter
from hwptq.ir.dataflow import bindings, composite_name, op_name
from hwptq.ir.provenance import origins

op, nn = relax.op, relax.op.nn
Emit = Callable[..., Any]


def graph(build: Callable[..., Any], **shapes: Sequence[int]) -> tvm.IRModule:
    """main(**shapes) -> build(emit, *inputs); emit(expr, name) binds an expression."""
    params = [relax.Var(n, relax.TensorType(tuple(s), "float32")) for n, s in shapes.items()]
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        with builder.dataflow():
            out = builder.emit_output(build(lambda e, name="": builder.emit(e, name_hint=name), *params))
        builder.emit_func_output(out)
    return builder.get()


def const(*shape: int, seed: int = 0, spread: float = 0.5) -> Any:
    """A float32 constant."""
    return relax.const(normal(seed, *shape, spread=spread))


def batch_norm(emit: Emit, x: Any, channels: int, axis: int = 1, seed: int = 9) -> Any:
    """BatchNorm in inference with statistics of its own."""
    gamma, beta, mean = (relax.const(normal(seed + i, channels)) for i in range(3))
    variance = relax.const(np.abs(normal(seed + 3, channels)) + np.float32(0.1))
    return emit(emit(nn.batch_norm(x, gamma, beta, mean, variance, axis, epsilon=1e-3, training=False))[0])


def network() -> tvm.IRModule:
    """Conv + BatchNorm + ReLU6, depthwise, residual, sigmoid, concat, pools, dense: [1,3,8,8] -> [1,5]."""

    def build(emit: Emit, x: Any) -> Any:
        a = emit(nn.conv2d(x, const(8, 3, 3, 3), padding=1), "stem")
        a = emit(op.clip(batch_norm(emit, a, 8), 0, 6), "relu6")
        b = emit(nn.conv2d(a, const(8, 1, 3, 3, seed=1), padding=1, groups=8), "depthwise")
        b = emit(op.add(b, const(1, 8, 1, 1, seed=2)), "depthwise_bias")
        b = emit(nn.relu(emit(op.add(a, b), "residual")), "residual_relu")
        c = emit(op.concat([emit(op.sigmoid(b), "sigmoid"), b], axis=1), "concat")
        c = emit(nn.max_pool2d(c, (2, 2), (2, 2)), "max_pool")
        d = emit(op.mean(c, axis=[2, 3]), "mean")
        return emit(op.add(emit(op.matmul(d, const(16, 5)), "dense"), const(5)), "dense_bias")

    return graph(build, x=(1, 3, 8, 8))


def labels(mod: tvm.IRModule) -> dict[Any, str]:
    """The label of every var of main."""
    return {var: origin.label for var, origin in origins(mod["main"]).items()}


def tensors(mod: tvm.IRModule, sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor of main for a sample, by the hint of its origin."""
    found: dict[str, np.ndarray] = {}
    Interpreter(mod).run(sample, lambda _, origin, value: found.update({origin.hint: value}))
    return found


def samples(mod: tvm.IRModule, count: int = 4) -> list[dict[str, np.ndarray]]:
    """Random inputs of main."""
    shapes = {str(p.name): [int(d) for d in p.ty.shape.values] for p in mod["main"].params}
    return [{n: normal(100 * k + i, *s) for i, (n, s) in enumerate(shapes.items())} for k in range(count)]


def run(mod: tvm.IRModule, data: Iterable[dict[str, np.ndarray]]) -> list[list[np.ndarray]]:
    """The outputs of main for each sample, binding by binding."""
    interpreter = Interpreter(mod)
    return [interpreter.run(sample) for sample in data]


def sqnr(mod: tvm.IRModule, other: tvm.IRModule) -> float:
    """Signal to noise of the first output of `other` against `mod`, in dB, over random inputs."""
    pairs = [(a[0], b[0]) for a, b in zip(*(run(m, samples(mod)) for m in (mod, other)), strict=True)]
    noise = sum(float(np.sum((a - b) ** 2)) for a, b in pairs)
    return float(10 * np.log10(sum(float(np.sum(a**2)) for a, _ in pairs) / noise)) if noise else np.inf


def stats_of(mod: tvm.IRModule, data: Iterable[dict[str, np.ndarray]] | None = None) -> CalibrationStats:
    """Statistics over random inputs."""
    return calibrate(mod, data or samples(mod, 8))


def operators(mod: tvm.IRModule) -> list[str]:
    """What main computes, in order: names of operators, of composites, or of called functions."""
    found = []
    for _, value in bindings(mod["main"]):
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar):
            found.append(str(composite_name(mod[value.op])))
        elif isinstance(value, relax.Call):
            found.append(op_name(value))
    return found


def same(a: tvm.IRModule, b: tvm.IRModule) -> bool:
    """Whether two modules are structurally equal."""
    return bool(structural_equal(a, b))


def apply(a_pass: Any, mod: tvm.IRModule) -> tvm.IRModule:
    """The result of a pass in a Sequential. It must be well formed, and the module given stay as it was."""
    before = structural_hash(mod)
    after = tvm.ir.transform.Sequential([a_pass])(mod)
    assert structural_hash(mod) == before
    relax.analysis.well_formed(after)  # raises
    return after


def outputs_preserved(before: tvm.IRModule, after: tvm.IRModule) -> None:
    """Fail unless two float modules compute the same, but for the rounding of float32."""
    data = samples(before, 2)
    for first, second in zip(run(before, data), run(after, data), strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
