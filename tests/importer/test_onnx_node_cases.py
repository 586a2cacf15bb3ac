"""The cases that ONNX tests its operators with: each is imported right or refused, never wrong."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx_models import save

from hwptq.errors import HwptqError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx

OPERATORS = [
    *("Attention", "AveragePool", "BatchNormalization", "Celu", "Clip", "Concat", "Conv", "ConvTranspose"),
    *("DepthToSpace", "Elu", "Expand", "Gather", "GatherElements", "GatherND", "Gemm", "GlobalAveragePool"),
    *("GroupNormalization", "HardSwish", "InstanceNormalization", "LayerNormalization", "LeakyRelu"),
    *("LpNormalization", "MatMul", "MaxPool", "Mish", "PRelu", "Pad", "RMSNormalization", "ReduceMean"),
    *("Reshape", "Resize", "RotaryEmbedding", "ScatterElements", "ScatterND", "Slice", "Softmax", "Split"),
    *("Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
]
SHOWN = 2  # cases of each


def cases(op: str) -> list[Any]:
    """The first cases of an operator in float32 whose inputs are all there."""
    found = (case for case in collect_testcases(op) if _is_plain(case))
    return list(islice(found, SHOWN))


def _is_plain(case: Any) -> bool:
    inputs, outputs = case.data_sets[0]
    arrays = [np.asarray(a) for a in (*inputs, *outputs)]
    return (
        len(inputs) == len(case.model.graph.input)
        and inputs[0].dtype == np.float32
        and all(a.dtype in (np.float32, np.int64, np.int32, np.bool_) for a in arrays)
        and not case.name.endswith("_expanded")
    )


def fixed(model: onnx.ModelProto, arrays: list[np.ndarray]) -> onnx.ModelProto:
    """A model of static shapes: its first input stays one, the others become constants."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    first, *others = proto.graph.input
    proto.graph.initializer.extend(
        numpy_helper.from_array(a, v.name) for v, a in zip(others, arrays[1:], strict=True)
    )
    kept = onnx.helper.make_tensor_value_info(first.name, onnx.TensorProto.FLOAT, arrays[0].shape)
    del proto.graph.input[:]
    proto.graph.input.append(kept)
    return proto


def computed(case: Any, folder: Path) -> list[np.ndarray] | None:
    """What an imported case gives for its first input; None where it is refused."""
    inputs, _ = case.data_sets[0]
    try:
        imported = import_onnx(save(fixed(case.model, inputs), folder))
        imported.check(dict(zip(imported.inputs, inputs[:1], strict=True)))
    except HwptqError:
        return None
    [param] = imported.module["main"].params
    return Interpreter(imported.module).run({str(param.name): inputs[0]})


@pytest.mark.parametrize("op", OPERATORS)
def test_right_or_refused(tmp_path: Path, op: str):
    found = [(case, computed(case, tmp_path)) for case in cases(op)]
    for case, outputs in found:
        for expected, output in zip(case.data_sets[0][1], outputs or (), strict=False):
            np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-3, err_msg=case.name)
    assert any(outputs is not None for _, outputs in found)
