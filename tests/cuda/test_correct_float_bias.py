"""CorrectBias of layers in floats: what rounding does to the mean of a channel is taken back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_models as om
import tvm

from hwptq.calibration import calibrate
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.passes import CorrectBias, InsertQDQ, LowerToInteger
from hwptq.pipeline.stages import fuse
from hwptq.targets import load_target

TARGET = load_target("nvidia-hopper-fp8")


def test_the_means_of_the_last_layer(tmp_path: Path) -> None:
    nodes = [
        om.node("Conv", "x w0 b0", "c", "first", pads=[1, 1, 1, 1]),
        om.node("Relu", "c", "r", "relu"),
        om.node("Conv", "r w1 b1", "y", "last"),
    ]
    constants = {
        "w0": om.normal(0, 8, 3, 3, 3), "b0": om.normal(1, 8),
        "w1": om.normal(2, 6, 8, 1, 1), "b1": om.normal(3, 6),
    }  # fmt: skip
    module = fuse(import_onnx(om.save(om.model(nodes, {"x": (1, 3, 8, 8)}, constants), tmp_path)).module)
    batches = [{"x": om.normal(10 + i, 1, 3, 8, 8) + 1} for i in range(8)]
    insert = InsertQDQ(load_target("nvidia-hopper-fp8"), calibrate(module, batches))
    qdq = tvm.ir.transform.Sequential([insert])(module)
    before = qdq.script(show_meta=True)
    corrected = tvm.ir.transform.Sequential([CorrectBias(module, batches, TARGET)])(qdq)
    assert qdq.script(show_meta=True) == before

    def means(mod: tvm.IRModule) -> np.ndarray:
        run = Interpreter(mod).run
        return np.mean([run(b)[0].astype(np.float64) for b in batches], axis=(0, 1, 3, 4))

    lower = tvm.ir.transform.Sequential([LowerToInteger(TARGET)])
    exact = means(module)
    error = [np.abs(means(lower(mod)) - exact).max() for mod in (qdq, corrected)]
    assert error[1] < error[0] / 4
    assert error[1] < 0.02 * np.abs(exact).max()
