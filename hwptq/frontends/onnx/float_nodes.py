"""Which nodes of a QDQ file stay in float though a Q follows them: the nodes alone don't tell, so a
property of the model does. Other tools pass over it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import onnx
import tvm

from hwptq.passes.graph.quantizable import FLOAT_REASONS, with_float_reasons


def write_float_nodes(model: onnx.ModelProto, reasons: Mapping[str, str]) -> None:
    """Note in a model why nodes are in float, by their names."""
    if reasons:
        model.metadata_props.add(key=FLOAT_REASONS, value=json.dumps(dict(reasons)))


def with_float_nodes(mod: tvm.IRModule, model: onnx.ModelProto) -> tvm.IRModule:
    """The module of a model whose `main` knows what the model notes; a note of another form is none."""
    names = {node.name or node.output[0] for node in model.graph.node}
    noted = _noted(next((p.value for p in model.metadata_props if p.key == FLOAT_REASONS), "{}"))
    kept = {name: why for name, why in noted.items() if name in names}
    return with_float_reasons(mod, {"main": kept}) if kept else mod


def _noted(text: str) -> dict[str, str]:
    try:
        noted = json.loads(text)
    except ValueError:
        return {}
    pairs = noted.items() if isinstance(noted, dict) else ()
    return {name: why for name, why in pairs if isinstance(why, str)}
