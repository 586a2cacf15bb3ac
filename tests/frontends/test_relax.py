"""Relax modules as models: any function, parameters bound or not, symbolic batches, or a line why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from onnx_models import normal
from relax_graphs import const, graph, network, samples
from tvm import relax

import hwptq
from hwptq.errors import InputError, UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.frontend import read_model
from hwptq.frontends.relax import import_relax
from hwptq.ir.dataflow import bindings

op, nn = relax.op, relax.op.nn
TENSOR = relax.TensorType


def layer(x: Any, weight: Any) -> Any:
    return nn.relu(nn.conv2d(x, weight, padding=1))


def module_of(*params: Any, name: str = "main", build: Any = layer, **attrs: Any) -> tvm.IRModule:
    """A module with one function of these parameters."""
    builder = relax.BlockBuilder()
    with builder.function(name, list(params), attrs=attrs):
        with builder.dataflow():
            out = builder.emit_output(builder.normalize(build(*params)))
        builder.emit_func_output(out)
    return builder.get()


def with_weight(**attrs: Any) -> tvm.IRModule:
    """A module whose weight is a parameter behind its input."""
    params = relax.Var("x", TENSOR((1, 3, 4, 4), "float32")), relax.Var("w", TENSOR((8, 3, 3, 3), "float32"))
    return module_of(*params, num_input=1, **attrs)


def named(module: tvm.IRModule, name: str) -> Any:
    return module["main"].with_attr("global_symbol", name)


WEIGHT = normal(1, 8, 3, 3, 3)
SAMPLE = {"x": normal(2, 1, 3, 4, 4)}


def result(module: tvm.IRModule, sample: dict[str, np.ndarray]) -> np.ndarray:
    (found,) = Interpreter(module).run(sample)
    return found


def test_a_function_of_any_name_is_compiled():
    module = tvm.IRModule({"forward": named(network(), "forward")})
    found = read_model(module)
    assert (found.name, found.outputs, found.warnings) == ("forward", ("output",), ())
    assert found.inputs == {"x": ((1, 3, 8, 8), "float32")}
    (sample,) = samples(network(), 1)
    np.testing.assert_array_equal(result(found.module, sample), result(network(), sample))
    assert [gv.name_hint for gv in module.functions] == ["forward"]  # as it was


def test_of_several_functions_main_is_compiled_and_the_others_are_named():
    module = tvm.IRModule({"main": network()["main"], "aux": named(network(), "aux")})
    found = import_relax(module)
    assert [warning.where for warning in found.warnings] == ["aux"]
    assert [gv.name_hint for gv in found.module.functions] == ["main"]


def test_which_of_several_functions_is_meant_must_be_clear():
    module = tvm.IRModule({n: named(network(), n) for n in ("left", "right")})
    with pytest.raises(InputError, match="has the functions left, right: call the one to compile main"):
        import_relax(module)


def test_a_module_without_a_function():
    with pytest.raises(InputError, match="has no Relax function"):
        import_relax(tvm.IRModule({}))


def test_what_a_function_calls_becomes_part_of_it():
    builder = relax.BlockBuilder()
    inner = builder.add_func(network()["main"].without_attr("global_symbol"), "inner")
    x = relax.Var("image", TENSOR((1, 3, 8, 8), "float32"))
    with builder.function("entry", [x]):
        with builder.dataflow():
            half = builder.emit(op.multiply(x, relax.const(np.float32(0.5))))
            out = builder.emit_output(builder.emit(relax.Call(inner, [half])))
        builder.emit_func_output(out)
    found = import_relax(builder.get())
    assert (found.name, list(found.inputs)) == ("entry", ["image"])
    image = samples(network(), 1)[0]["x"]
    exact = result(network(), {"x": image * np.float32(0.5)})
    np.testing.assert_allclose(result(found.module, {"image": image}), exact, rtol=1e-6)


@pytest.mark.parametrize(
    "params", [{"w": WEIGHT}, {"main": [tvm.runtime.tensor(WEIGHT)]}], ids=["by name", "by function"]
)
def test_parameters_are_bound(params: dict[str, Any]):
    found = read_model((with_weight(), params))
    assert list(found.inputs) == ["x"]
    exact = result(graph(lambda emit, x: emit(layer(x, relax.const(WEIGHT))), x=(1, 3, 4, 4)), SAMPLE)
    np.testing.assert_array_equal(result(found.module, SAMPLE), exact)


def test_parameters_that_the_importer_attached_are_bound():
    found = import_relax(with_weight(params=[tvm.runtime.tensor(WEIGHT)]))
    assert list(found.inputs) == ["x"]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, r"'main' has 1 parameters without a value \(w\): give \(module, parameters\)"),
        ({"v": WEIGHT}, "parameter 'v': 'main' has none of this name; it has x, w"),
    ],
)
def test_parameters_without_a_value_are_refused(params: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        import_relax(with_weight(), params)


def symbolic(*shape: Any) -> tvm.IRModule:
    return module_of(relax.Var("x", TENSOR(shape, "float32")), build=lambda x: layer(x, const(8, 3, 3, 3)))


def test_a_symbolic_batch_is_one():
    found = import_relax(symbolic(tvm.tirx.Var("n", "int64"), 3, 4, 4))
    assert found.inputs["x"][0] == (1, 3, 4, 4)
    assert all(int(value.ty.shape.values[0]) in (1, 8) for _, value in bindings(found.module["main"]))


def test_other_symbolic_axes_are_asked_for():
    module = symbolic(1, 3, tvm.tirx.Var("h", "int64"), 4)
    with pytest.raises(UnsupportedError, match=r"axis 2 is symbolic; give the size: --axis h=SIZE"):
        import_relax(module)
    assert import_relax(module, axes={"h": 6}).inputs["x"][0] == (1, 3, 6, 4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_refused(dtype: str):
    module = module_of(relax.Var("x", TENSOR((1, 4), dtype)), build=nn.relu)
    with pytest.raises(UnsupportedError, match=f"input 'x' is {dtype}: only float32"):
        import_relax(module)


def test_control_flow_is_refused():
    x, flag = relax.Var("x", TENSOR((1, 4), "float32")), relax.Var("flag", TENSOR((), "bool"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, flag]):
        out = builder.emit(relax.If(flag, builder.emit(nn.relu(x)), x))
        builder.emit_func_output(out)
    with pytest.raises(UnsupportedError, match=r"'main': only straight-line functions .*control flow"):
        import_relax(builder.get())


def test_what_no_frontend_takes_says_what_they_take():
    with pytest.raises(InputError, match=r"of type dict: give .*Relax IRModule.*ONNX file.*ExportedProgram"):
        read_model({})


def test_a_module_compiles_like_a_file(runnable: Any, tmp_path: Any):
    module = tvm.IRModule({"forward": named(network(), "forward")})
    data = samples(network(), 8)
    made = hwptq.compile(module, runnable("x86-64-avx2"), data, output=tmp_path / "out", recipe="fast")
    report = made.typed_report
    assert report.model == "forward"
    assert (report.bit_exact.mismatches, report.coverage.share) == (0, 1.0)
    (exact,) = Interpreter(network()).run(data[0])
    found = made.run(data[0])["output"]
    assert np.linalg.norm(found - exact) < 0.1 * np.linalg.norm(exact)
