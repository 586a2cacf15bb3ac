"""Weights that stay in their files: the same model as with weights in memory, from first to last."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import model, node
from tvm import relax

import hwptq
from hwptq.errors import InputError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.frontend import read_model
from hwptq.frontends.onnx import read_file
from hwptq.frontends.onnx.importer import import_onnx, import_proto
from hwptq.frontends.onnx.weights.external_weights import array_of, load_model, weights_apart
from hwptq.ir.dataflow import bindings
from hwptq.ir.mapped import is_mapped, page_out
from hwptq.ir.views import view

DEPTH, WIDTH = 64, 96
_RNG = np.random.default_rng(0)
WEIGHTS = {
    "up": _RNG.standard_normal((DEPTH, WIDTH), np.float32),
    "down": _RNG.standard_normal((WIDTH, DEPTH), np.float32),
}


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight stays in its file, however small."""
    monkeypatch.setattr(read_file, "load_model", partial(load_model, apart=0, least=0))


def write(folder: Path, dtype: int = TensorProto.FLOAT, offset: int = 0) -> Path:
    """x -> relu(x up) down with its weights in weights.bin, `offset` bytes behind where they might lie."""
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["b"], "b"),
        helper.make_node("MatMul", ["b", "down"], ["y"], "y"),
    ]
    ends = [helper.make_tensor_value_info(name, dtype, [1, 4, DEPTH]) for name in "xy"]
    tensors, data = [], b"\0" * offset
    for name, weight in WEIGHTS.items():
        stored = weight.astype(helper.tensor_dtype_to_np_dtype(dtype)).tobytes()
        tensor = TensorProto(name=name, data_type=dtype, dims=weight.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("offset", len(data)), ("length", len(stored))):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        data += stored
    (folder / "weights.bin").write_bytes(data)
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    path = folder / "model.onnx"
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
    return path


def samples(count: int = 2) -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(i).standard_normal((1, 4, DEPTH), np.float32)} for i in range(count)]


def test_weights_stay_in_their_files_only_where_they_are_many(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert not weights_apart(load_model(path))
    proto = load_model(path, apart=0, least=0)
    assert weights_apart(proto)
    assert not any(t.raw_data for t in proto.graph.initializer)
    assert not weights_apart(load_model(path, apart=0))  # they are small


@pytest.mark.parametrize("offset", [0, 4, 64])
@pytest.mark.usefixtures("apart")
def test_the_module_is_that_of_weights_in_memory(tmp_path: Path, offset: int) -> None:
    found = import_onnx(write(tmp_path, offset=offset))
    wanted = import_proto(load_model(tmp_path / "model.onnx"), "model")
    assert is_mapped(found.module["main"])
    assert not is_mapped(wanted.module["main"])
    for sample in samples():
        one, other = (Interpreter(m.module).run(sample) for m in (found, wanted))
        np.testing.assert_array_equal(one, other)
    assert found.check(samples(1)[0]).difference == wanted.check(samples(1)[0]).difference


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
@pytest.mark.usefixtures("apart")
def test_narrow_floats_are_read_as_float32(tmp_path: Path, dtype: int) -> None:
    module = import_onnx(write(tmp_path, dtype)).module
    narrow = np.float16 if dtype == TensorProto.FLOAT16 else ml_dtypes.bfloat16
    x = samples(1)[0]["x"]
    up, down = (WEIGHTS[n].astype(narrow).astype(np.float32) for n in ("up", "down"))
    np.testing.assert_allclose(
        Interpreter(module).run({"x": x})[0], np.maximum(x @ up, 0) @ down, rtol=1e-4, atol=1e-4
    )


@pytest.mark.usefixtures("apart")
def test_no_copy_is_made_of_what_is_mapped(tmp_path: Path) -> None:
    module = import_onnx(write(tmp_path)).module
    weight = next(
        a for _, v in bindings(module["main"]) for a in getattr(v, "args", []) if not isinstance(a, relax.Var)
    )
    held = np.from_dlpack(weight.value)
    assert view(weight.value).ctypes.data == held.ctypes.data
    assert not view(weight.value).flags.writeable


@pytest.mark.usefixtures("apart")
def test_the_artefact_is_that_of_weights_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    words = {"activations": "dynamic", "weight_granularity": "group", "group": 32, "precision": "w4a8"}

    def weights(name: str) -> bytes:
        model = hwptq.compile(
            path, "x86-64-avx2", samples(), evaluation_data=samples(), output=tmp_path / name, **words
        )
        assert model.report["bit_exact"]["mismatches"] == 0
        return b"".join(out["y"].tobytes() for out in map(model.run, samples()))

    mapped = weights("mapped")
    monkeypatch.setattr(read_file, "load_model", load_model)
    assert mapped == weights("in_memory")


@pytest.mark.usefixtures("apart")
def test_what_a_file_lacks_is_an_error_that_names_the_tensor(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(InputError, match="'up'"):
        import_onnx(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"weights\.bin|up"):
        import_onnx(path)


@pytest.mark.parametrize("least", [0, 2**20])
def test_weights_at_an_absolute_path_are_refused(tmp_path: Path, least: int) -> None:
    """A model may read what lies beside it, and nothing else."""
    path = write(tmp_path)
    proto = onnx.load(str(path), load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = str(tmp_path / entry.value)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match=r"'up'.*absolute"):
        load_model(path, apart=least, least=least)


@pytest.mark.parametrize("where", ["initializer", "constant", "branch of a function"])
def test_no_model_in_memory_names_a_file(tmp_path: Path, where: str) -> None:
    """Neither at an absolute path, which would pass for one that was looked at."""
    (tmp_path / "secret").write_bytes(bytes(4 * 4))
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(tmp_path / "secret"))
    proto = model([node("Add", "x v", "y")], {"x": [1, 4]}, {"v": np.zeros(4, np.float32)})
    if where == "initializer":
        proto.graph.initializer.append(tensor)
    elif where == "constant":
        proto.graph.node.append(helper.make_node("Constant", [], ["w"], value=tensor))
    else:
        inner = helper.make_graph([], "branch", [], [], [tensor])
        asked = helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)
        proto.functions.append(helper.make_function("own", "F", ["c"], ["d"], [asked], []))
    with pytest.raises(InputError, match="the values of tensor 'w' lie in another file"):
        read_model(proto)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match=r"'w'.*absolute"):
        load_model(path)


def test_a_model_that_was_read_without_its_weights_is_refused(tmp_path: Path) -> None:
    proto = onnx.load(str(write(tmp_path)), load_external_data=False)
    with pytest.raises(InputError, match=r"'up'.*give the path of the model"):
        import_proto(proto, "model")


def test_arrays_of_constants_in_memory_are_their_values() -> None:
    weight = WEIGHTS["up"]
    np.testing.assert_array_equal(array_of(numpy_helper.from_array(weight, "up")), weight)


def test_paged_out_memory_is_read_again(tmp_path: Path) -> None:
    values = _RNG.standard_normal(2**19).astype(np.float32)
    values.tofile(tmp_path / "values.bin")
    mapped = np.memmap(tmp_path / "values.bin", np.float32, "c")
    assert mapped.sum() == values.sum()
    page_out(mapped)
    np.testing.assert_array_equal(mapped, values)
    heap = values.copy()
    page_out(heap)  # not of a file: nothing is lost either
    np.testing.assert_array_equal(heap, values)
