"""Scales of other tools that are no positive numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import model, node, normal

from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx

_CODES = np.random.default_rng(0).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)


def _network(scale: np.ndarray, codes: np.ndarray = _CODES) -> onnx.ModelProto:
    nodes = [
        node("QuantizeLinear", "x s z", "xq", "q"),
        node("DequantizeLinear", "xq s z", "xd", "dq"),
        node("DequantizeLinear", "w ws", "wd", "dqw", axis=0),
        node("Conv", "xd wd b", "y", "conv"),
    ]
    constants = {"s": np.float32(0.03), "z": np.int8(0), "w": codes, "ws": scale, "b": normal(1, 4)}
    return model(nodes, {"x": ["N", 3, 6, 6]}, constants)


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (np.zeros(4, np.uint8), "is uint8"),
        (np.zeros(4, np.float32), "holds 0"),
        (np.float32([0.1, np.nan, 0.1, 0.1]), "holds nan"),
        (np.float32([0.1, np.inf, 0.1, 0.1]), "holds inf"),
    ],
)
def test_refuses_what_is_no_scale(scale: np.ndarray, said: str, tmp_path: Path) -> None:
    proto = _network(scale)
    with pytest.raises(UnsupportedError, match=rf"node 'dqw'.* its scale 'ws' {said}"):
        import_onnx(_saved(proto, tmp_path))


def test_a_channel_of_scale_0_holds_zeros(tmp_path: Path) -> None:
    codes = _CODES.copy()
    codes[1] = 0
    x = normal(2, 1, 3, 6, 6)
    outputs = [
        Interpreter(import_onnx(_saved(proto, tmp_path)).module).run({"x": x})[0]
        for proto in (
            _network(np.float32([0.1, 0.0, 0.02, 0.1])),
            _network(np.float32([0.1, 0.05, 0.02, 0.1]), codes),
        )
    ]
    np.testing.assert_array_equal(*outputs)


def _saved(proto: onnx.ModelProto, folder: Path) -> Path:
    """A scale of another type is no ONNX: it is written unchecked."""
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path
