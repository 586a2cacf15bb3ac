"""On Hopper softmax and norms are integers beside layers in int8, and stay in float beside layers in e4m3."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_models as om
import pytest
import tvm

from hwptq import passes
from hwptq.data.dataset import from_batches
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.dataflow import bindings
from hwptq.ir.operator import integer_operator
from hwptq.options import Options
from hwptq.pipeline.stages import prepare
from hwptq.pipeline.step import Job
from hwptq.recipe import recipe
from hwptq.targets import load_target

HOPPER = load_target("nvidia-hopper-fp8")


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn"])
def test_the_layers_around_decide(dtype: str, tmp_path: Path) -> None:
    nodes = [
        om.node("MatMul", "x w", "a", "first"), om.node("Softmax", "a", "b", "softmax"),
        om.node("MatMul", "b v", "y", "second"),
    ]  # fmt: skip
    constants = {"w": om.normal(0, 32, 48), "v": om.normal(1, 48, 32)}
    model = import_onnx(om.save(om.model(nodes, {"x": (1, 4, 32)}, constants), tmp_path))
    data = from_batches([{"x": om.normal(2 + i, 1, 4, 32)} for i in range(3)], model.inputs)
    prepared = prepare(model.module, Job(HOPPER, data, Options(recipe=recipe("fast", ["smooth=off"]))))
    pairs = dict.fromkeys(("first", "second"), (dtype, dtype))
    steps = [passes.InsertQDQ(HOPPER, prepared.stats, assignment=pairs), passes.LowerToInteger(HOPPER)]
    integer = tvm.ir.transform.Sequential(steps)(prepared.float32)
    operators = (integer_operator(integer, value) for _, value in bindings(integer["main"]))
    kinds = [op.kind for op in operators if op is not None]
    reasons = json.loads(str(integer["main"].attrs["hwptq.float_reasons"]))
    if dtype == "int8":
        assert "softmax" in kinds
        assert "softmax" not in reasons
    else:
        assert "softmax" not in kinds
        assert reasons["softmax"].endswith("lists softmax in integers only, unlike what is around")
