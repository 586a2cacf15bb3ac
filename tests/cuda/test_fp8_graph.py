"""A float model becomes a graph in e4m3: what is fused, what stays real, and portable code for it."""

from __future__ import annotations

import json

import numpy as np
import onnx_models as om
import pytest
import tvm
from tvm import relax

from hwptq.calibration import calibrate
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.operator import integer_operator
from hwptq.kernels.layer import Layer
from hwptq.kernels.select import select
from hwptq.operators.lookup import Lookup
from hwptq.passes import InsertQDQ, LowerToInteger, SelectKernels
from hwptq.pipeline.stages import fuse
from hwptq.targets import load_target
from hwptq.tir.kernel import TensorType

TARGET = load_target("nvidia-hopper-fp8")
FP8 = "float8_e4m3fn"


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> tuple[tvm.IRModule, tvm.IRModule, list[dict[str, np.ndarray]]]:
    """(float32, fp8, batches) of a small residual network with every kind of operator."""
    constants = {
        "w0": om.normal(0, 8, 3, 3, 3, spread=0.3), "b0": om.normal(1, 8),
        "w1": om.normal(2, 8, 8, 3, 3, spread=0.2), "w2": om.normal(3, 8, 1, 3, 3, spread=0.4),
        "w3": om.normal(4, 8, 10, spread=0.4), "b3": om.normal(5, 10),
    }  # fmt: skip
    pads = {"pads": [1, 1, 1, 1]}
    proto = om.model(
        [
            om.node("Conv", "x w0 b0", "c0", "stem", **pads),
            om.node("Relu", "c0", "r0", "relu0"),
            om.node("Conv", "r0 w1", "c1", "conv", **pads),
            om.node("Add", "c1 r0", "s", "add"),
            om.node("Relu", "s", "r1", "relu1"),
            om.node("MaxPool", "r1", "p", "max", kernel_shape=[2, 2], strides=[2, 2]),
            om.node("Conv", "p w2", "d", "depthwise", group=8, **pads),
            om.node("Sigmoid", "d", "g", "gate"),
            om.node("Mul", "d g", "m", "swish"),
            om.node("GlobalAveragePool", "m", "a", "mean"),
            om.node("Flatten", "a", "f", "flat"),
            om.node("Gemm", "f w3 b3", "y", "dense"),
        ],
        {"x": (1, 3, 8, 8)},
        constants,
    )
    module = import_onnx(om.save(proto, tmp_path_factory.mktemp("model"))).module
    batches = [{"x": om.normal(10 + i, 1, 3, 8, 8)} for i in range(4)]
    float32 = fuse(module)
    insert = InsertQDQ(TARGET, calibrate(float32, batches))
    return float32, tvm.ir.transform.Sequential([insert, LowerToInteger(TARGET)])(float32), batches


def operators(mod: tvm.IRModule) -> dict[str, object]:
    found = {}
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            op = integer_operator(mod, binding.value)
            if op is not None:
                found[str(binding.var.name)] = op
    return found


def test_every_node_computes_in_fp8(graphs) -> None:
    kinds = sorted(op.kind for op in operators(graphs[1]).values())
    assert kinds == [
        "float_avg_pool", "float_conv2d", "float_conv2d", "float_conv2d", "float_dense", "float_quantize",
        "lookup", "max_pool",
    ]  # fmt: skip


def test_the_residual_joins_its_convolution(graphs) -> None:
    joined = [op for op in operators(graphs[1]).values() if getattr(op, "residual", 0)]
    assert len(joined) == 1
    assert joined[0].lo == 0


def test_the_result_is_real(graphs) -> None:
    found = operators(graphs[1])
    assert [op.out for op in found.values() if op.kind == "float_dense"] == ["float32"]
    assert str(graphs[1]["main"].ret_ty.dtype) == "float32"


def test_it_is_near_the_float_model(graphs) -> None:
    float32, integer, batches = graphs
    exact = np.concatenate([Interpreter(float32).run(b)[0] for b in batches])
    found = np.concatenate([Interpreter(integer).run(b)[0] for b in batches])
    assert 20 * np.log10(np.linalg.norm(exact) / np.linalg.norm(exact - found)) > 20


def test_portable_code_equals_the_reference(graphs) -> None:
    _, integer, batches = graphs
    machine = relax.VirtualMachine(tvm.compile(integer, target="llvm"), tvm.cpu())
    for batch in batches[:2]:
        found = machine["main"](tvm.runtime.tensor(batch["x"])).numpy()
        assert np.array_equal(found, Interpreter(integer).run(batch)[0])


def test_selected_kernels(graphs) -> None:
    kernels = tvm.ir.transform.Sequential([SelectKernels(TARGET)])(graphs[1])
    names = [gv.name_hint for gv in kernels.functions]
    assert sum("wgmma" in n for n in names) == 3
    assert any("row_windows" in n for n in names)
    assert not any(f.attrs and "hwptq.op" in f.attrs for f in kernels.functions.values())


def test_the_descriptor_of_the_accumulator_reaches_the_operators(graphs) -> None:
    sums = TARGET.fp8_accumulator
    conv = next(op for op in operators(graphs[1]).values() if op.kind == "float_conv2d")
    assert conv.accumulator == (sums.step, sums.fraction_bits, sums.promote)
    assert json.loads(str(graphs[1]["main"].attrs["hwptq.layer_dtypes"]))["stem"] == [FP8, FP8]


def test_an_operator_in_e4m3_is_refused_where_there_is_none() -> None:
    x, table = TensorType((4,), FP8), np.zeros(256, np.int8)
    with pytest.raises(ValueError, match="x86-64-vnni computes in integers, and a lookup of the model"):
        select(Layer(Lookup(), (x,), (table,), x), load_target("x86-64-vnni"))
