"""Dynamic activations: dense layers take int8 with a scale for each row, all else stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from relax_graphs import apply, const, graph, samples
from tvm import relax

from hwptq import passes
from hwptq.backends.backend import why_not_run
from hwptq.evaluate.interpret import Interpreter
from hwptq.operators.dense import DenseFloat
from hwptq.operators.rows import RowQuantize, RowRescale, RowScale
from hwptq.qdq_export import export_qdq
from hwptq.report.coverage import coverage, integer_nodes
from hwptq.report.model_graph import kernels_of
from hwptq.targets import load_target

op, nn = relax.op, relax.op.nn
TARGET = load_target("x86-64-avx2")


def block():
    """Two layers on one tensor, a clamp behind one, a function between, and a layer behind."""

    def build(emit, x):
        gate = emit(op.add(emit(op.matmul(x, const(16, 24, seed=1)), "gate"), const(24, seed=5)))
        gate = emit(nn.relu(gate), "relu")
        up = emit(op.matmul(x, const(16, 24, seed=2)), "up")
        hidden = emit(op.multiply(gate, emit(op.tanh(up), "tanh")), "hidden")
        return emit(op.matmul(hidden, const(24, 8, seed=3)), "down")

    return apply(passes.FuseConvRelu(), graph(build, x=(1, 5, 16)))


def lowered(mod, exclude=None):
    qdq = apply(passes.InsertDynamicQDQ(TARGET, exclude), mod)
    return qdq, apply(passes.LowerToInteger(TARGET), qdq)


def kinds(integer):
    return [type(node) for _, node, _ in integer_nodes(integer)]


def test_every_tensor_is_quantized_once_and_every_layer_is_in_integers():
    _, integer = lowered(block())
    found = kinds(integer)
    assert [found.count(k) for k in (RowScale, RowQuantize, DenseFloat, RowRescale)] == [2, 2, 3, 3]
    cover = coverage(block(), integer)
    assert cover["macs_quantized"] == cover["macs_total"]
    assert [n["op"] for n in cover["nodes_float"]] == ["tanh", "multiply"]
    assert "dense layers alone" in cover["nodes_float"][0]["reason"]


def test_the_integer_graph_is_close_to_float_whatever_the_size_of_a_row():
    mod, data = block(), samples(block(), 4)
    _, integer = lowered(mod)
    for size in (1e-6, 1.0, 1e4):
        for sample in data:
            x = {"x": sample["x"] * np.float32(size) * np.float32([[[1], [1e-3], [1], [50], [1]]])}
            a, b = Interpreter(mod).run(x)[0], Interpreter(integer).run(x)[0]
            error = np.linalg.norm(a - b, axis=-1) / (np.linalg.norm(a, axis=-1) + 1e-9 * size)
            assert error.max() < 0.05


def test_the_simulation_and_the_integers_differ_by_the_rounding_of_float32_alone():
    mod, data = block(), samples(block(), 3)
    qdq, integer = lowered(mod)
    for sample in data:
        a, b = Interpreter(qdq).run(sample)[0], Interpreter(integer).run(sample)[0]
        np.testing.assert_allclose(a, b, rtol=0, atol=0.02 * np.abs(a).max())


@pytest.mark.parametrize("exclude", ["down", "^gate|^relu"])
def test_what_the_user_keeps_stays_in_float(exclude):
    _, integer = lowered(block(), exclude)
    assert kinds(integer).count(DenseFloat) == 2
    reasons = [n["reason"] for n in coverage(block(), integer)["nodes_float"]]
    assert "kept in float by the user" in reasons


@pytest.mark.skipif(why_not_run(TARGET) is not None, reason=f"{TARGET.name}: {why_not_run(TARGET)}")
def test_kernels_of_the_target_compute_the_same():
    mod, data = block(), samples(block(), 2)
    _, integer = lowered(mod)
    kernels = apply(passes.SelectKernels(TARGET), integer)
    built = relax.VirtualMachine(tvm.compile(kernels, target=tvm.target.Target(dict(TARGET.tvm))), tvm.cpu())
    for sample in data:
        found = built["main"](tvm.runtime.tensor(sample["x"])).numpy()
        np.testing.assert_array_equal(found, Interpreter(integer).run(sample)[0])


def test_the_kernel_of_a_layer_is_the_one_that_multiplies():
    """Not the one behind it, which puts scales to the sums."""
    _, integer = lowered(block())
    found = kernels_of(apply(passes.SelectKernels(TARGET), integer))
    assert {found[name].template for name in ("gate", "up", "down")} == {"dot_product"}


def test_the_qdq_file_gives_the_same_in_onnx_runtime():
    onnxruntime = pytest.importorskip("onnxruntime")
    mod, data = block(), samples(block(), 3)
    qdq, _ = lowered(mod)
    session = onnxruntime.InferenceSession(export_qdq(qdq, ["y"], "block").SerializeToString())
    for sample in data:
        found = session.run(None, sample)[0]
        np.testing.assert_allclose(found, Interpreter(qdq).run(sample)[0], rtol=1e-4, atol=1e-3)
