"""Layers are told apart by where they come from: not by names, weights, or the function they stand in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from onnx_models import normal
from relax_graphs import apply, const, graph, nn, op, samples, stats_of
from tvm import relax

from hwptq import passes
from hwptq.calibration import calibrate
from hwptq.errors import InputError
from hwptq.evaluate.interpret import Interpreter
from hwptq.ir.dataflow import bindings, constant
from hwptq.ir.provenance import Origin, Part, origin_of, origins, with_origin
from hwptq.passes.graph.quantized_layers import quantized_layers
from hwptq.targets import load_target

TARGET = load_target("x86-64-vnni")
HOPPER = load_target("nvidia-hopper-fp8")
ODD = ("a_nhwc", "to_q", "größe/[0]:1", "-x #2")


def network(names: tuple[str, ...] = ("first", "second", "third", "fourth"), seed: int = 0) -> tvm.IRModule:
    """Four convolutions of the given names, with ReLUs between."""

    def build(emit: Any, x: Any) -> Any:
        for i, name in enumerate(names):
            call = nn.conv2d(x, const(6, 3 if i == 0 else 6, 3, 3, seed=seed + i, spread=0.3), padding=1)
            x = emit(with_origin(call, Origin(name)))
            x = emit(nn.relu(emit(op.add(x, const(1, 6, 1, 1, seed=seed + 10 + i)))))
        return x

    return graph(build, x=(1, 3, 7, 6))


def fused(mod: tvm.IRModule) -> tvm.IRModule:
    return apply(passes.FuseConvRelu(), mod)


def quantized(mod: tvm.IRModule, data: Any, target: Any = TARGET) -> tvm.IRModule:
    return apply(passes.InsertQDQ(target, stats_of(mod, data)), mod)


def module_of(functions: dict[str, tvm.IRModule]) -> tvm.IRModule:
    """The main functions of several modules under other names in one, fused."""
    mains = {name: mod["main"].with_attr("global_symbol", name) for name, mod in functions.items()}
    return fused(tvm.IRModule(mains))


def test_an_origin_survives_passes_of_tvm_and_saving() -> None:
    origin = Origin("größe \N{SNOWMAN}/[1]", 2, 3, Part.CODES, "other")

    def build(emit: Any, x: Any) -> Any:
        emit(nn.relu(x))  # dead
        folded = emit(op.add(relax.const(1.0), relax.const(2.0)))
        return emit(with_origin(op.multiply(emit(op.add(x, folded)), x), origin))

    mod = graph(build, x=(2, 3))
    steps = [
        relax.transform.FoldConstant(), relax.transform.DeadCodeElimination(),
        relax.transform.CanonicalizeBindings(), relax.transform.EliminateCommonSubexpr(),
        relax.transform.Normalize(), relax.transform.ToNonDataflow(), relax.transform.ConvertToDataflow(),
    ]  # fmt: skip
    after = tvm.ir.load_json(tvm.ir.save_json(tvm.ir.transform.Sequential(steps)(mod)))
    found = [origin_of(value) for _, value in bindings(after["main"])]
    assert origin in found
    assert [o.weights_of for o in found if o == origin] == ["other"]


def test_what_has_no_origin_has_that_of_its_name_and_no_label_is_there_twice() -> None:
    def build(emit: Any, x: Any) -> Any:
        a = emit(nn.relu(x), "a")
        b = emit(with_origin(nn.relu(a), Origin("twice")))
        return emit(op.add(b, emit(with_origin(nn.relu(b), Origin("twice")))), "x")

    func = graph(build, x=(1, 4))["main"]
    labels = [o.label for o in origins(func).values()]
    assert labels[:4] == ["x", "a", "twice", "twice#1"]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("step", ["none", "round", "correct"])
def test_names_change_no_integer(step: str) -> None:
    found = []
    for names in (("first", "second", "third", "fourth"), ODD):
        mod = fused(network(names))
        data = samples(mod, 4)
        qdq = quantized(mod, data)
        if step == "round":
            qdq = apply(passes.RoundWeights(mod, data, TARGET), qdq)
        if step == "correct":
            qdq = apply(passes.CorrectBias(mod, data, TARGET), qdq)
        layers = quantized_layers(qdq)
        assert list(layers) == [("main", name) for name in names]
        found.append([(layer.values, layer.scale, layer.bias) for layer in layers.values()])
    for plain, odd in zip(*found, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(plain, odd, strict=True))


@pytest.mark.parametrize("names", [("main", "aux"), ("forward", "backward"), ("forward",)], ids=str)
def test_each_function_has_statistics_of_its_own(names: tuple[str, ...]) -> None:
    """The same labels in all, and other weights: the integers are those of each function alone."""
    parts = {name: network(seed=100 * i) for i, name in enumerate(names)}
    data = samples(network(), 4)
    mod = module_of(parts)

    def lowered(m: tvm.IRModule) -> tvm.IRModule:
        qdq = apply(passes.InsertQDQ(TARGET, calibrate(m, data)), m)
        rounded = apply(passes.RoundWeights(m, data, TARGET), qdq)
        return apply(passes.LowerToInteger(TARGET), apply(passes.CorrectBias(m, data, TARGET), rounded))

    together = lowered(mod)
    for name, part in parts.items():
        alone = Interpreter(lowered(fused(part)))
        for sample in data:
            (wanted,) = alone.run(sample)
            assert np.array_equal(Interpreter(together, name).run(sample)[0], wanted)


def test_a_function_that_another_calls_is_calibrated_by_what_reaches_it() -> None:
    builder = relax.BlockBuilder()
    inner = builder.add_func(network()["main"].with_attr("global_symbol", "inner"), "inner")
    image = relax.Var("image", relax.TensorType((1, 3, 7, 6), "float32"))
    with builder.function("entry", [image]):
        with builder.dataflow():
            scaled = builder.emit(op.multiply(image, relax.const(3.0)))
            out = builder.emit_output(builder.emit(relax.Call(inner, [scaled])))
        builder.emit_func_output(out)
    mod = fused(builder.get())
    data = [{"image": s["x"]} for s in samples(network(), 4)]
    stats = calibrate(mod, data)
    seen = [np.abs(3 * s["image"]).max() for s in data]
    assert max(map(abs, stats.range_of("x", function="inner"))) == max(seen)
    lowered = apply(passes.LowerToInteger(TARGET), apply(passes.InsertQDQ(TARGET, stats), mod))
    for sample in data:
        (exact,), (found,) = (Interpreter(m, "entry").run(sample) for m in (mod, lowered))
        assert np.abs(exact - found).max() < 0.1 * np.abs(exact).max()


def test_a_sample_that_no_function_takes_is_refused() -> None:
    with pytest.raises(InputError, match="a sample holds z; the model takes x"):
        calibrate(network(), [{"z": normal(0, 1, 3, 7, 6)}])


@pytest.mark.parametrize("target", [TARGET, HOPPER], ids=lambda t: t.name)
def test_tied_weights_are_corrected_as_others_are(target: Any) -> None:
    """The second and the third of four layers have the same weights, and different biases."""

    def build(seeds: tuple[int, ...]) -> tvm.IRModule:
        def layers(emit: Any, x: Any) -> Any:
            for i, seed in enumerate(seeds):
                x = emit(nn.conv2d(x, const(6, 6, 3, 3, seed=seed, spread=0.3), padding=1), f"conv{i}")
                x = emit(op.add(x, const(1, 6, 1, 1, seed=20 + i, spread=2.0)))
                x = emit(nn.relu(x)) if i + 1 < len(seeds) else x
            return x

        return fused(graph(layers, x=(1, 6, 7, 6)))

    errors = []
    for seeds in ((0, 1, 1, 3), (0, 1, 2, 3)):
        mod = build(seeds)
        data = samples(mod, 8)
        qdq = quantized(mod, data, target)
        corrected = apply(passes.CorrectBias(mod, data, target), qdq)
        exact, before, after = (
            np.mean([Interpreter(m).run(s)[0].astype(np.float64) for s in data], axis=(0, 1, 3, 4))
            for m in (mod, *(apply(passes.LowerToInteger(target), q) for q in (qdq, corrected)))
        )
        spread = float(np.abs(exact).max())
        errors.append(np.abs(after - exact).max() / spread)
        assert errors[-1] <= np.abs(before - exact).max() / spread
    assert errors[0] < 0.02
    assert errors[0] < 4 * errors[1] + 1e-3


def test_a_layer_and_the_addition_that_joins_it_are_both_known() -> None:
    """In floats an addition is computed together with the layer before it: the weights are the layer's."""

    def build(emit: Any, x: Any) -> Any:
        a = emit(nn.relu(emit(nn.conv2d(x, const(16, 16, 3, 3), padding=1), "first")))
        b = emit(nn.conv2d(a, const(16, 16, 3, 3, seed=1), padding=1), "second")
        return emit(nn.conv2d(emit(op.add(b, a), "sum"), const(16, 16, 1, 1, seed=2)), "last")

    mod = fused(graph(build, x=(1, 16, 6, 6)))
    lowered = apply(passes.LowerToInteger(HOPPER), quantized(mod, samples(mod, 2), HOPPER))
    held = {o.layer: o.label for v, o in origins(lowered["main"]).items() if o.weights_of}
    assert held == {"second": "sum"}
    assert any(constant(v) is not None for _, call in bindings(lowered["main"]) for v in _fields(call))


def _fields(call: Any) -> list[Any]:
    args = getattr(call, "args", [])
    return list(args[1].fields) if len(args) > 1 and isinstance(args[1], relax.Tuple) else []
