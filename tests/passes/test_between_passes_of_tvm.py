"""Our passes between TVM's: what docs/embedding.md says works, and what it says is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tvm
from relax_graphs import batch_norm, const, graph, network, op, operators, outputs_preserved, samples, sqnr
from tvm import relax
from tvm.relax.dpl import is_op, wildcard

from hwptq import passes
from hwptq.calibration import calibrate
from hwptq.errors import InputError
from hwptq.ir.dataflow import bindings
from hwptq.passes.graph.quantizable import float_reasons
from hwptq.targets import load_target

T, nn = relax.transform, relax.op.nn
TARGET = load_target("x86-64-avx2")


def sequential(steps: Sequence[Any], mod: tvm.IRModule) -> tvm.IRModule:
    return tvm.ir.transform.Sequential(list(steps))(mod)


def prepared(mod: tvm.IRModule) -> tvm.IRModule:
    return sequential([passes.FoldBatchNorm(), passes.FuseConvRelu()], mod)


def quantized(mod: tvm.IRModule, *between: Any) -> tvm.IRModule:
    """A prepared module in integers; `between` stand before LowerToInteger."""
    stats = calibrate(mod, samples(mod, 8))
    return sequential([passes.InsertQDQ(TARGET, stats), *between, passes.LowerToInteger(TARGET)], mod)


def machine(mod: tvm.IRModule) -> Any:
    return relax.VirtualMachine(tvm.compile(mod, tvm.target.Target(dict(TARGET.tvm))), tvm.cpu())


def run(mod: tvm.IRModule, x: np.ndarray) -> np.ndarray:
    return machine(mod)["main"](tvm.runtime.tensor(x)).numpy()


FIRST = {
    "ToNonDataflow": [T.LambdaLift(), T.ToNonDataflow(), T.CanonicalizeBindings()],
    "DecomposeOpsForInference": [T.DecomposeOpsForInference("main")],
    "ConvertLayout": [T.ConvertLayout({"relax.nn.conv2d": ["NHWC", "OHWI"]})],
    "FoldConstant": [T.FoldConstant(), T.EliminateCommonSubexpr(), T.DeadCodeElimination()],
}


@pytest.mark.parametrize("name", FIRST)
def test_passes_of_tvm_may_come_first(name: str) -> None:
    mod = prepared(sequential(FIRST[name], network()))
    outputs_preserved(network(), mod)
    assert operators(mod) == operators(prepared(network()))
    assert float_reasons(quantized(mod)["main"]) == {}


@pytest.mark.parametrize("select", [False, True], ids=["portable", "kernels"])
def test_tvm_may_fuse_whatever_comes_after_lower_to_integer(select: bool) -> None:
    integer = quantized(prepared(network()))
    fuse = [T.LegalizeOps(), T.AnnotateTIROpPattern(), T.FoldConstant(), T.FuseOps(), T.FuseTIR()]
    fused = sequential([*fuse, *([passes.SelectKernels(TARGET)] if select else [])], integer)
    x = samples(network(), 1)[0]["x"]
    np.testing.assert_array_equal(run(fused, x), run(integer, x))


def test_no_fold_constant_may_stand_before_lower_to_integer() -> None:
    with pytest.raises(ValueError, match="stem: its quantized weights are in float again; no FoldConstant"):
        quantized(prepared(network()), T.FoldConstant())


def test_half_precision_is_refused() -> None:
    mod = prepared(T.ToMixedPrecision(out_dtype="float32")(network()))
    with pytest.raises(InputError, match="is float16: give a module in float32"):
        calibrate(mod, samples(network(), 1))


def test_a_symbolic_batch_must_be_bound() -> None:
    batch = tvm.tirx.Var("n", "int64")
    mod = graph(lambda emit, x: emit(nn.conv2d(x, const(4, 3, 1, 1)), "conv"), x=(batch, 3, 4, 4))
    stats = calibrate(
        prepared(T.BindSymbolicVars({"n": 1}, "main")(mod)), [{"x": np.ones((1, 3, 4, 4), "f")}]
    )
    with pytest.raises(ValueError, match=r"its shape is not static; bind it first, by .*BindSymbolicVars"):
        sequential([passes.InsertQDQ(TARGET, stats), passes.LowerToInteger(TARGET)], prepared(mod))


def test_samples_have_the_batch_of_the_module() -> None:
    mod = graph(lambda emit, x: emit(nn.conv2d(x, const(4, 3, 1, 1)), "conv"), x=(2, 3, 4, 4))
    assert quantized(prepared(mod)) is not None
    with pytest.raises(InputError, match=r"input 'x' is \[1, 3, 4, 4\]; the model takes \[2, 3, 4, 4\]"):
        calibrate(prepared(mod), [{"x": np.ones((1, 3, 4, 4), np.float32)}])


def test_statistics_of_another_function_are_refused() -> None:
    mod = prepared(network())
    stats = calibrate(mod, samples(mod, 1))
    other = tvm.IRModule({"forward": network()["main"].with_attr("global_symbol", "forward")})
    with pytest.raises(ValueError, match="forward: there are statistics of main only; calibrate the module"):
        passes.InsertQDQ(TARGET, stats)(prepared(other))


def other_generator() -> Any:
    """A pass that gives the sigmoid to a code generator of somebody else."""
    pattern = [("other.sigmoid", is_op("relax.sigmoid")(wildcard()))]
    return T.FuseOpsByPattern(pattern, bind_constants=False, annotate_codegen=True)


def test_what_another_code_generator_takes_stays_its_own() -> None:
    mod = prepared(other_generator()(network()))
    outputs_preserved(network(), mod)
    kernels = passes.SelectKernels(TARGET)(quantized(mod))
    (generated,) = [f for f in kernels.functions.values() if "Codegen" in (f.attrs or {})]
    assert str(generated.attrs["Codegen"]) == "other"
    called = [v.op for _, v in bindings(kernels["main"]) if isinstance(v, relax.Call)]
    assert sum(isinstance(op, tvm.ir.GlobalVar) for op in called) == 1


def test_another_code_generator_must_not_take_our_composites() -> None:
    mod = other_generator()(prepared(network()))
    with pytest.raises(ValueError, match="annotate_codegen it may stand before FuseConvRelu"):
        quantized(mod)


def decomposed(emit: Any, y: Any, shape: tuple[int, ...]) -> Any:
    """(y - mean) / deviation * gamma + beta."""
    y = emit(
        op.divide(emit(op.subtract(y, const(*shape, seed=2))), relax.const(np.full(shape, 2, "float32")))
    )
    return emit(op.add(emit(op.multiply(y, const(*shape, seed=3))), const(*shape, seed=4)))


def test_constants_per_channel_behind_a_layer_go_into_it() -> None:
    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.conv2d(x, const(8, 3, 3, 3)), "conv")
        y = emit(nn.relu(decomposed(emit, y, (1, 8, 1, 1))))
        y = emit(op.matmul(emit(op.mean(y, axis=[2, 3])), const(8, 5)), "dense")
        return decomposed(emit, y, (5,))

    mod = graph(build, x=(1, 3, 6, 6))
    out = passes.FoldBatchNorm()(mod)
    assert operators(out) == ["nn.conv2d", "add", "nn.relu", "mean", "matmul", "add"]
    outputs_preserved(mod, out)


@pytest.mark.parametrize(
    ("build", "left"),
    [
        (lambda emit, y: op.multiply(y, const(1, 8, 4, 1)), "multiply"),  # not per channel
        (lambda emit, y: op.multiply(y, emit(nn.relu(y))), "multiply"),  # not a constant
        (lambda emit, y: op.add(emit(op.multiply(y, const(1, 8, 1, 1))), y), "multiply"),  # two readers
    ],
)
def test_other_products_stay(build: Any, left: str) -> None:
    mod = graph(lambda emit, x: emit(build(emit, emit(nn.conv2d(x, const(8, 3, 1, 1))))), x=(1, 3, 4, 4))
    out = passes.FoldBatchNorm()(mod)
    assert left in operators(out)
    outputs_preserved(mod, out)


def test_a_constant_is_added_from_either_side() -> None:
    def build(emit: Any, x: Any) -> Any:
        y = emit(op.add(const(1, 4, 1, 1), emit(nn.conv2d(x, const(4, 3, 1, 1)))))
        return emit(nn.relu(batch_norm(emit, y, 4)))

    mod = prepared(graph(build, x=(1, 3, 4, 4)))
    assert operators(mod) == ["hwptq.conv2d"]
    assert sqnr(mod, quantized(mod)) > 30
