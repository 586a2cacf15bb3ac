"""JoinKernels: what becomes one kernel, and what stays; views of moved tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from hwptq import passes
from hwptq.ir.dataflow import bindings, op_name
from hwptq.ir.operator import kernel_name
from hwptq.operators.add import Add
from hwptq.operators.dense import Dense
from hwptq.operators.lookup import Lookup
from hwptq.operators.matmul import MatMul
from hwptq.operators.norm import LayerNorm
from hwptq.operators.rescale import Rescale
from hwptq.operators.softmax import Softmax
from hwptq.passes.graph.views import view_of
from hwptq.quant.integer_softmax import exponent
from hwptq.targets import load_target
from hwptq.tir.kernel import TensorType

HOPPER = load_target("nvidia-hopper-fp8")
_MULTIPLIER = 2**30


def module(params: list[Any], body: Any) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        with builder.dataflow():
            output = builder.emit_output(body(builder))
        builder.emit_func_output(output)
    return builder.get()


def call(builder: Any, op: Any, tensors: list[Any], constants: list[np.ndarray], out: TensorType) -> Any:
    types = [TensorType(tuple(map(int, t.ty.shape.values)), str(t.ty.dtype)) for t in tensors]
    types += [TensorType(c.shape, str(c.dtype)) for c in constants]
    func = builder.add_func(op.primfunc(types, out), f"hwptq_{op.kind}")
    args = [*tensors, *(relax.const(c) for c in constants)]
    return builder.emit(relax.call_tir(func, args, relax.TensorType(out.shape, out.dtype)))


def dense(builder: Any, x: Any, outputs: int, zero: int, out: str = "int8") -> Any:
    depth, rng = int(x.ty.shape.values[-1]), np.random.default_rng(zero + 100)
    wide = np.iinfo(out)
    op = Dense(3, zero, int(wide.min), int(wide.max), 8, 8, 0, out)
    weight = rng.integers(-127, 128, (outputs, depth)).astype(np.int8)
    constants = [weight, np.zeros(outputs, np.int32), np.full(outputs, _MULTIPLIER, np.int32)]
    shape = (*map(int, x.ty.shape.values[:-1]), outputs)
    return call(builder, op, [x], [*constants, np.full(outputs, 9, np.int32)], TensorType(shape, out))


def attention(builder: Any, x: Any, read_again: bool = False) -> Any:
    """Two heads of 32 over 5 tokens, as ONNX files have it."""
    q, k, v = (relax.op.reshape(dense(builder, x, 64, zero), (1, 5, 2, 32)) for zero in (1, 2, 3))
    q, k, v = (
        builder.emit(relax.op.permute_dims(builder.emit(t), axes))
        for t, axes in ((q, (0, 2, 1, 3)), (k, (0, 2, 3, 1)), (v, (0, 2, 1, 3)))
    )
    by = exponent(0.01)
    scores = MatMul(1, 2, _MULTIPLIER, 3, 0, -(2**15), 2**15 - 1, 8, "int16")
    s = call(builder, scores, [q, k], [], TensorType((1, 2, 5, 5), "int16"))
    p = call(builder, Softmax(by.factor, by.shift, by.reach), [s], [], TensorType((1, 2, 5, 5), "int8"))
    mean = MatMul(-128, 3, _MULTIPLIER, 7, 0, -128, 127)
    y = call(builder, mean, [p, v], [], TensorType((1, 2, 5, 32), "int8"))
    moved = builder.emit(relax.op.permute_dims(y, (0, 2, 1, 3)))
    whole = builder.emit(relax.op.reshape(moved, (1, 5, 64)))
    return builder.emit(relax.Tuple([whole, p])) if read_again else whole


def kernels(mod: tvm.IRModule, target: Any = HOPPER) -> list[str]:
    joined = tvm.ir.transform.Sequential([passes.JoinKernels(target)])(mod)
    found = [kernel_name(value) or op_name(value) for _, value in bindings(joined["main"])]
    return [name for name in found if name and name != "reshape"]


def x8() -> Any:
    return relax.Var("x", relax.TensorType((1, 5, 64), "int8"))


def test_attention_with_its_dense_layers() -> None:
    x = x8()
    found = kernels(module([x], lambda b: attention(b, x)))
    assert found == ["hwptq_dense_wgmma", "hwptq_attention_mma"]


def test_probabilities_that_others_read() -> None:
    x = x8()
    found = kernels(module([x], lambda b: attention(b, x, read_again=True)))
    assert "hwptq_attention_mma" not in found
    assert "hwptq_softmax" in found


def test_other_targets_have_no_such_kernels() -> None:
    x = x8()
    mod = module([x], lambda b: attention(b, x))
    joined = tvm.ir.transform.Sequential([passes.JoinKernels(load_target("x86-64-vnni"))])(mod)
    tvm.ir.assert_structural_equal(joined, mod)


def _sum_and_norm(builder: Any, a: Any, b: Any, reads_sum: bool) -> Any:
    shape = TensorType((1, 5, 64), "int16")
    add = Add(0, 0, 2**13, 2**12, _MULTIPLIER, 12, 0, -(2**15), 2**15 - 1, "int16")
    total = call(builder, add, [a, b], [], shape)
    norm = LayerNorm(1, 5, 0, -(2**15), 2**15 - 1, "int16")
    factors = [np.full(64, 2**24, np.int32), np.zeros(64, np.int32)]
    normed = call(builder, norm, [total], factors, shape)
    rescale = Rescale(_MULTIPLIER, 20, 0, -128, 127, "int8")
    narrow = call(builder, rescale, [normed], [], TensorType((1, 5, 64), "int8"))
    return builder.emit(relax.Tuple([normed, narrow, *([total] if reads_sum else [])]))


@pytest.mark.parametrize("reads_sum", [False, True])
def test_a_norm_takes_its_sum_and_its_bytes(reads_sum: bool) -> None:
    a, b = (relax.Var(n, relax.TensorType((1, 5, 64), "int16")) for n in "ab")
    found = kernels(module([a, b], lambda builder: _sum_and_norm(builder, a, b, reads_sum)))
    assert found == (["hwptq_norm_rows", "hwptq_rescale"] if reads_sum else ["hwptq_norm_rows"])


def test_a_table_behind_a_dense_layer() -> None:
    x, table = x8(), np.zeros(4096, np.int8)

    def body(b: Any) -> Any:
        y = dense(b, x, 96, 0, "int16")
        return call(b, Lookup(), [y], [table], TensorType((1, 5, 96), "int8"))

    assert kernels(module([x], body)) == ["hwptq_dense_wgmma"]


@I.ir_module
class Moved:
    @R.function
    def main(x: R.Tensor((2, 5, 192), "int8")):
        with R.dataflow():
            a = R.reshape(x, R.shape([2, 5, 3, 2, 32]))
            b = R.permute_dims(a, axes=[2, 0, 3, 1, 4])
            c = R.split(b, indices_or_sections=3, axis=0)
            d = c[1]
            e = R.squeeze(d, axis=[0])
            f = R.permute_dims(e, axes=[0, 1, 3, 2])
            g = R.reshape(f, R.shape([4, 160]))
            R.output(f, g)
        return f, g


def test_a_view_is_what_numpy_makes_of_it() -> None:
    values = dict(bindings(Moved["main"]))
    named = {str(v.name): v for v in values}
    x = np.arange(2 * 5 * 192)
    root, view = view_of(named["f"], values)
    assert str(root.name) == "x"
    found = np.lib.stride_tricks.as_strided(x[view.first :], view.shape, [8 * s for s in view.strides])
    whole = x.reshape(2, 5, 3, 2, 32).transpose(2, 0, 3, 1, 4)[1].transpose(0, 1, 3, 2)
    np.testing.assert_array_equal(found, whole)
    copied, _ = view_of(named["g"], values)
    assert str(copied.name) == "g"
