"""Group norms and instance norms of every opset and of exporters become one operator, and leave as ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import expected, model, node, normal, save

from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.model import Model
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.dataflow import bindings, op_name
from hwptq.ir.provenance import origins
from hwptq.qdq_export import export_qdq

SIGNAL, IMAGE, VOLUME = [1, 6, 9], [1, 6, 5, 4], [1, 6, 3, 2, 4]


def computed(proto: onnx.ModelProto, folder: Path) -> tuple[Model, list[str]]:
    """An imported model that computes what ONNX says, at a mean far from 0 too, and its operators."""
    found = import_onnx(save(proto, folder))
    ((name, (shape, _)),) = found.inputs.items()
    for x in (normal(3, *shape), 5 + normal(4, *shape)):
        assert found.check({name: x}).difference is not None
        for a, b in zip(Interpreter(found.module).run({name: x}), expected(proto, {name: x}), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    return found, [name for _, value in bindings(found.module["main"]) if (name := op_name(value))]


@pytest.mark.parametrize("shape", [SIGNAL, IMAGE, VOLUME], ids=str)
@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_instance_norm(tmp_path: Path, shape: list[int], epsilon: float):
    constants = {"g": normal(0, 6), "b": normal(1, 6)}
    proto = model([node("InstanceNormalization", "x g b", "y", epsilon=epsilon)], {"x": shape}, constants)
    assert computed(proto, tmp_path)[1] == ["nn.group_norm"]


@pytest.mark.parametrize("shape", [SIGNAL, IMAGE, VOLUME], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(tmp_path: Path, shape: list[int], groups: int):
    constants = {"g": normal(0, 6), "b": normal(1, 6)}
    norm = node("GroupNormalization", "x g b", "y", num_groups=groups)
    assert computed(model([norm], {"x": shape}, constants, opset=21), tmp_path)[1] == ["nn.group_norm"]


def exported(shape: list[int], groups: int, *links: str, **constants: np.ndarray) -> onnx.ModelProto:
    """As PyTorch's exporter writes a group norm for opset 17, with the links behind it."""
    rows, whole = np.array([1, groups, -1]), np.array([1, *shape[1:]])
    scales = {"g": normal(0, groups), "b": normal(1, groups)}
    nodes = [
        node("Reshape", "x rows", "r", "before"),
        node("InstanceNormalization", "r g b", "n", "norm", epsilon=1e-3),
        node("Reshape", "n whole", "t0", "after"),
    ]
    nodes += [node(*link.split(), f"t{i} c{i}", f"t{i + 1}", f"link{i}") for i, link in enumerate(links)]
    nodes.append(node("Relu", f"t{len(links)}", "y", "relu"))
    return model(nodes, {"x": ["N", *shape[1:]]}, {"rows": rows, "whole": whole, **scales, **constants})


@pytest.mark.parametrize("shape", [SIGNAL, IMAGE, VOLUME], ids=str)
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_a_group_norm_of_an_exporter(tmp_path: Path, shape: list[int], groups: int):
    behind = (1,) * (len(shape) - 2)
    constants = {"c0": normal(5, 6, *behind), "c1": normal(6, 1, 6, *behind)}
    found, kinds = computed(exported(shape, groups, "Mul", "Add", **constants), tmp_path)
    assert kinds == ["nn.group_norm", "nn.relu"]
    func = found.module["main"]
    assert [origins(func)[var].label for var, _ in bindings(func)][:2] == ["norm", "relu"]


def test_links_of_an_exporter_that_differ_within_a_channel_stay(tmp_path: Path):
    constants = {"c0": normal(5, 6, 1, 1), "c1": normal(6, 5, 4)}
    _, kinds = computed(exported(IMAGE, 2, "Mul", "Add", **constants), tmp_path)
    assert kinds == ["nn.group_norm", "add", "nn.relu"]


def test_an_instance_norm_between_reshapes_to_another_shape_stays(tmp_path: Path):
    proto = exported(IMAGE, 2)
    proto.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.array([1, 6, 4, 5]), "whole"))
    del proto.graph.value_info[:]
    _, kinds = computed(proto, tmp_path)
    assert kinds == ["reshape", "nn.group_norm", "reshape", "nn.relu"]


def test_between_convolutions_of_signals_a_norm_keeps_their_height(tmp_path: Path):
    nodes = [
        node("Conv", "x w", "a", "first", pads=[1, 1]),
        node("InstanceNormalization", "a g b", "n", "norm"),
        node("Relu", "n", "c", "relu"),
        node("Conv", "c v", "y", "second"),
    ]
    constants = {"w": normal(0, 4, 6, 3), "v": normal(1, 2, 4, 3), "g": normal(2, 4), "b": normal(3, 4)}
    _, kinds = computed(model(nodes, {"x": SIGNAL}, constants), tmp_path)
    assert (kinds.count("reshape"), kinds.count("nn.group_norm")) == (2, 1)


@pytest.mark.parametrize("groups", [2, 6])
def test_a_norm_leaves_as_operators_of_onnx_and_comes_back_as_one(tmp_path: Path, groups: int):
    constants = {"g": normal(0, 6), "b": normal(1, 6)}
    norm = node("GroupNormalization", "x g b", "y", num_groups=groups)
    found, _ = computed(model([norm], {"x": IMAGE}, constants, opset=21), tmp_path)
    written = export_qdq(found.module, found.outputs, "norm")
    assert computed(written, tmp_path)[1] == ["nn.group_norm"]
    x = normal(7, *IMAGE)
    (first,) = Interpreter(found.module).run({"x": x})
    np.testing.assert_allclose(expected(written, {"x": x})[0], first, rtol=1e-4, atol=1e-4)
