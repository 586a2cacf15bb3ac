"""Layers in e4m3, in int8 and in bfloat16 in one graph: what each writes is what the next one reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models as om
import pytest
import tvm
from tvm import relax

from hwptq.calibration import calibrate
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.dataflow import bindings, constant
from hwptq.ir.qdq import dequantizes
from hwptq.passes import (
    CorrectBias,
    EqualizeCrossLayer,
    InsertQDQ,
    LowerToInteger,
    RoundingOptions,
    RoundWeights,
    SelectKernels,
)
from hwptq.passes.variants import uniform_variants
from hwptq.pipeline.stages import fuse
from hwptq.report.coverage import bits, float_nodes, integer_nodes
from hwptq.targets import load_target

TARGET = load_target("nvidia-hopper-fp8")
FP8, INT8, BF16 = ("float8_e4m3fn", "float8_e4m3fn"), ("int8", "int8"), ("bfloat16", "bfloat16")


class Model:
    """A small residual network with every kind of operator, its data, and what calibration saw."""

    def __init__(self, folder: Any):
        constants = {
            "w0": om.normal(0, 8, 3, 3, 3, spread=0.3), "b0": om.normal(1, 8),
            "w1": om.normal(2, 8, 8, 3, 3, spread=0.2), "b1": om.normal(6, 8),
            "w2": om.normal(3, 8, 1, 3, 3, spread=0.4), "b2": om.normal(7, 8),
            "w3": om.normal(4, 8, 10, spread=0.4), "b3": om.normal(5, 10),
        }  # fmt: skip
        pads = {"pads": [1, 1, 1, 1]}
        nodes = [
            om.node("Conv", "x w0 b0", "c0", "stem", **pads),
            om.node("Relu", "c0", "r0", "relu0"),
            om.node("Conv", "r0 w1 b1", "c1", "conv", **pads),
            om.node("Add", "c1 r0", "s", "add"),
            om.node("Relu", "s", "r1", "relu1"),
            om.node("MaxPool", "r1", "p", "max", kernel_shape=[2, 2], strides=[2, 2]),
            om.node("Conv", "p w2 b2", "d", "depthwise", group=8, **pads),
            om.node("Sigmoid", "d", "g", "gate"),
            om.node("Mul", "d g", "m", "swish"),
            om.node("GlobalAveragePool", "m", "a", "mean"),
            om.node("Flatten", "a", "f", "flat"),
            om.node("Gemm", "f w3 b3", "y", "dense"),
        ]
        proto = om.model(nodes, {"x": (1, 3, 8, 8)}, constants)
        self.float32 = fuse(import_onnx(om.save(proto, folder)).module)
        self.batches = [{"x": om.normal(10 + i, 1, 3, 8, 8)} for i in range(4)]
        self.stats = calibrate(self.float32, self.batches)
        self.layers = list(uniform_variants(self.float32, TARGET, self.stats).layers)
        self.exact = self.outputs(self.float32)

    def outputs(self, mod: tvm.IRModule) -> np.ndarray:
        return np.concatenate([Interpreter(mod).run(b)[0] for b in self.batches])

    def qdq(self, pairs: dict[str, Any]) -> tvm.IRModule:
        return tvm.ir.transform.Sequential([InsertQDQ(TARGET, self.stats, assignment=pairs)])(self.float32)

    def noise(self, mod: tvm.IRModule) -> float:
        """dB."""
        found = self.outputs(mod)
        return float(20 * np.log10(np.linalg.norm(self.exact) / np.linalg.norm(self.exact - found)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("model"))


def mixes(model: Model) -> Iterator[dict[str, Any]]:
    """Every choice of dtypes for any three of the four layers: of all four, those whose numbers add up to a
    multiple of three."""
    for numbers in product(range(3), repeat=len(model.layers)):
        if sum(numbers) % 3 == 0:
            chosen = [(FP8, INT8, BF16)[number] for number in numbers]
            yield dict(zip(model.layers, chosen, strict=True))


LOWER = tvm.ir.transform.Sequential([LowerToInteger(TARGET)])


def test_all_pairs_are_offered(model: Model) -> None:
    variants = uniform_variants(model.float32, TARGET, model.stats)
    assert {layer.pairs for layer in variants.layers.values()} == {(FP8, INT8, BF16)}
    assert {layer.highest for layer in variants.layers.values()} == {BF16}


def test_every_mix_has_the_dtypes_asked_for_and_nothing_in_float(model: Model) -> None:
    for pairs in mixes(model):
        lowered = LOWER(model.qdq(pairs))
        assert float_nodes(lowered) == []
        # an add takes its summand's layer along, under the add's name
        of_rows = {r["name"]: (r["activation"], r["weight"]) for r in bits(lowered)}
        assert [p for n, p in pairs.items() if n in of_rows] == [of_rows[n] for n in pairs if n in of_rows]
        assert len(of_rows) == len(pairs)
        # six of the codes that e4m3 has for a value are lost in it at most
        assert model.noise(lowered) > 20


def test_all_bfloat16_is_the_most_accurate(model: Model) -> None:
    noise = [model.noise(LOWER(model.qdq(dict.fromkeys(model.layers, p)))) for p in (BF16, INT8, FP8)]
    assert noise[0] > noise[1] + 6
    assert noise[1] > noise[2] + 6


def test_all_int8_takes_no_detour(model: Model) -> None:
    lowered = LOWER(model.qdq(dict.fromkeys(model.layers, INT8)))
    kinds = {op.kind for _, op, _ in integer_nodes(lowered)}
    assert not any("fp8" in kind for kind in kinds)


def test_neighbours_of_other_dtypes_have_no_step_between(model: Model) -> None:
    stem, *others = model.layers
    lowered = LOWER(model.qdq({stem: INT8, **dict.fromkeys(others, FP8)}))
    kinds = [op.kind for _, op, _ in integer_nodes(lowered)]
    assert kinds.count("conv2d_to_float") == 1
    assert not {"dequantize", "float_dequantize", "float_quantize"} & set(kinds)
    lowered = LOWER(model.qdq({stem: FP8, **dict.fromkeys(others, INT8)}))
    (first,) = (op for _, op, _ in integer_nodes(lowered) if op.kind == "float_conv2d")
    assert first.out == "int8"
    assert first.out_zero_point == -128


def test_a_layer_writes_bfloat16_for_a_reader_in_it(model: Model) -> None:
    first, last = model.layers[0], model.layers[-1]
    for pair, kind in ((INT8, "conv2d_to_float"), (FP8, "float_conv2d")):
        lowered = LOWER(model.qdq({**dict.fromkeys(model.layers, BF16), first: pair, last: pair}))
        ops = [op for _, op, _ in integer_nodes(lowered)]
        stem = next(op for op in ops if op.kind == kind)
        assert stem.out == "bfloat16"
        mean = next(op for op in ops if op.kind == "float_avg_pool")
        assert mean.out == pair[0]


def test_every_mix_has_cuda_kernels_and_portable_code(model: Model) -> None:
    for pairs in list(mixes(model))[1::10]:
        lowered = LOWER(model.qdq(pairs))
        kernels = tvm.ir.transform.Sequential([SelectKernels(TARGET)])(lowered)
        assert not any(f.attrs and "hwptq.op" in f.attrs for f in kernels.functions.values())
        machine = relax.VirtualMachine(tvm.compile(lowered, target="llvm"), tvm.cpu())
        found = machine["main"](tvm.runtime.tensor(model.batches[0]["x"])).numpy()
        assert np.array_equal(found, Interpreter(lowered).run(model.batches[0])[0])


def test_biases_of_a_mix_are_corrected_along_the_graph(model: Model) -> None:
    for pairs in list(mixes(model))[1::4]:
        qdq = model.qdq(pairs)
        corrected = tvm.ir.transform.Sequential([CorrectBias(model.float32, model.batches, TARGET)])(qdq)
        error = [
            np.abs((model.outputs(LOWER(mod)) - model.exact).mean(axis=0)).max() for mod in (qdq, corrected)
        ]
        assert error[1] < max(error[0] / 2, 0.02 * np.abs(model.exact).max())


@pytest.mark.parametrize("pair", [FP8, INT8, BF16])
def test_clamps_by_channel(pair: Any, tmp_path: Path) -> None:
    """Equalization makes a clip differ by channel. Rounding keeps the order: so it may follow behind."""
    nodes = [
        om.node("Conv", "x w0", "c", "first"),
        om.node("Clip", "c low high", "r", "clip"),
        om.node("Conv", "r w1", "y", "last"),
    ]
    spread = np.geomspace(0.1, 4, 8).astype(np.float32)[:, None, None, None]
    constants = {
        "w0": om.normal(0, 8, 3, 1, 1) * spread, "w1": om.normal(1, 6, 8, 1, 1),
        "low": np.float32(0), "high": np.float32(2),
    }  # fmt: skip
    module = fuse(import_onnx(om.save(om.model(nodes, {"x": (1, 3, 5, 5)}, constants), tmp_path)).module)
    equalized = tvm.ir.transform.Sequential([EqualizeCrossLayer()])(module)
    batches = [{"x": om.normal(10 + i, 1, 3, 5, 5)} for i in range(4)]
    insert = InsertQDQ(TARGET, calibrate(equalized, batches), assignment={"first": pair, "last": pair})
    lowered = LOWER(tvm.ir.transform.Sequential([insert])(equalized))
    assert "clamp" in [op.kind for _, op, _ in integer_nodes(lowered)]
    exact, found = (np.concatenate([Interpreter(m).run(b)[0] for b in batches]) for m in (module, lowered))
    assert np.linalg.norm(exact - found) < 0.06 * np.linalg.norm(exact)


@pytest.mark.parametrize("alone", [False, True])
def test_a_layer_in_floats_does_not_keep_others_from_being_rounded(model: Model, alone: bool) -> None:
    """Those in integers get new weights, those in floats keep theirs; whatever either writes for the next."""
    partly = [pairs for pairs in mixes(model) if 0 < list(pairs.values()).count(INT8) < len(pairs)]
    for pairs in partly[::4]:
        qdq = model.qdq(pairs)
        step = RoundWeights(model.float32, model.batches, TARGET, RoundingOptions(alone=alone))
        before, after = (_weights(m) for m in (qdq, tvm.ir.transform.Sequential([step])(qdq)))
        assert before.keys() == after.keys()
        changed = {name for name, w in before.items() if w.tobytes() != after[name].tobytes()}
        floats = {name for name, w in before.items() if w.dtype != np.int8}
        assert changed
        assert not changed & floats


def _weights(qdq: tvm.IRModule) -> dict[str, np.ndarray]:
    """The codes of all weights, by the name of what dequantizes them."""
    return {
        str(var.name): codes
        for var, value in bindings(qdq["main"])
        if dequantizes(value) and (codes := constant(value.args[0])) is not None
    }
