"""What was exported in training is refused by its node; what drops nothing is taken."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_models import model, node, normal

from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_proto

SHAPE = {"x": [1, 3, 4, 4]}


def dropping(ratio: float, training: bool) -> onnx.ModelProto:
    nodes = [node("Dropout", "x ratio training", "d", "drop"), node("Relu", "d", "y")]
    return model(nodes, SHAPE, {"ratio": np.float32(ratio), "training": np.array(training)})


def test_a_batch_norm_of_its_batch_is_refused() -> None:
    constants = dict(zip("gbmv", abs(normal(1, 4, 3)) + 1, strict=True))
    nodes = [node("BatchNormalization", "x g b m v", "y mean variance", "norm", training_mode=1)]
    with pytest.raises(UnsupportedError, match=r"node 'norm' \(BatchNormalization\) is in training mode"):
        import_proto(model(nodes, SHAPE, constants), "model")


def test_a_dropout_that_drops_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"node 'drop' \(Dropout\) is in training mode"):
        import_proto(dropping(0.5, True), "model")


def computed(ratio: float) -> onnx.ModelProto:
    """A dropout that drops where an input says so."""
    nodes = [node("Dropout", "x ratio training", "d", "drop"), node("Relu", "d", "y")]
    proto = model(nodes, SHAPE, {"ratio": np.float32(ratio)})
    proto.graph.input.append(onnx.helper.make_tensor_value_info("training", onnx.TensorProto.BOOL, []))
    return proto


def test_a_dropout_that_may_drop_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"'drop' \(Dropout\): 'training'.* is computed; .*--fix"):
        import_proto(computed(0.5), "model")
    with pytest.raises(UnsupportedError, match=r"'drop'.* is in training mode"):
        import_proto(computed(0.5), "model", fixed={"training": True})


@pytest.mark.parametrize(("ratio", "fixed"), [(0.5, {"training": False}), (0.0, {})])
def test_a_dropout_that_is_told_not_to_drop_is_taken(ratio: float, fixed: dict[str, float]) -> None:
    x, imported = normal(0, *SHAPE["x"]), import_proto(computed(ratio), "model", fixed=fixed)
    values = {"x": x, "training": np.array(True)}
    [found] = Interpreter(imported.module).run({name: values[name] for name in imported.inputs})
    np.testing.assert_array_equal(found, np.maximum(x, 0))


@pytest.mark.parametrize(("ratio", "training"), [(0.0, True), (0.5, False)])
def test_a_dropout_that_drops_nothing_is_taken(ratio: float, training: bool) -> None:
    x = normal(0, *SHAPE["x"])
    [found] = Interpreter(import_proto(dropping(ratio, training), "model").module).run({"x": x})
    np.testing.assert_array_equal(found, np.maximum(x, 0))
